//! The batch index of a data directory: partitions, verdicts not yet in the log, and the usage of segments.
//!
//! Lock order: `replicas`, then `owners`, then `partitions`, then one partition, then `changed_log_starts` or the segment
//! table.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::batch::RawHeader;
use ottla_protocol::id_hash::IdHashMap;
use ottla_protocol::ids::Offset;
use parking_lot::{Mutex, RwLock};

use super::file::Opened;
use super::index_entry::IndexEntry;
use super::owners::Owners;
use super::partition::{PartitionIndex, Step, Unplaced};
use super::segment_slice::{IndexEntries, SegmentSlice};
use super::{Access, ExtentKey, IndexError, IndexedBatch};
use crate::compact::PassDone;
use crate::entry::{Entry, EntryVerdicts, Verdict};
use crate::ids::{LogPosition, RaftIndex, ReplicaId};
use crate::log::{EntryLayout, EntryPlace};
use crate::space::table::{SegmentRanges, SegmentTable};

/// A batch to be read: where it is, and its bytes if they are not durable here yet.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) indexed: IndexedBatch,
    pub(crate) data: Option<Bytes>,
}

/// What a search for batches has found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) batches: Vec<Planned>,
    /// The pass of compaction that has left them, where one was done.
    pub(crate) pass: Option<PassDone>,
}

/// Bounds of a search for batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) from: Offset,
    pub(crate) up_to: Offset,
    pub(crate) bytes_max: u64,
    pub(crate) at_least_one: bool,
}

/// An applied Raft entry without a log position yet: it is committed by other replicas before it is durable here.
#[derive(Debug)]
pub(super) struct UnplacedEntry {
    pub(super) index: RaftIndex,
    pub(super) layout: EntryLayout,
    /// The accepted batches: number among the entry's, and partition.
    pub(super) keys: Vec<(usize, ExtentKey)>,
}

#[derive(Debug, Default)]
pub(super) struct ReplicaIndex {
    recorded: Option<RaftIndex>,
    verdicts: VecDeque<EntryVerdicts>,
    pub(super) unplaced: VecDeque<UnplacedEntry>,
    bytes_since_checkpoint: u64,
}

pub(crate) type Partition = Arc<RwLock<PartitionIndex>>;

/// The index of a data directory.
#[derive(Debug, Default)]
pub(crate) struct BatchIndex {
    partitions: RwLock<IdHashMap<ExtentKey, Partition>>,
    pub(super) replicas: Mutex<BTreeMap<ReplicaId, ReplicaIndex>>,
    pub(super) owners: RwLock<Owners>,
    /// Those that no checkpoint holds yet.
    pub(super) changed_log_starts: Mutex<BTreeMap<ExtentKey, Offset>>,
    /// Segments whose live batches lie in runs.
    pub(super) rewritten: Mutex<BTreeSet<u64>>,
    /// Segments of which passes of compaction have replaced something: by lineage the newest pass.
    pub(super) held: Mutex<BTreeMap<u64, BTreeMap<ExtentKey, u64>>>,
    pub(crate) table: SegmentTable,
}

/// The indexed form of a raw batch, from its header; `clock_ms` is used for a batch without timestamps.
pub(crate) fn indexed_batch_of(
    batch: &[u8],
    clock_ms: i64,
    verdict: Verdict,
    position: LogPosition,
) -> Option<IndexedBatch> {
    let Verdict::Accepted { base_offset, epoch } = verdict else { return None };
    let header = RawHeader::of(batch)?;
    let max_timestamp_ms = header.max_timestamp();
    Some(IndexedBatch {
        base_offset,
        record_count: header.offset_count()?,
        max_timestamp_ms: if max_timestamp_ms < 0 { clock_ms } else { max_timestamp_ms },
        epoch,
        position,
        bytes: u32::try_from(batch.len()).ok()?,
    })
}

fn malformed(replica: ReplicaId, index: RaftIndex) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("replica {replica}, entry {}: verdicts do not fit its batches", index.0),
    )
}

/// The frame at a place has to be as long as that of the entry, else the positions of its batches would be made up.
pub(super) fn check_place(
    replica: ReplicaId,
    index: RaftIndex,
    layout: &EntryLayout,
    place: EntryPlace,
) -> io::Result<()> {
    if layout.frame_bytes == place.frame_bytes {
        return Ok(());
    }
    let (expected, found) = (layout.frame_bytes, place.frame_bytes);
    let what = format!("replica {replica}, entry {}: its frame has {found} bytes, not {expected}", index.0);
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

impl BatchIndex {
    /// The partition, if the index has it.
    pub(crate) fn partition(&self, key: ExtentKey) -> Option<Partition> {
        self.partitions.read().get(&key).cloned()
    }

    pub(super) fn partition_or_new(&self, key: ExtentKey) -> Partition {
        if let Some(partition) = self.partition(key) {
            return partition;
        }
        Arc::clone(self.partitions.write().entry(key).or_default())
    }

    /// All partitions, in key order.
    pub(crate) fn all(&self) -> Vec<(ExtentKey, Partition)> {
        let mut all: Vec<_> =
            self.partitions.read().iter().map(|(key, partition)| (*key, Arc::clone(partition))).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }

    /// Adds what apply decided about one Raft entry; `place_of` returns the final position of a durable entry of any replica of the
    /// directory, from memory.
    pub(crate) fn record(
        &self,
        replica: ReplicaId,
        place_of: impl Fn(ReplicaId, RaftIndex) -> Option<EntryPlace>,
        entry: &Entry,
        verdicts: &[Verdict],
    ) -> io::Result<()> {
        let index = entry.log_id.index;
        if verdicts.len() != entry.batches.len() {
            return Err(malformed(replica, index));
        }
        let mut replicas = self.replicas.lock();
        self.place(&mut replicas, replica, &place_of)?;
        let state = replicas.entry(replica).or_default();
        state.recorded = state.recorded.max(Some(index));
        state.bytes_since_checkpoint +=
            64 + entry.payload.len() as u64 + entry.batches.iter().map(|b| b.data.len() as u64).sum::<u64>();
        if verdicts.is_empty() {
            return Ok(());
        }
        let owners = self.owners.read();
        let lineages = owners.lineages(replica, entry, verdicts);
        let (log_id, verdicts_of) = (entry.log_id, verdicts.to_vec());
        state.verdicts.push_back(EntryVerdicts { log_id, verdicts: verdicts_of, lineages, relocated_to: None });
        if verdicts.iter().all(|verdict| *verdict == Verdict::Rejected) {
            return Ok(());
        }
        let mut follows_placed = state.unplaced.is_empty();
        for (batch, verdict) in entry.batches.iter().zip(verdicts) {
            let Verdict::Accepted { base_offset, .. } = verdict else { continue };
            let key = owners.key(replica, batch.partition);
            let partition = self.partition_or_new(key);
            let mut partition = partition.write();
            // Another replica's, from which the partition came.
            follows_placed &= partition.unplaced.is_empty();
            if partition.revive(*base_offset) {
                self.changed_log_starts.lock().insert(key, *base_offset);
            }
        }
        let layout = EntryLayout::of(entry);
        let place = if follows_placed { place_of(replica, index) } else { None };
        if let Some(place) = place {
            return self.record_placed(replica, &owners, entry, verdicts, &layout, place);
        }
        let mut accepted = Vec::new();
        for (number, (batch, verdict)) in entry.batches.iter().zip(verdicts).enumerate() {
            if *verdict == Verdict::Rejected {
                continue;
            }
            let nowhere = LogPosition { segment: u64::MAX, byte: 0 };
            let indexed = indexed_batch_of(&batch.data, entry.clock_ms, *verdict, nowhere)
                .ok_or_else(|| malformed(replica, index))?;
            let key = owners.key(replica, batch.partition);
            self.partition_or_new(key).write().unplaced.push_back(Unplaced {
                writer: replica,
                index,
                indexed,
                data: batch.data.clone(),
            });
            accepted.push((number, key));
        }
        state.unplaced.push_back(UnplacedEntry { index, layout, keys: accepted });
        Ok(())
    }

    fn record_placed(
        &self,
        replica: ReplicaId,
        owners: &Owners,
        entry: &Entry,
        verdicts: &[Verdict],
        layout: &EntryLayout,
        place: EntryPlace,
    ) -> io::Result<()> {
        let index = entry.log_id.index;
        check_place(replica, index, layout, place)?;
        for (number, (batch, verdict)) in entry.batches.iter().zip(verdicts).enumerate() {
            if *verdict == Verdict::Rejected {
                continue;
            }
            let indexed = indexed_batch_of(&batch.data, entry.clock_ms, *verdict, layout.batch_at(number, place))
                .ok_or_else(|| malformed(replica, index))?;
            let key = owners.key(replica, batch.partition);
            self.push(&mut self.partition_or_new(key).write(), key, (replica, index), &indexed)?;
        }
        Ok(())
    }

    pub(super) fn push(
        &self,
        partition: &mut PartitionIndex,
        key: ExtentKey,
        (writer, index): (ReplicaId, RaftIndex),
        indexed: &IndexedBatch,
    ) -> io::Result<()> {
        let refused = |error: IndexError| {
            let what = format!("replica {writer}, entry {}, {}: {error}", index.0, key.partition);
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        let added = partition.push(indexed).map_err(refused)?;
        self.table.entry(indexed.position.segment, writer, index);
        if added && indexed.end_offset() > partition.log_start {
            self.table.add(indexed.position.segment, 1, u64::from(indexed.bytes));
        }
        Ok(())
    }

    /// A snapshot up to `index` is installed: nothing before it is recorded any more.
    pub(crate) fn imported(&self, replica: ReplicaId, index: RaftIndex) {
        let mut replicas = self.replicas.lock();
        let state = replicas.entry(replica).or_default();
        let unplaced = state.unplaced.front().map(|entry| entry.index);
        assert_eq!(
            unplaced, None,
            "replica {replica}: an entry without a place when the snapshot at {} is in",
            index.0
        );
        state.recorded = state.recorded.max(Some(index));
        state.verdicts.clear();
        state.bytes_since_checkpoint = 0;
    }

    /// A replica begins behind this entry, which another one has applied.
    pub(crate) fn begin(&self, replica: ReplicaId, index: RaftIndex) {
        let mut replicas = self.replicas.lock();
        let state = replicas.entry(replica).or_default();
        state.recorded = state.recorded.max(Some(index));
    }

    /// The last Raft entry that was recorded of a replica.
    pub(crate) fn recorded(&self, replica: ReplicaId) -> Option<RaftIndex> {
        self.replicas.lock().get(&replica).and_then(|state| state.recorded)
    }

    /// Bytes of entries recorded since the last state delta.
    pub(crate) fn bytes_since_checkpoint(&self, replica: ReplicaId) -> u64 {
        self.replicas.lock().get(&replica).map_or(0, |state| state.bytes_since_checkpoint)
    }

    /// The verdicts up to `index`, to be written to the log before a checkpoint contains that entry. They are kept
    /// until they are durable there ([`Self::forget_verdicts`]), so that even if the task ends in between no checkpoint
    /// contains entries without them.
    pub(crate) fn verdicts_up_to(&self, replica: ReplicaId, index: RaftIndex) -> Vec<EntryVerdicts> {
        let replicas = self.replicas.lock();
        let verdicts = replicas.get(&replica).into_iter().flat_map(|state| &state.verdicts);
        verdicts.take_while(|verdicts| verdicts.log_id.index <= index).cloned().collect()
    }

    /// Drops the verdicts up to `index`, which are durable in the log.
    pub(crate) fn forget_verdicts(&self, replica: ReplicaId, index: RaftIndex) {
        let mut replicas = self.replicas.lock();
        let Some(state) = replicas.get_mut(&replica) else { return };
        // A delta may be older than the call that takes it: entries after it belong to the next one.
        if state.recorded <= Some(index) {
            state.bytes_since_checkpoint = 0;
        }
        let count = state.verdicts.partition_point(|verdicts| verdicts.log_id.index <= index);
        state.verdicts.drain(..count);
    }

    /// Takes the log start offsets that changed since the last call.
    pub(crate) fn take_log_starts(&self) -> BTreeMap<ExtentKey, Offset> {
        std::mem::take(&mut *self.changed_log_starts.lock())
    }

    /// Bytes of the partition's batches from log start on.
    pub(crate) fn bytes_of(&self, key: ExtentKey) -> u64 {
        self.partition(key).map_or(0, |partition| partition.read().live_bytes())
    }

    /// Batches from an offset on, within bounds; everything that begins below `up_to` was recorded before. Returns what
    /// comes before a gap; a gap at the beginning is an error. All of them are of one pass of compaction, the last that was done.
    pub(crate) fn plan(&self, key: ExtentKey, bounds: Bounds, access: Access) -> Result<Found, IndexError> {
        let Some(partition) = self.partition(key) else { return Ok(Found::default()) };
        let mut missing = None;
        let mut plan = Plan { bounds, batches: Vec::new(), bytes: 0, full: false };
        let (mut at, mut of_pass) = (bounds.from, None);
        while !plan.full {
            let (step, pass) = {
                let partition = partition.read();
                (partition.step(at, bounds.up_to, bounds.bytes_max.saturating_sub(plan.bytes)), partition.pass_done())
            };
            if *of_pass.get_or_insert(pass) != pass {
                // What was found before is of the pass before: of some transactions it has the records, and what follows not the markers.
                plan = Plan { bounds, batches: Vec::new(), bytes: 0, full: false };
                (at, of_pass) = (bounds.from, None);
                continue;
            }
            let before = plan.batches.len();
            match step {
                Step::End => break,
                Step::Missing(offset) => {
                    missing = Some(offset);
                    break;
                }
                Step::InMemory(entries) => {
                    plan.batches.reserve(entries.len());
                    entries.into_iter().for_each(|indexed| plan.add(indexed, None));
                }
                Step::Unplaced(batches) => batches.into_iter().for_each(|b| plan.add(b.indexed, Some(b.data))),
                Step::InFile(slice) => plan.add_from_file(&slice, at, access)?,
            }
            let last = plan.batches.last().filter(|_| plan.batches.len() > before);
            let Some(IndexedBatch { position, .. }) = last.map(|last| last.indexed) else { break };
            let end = last.map_or(at, |last| last.indexed.end_offset());
            if end <= at {
                // The entries of the file contradict its directory: the search would return the same ones for ever.
                return Err(IndexError::Damaged { segment: position.segment });
            }
            at = end;
        }
        match missing {
            Some(offset) if plan.batches.is_empty() => Err(IndexError::Missing { offset }),
            _ => Ok(Found { batches: plan.batches, pass: of_pass.flatten() }),
        }
    }

    /// The index entries of one segment that are held in memory, for its `.idx` file.
    pub(crate) fn entries_in(&self, segment: u64) -> BTreeMap<ExtentKey, Vec<Vec<IndexEntry>>> {
        let mut entries: BTreeMap<ExtentKey, Vec<Vec<IndexEntry>>> = BTreeMap::new();
        for (key, partition) in self.all() {
            let partition = partition.read();
            let all = partition.aside.iter().chain(&partition.slices);
            for slice in all.filter(|slice| slice.segment == segment) {
                if let IndexEntries::Memory(memory) = &slice.entries {
                    add_entries(entries.entry(key).or_default(), memory.as_slice());
                }
            }
        }
        entries
    }

    /// Number of index entries in memory that lie before a position in its segment.
    pub(crate) fn entries_before(&self, place: LogPosition) -> u64 {
        let before = |slice: &SegmentSlice| match &slice.entries {
            IndexEntries::Memory(memory) => {
                memory.as_slice().partition_point(|indexed| indexed.byte < place.byte) as u64
            }
            IndexEntries::File(_) => 0,
        };
        let of = |partition: &PartitionIndex| {
            let all = partition.aside.iter().chain(&partition.slices);
            all.filter(|slice| slice.segment == place.segment).map(before).sum::<u64>()
        };
        self.all().iter().map(|(_, partition)| of(&partition.read())).sum()
    }

    /// From now on the index entries of a segment are read from its `.idx` file alone: a file that was rebuilt from
    /// damaged frames lists less than was known.
    pub(crate) fn install(&self, segment: u64, opened: Opened) -> Result<(), IndexError> {
        self.table.set_ranges(segment, opened.ranges, true);
        if self.is_rewritten(segment) {
            return Ok(());
        }
        let mut listed: BTreeMap<ExtentKey, Vec<SegmentSlice>> = BTreeMap::new();
        for (key, slice) in opened.slices {
            self.partition_or_new(key);
            listed.entry(key).or_default().push(slice);
        }
        for (key, partition) in self.all() {
            let slices = listed.remove(&key).unwrap_or_default();
            self.install_slices(key, &mut partition.write(), segment, slices)?;
            self.settle(&partition, Access::MayBlock)?;
        }
        Ok(())
    }

    fn install_slices(
        &self,
        key: ExtentKey,
        partition: &mut PartitionIndex,
        segment: u64,
        listed: Vec<SegmentSlice>,
    ) -> Result<(), IndexError> {
        let mut slices = Vec::with_capacity(listed.len());
        for slice in listed {
            partition.note_file(segment);
            if partition.is_replaced(&slice) {
                slices.extend(self.rest_of(key, partition, &slice)?);
            } else {
                slices.push(slice);
            }
        }
        partition.aside.retain(|aside| aside.segment != segment);
        let is_listed =
            |known: &SegmentSlice| known.segment != segment || slices.iter().any(|slice| slice.covers_as(known));
        for lost in partition.slices.iter().filter(|known| !is_listed(known)) {
            self.table.remove(segment, u64::from(lost.live_entries()), lost.live_bytes());
        }
        partition.slices.retain(is_listed);
        for slice in slices {
            let known = partition.slices.iter_mut().find(|known| slice.covers_as(known));
            match known {
                Some(known) => known.entries = slice.entries,
                None => self.insert(key, partition, slice)?,
            }
        }
        partition.drop_dead_slices();
        Ok(())
    }

    /// Adds the index entries of a segment that recovery read from its frames.
    pub(crate) fn install_entries(
        &self,
        segment: u64,
        ranges: SegmentRanges,
        slices: BTreeMap<ExtentKey, Vec<SegmentSlice>>,
    ) -> Result<(), IndexError> {
        let rewritten = self.is_rewritten(segment);
        self.table.set_ranges(segment, ranges, rewritten);
        if rewritten {
            return Ok(());
        }
        for (key, slices) in slices {
            let partition = self.partition_or_new(key);
            for slice in slices {
                self.insert(key, &mut partition.write(), slice)?;
            }
            self.settle(&partition, Access::MayBlock)?;
        }
        Ok(())
    }

    /// Adds a slice. What of it lies below log start is counted by the caller's next [`Self::settle`].
    pub(super) fn insert(
        &self,
        key: ExtentKey,
        partition: &mut PartitionIndex,
        slice: SegmentSlice,
    ) -> Result<(), IndexError> {
        partition.note_file(slice.segment);
        let rest = partition.is_replaced(&slice).then(|| self.rest_of(key, partition, &slice)).transpose()?;
        let counted = match rest {
            None => slice,
            Some(Some(rest)) => rest,
            Some(None) => {
                partition.set_aside(slice);
                return Ok(());
            }
        };
        let resolved = partition.resolve_overlap(counted)?;
        for slice in resolved.replaced {
            self.table.remove(slice.segment, u64::from(slice.live_entries()), slice.live_bytes());
        }
        for slice in resolved.missing {
            self.table.add(slice.segment, u64::from(slice.live_entries()), slice.live_bytes());
            partition.insert(slice);
        }
        partition.settled_log_start = Offset(0);
        Ok(())
    }

    /// Drops the index entries of a segment or run that was unlinked.
    pub(crate) fn forget(&self, segment: u64) {
        for (_, partition) in self.all() {
            partition.write().forget(segment);
        }
        self.rewritten.lock().remove(&segment);
        self.held.lock().remove(&segment);
        self.table.forget(segment);
    }

    /// Drops partitions that are gone and that no run and no segment from `oldest_segment` on lists.
    pub(crate) fn prune(&self, oldest_segment: u64) -> Vec<ExtentKey> {
        let mut pruned = Vec::new();
        self.partitions.write().retain(|key, partition| {
            let gone = partition.read().is_forgettable(oldest_segment);
            if gone {
                pruned.push(*key);
            }
            !gone
        });
        pruned.sort_unstable();
        pruned
    }
}

/// Adds entries behind those of the same slice, if they follow them, as a slice that was never divided would list them.
fn add_entries(lists: &mut Vec<Vec<IndexEntry>>, entries: &[IndexEntry]) {
    let Some(first) = entries.first() else { return };
    let follows = |last: &&IndexEntry| last.end_offset() == first.base_offset;
    let last = lists.last().and_then(|list| list.last()).filter(follows).copied();
    match (last, lists.last_mut()) {
        (Some(last), Some(list)) => {
            let before = u32::try_from(last.bytes_through()).unwrap_or(u32::MAX);
            let moved = |entry: &IndexEntry| IndexEntry { bytes_before: entry.bytes_before + before, ..*entry };
            list.extend(entries.iter().map(moved));
        }
        _ => lists.push(entries.to_vec()),
    }
}

/// Collects batches within bounds.
struct Plan {
    bounds: Bounds,
    batches: Vec<Planned>,
    bytes: u64,
    full: bool,
}

impl Plan {
    // Called for each batch of a fetch, mostly without data: not inlined, each is moved by a call of memcpy (6 % of a fetch
    // of small batches).
    #[inline(always)]
    fn add(&mut self, indexed: IndexedBatch, data: Option<Bytes>) {
        let first = self.batches.is_empty() && self.bounds.at_least_one;
        let fits = self.bytes + u64::from(indexed.bytes) <= self.bounds.bytes_max;
        self.full |= indexed.base_offset >= self.bounds.up_to || !(fits || first);
        if !self.full {
            self.bytes += u64::from(indexed.bytes);
            self.batches.push(Planned { indexed, data });
        }
    }

    fn add_from_file(&mut self, slice: &SegmentSlice, at: Offset, access: Access) -> Result<(), IndexError> {
        const ENTRIES_PER_READ: std::ops::RangeInclusive<u64> = 4..=1024;
        let IndexEntries::File(entries) = &slice.entries else { return Ok(()) };
        let mut number = slice.entries.first_ending_above(at, access)?.max(slice.dead_entries);
        // As many index entries as will be needed if batches are as long as they are on average.
        let bytes_each = (slice.bytes / u64::from(entries.count).max(1)).max(1);
        let needed = self.bounds.bytes_max.saturating_sub(self.bytes) / bytes_each + 2;
        let per_read =
            u32::try_from(needed.clamp(*ENTRIES_PER_READ.start(), *ENTRIES_PER_READ.end())).unwrap_or(u32::MAX);
        while number < entries.count && !self.full {
            let count = per_read.min(entries.count - number);
            // A list that grows entry by entry is copied each time that it cannot grow in place.
            self.batches.reserve(count as usize);
            entries.file.each_entry(entries.first + number, count, access, |indexed| {
                self.add(indexed.batch(slice.segment), None);
                !self.full
            })?;
            number += count;
        }
        Ok(())
    }
}
