//! The index of a whole data directory: partitions, verdicts that wait for a checkpoint, and what segments hold.
//!
//! Lock order: `replicas`, then `partitions`, then one partition, then the segment table.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ids::Offset;
use parking_lot::{Mutex, RwLock};

use super::file::{Opened, SegmentRanges};
use super::line::Line;
use super::partition::{Died, GONE, PartitionIndex, Step, Unplaced};
use super::piece::{Lines, Piece};
use super::{Access, BatchLine, ExtentKey, IndexError};
use crate::entry::{Entry, EntryVerdicts, Verdict};
use crate::ids::{LogPosition, RaftIndex, ReplicaId};
use crate::log::BatchPlace;
use crate::space::table::SegmentTable;

/// A batch to be read: its line, and its bytes if they are not durable here yet.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) line: BatchLine,
    pub(crate) data: Option<Bytes>,
}

/// What a search for batches may return.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) from: i64,
    pub(crate) up_to: i64,
    pub(crate) bytes_max: u64,
    pub(crate) at_least_one: bool,
}

/// An applied entry whose place is not known yet: it is committed elsewhere before it is durable here.
#[derive(Debug)]
struct UnplacedEntry {
    index: RaftIndex,
    keys: Vec<(usize, ExtentKey)>,
}

#[derive(Debug, Default)]
struct ReplicaIndex {
    recorded: Option<RaftIndex>,
    verdicts: VecDeque<EntryVerdicts>,
    unplaced: VecDeque<UnplacedEntry>,
    changed_log_starts: BTreeMap<ExtentKey, i64>,
    bytes_since_checkpoint: u64,
}

pub(crate) type Partition = Arc<RwLock<PartitionIndex>>;

/// The index of a data directory.
#[derive(Debug, Default)]
pub(crate) struct BatchIndex {
    partitions: RwLock<HashMap<ExtentKey, Partition>>,
    replicas: Mutex<BTreeMap<ReplicaId, ReplicaIndex>>,
    /// Segments whose live batches lie in runs.
    pub(super) rewritten: Mutex<BTreeSet<u64>>,
    pub(crate) table: SegmentTable,
}

/// The line of a raw batch, from its own header; `clock_ms` stands in for a batch without timestamps.
pub(crate) fn line_of(batch: &[u8], clock_ms: i64, verdict: Verdict, position: LogPosition) -> Option<BatchLine> {
    let Verdict::Accepted { base_offset, epoch } = verdict else { return None };
    let delta = i32::from_be_bytes(batch.get(23..27)?.try_into().ok()?);
    let max_timestamp_ms = i64::from_be_bytes(batch.get(35..43)?.try_into().ok()?);
    Some(BatchLine {
        base_offset,
        record_count: u32::try_from(delta).ok()?.checked_add(1)?,
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

impl BatchIndex {
    /// The partition, if the index knows it.
    pub(crate) fn partition(&self, key: ExtentKey) -> Option<Partition> {
        self.partitions.read().get(&key).cloned()
    }

    fn partition_or_new(&self, key: ExtentKey) -> Partition {
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

    /// Adds what apply decided about one entry; `places_of` knows where durable entries lie.
    pub(crate) fn record(
        &self,
        replica: ReplicaId,
        places_of: impl Fn(RaftIndex) -> Option<Vec<BatchPlace>>,
        entry: &Entry,
        verdicts: &[Verdict],
    ) -> io::Result<()> {
        let index = entry.log_id.index;
        if verdicts.len() != entry.batches.len() {
            return Err(malformed(replica, index));
        }
        let mut replicas = self.replicas.lock();
        let state = replicas.entry(replica).or_default();
        self.place(replica, state, &places_of)?;
        state.recorded = state.recorded.max(Some(index));
        state.bytes_since_checkpoint +=
            64 + entry.payload.len() as u64 + entry.batches.iter().map(|b| b.data.len() as u64).sum::<u64>();
        if verdicts.is_empty() {
            return Ok(());
        }
        let verdicts_of = EntryVerdicts { log_id: entry.log_id, verdicts: verdicts.to_vec(), relocated_to: None };
        state.verdicts.push_back(verdicts_of);
        if verdicts.iter().all(|verdict| *verdict == Verdict::Rejected) {
            return Ok(());
        }
        for (batch, verdict) in entry.batches.iter().zip(verdicts) {
            if let Verdict::Accepted { base_offset, .. } = verdict {
                let key = ExtentKey { partition: batch.partition, replica };
                if self.partition_or_new(key).write().revive(base_offset.0) {
                    state.changed_log_starts.insert(key, base_offset.0);
                }
            }
        }
        let places = if state.unplaced.is_empty() { places_of(index) } else { None };
        if let Some(places) = places {
            return self.record_placed(replica, entry, verdicts, &places);
        }
        let mut keys = Vec::new();
        for (number, (batch, verdict)) in entry.batches.iter().zip(verdicts).enumerate() {
            if *verdict == Verdict::Rejected {
                continue;
            }
            let nowhere = LogPosition { segment: u64::MAX, byte: 0 };
            let line =
                line_of(&batch.data, entry.clock_ms, *verdict, nowhere).ok_or_else(|| malformed(replica, index))?;
            let key = ExtentKey { partition: batch.partition, replica };
            self.partition_or_new(key).write().unplaced.push_back(Unplaced { index, line, data: batch.data.clone() });
            keys.push((number, key));
        }
        state.unplaced.push_back(UnplacedEntry { index, keys });
        Ok(())
    }

    fn record_placed(
        &self,
        replica: ReplicaId,
        entry: &Entry,
        verdicts: &[Verdict],
        places: &[BatchPlace],
    ) -> io::Result<()> {
        let index = entry.log_id.index;
        if places.len() != entry.batches.len() {
            return Err(malformed(replica, index));
        }
        for ((batch, verdict), place) in entry.batches.iter().zip(verdicts).zip(places) {
            if *verdict == Verdict::Rejected {
                continue;
            }
            let line = line_of(&batch.data, entry.clock_ms, *verdict, place.position)
                .ok_or_else(|| malformed(replica, index))?;
            let fits = place.partition == batch.partition && place.bytes as usize == batch.data.len();
            if !fits {
                return Err(malformed(replica, index));
            }
            let key = ExtentKey { partition: batch.partition, replica };
            self.push(&mut self.partition_or_new(key).write(), key, index, &line)?;
        }
        Ok(())
    }

    fn push(
        &self,
        partition: &mut PartitionIndex,
        key: ExtentKey,
        index: RaftIndex,
        line: &BatchLine,
    ) -> io::Result<()> {
        let refused = |error: IndexError| {
            let what = format!("replica {}, entry {}, {}: {error}", key.replica, index.0, key.partition);
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        let added = partition.push(line).map_err(refused)?;
        self.table.entry(line.position.segment, key.replica, index);
        if added && line.end_offset().0 > partition.log_start {
            self.table.add(line.position.segment, key.replica, 1, u64::from(line.bytes));
        }
        Ok(())
    }

    /// Gives entries their lines that have become durable since.
    fn place(
        &self,
        replica: ReplicaId,
        state: &mut ReplicaIndex,
        places_of: impl Fn(RaftIndex) -> Option<Vec<BatchPlace>>,
    ) -> io::Result<()> {
        while let Some(entry) = state.unplaced.front() {
            let Some(places) = places_of(entry.index) else { break };
            for (number, key) in &entry.keys {
                let partition = self.partition_or_new(*key);
                let mut partition = partition.write();
                let Some(mut unplaced) = partition.unplaced.pop_front() else { continue };
                debug_assert_eq!((unplaced.index, key.replica), (entry.index, replica));
                if let Some(place) = places.get(*number) {
                    unplaced.line.position = place.position;
                    self.push(&mut partition, *key, entry.index, &unplaced.line)?;
                }
            }
            state.unplaced.pop_front();
        }
        Ok(())
    }

    /// Places what has become durable. An error means that the index is not to be trusted any more.
    pub(crate) fn place_durable(
        &self,
        replica: ReplicaId,
        places_of: impl Fn(RaftIndex) -> Option<Vec<BatchPlace>>,
    ) -> io::Result<()> {
        match self.replicas.lock().get_mut(&replica) {
            Some(state) => self.place(replica, state, places_of),
            None => Ok(()),
        }
    }

    /// A snapshot up to `index` is real: nothing before it is recorded any more.
    pub(crate) fn imported(&self, replica: ReplicaId, index: RaftIndex) {
        let mut replicas = self.replicas.lock();
        let state = replicas.entry(replica).or_default();
        debug_assert!(state.unplaced.is_empty(), "what was applied is durable and has its lines");
        state.recorded = state.recorded.max(Some(index));
        state.verdicts.clear();
        state.bytes_since_checkpoint = 0;
    }

    /// The last entry recorded of a replica.
    pub(crate) fn recorded(&self, replica: ReplicaId) -> Option<RaftIndex> {
        self.replicas.lock().get(&replica).and_then(|state| state.recorded)
    }

    /// Bytes of entries recorded since the last state delta.
    pub(crate) fn bytes_since_checkpoint(&self, replica: ReplicaId) -> u64 {
        self.replicas.lock().get(&replica).map_or(0, |state| state.bytes_since_checkpoint)
    }

    /// The verdicts up to `index`, to be written to the log before the checkpoint passes it. They stay here until they
    /// are durable there ([`Self::forget_verdicts`]): whatever ends between, no checkpoint passes entries without them.
    pub(crate) fn verdicts_up_to(&self, replica: ReplicaId, index: RaftIndex) -> Vec<EntryVerdicts> {
        let replicas = self.replicas.lock();
        let verdicts = replicas.get(&replica).into_iter().flat_map(|state| &state.verdicts);
        verdicts.take_while(|verdicts| verdicts.log_id.index <= index).cloned().collect()
    }

    /// The verdicts up to `index` are in the log.
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

    /// Takes the log starts that moved since the last call.
    pub(crate) fn take_log_starts(&self, replica: ReplicaId) -> BTreeMap<ExtentKey, i64> {
        let mut replicas = self.replicas.lock();
        replicas.get_mut(&replica).map(|state| std::mem::take(&mut state.changed_log_starts)).unwrap_or_default()
    }

    /// Everything of a replica that left the directory is dead.
    pub(crate) fn remove_replica(&self, replica: ReplicaId) {
        self.replicas.lock().remove(&replica);
        for (key, partition) in self.all() {
            if key.replica == replica {
                partition.write().unplaced.clear();
                self.raise_log_start(key, GONE);
            }
        }
    }

    /// Of all replicas but these everything is dead: they left, and no checkpoint says so yet.
    pub(crate) fn keep_replicas(&self, there: &[ReplicaId]) {
        let mut left = BTreeSet::new();
        for (key, partition) in &*self.partitions.read() {
            if !there.contains(&key.replica) && partition.read().log_start != GONE {
                left.insert(key.replica);
            }
        }
        left.into_iter().for_each(|replica| self.remove_replica(replica));
    }

    /// Moves a log start up; `Offset(GONE)` for a partition that is gone.
    pub(crate) fn raise_log_start(&self, key: ExtentKey, log_start: i64) {
        let partition = self.partition_or_new(key);
        {
            let mut partition = partition.write();
            if log_start <= partition.log_start {
                return;
            }
            partition.raise_log_start(log_start);
            // What cannot be counted without the disk is counted by the next `settle_all`.
            let _ = self.settle(key, &mut partition, Access::Resident);
        }
        let mut replicas = self.replicas.lock();
        replicas.entry(key.replica).or_default().changed_log_starts.insert(key, log_start);
    }

    fn settle(&self, key: ExtentKey, partition: &mut PartitionIndex, access: Access) -> Result<(), IndexError> {
        let mut died: Vec<Died> = Vec::new();
        let outcome = partition.settle(access, &mut died);
        for dead in died {
            self.table.remove(dead.segment, key.replica, u64::from(dead.lines), dead.bytes);
        }
        outcome
    }

    /// Counts what died in one partition.
    pub(crate) fn settle_one(&self, key: ExtentKey, access: Access) -> Result<(), IndexError> {
        match self.partition(key) {
            Some(partition) if !partition.read().is_settled() => self.settle(key, &mut partition.write(), access),
            _ => Ok(()),
        }
    }

    /// Counts what died; on a blocking thread.
    pub(crate) fn settle_all(&self) -> Result<(), IndexError> {
        for (key, partition) in self.all() {
            let settled = partition.read().is_settled();
            if !settled {
                self.settle(key, &mut partition.write(), Access::MayBlock)?;
            }
        }
        Ok(())
    }

    /// Bytes of the partition's batches from log start.
    pub(crate) fn bytes_of(&self, key: ExtentKey) -> u64 {
        self.partition(key).map_or(0, |partition| partition.read().live_bytes())
    }

    /// Batches from an offset on, within bounds: everything that begins below `up_to` was recorded before. What comes before
    /// a gap is given; a gap at the beginning is an error.
    pub(crate) fn plan(&self, key: ExtentKey, bounds: Bounds, access: Access) -> Result<Vec<Planned>, IndexError> {
        let Some(partition) = self.partition(key) else { return Ok(Vec::new()) };
        let mut lacking = None;
        let mut plan = Plan { bounds, batches: Vec::new(), bytes: 0, full: false };
        let mut at = bounds.from;
        while !plan.full {
            let step = partition.read().step(at, bounds.up_to, bounds.bytes_max.saturating_sub(plan.bytes));
            let before = plan.batches.len();
            match step {
                Step::End => break,
                Step::Lacking(offset) => {
                    lacking = Some(offset);
                    break;
                }
                Step::Lines(lines) => lines.into_iter().for_each(|line| plan.add(line, None)),
                Step::Unplaced(batches) => batches.into_iter().for_each(|b| plan.add(b.line, Some(b.data))),
                Step::InFile(piece) => plan.add_from_file(&piece, at, access)?,
            }
            let last = plan.batches.last().filter(|_| plan.batches.len() > before);
            let Some(BatchLine { position, .. }) = last.map(|last| last.line) else { break };
            let end = last.map_or(at, |last| last.line.end_offset().0);
            if end <= at {
                // Its lines are not what its directory says: the same ones would come for ever.
                return Err(IndexError::Damaged { segment: position.segment });
            }
            at = end;
        }
        match lacking {
            Some(offset) if plan.batches.is_empty() => Err(IndexError::Lacking { offset }),
            _ => Ok(plan.batches),
        }
    }

    /// The lines of one segment that are held in memory, for its `.idx` file.
    pub(crate) fn lines_in(&self, segment: u64) -> BTreeMap<ExtentKey, Vec<Vec<Line>>> {
        let mut lines: BTreeMap<ExtentKey, Vec<Vec<Line>>> = BTreeMap::new();
        for (key, partition) in self.all() {
            for piece in partition.read().pieces.iter().filter(|piece| piece.segment == segment) {
                if let Lines::Memory(memory) = &piece.lines {
                    lines.entry(key).or_default().push(memory.as_slice().to_vec());
                }
            }
        }
        lines
    }

    /// Lines held in memory that lie before a place in its segment.
    pub(crate) fn lines_before(&self, place: LogPosition) -> u64 {
        let before = |piece: &Piece| match &piece.lines {
            Lines::Memory(memory) => memory.as_slice().partition_point(|line| line.byte < place.byte) as u64,
            Lines::File(_) => 0,
        };
        let of = |partition: &PartitionIndex| {
            partition.pieces.iter().filter(|piece| piece.segment == place.segment).map(before).sum::<u64>()
        };
        self.all().iter().map(|(_, partition)| of(&partition.read())).sum()
    }

    /// Lets the lines of a segment be read from its `.idx` file from now on, and from nowhere else: a file that was read back
    /// from damaged frames lists less than was known.
    pub(crate) fn install(&self, segment: u64, opened: Opened) -> Result<(), IndexError> {
        self.table.set_ranges(segment, opened.ranges, true);
        if self.is_rewritten(segment) {
            return Ok(());
        }
        let mut listed: BTreeMap<ExtentKey, Vec<Piece>> = BTreeMap::new();
        for (key, piece) in opened.pieces {
            self.partition_or_new(key);
            listed.entry(key).or_default().push(piece);
        }
        for (key, partition) in self.all() {
            let pieces = listed.remove(&key).unwrap_or_default();
            self.install_pieces(key, &mut partition.write(), segment, pieces)?;
        }
        Ok(())
    }

    fn install_pieces(
        &self,
        key: ExtentKey,
        partition: &mut PartitionIndex,
        segment: u64,
        pieces: Vec<Piece>,
    ) -> Result<(), IndexError> {
        let is_listed = |known: &Piece| known.segment != segment || pieces.iter().any(|piece| piece.covers_as(known));
        for lost in partition.pieces.iter().filter(|known| !is_listed(known)) {
            self.table.remove(segment, key.replica, u64::from(lost.live_lines()), lost.live_bytes());
        }
        partition.pieces.retain(is_listed);
        for piece in pieces {
            let known = partition.pieces.iter_mut().find(|known| piece.covers_as(known));
            match known {
                Some(known) => known.lines = piece.lines,
                None => self.insert(key, partition, piece)?,
            }
        }
        partition.drop_dead_pieces();
        Ok(())
    }

    /// Adds the lines of a segment as recovery read them from its frames.
    pub(crate) fn install_lines(
        &self,
        segment: u64,
        ranges: SegmentRanges,
        pieces: BTreeMap<ExtentKey, Vec<Piece>>,
    ) -> Result<(), IndexError> {
        let rewritten = self.is_rewritten(segment);
        self.table.set_ranges(segment, ranges, rewritten);
        if rewritten {
            return Ok(());
        }
        for (key, pieces) in pieces {
            let partition = self.partition_or_new(key);
            let mut partition = partition.write();
            for piece in pieces {
                self.insert(key, &mut partition, piece)?;
            }
        }
        Ok(())
    }

    pub(super) fn insert(
        &self,
        key: ExtentKey,
        partition: &mut PartitionIndex,
        piece: Piece,
    ) -> Result<(), IndexError> {
        partition.note_file(piece.segment);
        let sorted = partition.make_room(piece)?;
        for piece in sorted.replaced {
            self.table.remove(piece.segment, key.replica, u64::from(piece.live_lines()), piece.live_bytes());
        }
        for piece in sorted.lacking {
            self.table.add(piece.segment, key.replica, u64::from(piece.lines.count()), piece.bytes);
            partition.insert(piece);
        }
        partition.settled_log_start = 0;
        self.settle(key, partition, Access::MayBlock)
    }

    /// The segment or run is unlinked: its lines go.
    pub(crate) fn forget(&self, segment: u64) {
        for (_, partition) in self.all() {
            partition.write().forget(segment);
        }
        self.rewritten.lock().remove(&segment);
        self.table.forget(segment);
    }

    /// Drops partitions that are gone and of which no run and no segment from `oldest_segment` on lists anything.
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

/// Batches gathered within bounds.
struct Plan {
    bounds: Bounds,
    batches: Vec<Planned>,
    bytes: u64,
    full: bool,
}

impl Plan {
    fn add(&mut self, line: BatchLine, data: Option<Bytes>) {
        let first = self.batches.is_empty() && self.bounds.at_least_one;
        let fits = self.bytes + u64::from(line.bytes) <= self.bounds.bytes_max;
        self.full |= line.base_offset >= Offset(self.bounds.up_to) || !(fits || first);
        if !self.full {
            self.bytes += u64::from(line.bytes);
            self.batches.push(Planned { line, data });
        }
    }

    fn add_from_file(&mut self, piece: &Piece, at: i64, access: Access) -> Result<(), IndexError> {
        const LINES_PER_READ: std::ops::RangeInclusive<u64> = 4..=1024;
        let Lines::File(lines) = &piece.lines else { return Ok(()) };
        let mut number = piece.lines.first_ending_above(at, access)?.max(piece.dead_lines);
        // As many lines as will be needed if batches are as long as they are on average.
        let bytes_each = (piece.bytes / u64::from(lines.count).max(1)).max(1);
        let needed = self.bounds.bytes_max.saturating_sub(self.bytes) / bytes_each + 2;
        let per_read = u32::try_from(needed.clamp(*LINES_PER_READ.start(), *LINES_PER_READ.end())).unwrap_or(u32::MAX);
        while number < lines.count && !self.full {
            let count = per_read.min(lines.count - number);
            lines.file.each_line(lines.first + number, count, access, |line| {
                self.add(line.batch(piece.segment), None);
                !self.full
            })?;
            number += count;
        }
        Ok(())
    }
}
