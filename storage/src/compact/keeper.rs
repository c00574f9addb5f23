//! Goes over a window of a partition, batch by batch: learns, marks, and says what is kept.
//!
//! May not know: where batches come from or go to.

use ottla_env::mutants::{self, Bug};
use ottla_protocol::batch::{BatchHeader, HEADER_BYTES, empty_batch};
use ottla_protocol::ids::{LeaderEpoch, Offset};
use ottla_protocol::records::{self, Record, Retained};

use super::{CompactError, IsAborted, KeyMap, Marks, Pass, StoredBatch};

/// What the records of a batch may be decompressed to: no batch is accepted that yields more.
pub(super) const RECORDS_BYTES_MAX: usize = 256 << 20;

/// Offsets of one empty batch at the most.
const EMPTY_OFFSETS_MAX: i64 = i32::MAX as i64;

/// A pass over a partition.
pub struct Keeper {
    pass: Pass,
    is_aborted: IsAborted,
    /// Offset of the next batch.
    next: Offset,
    /// Where what was dropped since the last kept batch begins, and the epoch of its first batch.
    gone: Option<(Offset, LeaderEpoch)>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("pass", &self.pass).field("next", &self.next).finish_non_exhaustive()
    }
}

pub(super) fn header_of(batch: &StoredBatch) -> Result<BatchHeader, CompactError> {
    BatchHeader::parse(&batch.data).ok_or(CompactError::NoHeader { offset: batch.base_offset })
}

fn offset_of(batch: &StoredBatch, record: &Record<'_>) -> Offset {
    batch.base_offset.plus(i64::from(record.offset_delta))
}

impl Keeper {
    /// Begins at the partition's log start, or at the base of the batch that holds it.
    #[must_use]
    pub fn new(pass: Pass, log_start: Offset, is_aborted: IsAborted) -> Self {
        Self { pass, is_aborted, next: log_start, gone: None }
    }

    /// True if no record of the batch counts: it is a marker, or of an aborted transaction, or empty.
    fn is_void(&self, batch: &StoredBatch, header: &BatchHeader) -> bool {
        let attributes = header.attributes;
        let aborted = || attributes.is_transactional() && (self.is_aborted)(header.producer_id, batch.base_offset);
        batch.data.len() <= HEADER_BYTES || attributes.is_control() || aborted()
    }

    fn each(
        &self,
        batch: &StoredBatch,
        mut see: impl FnMut(&[u8], Offset) -> Result<(), CompactError>,
    ) -> Result<(), CompactError> {
        let header = header_of(batch)?;
        if self.is_void(batch, &header) {
            return Ok(());
        }
        let unreadable = |cause| CompactError::Unreadable { offset: batch.base_offset, cause };
        for record in &records::open(&header, &batch.data, RECORDS_BYTES_MAX).map_err(unreadable)? {
            let record = record.map_err(unreadable)?;
            if let Some(key) = record.key {
                see(key, offset_of(batch, &record))?;
            }
        }
        Ok(())
    }

    /// Tells the map the keys of a batch between the former horizon and this one.
    pub fn learn(&self, batch: &StoredBatch, map: &mut KeyMap) -> Result<(), CompactError> {
        self.each(batch, |key, offset| map.learn(key, offset))
    }

    /// Marks the records of a batch that the map knows at a later offset.
    pub fn mark(&self, batch: &StoredBatch, map: &KeyMap, marks: &mut Marks) -> Result<(), CompactError> {
        self.each(batch, |key, offset| {
            let from = if mutants::is_on(Bug::LastValueCompacted) { Offset(offset.0 - 1) } else { offset };
            if map.is_superseded(key, from) {
                marks.set(offset);
            }
            Ok(())
        })
    }

    /// Takes the next batch, which all maps have marked, and passes on what is to be written.
    ///
    /// # Panics
    /// If it is not the next one, or lies above the horizon.
    pub fn keep(
        &mut self,
        batch: &StoredBatch,
        marks: &Marks,
        write: &mut dyn FnMut(StoredBatch),
    ) -> Result<(), CompactError> {
        let header = header_of(batch)?;
        let (base, end) = (batch.base_offset, batch.base_offset.plus(header.offset_count()));
        assert!(base == self.next && base < end && end <= self.pass.horizon, "{base}..{end} comes after {self:?}");
        self.next = end;
        let kept = self.retained(batch, &header, marks)?;
        let data = match kept {
            Retained::All => batch.data.clone(),
            Retained::Some(data) => data,
            Retained::Nothing => {
                self.gone = self.gone.or(Some((base, batch.epoch)));
                return Ok(());
            }
        };
        self.cover(base, write);
        write(StoredBatch { data, ..batch.clone() });
        Ok(())
    }

    fn retained(&self, batch: &StoredBatch, header: &BatchHeader, marks: &Marks) -> Result<Retained, CompactError> {
        if self.is_void(batch, header) {
            let is_kept_marker = header.attributes.is_control() && batch.base_offset >= self.pass.cutoff;
            return Ok(if is_kept_marker { Retained::All } else { Retained::Nothing });
        }
        let keeps = |record: &Record<'_>| {
            let offset = offset_of(batch, record);
            let is_late = offset >= self.pass.cutoff && !mutants::is_on(Bug::TombstoneGoesAtOnce);
            let is_gone_tombstone = record.value.is_none() && !is_late;
            record.key.is_some() && !is_gone_tombstone && !marks.is_set(offset)
        };
        records::retain(header, &batch.data, RECORDS_BYTES_MAX, keeps)
            .map_err(|cause| CompactError::Unreadable { offset: batch.base_offset, cause })
    }

    /// Covers what was dropped at the end.
    ///
    /// # Panics
    /// If there are batches below the horizon that were not taken.
    pub fn finish(mut self, write: &mut dyn FnMut(StoredBatch)) {
        assert!(self.next == self.pass.horizon, "{self:?} has not come to its horizon");
        self.cover(self.pass.horizon, write);
    }

    /// Covers what was dropped below `end`.
    fn cover(&mut self, end: Offset, write: &mut dyn FnMut(StoredBatch)) {
        let Some((mut from, epoch)) = self.gone.take() else { return };
        while from < end {
            let count = (end.0 - from.0).min(EMPTY_OFFSETS_MAX);
            let offsets = u32::try_from(count).unwrap_or(u32::MAX);
            write(StoredBatch { base_offset: from, epoch, data: empty_batch(from, offsets, epoch) });
            from = from.plus(count);
        }
    }
}
