//! A pass of compaction over the bytes of one partition here, committed by one checkpoint transaction (design section 12.3).
//!
//! ```text
//!  learn, judge, mark  read what is new once, if one map holds its keys and it has no transactions   (compact)
//!  keep                what stays -> runs, synced
//!  commit              one transaction: the runs, and what the lineage is now
//!  swap                the index: the runs in the place of what they replace
//! ```
//! Under the rewriter's lock and pace. A crash leaves the old files in charge, or the new ones. May not know: when a pass is due, what a
//! topic is.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::ids::{Offset, PartitionId};

use super::identity::COMPACTION_FORMAT_VERSION;
use super::rewriter::{JobError, Made};
use super::{DataDir, DataDirError};
use crate::checkpoint::file::off_thread;
use crate::checkpoint::state::Operation;
use crate::compact::{
    CompactError, HashRange, Keeper, KeyMap, Marks, Pass, PassDone, StoredBatch, Superseded, Transactions,
};
use crate::ids::{LogPosition, RaftIndex, ReplicaId, RunId};
use crate::index::compacted::Compacted;
use crate::index::file::Opened;
use crate::index::{ExtentKey, IndexError, IndexedBatch};
use crate::read::{ReadError, ReadRequest, Wanted};
use crate::runs::writer::{PushError, RunWriter, room_for};
use crate::runs::{Listing, RUNS_DIR, Run};
use ottla_env::rt;

/// Bytes of batches that are read at once, about.
const STEP_BYTES: usize = 2 << 20;
/// Preallocated for a run at the most: how much a pass keeps is not known, and what was taken in vain would be freed again.
const ROOM_BYTES: u64 = 8 << 20;
/// Parts of all keys at the most: beyond them a pass would read a partition more often than any disk is worth.
const PARTS_MAX: u64 = 1 << 16;

/// A pass that a replica is told to do.
#[derive(Debug, Clone, Copy)]
pub struct CompactionRequest {
    /// The replica, and the partition that it owns.
    pub replica: ReplicaId,
    pub partition: PartitionId,
    /// The pass's number; one that is done is not done again.
    pub number: u64,
    pub pass: Pass,
    /// The entry by which the pass was decided: all that lies below the horizon was applied before it.
    pub decided_at: RaftIndex,
}

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compaction {
    /// It is done, now or before.
    Done,
    /// The checkpoint does not have the entry that decided the pass yet.
    NotYet,
    /// A batch below the horizon is damaged: the pass waits until it is repaired.
    Damaged,
    /// The disk has no room for it: nothing was changed.
    NoSpace,
    /// The replica does not own the partition, the directory is closing, or retention came between.
    Gone,
}

/// The state of a pass, which goes from step to step.
struct Job {
    keeper: Keeper,
    map: KeyMap,
    marks: Marks,
    writer: Option<RunWriter>,
    key: ExtentKey,
    /// Why the map does not hold all that it was to learn.
    stopped: Option<Stopped>,
    /// The map holds all keys of what is new: nothing has to be marked.
    is_whole: bool,
}

/// Why learning was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    MapFull,
    /// There are transactions, and it is not known which were aborted.
    Unjudged,
}

/// A batch as the index and the disk have it.
struct Found {
    indexed: IndexedBatch,
    stored: StoredBatch,
}

type Visit = fn(&mut Job, &Found) -> Result<(), JobError>;

impl From<ReadError> for JobError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged { offset, cause } => Self::Push(PushError::Damaged { file: 0, offset, cause }),
            ReadError::Moved(_) | ReadError::Poisoned(_) => Self::Gone,
        }
    }
}

impl From<CompactError> for JobError {
    fn from(error: CompactError) -> Self {
        let offset = match error {
            CompactError::Unreadable { offset, .. } | CompactError::NoHeader { offset } => offset,
            CompactError::MapFull { .. } | CompactError::Unjudged { .. } => panic!("a pass has not learnt: {error}"),
        };
        Self::Push(PushError::Damaged { file: 0, offset, cause: error.to_string() })
    }
}

fn learn(job: &mut Job, found: &Found) -> Result<(), JobError> {
    if job.stopped.is_some() {
        return Ok(());
    }
    job.stopped = match job.keeper.learn(&found.stored, &mut job.map) {
        Err(CompactError::MapFull { .. }) => Some(Stopped::MapFull),
        Err(CompactError::Unjudged { .. }) => Some(Stopped::Unjudged),
        learnt => return Ok(learnt?),
    };
    Ok(())
}

fn mark(job: &mut Job, found: &Found) -> Result<(), JobError> {
    Ok(job.keeper.mark(&found.stored, &job.map, &mut job.marks)?)
}

fn keep(job: &mut Job, found: &Found) -> Result<(), JobError> {
    let Job { keeper, map, marks, writer, key, is_whole, .. } = job;
    let superseded = if *is_whole { Superseded::Known(map) } else { Superseded::Marked(marks) };
    let mut outcome = Ok(());
    let mut write = |batch: StoredBatch| {
        let written = writer.as_mut().map_or(Ok(()), |writer| push(writer, *key, &batch, Some(found)));
        if outcome.is_ok() {
            outcome = written;
        }
    };
    keeper.keep(&found.stored, superseded, &mut write)?;
    Ok(outcome?)
}

/// Writes a batch that is kept, or covers what is not. `source`: what it may be made of.
fn push(writer: &mut RunWriter, key: ExtentKey, batch: &StoredBatch, source: Option<&Found>) -> Result<(), PushError> {
    let of = |data: &Bytes| BatchHeader::parse(data);
    let damaged = || PushError::Damaged {
        file: 0,
        offset: batch.base_offset,
        cause: "a batch that was to be written has no header".to_owned(),
    };
    let header = of(&batch.data).ok_or_else(damaged)?;
    let mut max_timestamp_ms = header.max_timestamp;
    if let Some(source) = source.filter(|source| source.stored.base_offset == batch.base_offset) {
        // The index may have another time than the batch: that of its arrival.
        let own = of(&source.stored.data).map(|header| header.max_timestamp);
        if own != Some(source.indexed.max_timestamp_ms) {
            max_timestamp_ms = source.indexed.max_timestamp_ms;
        }
    }
    let indexed = IndexedBatch {
        base_offset: batch.base_offset,
        record_count: u32::try_from(header.offset_count()).map_err(|_| damaged())?,
        max_timestamp_ms,
        epoch: batch.epoch,
        position: LogPosition { segment: 0, byte: 0 },
        bytes: u32::try_from(batch.data.len()).map_err(|_| damaged())?,
    };
    writer.push(key, &indexed, &batch.data)
}

impl DataDir {
    /// Does a pass, unless it is done.
    ///
    /// # Errors
    /// When the directory fails.
    pub async fn compact(&self, request: &CompactionRequest) -> Result<Compaction, DataDirError> {
        let CompactionRequest { replica, partition, number, pass, decided_at } = *request;
        let _working = self.rewriter.working.lock().await;
        let Some(key) = self.index.owned(replica, partition) else { return Ok(Compaction::Gone) };
        let former = self.index.pass_done(key);
        if former.is_some_and(|former| former.number >= number) {
            return Ok(Compaction::Done);
        }
        // From then on no start of this directory records anything below the horizon once more.
        if self.checkpointed(replica).is_none_or(|last| last.index < decided_at) {
            return Ok(Compaction::NotYet);
        }
        let mut made = Made::default();
        let outcome = match self.compacted_runs(key, former, pass, &mut made).await {
            Ok(runs) => self.commit_pass(key, number, pass, runs).await,
            Err(JobError::Directory(error)) => Err(error),
            Err(JobError::Gone | JobError::Closing) => Ok(Compaction::Gone),
            Err(JobError::Push(PushError::Damaged { offset, cause, .. })) => {
                tracing::error!(%partition, offset = offset.0, cause, "damaged batch: the partition is not compacted");
                Ok(Compaction::Damaged)
            }
            Err(JobError::Push(PushError::Io(error))) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(%error, "no room for a run");
                Ok(Compaction::NoSpace)
            }
            Err(JobError::Push(PushError::Io(error))) => Err(self.fail("run", error)),
            Err(JobError::Push(PushError::Index(error))) => {
                Err(DataDirError::Damaged { path: self.path.display().to_string(), what: error.to_string() })
            }
        };
        match outcome {
            Ok(Compaction::Done) => {}
            _ if self.failure.get().is_some() => {}
            _ => self.remove_files(made.runs).await?,
        }
        outcome
    }

    /// The last pass over what a replica owns of a partition, if there was one.
    #[must_use]
    pub fn pass_done(&self, replica: ReplicaId, partition: PartitionId) -> Option<PassDone> {
        let key = self.index.owned(replica, partition)?;
        self.index.pass_done(key)
    }

    /// What the pass keeps, in runs that are synced; none if nothing lies below the horizon.
    async fn compacted_runs(
        &self,
        key: ExtentKey,
        former: Option<PassDone>,
        pass: Pass,
        made: &mut Made,
    ) -> Result<Vec<Run>, JobError> {
        self.require_format(COMPACTION_FORMAT_VERSION).await?;
        let Some(first) = self.first_of(key, pass.horizon).await? else { return Ok(Vec::new()) };
        let former = former.map_or(first, |former| former.pass.horizon.max(first));
        let dirty = former..pass.horizon;
        let job = Job {
            keeper: Keeper::new(pass, first, former),
            map: KeyMap::new(self.options.rewrite.key_map_bytes, (rt::random_u64(), rt::random_u64())),
            marks: Marks::new(first, 0),
            writer: None,
            key,
            stopped: None,
            is_whole: false,
        };
        let mut job = self.learnt(key, dirty.clone(), HashRange::ALL, job).await?;
        job.is_whole = job.stopped.is_none();
        let (mut runs, mut parts, mut at) = (Vec::new(), 2, first);
        while at < pass.horizon {
            let mut end = pass.horizon;
            if !job.is_whole {
                (end, job) = self.marked(key, at, dirty.clone(), &mut parts, job).await?;
            }
            job = self.each(key, at..end, job, keep, Some((&mut *made, &mut runs))).await?;
            at = end;
        }
        self.finish(job, made, &mut runs).await?;
        let (disk, dir) = (Arc::clone(&self.disk), self.path.join(RUNS_DIR));
        off_thread(&self.disk, move || disk.sync_dir(&dir)).await?;
        Ok(runs)
    }

    /// Base of the batch that holds the log start; `None` if nothing lies below the horizon.
    async fn first_of(&self, key: ExtentKey, horizon: Offset) -> Result<Option<Offset>, JobError> {
        let log_start = self.index.log_start(key);
        if log_start >= horizon {
            return Ok(None);
        }
        let first = self.batch_at(key, log_start).await?;
        let missing = || ReadError::Damaged { offset: log_start, cause: "it is not there".to_owned() };
        Ok(Some(first.ok_or_else(missing)?.base_offset))
    }

    /// The transactions of what is new.
    async fn judged(&self, key: ExtentKey, offsets: Range<Offset>) -> Result<Transactions, JobError> {
        let (mut transactions, mut at) = (Transactions::default(), offsets.start);
        while at < offsets.end || !transactions.are_over_below(offsets.end) {
            let known = self.index.partition(key).and_then(|partition| partition.read().end_offset());
            let up_to = if at < offsets.end { offsets.end } else { known.unwrap_or(at) };
            if at >= up_to {
                let cause = "the marker of a transaction that has ended is not there".to_owned();
                return Err(ReadError::Damaged { offset: at, cause }.into());
            }
            let (found, bytes) = self.read_part(key, at..up_to).await?;
            at = found.last().map_or(up_to, |last| last.indexed.end_offset());
            for one in &found {
                transactions.see(&one.stored)?;
            }
            self.pause_pass(bytes).await;
        }
        Ok(transactions)
    }

    /// Learns the keys of what is new that lie in a range of hashes, and before, where there are transactions, which of them were aborted. The
    /// map may be full before it has all.
    async fn learnt(
        &self,
        key: ExtentKey,
        dirty: Range<Offset>,
        part: HashRange,
        mut job: Job,
    ) -> Result<Job, JobError> {
        loop {
            job.map.begin(part);
            job.stopped = None;
            job = self.each(key, dirty.clone(), job, learn, None).await?;
            if job.stopped != Some(Stopped::Unjudged) {
                return Ok(job);
            }
            let transactions = self.judged(key, dirty.clone()).await?;
            job.keeper.set_aborted(Box::new(move |producer, offset| transactions.is_aborted(producer, offset)));
        }
    }

    /// Marks a window from an offset on, by the keys of `dirty`; returns its end, at the end of a batch.
    async fn marked(
        &self,
        key: ExtentKey,
        from: Offset,
        dirty: Range<Offset>,
        parts: &mut u64,
        mut job: Job,
    ) -> Result<(Offset, Job), JobError> {
        let most = i64::try_from(Marks::OFFSETS_MAX).unwrap_or(i64::MAX);
        let mut end = dirty.end;
        if end.0 - from.0 > most {
            let last = self.batch_at(key, from.plus(most)).await?;
            end = last.map_or(from, |last| last.base_offset);
        }
        // A batch may cover more offsets than a window; nothing of an empty one is marked.
        let count = u64::try_from(end.0 - from.0).unwrap_or(0);
        if count == 0 {
            let only = self.batch_at(key, from).await?;
            end = only.map_or(dirty.end, |only| only.end_offset());
        }
        job.marks = Marks::new(from, count);
        'anew: loop {
            for part in HashRange::divide(*parts) {
                job = self.learnt(key, dirty.clone(), part, job).await?;
                if job.stopped.is_some() {
                    assert!(*parts < PARTS_MAX, "{key:?}: more keys than {PARTS_MAX} maps hold");
                    *parts *= 2;
                    continue 'anew;
                }
                job = self.each(key, from..end, job, mark, None).await?;
            }
            return Ok((end, job));
        }
    }

    /// Shows the batches that begin in these offsets to `visit`, part by part, unless it stops; writes where there is something to write to.
    async fn each(
        &self,
        key: ExtentKey,
        offsets: Range<Offset>,
        mut job: Job,
        visit: Visit,
        mut output: Option<(&mut Made, &mut Vec<Run>)>,
    ) -> Result<Job, JobError> {
        let mut at = offsets.start;
        while at < offsets.end {
            if let Some((made, runs)) = &mut output {
                job = self.with_room(job, made, runs).await?;
            }
            let (found, bytes) = self.read_part(key, at..offsets.end).await?;
            at = found.last().map_or(offsets.end, |last| last.indexed.end_offset());
            let step = move || {
                let mut job = job;
                let visited = found.iter().try_for_each(|one| visit(&mut job, one));
                let flushed = job.writer.as_mut().map_or(Ok(()), RunWriter::flush);
                Ok((job, visited.and(flushed.map_err(JobError::from))))
            };
            let (stepped, outcome) = off_thread(&self.disk, step).await?;
            outcome?;
            job = stepped;
            if let Some(writer) = &mut job.writer {
                self.sync_part(writer).await?;
            }
            self.pause_pass(bytes).await;
            if job.stopped.is_some() {
                break;
            }
        }
        Ok(job)
    }

    /// A run to write to that is not full.
    async fn with_room(&self, mut job: Job, made: &mut Made, runs: &mut Vec<Run>) -> Result<Job, JobError> {
        if job.writer.as_ref().is_some_and(|writer| !writer.is_full(self.options.rewrite.run_bytes)) {
            return Ok(job);
        }
        if let Some(writer) = job.writer.take() {
            let written = off_thread(&self.disk, move || writer.finish()).await?;
            runs.push(self.seal_run(written).await?);
        }
        let (id, key) = (self.runs.take_id(), job.key);
        made.runs.push(id);
        let (lineage, class) = (key.lineage, self.class_of(key));
        let listing =
            Listing { id, lineage, incarnation: rt::random_u64(), bytes: 0, batch_bytes: 0, class, rewrites: 1 };
        let bytes = self.index.bytes_of(key).min(self.options.rewrite.run_bytes).min(ROOM_BYTES);
        let (disk, path, room) = (Arc::clone(&self.disk), self.path.clone(), room_for(bytes, 1));
        let create = move || RunWriter::create(&disk, &path, listing, room);
        job.writer = Some(off_thread(&self.disk, create).await?);
        Ok(job)
    }

    /// Covers what was dropped at the end, and seals the last run.
    async fn finish(&self, job: Job, made: &mut Made, runs: &mut Vec<Run>) -> Result<(), JobError> {
        let Job { keeper, writer, key, .. } = self.with_room(job, made, runs).await?;
        let Some(mut writer) = writer else { return Ok(()) };
        let last = move || {
            let mut outcome = Ok(());
            keeper.finish(&mut |batch| {
                if outcome.is_ok() {
                    outcome = push(&mut writer, key, &batch, None);
                }
            });
            match outcome {
                Ok(()) => writer.finish().map(Ok),
                Err(error) => Ok(Err(error)),
            }
        };
        let written = off_thread(&self.disk, last).await??;
        runs.push(self.seal_run(written).await?);
        Ok(())
    }

    /// Pauses as the throttle says after a pass has read so many bytes.
    async fn pause_pass(&self, bytes: u64) {
        let (stats, pressure, options) = (self.log.stats(), self.space_pressure(), *self.rewriter.pace.borrow());
        let pace = &self.rewriter.pass_pace;
        let pause = pace.lock().pause(rt::now(), &options, bytes, stats.bytes, stats.queued_bytes, pressure);
        if pause > Duration::ZERO {
            self.wait(pause).await;
        }
    }

    /// The next batches of these offsets, and how many bytes they have.
    async fn read_part(&self, key: ExtentKey, offsets: Range<Offset>) -> Result<(Vec<Found>, u64), JobError> {
        if self.closing.load(Ordering::SeqCst) || self.failure.get().is_some() {
            return Err(JobError::Closing);
        }
        let Range { start: from, end: up_to } = offsets;
        let request = ReadRequest { key, from, up_to, bytes_max: STEP_BYTES, at_least_one: true, wanted: Wanted::All };
        let plan = self.plan_read(request).await?;
        let listed: Vec<IndexedBatch> = plan.indexed_batches().copied().collect();
        let mut bytes = plan.read().await?.freeze();
        let (mut found, read) = (Vec::with_capacity(listed.len()), bytes.len() as u64);
        for indexed in listed {
            if bytes.len() < indexed.bytes as usize {
                break;
            }
            let data = bytes.split_to(indexed.bytes as usize);
            found.push(Found {
                stored: StoredBatch { base_offset: indexed.base_offset, epoch: indexed.epoch, data },
                indexed,
            });
        }
        if found.first().is_none_or(|first| first.indexed.base_offset != from) {
            // Retention has passed the offset meanwhile.
            return Err(JobError::Gone);
        }
        Ok((found, read))
    }

    /// Commits the pass in one transaction, then lets readers find its runs.
    async fn commit_pass(
        &self,
        key: ExtentKey,
        number: u64,
        pass: Pass,
        runs: Vec<Run>,
    ) -> Result<Compaction, DataDirError> {
        let opened = self.open_indexes(&runs).await?;
        let mut next = None;
        for (_, slice) in opened.iter().flat_map(|(_, opened)| &opened.slices) {
            assert!(next.is_none_or(|end| end == slice.base_offset), "{key:?}: a pass has left out {next:?}");
            next = Some(slice.end_offset);
        }
        assert!(next.is_none_or(|end| end == pass.horizon), "{key:?}: a pass to {} ends at {next:?}", pass.horizon);
        let first_run = runs.first().map_or(self.runs.next_id(), |run| run.listing.id);
        let compacted = Compacted { number, pass, first_run, imported: Arc::default() };
        let mut operations = vec![Operation::NextRun(self.runs.next_id())];
        operations.extend(runs.iter().map(|run| Operation::Run(run.listing.clone())));
        operations.push(Operation::Compacted(key, compacted.clone()));
        // Held until the index has the runs: those without a live batch are dropped by the next transaction.
        let mut checkpoint = self.checkpoint.lock().await;
        // A partition that was dropped meanwhile is forgotten by a transaction that nothing may follow.
        if self.reader_of(key).is_none() {
            return Ok(Compaction::Gone);
        }
        self.transact(&mut checkpoint, operations, false).await?;
        let (bytes, opened) = (runs.iter().map(|run| run.listing.bytes).sum::<u64>(), Arc::new(opened));
        runs.into_iter().for_each(|run| self.runs.add(run));
        tracing::info!(partition = %key.partition, number, horizon = pass.horizon.0, bytes, "partition compacted");
        self.swap(key, compacted, opened).await?;
        self.note_runs(&checkpoint);
        self.rewriter.passes.fetch_add(1, Ordering::Relaxed);
        self.rewriter.compacted_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(Compaction::Done)
    }

    /// Installs a pass that is committed; index files that are damaged are rebuilt first.
    async fn swap(
        &self,
        key: ExtentKey,
        compacted: Compacted,
        opened: Arc<Vec<(RunId, Opened)>>,
    ) -> Result<(), DataDirError> {
        let mut rebuilt = BTreeSet::new();
        loop {
            let outcome = {
                let _writing = self.index_files.lock().await;
                let (index, opened) = (Arc::clone(&self.index), Arc::clone(&opened));
                let compacted = compacted.clone();
                let install = move || Ok(index.install_compacted(key, compacted, &opened));
                off_thread(&self.disk, install).await.map_err(|error| self.fail("index", error))?
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(IndexError::Damaged { segment }) if rebuilt.insert(segment) => self.rebuild_index(segment).await?,
                Err(error) => {
                    // What a restart finds by the checkpoint this process cannot.
                    return Err(self.fail("index", io::Error::new(io::ErrorKind::InvalidData, error.to_string())));
                }
            }
        }
    }
}
