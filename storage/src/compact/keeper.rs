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
    /// Of what an earlier pass went over nothing is left that was aborted.
    dirty_from: Offset,
    is_aborted: Option<IsAborted>,
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

/// Which records have a later one of their key.
#[derive(Debug, Clone, Copy)]
pub enum Superseded<'a> {
    /// Those of which the map knows one: it holds all keys of what is new.
    Known(&'a KeyMap),
    /// Those that are marked: they were compared with several maps, one after the other.
    Marked(&'a Marks),
}

impl Superseded<'_> {
    fn contains(self, key: &[u8], offset: Offset) -> bool {
        match self {
            Self::Known(map) => is_superseded(map, key, offset),
            Self::Marked(marks) => marks.is_set(offset),
        }
    }
}

fn is_superseded(map: &KeyMap, key: &[u8], offset: Offset) -> bool {
    let from = if mutants::is_on(Bug::LastValueCompacted) { Offset(offset.0 - 1) } else { offset };
    map.is_superseded(key, from)
}

fn offset_of(batch: &StoredBatch, record: &Record<'_>) -> Offset {
    batch.base_offset.plus(i64::from(record.offset_delta))
}

impl Keeper {
    /// Begins at the partition's log start, or at the base of the batch that holds it. `dirty_from`: the former horizon.
    #[must_use]
    pub fn new(pass: Pass, log_start: Offset, dirty_from: Offset) -> Self {
        Self { pass, dirty_from, is_aborted: None, next: log_start, gone: None }
    }

    /// Tells which transactions from the former horizon on were aborted; not needed where there are none.
    pub fn set_aborted(&mut self, is_aborted: IsAborted) {
        self.is_aborted = Some(is_aborted);
    }

    /// True if no record of the batch counts: it is a marker, or of an aborted transaction, or empty.
    fn is_void(&self, batch: &StoredBatch, header: &BatchHeader) -> Result<bool, CompactError> {
        if batch.data.len() <= HEADER_BYTES || header.attributes.is_control() {
            return Ok(true);
        }
        let offset = batch.base_offset;
        if !header.attributes.is_transactional() || offset < self.dirty_from {
            return Ok(false);
        }
        let is_aborted = self.is_aborted.as_ref().ok_or(CompactError::Unjudged { offset })?;
        Ok(is_aborted(header.producer_id, offset))
    }

    fn each(
        &self,
        batch: &StoredBatch,
        mut see: impl FnMut(&[u8], Offset) -> Result<(), CompactError>,
    ) -> Result<(), CompactError> {
        let header = header_of(batch)?;
        if self.is_void(batch, &header)? {
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
    ///
    /// # Errors
    /// `MapFull`, `Unjudged`: to be learnt anew, with fewer keys or once it is known what was aborted.
    pub fn learn(&self, batch: &StoredBatch, map: &mut KeyMap) -> Result<(), CompactError> {
        self.each(batch, |key, offset| map.learn(key, offset))
    }

    /// Marks the records of a batch that the map knows at a later offset.
    pub fn mark(&self, batch: &StoredBatch, map: &KeyMap, marks: &mut Marks) -> Result<(), CompactError> {
        self.each(batch, |key, offset| {
            if is_superseded(map, key, offset) {
                marks.set(offset);
            }
            Ok(())
        })
    }

    /// Takes the next batch and passes on what is to be written of it.
    ///
    /// # Panics
    /// If it is not the next one, or lies above the horizon.
    pub fn keep(
        &mut self,
        batch: &StoredBatch,
        superseded: Superseded<'_>,
        write: &mut dyn FnMut(StoredBatch),
    ) -> Result<(), CompactError> {
        let header = header_of(batch)?;
        let (base, end) = (batch.base_offset, batch.base_offset.plus(header.offset_count()));
        assert!(base == self.next && base < end && end <= self.pass.horizon, "{base}..{end} comes after {self:?}");
        self.next = end;
        let kept = self.retained(batch, &header, superseded)?;
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

    fn retained(
        &self,
        batch: &StoredBatch,
        header: &BatchHeader,
        superseded: Superseded<'_>,
    ) -> Result<Retained, CompactError> {
        if self.is_void(batch, header)? {
            let is_kept_marker = header.attributes.is_control() && batch.base_offset >= self.pass.cutoff;
            return Ok(if is_kept_marker { Retained::All } else { Retained::Nothing });
        }
        let keeps = |record: &Record<'_>| {
            let offset = offset_of(batch, record);
            let is_late = offset >= self.pass.cutoff && !mutants::is_on(Bug::TombstoneGoesAtOnce);
            let is_gone_tombstone = record.value.is_none() && !is_late;
            record.key.is_some_and(|key| !is_gone_tombstone && !superseded.contains(key, offset))
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
