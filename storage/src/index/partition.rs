//! The index of one lineage of one partition: its slices in offset order, its log start offset, its size.
//!
//! Invariant: slices do not overlap, and batches that lie wholly below log start count as dead.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use ottla_protocol::ids::Offset;

use super::compacted::Compacted;
use super::index_entry::IndexEntry;
use super::segment_slice::{IndexEntries, SegmentSlice};
use super::{Access, IndexError, IndexedBatch};
use crate::ids::{RaftIndex, ReplicaId, RunId};
use ottla_env::mutants::{self, Bug};

/// Log start of a partition that was dropped: everything lies below it.
pub(crate) const GONE: Offset = Offset(i64::MAX);

/// A batch that is applied but not yet durable here, so that its position is not known.
#[derive(Debug, Clone)]
pub(crate) struct Unplaced {
    /// The replica whose entry it is, and the index of that.
    pub(crate) writer: ReplicaId,
    pub(crate) index: RaftIndex,
    pub(crate) indexed: IndexedBatch,
    pub(crate) data: Bytes,
}

/// Batches of one segment that died when a log start moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Died {
    pub(crate) segment: u64,
    pub(crate) entries: u32,
    pub(crate) bytes: u64,
}

/// Slices and log start of one partition.
#[derive(Debug, Default)]
pub(crate) struct PartitionIndex {
    pub(crate) log_start: Offset,
    /// `log_start` up to which `dead_entries` of the slices are exact.
    pub(crate) settled_log_start: Offset,
    pub(crate) slices: VecDeque<SegmentSlice>,
    pub(crate) unplaced: VecDeque<Unplaced>,
    /// The last pass of compaction, which decides what of the slices counts.
    pub(super) compacted: Option<Compacted>,
    /// Slices that a pass has replaced before the index file of their segment was written.
    pub(super) aside: Vec<SegmentSlice>,
    /// The newest segment that ever held a batch of it, dead ones included: its `.idx` file still lists them.
    newest_segment: Option<u64>,
    /// The runs whose indexes list batches of it, dead or live.
    runs: Vec<RunId>,
    /// Batches that a replay told again and that could not be compared without disk I/O.
    unconfirmed: VecDeque<IndexedBatch>,
}

/// How much of the slice that the log start lies within is dead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Boundary {
    log_start: Offset,
    segment: u64,
    base_offset: Offset,
    entries: u32,
    bytes: u64,
}

impl Boundary {
    /// Searches a copy of the slice, without a lock if `access` may block.
    pub(crate) fn find(log_start: Offset, slice: &SegmentSlice, access: Access) -> Result<Self, IndexError> {
        let entries = slice.entries.first_ending_above(log_start, access)?;
        let bytes = u64::from(slice.entries.get(entries, access)?.bytes_before);
        Ok(Self { log_start, segment: slice.segment, base_offset: slice.base_offset, entries, bytes })
    }

    fn is_of(&self, log_start: Offset, slice: &SegmentSlice) -> bool {
        (self.log_start, self.segment, self.base_offset) == (log_start, slice.segment, slice.base_offset)
    }
}

/// Compares a batch that is told again with what its slice lists at this offset.
pub(crate) fn confirm(slice: &SegmentSlice, told: &IndexedBatch, access: Access) -> Result<(), IndexError> {
    let offset = told.base_offset;
    let number = slice.entries.first_ending_above(offset, access);
    match number.and_then(|number| slice.entries.get(number, access)) {
        Ok(entry) if is_same(&entry.batch(slice.segment), told) => Ok(()),
        // The file is rebuilt from the frames as soon as a reader finds the damage.
        Err(IndexError::Damaged { .. }) => Ok(()),
        Ok(entry) => {
            let known = Box::new(entry.batch(slice.segment));
            Err(IndexError::Conflict { offset, known, told: Box::new(*told) })
        }
        Err(error) => Err(error),
    }
}

/// Offsets that should be indexed and are not: their frames were damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    /// End of the batch before them; the missing batch that holds `from` may begin there.
    pub(crate) known_end: Offset,
    pub(crate) from: Offset,
    pub(crate) to: Offset,
}

/// One step of a search from an offset on.
pub(crate) enum Step {
    /// Entries from memory, and the offset after the last.
    InMemory(Vec<IndexedBatch>),
    /// The entries are in a file: search this copy without the lock.
    InFile(SegmentSlice),
    /// Committed, but only in memory so far.
    Unplaced(Vec<Unplaced>),
    /// Nothing at or above the offset that begins below the bound.
    End,
    /// The batch that held this offset is missing: later ones are known, or it lies below the bound.
    Missing(Offset),
}

/// True if both describe one batch. A batch fetched from another replica lies in a run, and its frame may be here too.
fn is_same(known: &IndexedBatch, told: &IndexedBatch) -> bool {
    let fetched = RunId::of_file(known.position.segment).is_some();
    let position = if fetched { told.position } else { known.position };
    IndexedBatch { position, ..*known } == *told
}

impl PartitionIndex {
    /// Offset after the last known batch.
    pub(crate) fn end_offset(&self) -> Option<Offset> {
        match self.unplaced.back() {
            Some(last) => Some(last.indexed.end_offset()),
            None => self.slices.back().map(|slice| slice.end_offset),
        }
    }

    /// Lets a dropped partition that returns to the same replica begin anew at this offset. False if it was not
    /// dropped.
    pub(crate) fn revive(&mut self, base_offset: Offset) -> bool {
        let gone = self.log_start == GONE;
        if gone {
            self.log_start = base_offset;
            self.settled_log_start = self.settled_log_start.min(base_offset);
        }
        gone
    }

    /// Adds a batch after the others. False if it is known already (an entry applied again after a restart).
    pub(crate) fn push(&mut self, batch: &IndexedBatch) -> Result<bool, IndexError> {
        let known_end = self.slices.back().map_or(Offset(i64::MIN), |slice| slice.end_offset);
        if batch.base_offset < known_end {
            self.confirm(batch)?;
            return Ok(false);
        }
        let continues = self.slices.back().is_some_and(|slice| {
            slice.segment == batch.position.segment
                && slice.end_offset == batch.base_offset
                && matches!(slice.entries, IndexEntries::Memory(_))
        });
        if !continues {
            self.slices.push_back(SegmentSlice::new(batch.position.segment, batch.base_offset));
        }
        self.newest_segment = self.newest_segment.max(Some(batch.position.segment));
        if let Some(slice) = self.slices.back_mut() {
            let bytes_before = u32::try_from(slice.bytes).unwrap_or(u32::MAX);
            slice.push(IndexEntry::new(batch, bytes_before));
            if batch.end_offset() <= self.log_start {
                slice.dead_entries += 1;
                slice.dead_bytes += u64::from(batch.bytes);
            }
        }
        Ok(true)
    }

    /// Offsets are never reused with other content (I2): what is known at this offset must be this very batch. Called
    /// only by a replay after a restart. What would block on the disk waits for [`Self::next_unconfirmed`].
    fn confirm(&mut self, told: &IndexedBatch) -> Result<(), IndexError> {
        // Entries below log start may have been dropped, and no reader needs them; a pass may have emptied those below its
        // horizon.
        if told.end_offset() <= self.first_compared() {
            return Ok(());
        }
        let Some(slice) = self.slices.get(self.slice_above(told.base_offset)) else {
            return Err(IndexError::NoSuchEntry);
        };
        match confirm(slice, told, Access::Resident) {
            Err(IndexError::NotResident) => self.unconfirmed.push_back(*told),
            compared => return compared,
        }
        Ok(())
    }

    /// The next batch that is still to be compared, and the slice that lists its offset, if one does by now.
    pub(crate) fn next_unconfirmed(&self) -> Option<(IndexedBatch, Option<SegmentSlice>)> {
        let told = *self.unconfirmed.front()?;
        let slice = self.slices.get(self.slice_above(told.base_offset));
        let holds = |slice: &&SegmentSlice| slice.base_offset <= told.base_offset;
        // Below log start nothing need be listed.
        Some((told, slice.filter(|_| told.end_offset() > self.first_compared()).filter(holds).cloned()))
    }

    /// From this offset on what is listed is what was written.
    fn first_compared(&self) -> Offset {
        self.compacted.as_ref().map_or(self.log_start, |compacted| compacted.pass.horizon.max(self.log_start))
    }

    /// The batch was compared.
    pub(crate) fn confirmed(&mut self, told: &IndexedBatch) {
        if self.unconfirmed.front() == Some(told) {
            self.unconfirmed.pop_front();
        }
    }

    /// Inserts a slice read from an `.idx` file or from frames, in offset order.
    pub(crate) fn insert(&mut self, slice: SegmentSlice) {
        let at = self.slices.partition_point(|other| other.base_offset < slice.base_offset);
        self.slices.insert(at, slice);
    }

    /// Records that the file lists batches of the partition, dead or live.
    pub(crate) fn note_file(&mut self, file: u64) {
        match RunId::of_file(file) {
            None => self.newest_segment = self.newest_segment.max(Some(file)),
            Some(run) if self.runs.contains(&run) => {}
            Some(run) => self.runs.push(run),
        }
    }

    /// Drops the slices of a segment or run that was unlinked.
    pub(crate) fn forget(&mut self, segment: u64) {
        self.slices.retain(|slice| slice.segment != segment);
        self.aside.retain(|slice| slice.segment != segment);
        if let Some(run) = RunId::of_file(segment) {
            self.runs.retain(|other| *other != run);
        }
    }

    /// True if the partition is gone and no run and no segment from `oldest_segment` on lists it.
    pub(crate) fn is_forgettable(&self, oldest_segment: u64) -> bool {
        self.log_start == GONE
            && self.unplaced.is_empty()
            && self.runs.is_empty()
            && self.newest_segment.is_none_or(|newest| newest < oldest_segment)
    }

    /// Number of the first slice that ends above `offset`.
    pub(crate) fn slice_above(&self, offset: Offset) -> usize {
        self.slices.partition_point(|slice| slice.end_offset <= offset)
    }

    /// The first gap in these offsets, which were all recorded.
    pub(crate) fn gap(&self, offsets: &Range<Offset>) -> Option<Gap> {
        let mut from = offsets.start.max(self.log_start);
        let before = self.slice_above(from).checked_sub(1).and_then(|before| self.slices.get(before));
        let mut known_end = before.map_or(Offset(0), |slice| slice.end_offset);
        let slices = self.slices.iter().map(|slice| (slice.base_offset, slice.end_offset));
        let unplaced =
            self.unplaced.iter().map(|unplaced| (unplaced.indexed.base_offset, unplaced.indexed.end_offset()));
        let mut to = offsets.end;
        for (base, end) in slices.chain(unplaced) {
            if base > from {
                to = to.min(base);
                break;
            }
            if end > from {
                (known_end, from) = (end, end);
            }
        }
        (from < to).then_some(Gap { known_end, from, to })
    }

    /// The next entries from `offset` on that begin below `up_to`, until `bytes_max` is passed.
    ///
    /// Offsets are dense, and all that begins below `up_to` was recorded: what is missing was in a damaged frame.
    pub(crate) fn step(&self, offset: Offset, up_to: Offset, bytes_max: u64) -> Step {
        let from = offset.max(self.log_start);
        let Some(slice) = self.slices.get(self.slice_above(from)) else { return self.step_unplaced(from, up_to) };
        if slice.base_offset > from && from < up_to {
            return Step::Missing(from);
        }
        if slice.base_offset >= up_to {
            return Step::End;
        }
        match &slice.entries {
            IndexEntries::File(_) => Step::InFile(slice.clone()),
            IndexEntries::Memory(memory) => {
                let entries = memory.as_slice();
                let passed = from.plus(i64::from(mutants::is_on(Bug::FetchSkipsABatch)));
                let first = entries.partition_point(|entry| entry.end_offset() <= passed);
                let mut bytes = 0;
                let taken = entries[first..]
                    .iter()
                    .take_while(|entry| {
                        let room = bytes <= bytes_max && entry.base_offset < up_to;
                        bytes += u64::from(entry.bytes);
                        room
                    })
                    .map(|entry| entry.batch(slice.segment))
                    .collect();
                Step::InMemory(taken)
            }
        }
    }

    fn step_unplaced(&self, from: Offset, up_to: Offset) -> Step {
        if mutants::is_on(Bug::HwBeforeIndex) {
            return Step::End;
        }
        let entries: Vec<_> = self
            .unplaced
            .iter()
            .filter(|unplaced| unplaced.indexed.end_offset() > from && unplaced.indexed.base_offset < up_to)
            .cloned()
            .collect();
        match entries.first() {
            Some(first) if first.indexed.base_offset <= from => Step::Unplaced(entries),
            _ if from < up_to => Step::Missing(from),
            _ => Step::End,
        }
    }

    /// Bytes of the batches that do not lie wholly below log start.
    pub(crate) fn live_bytes(&self) -> u64 {
        let placed: u64 = self.slices.iter().map(SegmentSlice::live_bytes).sum();
        placed + self.live_unplaced().map(|entry| u64::from(entry.bytes)).sum::<u64>()
    }

    /// Batches without a position that do not lie wholly below log start: a batch can be deleted before it is durable
    /// here.
    pub(crate) fn live_unplaced(&self) -> impl Iterator<Item = &IndexedBatch> {
        let entries = self.unplaced.iter().map(|unplaced| &unplaced.indexed);
        entries.filter(|entry| entry.end_offset() > self.log_start)
    }

    /// Raises the log start; [`Self::settle`] does the accounting.
    pub(crate) fn raise_log_start(&mut self, log_start: Offset) {
        self.log_start = self.log_start.max(log_start);
    }

    /// True if everything below log start is counted as dead.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled_log_start == self.log_start
    }

    /// The slice that has to be searched before [`Self::settle`] can count, if there is one.
    pub(crate) fn boundary_slice(&self) -> Option<&SegmentSlice> {
        if self.is_settled() {
            return None;
        }
        self.slices.iter().find(|slice| slice.base_offset < self.log_start && self.log_start < slice.end_offset)
    }

    /// Counts the batches that fell below log start since the last call and drops dead slices whose entries are on
    /// disk. Those in memory stay: the `.idx` file lists every accepted batch, so that it can be rebuilt byte for byte.
    /// False if `boundary` is not that of [`Self::boundary_slice`]: the partition has changed since it was searched.
    pub(crate) fn settle(&mut self, boundary: Option<Boundary>, died: &mut Vec<Died>) -> Result<bool, IndexError> {
        let log_start = self.log_start;
        let is_found = |slice: &SegmentSlice| boundary.is_some_and(|boundary| boundary.is_of(log_start, slice));
        if self.boundary_slice().is_some_and(|slice| !is_found(slice)) {
            return Ok(false);
        }
        let first_settled = self.settled_log_start;
        for slice in &mut self.slices {
            if slice.base_offset >= log_start {
                break;
            }
            if slice.end_offset <= first_settled {
                continue;
            }
            let (entries, bytes) = match boundary {
                Some(boundary) if slice.end_offset > log_start => (boundary.entries, boundary.bytes),
                _ => (slice.entries.count(), slice.bytes),
            };
            // Entries of a file may contradict its directory.
            if entries < slice.dead_entries || bytes < slice.dead_bytes || bytes > slice.bytes {
                return Err(IndexError::Damaged { segment: slice.segment });
            }
            if entries > slice.dead_entries {
                died.push(Died {
                    segment: slice.segment,
                    entries: entries - slice.dead_entries,
                    bytes: bytes - slice.dead_bytes,
                });
                slice.dead_entries = entries;
                slice.dead_bytes = bytes;
            }
        }
        self.settled_log_start = log_start;
        self.drop_dead_slices();
        Ok(true)
    }

    /// Drops dead slices at the front whose entries are on disk.
    pub(crate) fn drop_dead_slices(&mut self) {
        while let Some(front) = self.slices.front() {
            if front.live_entries() > 0 || matches!(front.entries, IndexEntries::Memory(_)) {
                break;
            }
            self.slices.pop_front();
        }
    }
}
