//! One data directory as a whole: identity and lock, log, batch index, checkpoint and space.
//!
//! ```text
//!  node.json  lock  log/<sequence>.log  log/<sequence>.idx  runs/<id>.run  runs/<id>.idx  state/<generation>.ckpt
//! ```
//!
//! May not know: metadata, topics or Raft; recovered replicas are returned to the caller, which runs them.

mod compactor;
mod export;
mod failure;
mod identity;
mod import;
mod index_files;
mod lookup;
mod maintain;
mod merge;
mod peers;
mod recover;
mod relocate;
mod repair;
mod rewriter;
mod rewriter_state;
mod run_files;
mod scrub;
mod split;
#[cfg(test)]
mod tests;
mod types;
mod unlink;
mod walk;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ottla_protocol::ids::{Offset, PartitionId};
use parking_lot::Mutex;
use uuid::Uuid;

pub use compactor::{Compaction, CompactionRequest};
pub use export::ReplicaSnapshot;
pub use failure::OnFailure;
pub use import::Import;
pub use merge::MergeCut;
pub use peers::{Exported, ExportedBatch, PassConflict, Peers};
pub use split::SplitCut;
pub use types::{DataDirError, DataDirOptions, DataDirStats, RecoveredReplica};
pub use walk::WalkedBatch;

use crate::checkpoint::state::Operation;
use crate::checkpoint::{Checkpoint, CheckpointSource};
use crate::entry::{Entry, Verdict};
use crate::ids::{LogId, RaftIndex, ReplicaId};
use crate::index::partition::GONE;
use crate::index::{BatchIndex, ExtentKey};
use crate::log::{EntryPlace, GroupCreation, Log, ReplicaLog, batch_bytes_max};
use crate::page_cache::mapped::OpenSegments;
use crate::read::VerifyBelow;
use crate::read::readahead::DiskReads;
use crate::runs::Runs;
use crate::space::reserve::Reserve;
use crate::space::unlink_pace::UnlinkPace;
use failure::Failure;
use identity::Identity;
use ottla_env::critical::Owner;
use ottla_env::disk::{DirLock, Disk};
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use rewriter_state::Rewriter;

/// The source of a replica's state deltas, and since when the replica is dirty.
struct Source {
    source: Weak<dyn CheckpointSource>,
    dirty_since: Option<rt::Instant>,
    /// A delta was due and not returned, since its entries are not synced yet. It is taken in the next round.
    withheld: bool,
}

/// Entries that a replica's log held when the directory was opened.
#[derive(Debug, Clone, Copy)]
struct Replay {
    /// Those up to here are known to be committed.
    committed: RaftIndex,
    last: RaftIndex,
}

#[derive(Debug, Default)]
struct Counters {
    checkpoints: AtomicU64,
    checkpoint_bytes: AtomicU64,
    unlinked_segments: AtomicU64,
    unlinked_runs: AtomicU64,
    index_files: AtomicU64,
    damaged_reads: AtomicU64,
    scrubs: AtomicU64,
    scrubbed_bytes: AtomicU64,
}

/// One open data directory.
pub struct DataDir {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    options: DataDirOptions,
    identity: Mutex<Identity>,
    /// Held while `node.json` is written.
    identifying: tokio::sync::Mutex<()>,
    lock: Mutex<Option<Box<dyn DirLock>>>,
    log: Log,
    index: Arc<BatchIndex>,
    checkpoint: tokio::sync::Mutex<Checkpoint>,
    /// The last entry of each replica that the checkpoint contains.
    checkpointed: Mutex<BTreeMap<ReplicaId, LogId>>,
    /// Bytes ever written to the log when the last checkpoint was made.
    checkpoint_at_bytes: AtomicU64,
    /// The last entry of each replica that the oldest kept generation contains.
    oldest_kept: Mutex<BTreeMap<ReplicaId, LogId>>,
    /// Held for reading while a replica is created, for writing while a checkpoint collects the recovery points of all.
    creating: tokio::sync::RwLock<()>,
    /// No checkpoint was valid when the directory was opened: everything is applied again before there is one.
    opened_without_checkpoint: bool,
    /// What each replica's log held when the directory was opened, until it is applied again.
    replaying: Mutex<BTreeMap<ReplicaId, Replay>>,
    /// Held while an `.idx` file is written or removed.
    index_files: tokio::sync::Mutex<()>,
    /// Dropped partitions that no segment holds any more: the next checkpoint forgets them.
    forgotten: Mutex<Vec<ExtentKey>>,
    sources: Mutex<BTreeMap<ReplicaId, Source>>,
    open_segments: OpenSegments,
    runs: Runs,
    rewriter: Rewriter,
    disk_reads: Arc<DiskReads>,
    reserve: Reserve,
    unlink_pace: Mutex<UnlinkPace>,
    failure: Arc<Failure>,
    counters: Counters,
    closing: AtomicBool,
    /// What was written by an earlier process.
    verify_below: VerifyBelow,
}

impl std::fmt::Debug for DataDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataDir").field("path", &self.path).finish_non_exhaustive()
    }
}

impl DataDir {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The random id of this directory.
    #[must_use]
    pub fn directory_id(&self) -> Uuid {
        self.identity.lock().directory_id
    }

    /// The cluster that it belongs to, once that is known.
    #[must_use]
    pub fn cluster_id(&self) -> Option<String> {
        self.identity.lock().cluster_id.clone()
    }

    /// Records the cluster id once it is minted or learnt. It never changes after that.
    pub async fn set_cluster_id(&self, cluster_id: &str) -> Result<(), DataDirError> {
        let _identifying = self.identifying.lock().await;
        let mut identity = self.identity.lock().clone();
        if let Some(known) = &identity.cluster_id {
            if known == cluster_id {
                return Ok(());
            }
            let what = format!("it belongs to cluster {known}, not {cluster_id}");
            return Err(DataDirError::Foreign { path: self.path.display().to_string(), what });
        }
        identity.cluster_id = Some(cluster_id.to_owned());
        identity.write(&self.disk, &self.path).await.map_err(|error| self.not_written(error))?;
        *self.identity.lock() = identity;
        Ok(())
    }

    /// True if the node has left its cluster: it bootstraps no other one from this directory.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.identity.lock().has_left
    }

    /// Records that the node leaves its cluster. Written before its replicas are removed, and never cleared.
    pub async fn leave(&self) -> Result<(), DataDirError> {
        let _identifying = self.identifying.lock().await;
        let identity = Identity { has_left: true, ..self.identity.lock().clone() };
        identity.write(&self.disk, &self.path).await.map_err(|error| self.not_written(error))?;
        *self.identity.lock() = identity;
        Ok(())
    }

    /// Raises the directory's format, before the first file of that format is written: an older release must refuse to
    /// open it.
    async fn require_format(&self, version: u32) -> io::Result<()> {
        let _identifying = self.identifying.lock().await;
        let mut identity = self.identity.lock().clone();
        if identity.format_version >= version {
            return Ok(());
        }
        identity.format_version = version;
        identity.write(&self.disk, &self.path).await?;
        self.identity.lock().format_version = version;
        Ok(())
    }

    /// The log of the directory.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The log of one of its replicas.
    #[must_use]
    pub fn replica_log(&self, replica: ReplicaId) -> Option<ReplicaLog> {
        self.log.replica(replica)
    }

    /// The log of one of its replicas; `NotFound` if that is not here.
    fn log_of(&self, replica: ReplicaId) -> io::Result<ReplicaLog> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, format!("replica {replica} is not here"));
        self.log.replica(replica).ok_or_else(gone)
    }

    /// Creates a replica; durable when this returns.
    pub async fn create_replica(&self, creation: GroupCreation) -> io::Result<ReplicaLog> {
        let _creating = self.creating.read().await;
        self.log.create_group(creation).await
    }

    /// Removes a replica for good: its data is dead, its id is never used again.
    pub async fn remove_replica(&self, replica: ReplicaId) -> io::Result<()> {
        self.sources.lock().remove(&replica);
        // So that no checkpoint takes verdicts meanwhile.
        let mut checkpoint = self.checkpoint.lock().await;
        // A checkpoint generation from before a split has no state of the child, which only the parent could give it: no
        // replica is removed while such a generation is kept.
        if checkpoint.older().is_some_and(|older| older.owners != checkpoint.newest().owners) {
            self.transact_cut(&mut checkpoint, Vec::new(), true).await.map_err(io::Error::other)?;
        }
        self.write_last_verdicts(replica).await?;
        self.log.remove_group(replica).await?;
        self.rewriter.peers.lock().remove(&replica);
        self.rewriter.aside.lock().remove(&replica);
        self.index.remove_replica(replica);
        Ok(())
    }

    /// Adds what apply decided about an entry: index entries of accepted batches, and verdicts for the next checkpoint.
    /// Called for EVERY applied entry, in order, before watermarks move. `verdicts` has one item per batch.
    pub fn record_applied(&self, replica: ReplicaId, entry: &Entry, verdicts: &[Verdict]) -> io::Result<()> {
        self.refuse_if_failed()?;
        let log = self.log_of(replica)?;
        let place_of =
            |writer, index| if writer == replica { log.final_place(index) } else { self.final_place(writer, index) };
        self.index.record(replica, place_of, entry, verdicts)
    }

    fn final_place(&self, replica: ReplicaId, index: RaftIndex) -> Option<EntryPlace> {
        self.log.replica(replica)?.final_place(index)
    }

    /// Returns when all that the replica has applied up to `upto`, which is durable, has its final place in the index, and with it
    /// what others of the directory wrote earlier of the same partitions.
    async fn place_up_to(&self, log: &ReplicaLog, upto: RaftIndex) -> io::Result<()> {
        log.at_rest(upto).await?;
        let place_of = |writer, index| self.final_place(writer, index);
        while let Some(awaited) =
            self.index.place_durable(log.id(), place_of)?.filter(|awaited| awaited.waiting <= upto)
        {
            self.log_of(awaited.writer)?.placed(awaited.index).await?;
        }
        let is_placed = self.index.is_placed(log.id(), upto) || mutants::is_on(Bug::CheckpointPastSynced);
        assert!(is_placed, "replica {}: an entry up to {} is durable and has no place", log.id(), upto.0);
        Ok(())
    }

    /// Registers the source of a replica's state deltas; held weakly.
    pub fn register(&self, replica: ReplicaId, source: Weak<dyn CheckpointSource>) {
        self.sources.lock().insert(replica, Source { source, dirty_since: None, withheld: false });
    }

    /// The last entry of the replica that the durable checkpoint contains: where no other replica reads them, Raft may
    /// purge up to it. Segments are kept for the oldest generation, and recovery from that one ignores the purge.
    #[must_use]
    pub fn checkpointed(&self, replica: ReplicaId) -> Option<LogId> {
        self.checkpointed.lock().get(&replica).copied()
    }

    /// The last entry of the replica that the oldest kept checkpoint contains.
    #[must_use]
    pub fn oldest_kept(&self, replica: ReplicaId) -> Option<LogId> {
        self.oldest_kept.lock().get(&replica).copied()
    }

    /// The bytes that a replica of this directory serves of a partition. They stay the same as long as they live, whichever
    /// replica owns them then.
    #[must_use]
    pub fn extent(&self, replica: ReplicaId, partition: PartitionId) -> ExtentKey {
        self.index.extent(replica, partition)
    }

    /// Raises the partition's log start offset, as apply decided it; batches below it are dead from now on. Nothing, if
    /// another replica of the directory serves the partition now.
    pub fn set_log_start(&self, replica: ReplicaId, partition: PartitionId, log_start: Offset) {
        if let Some(key) = self.index.owned(replica, partition) {
            self.index.raise_log_start(key, log_start);
        }
    }

    /// Drops the partition from the replica: all its data is dead. Nothing, if another replica of the directory serves it
    /// now.
    pub fn drop_partition(&self, replica: ReplicaId, partition: PartitionId) {
        self.set_log_start(replica, partition, GONE);
    }

    /// False when the disk is nearly full or has failed: producers receive a retriable error.
    #[must_use]
    pub fn accepts_writes(&self) -> bool {
        self.failure.get().is_none() && self.reserve.accepts(self.log.headroom_bytes())
    }

    /// False when the disk is so full that records of leaders on other nodes must wait, too: the log must keep room for what
    /// frees space.
    #[must_use]
    pub fn accepts_replicated(&self) -> bool {
        self.reserve.accepts_replicated(self.log.headroom_bytes())
    }

    /// The largest record batch that its segments are meant for.
    #[must_use]
    pub fn batch_bytes_max(&self) -> usize {
        batch_bytes_max(u64::from(self.options.log.segment_bytes))
    }

    /// Fails the directory when one of its tasks panics: without checkpoints the disk would fill up while the replicas
    /// seem healthy.
    fn owner(self: &Arc<Self>) -> Owner {
        let weak = Arc::downgrade(self);
        Owner::new(move |why| {
            if let Some(directory) = weak.upgrade() {
                directory.log.fail(why);
            }
        })
    }

    /// Why the directory has failed, if it has.
    #[must_use]
    pub fn poisoned(&self) -> Option<Arc<str>> {
        self.failure.get()
    }

    /// Total and free bytes of the file system, as last seen.
    #[must_use]
    pub fn disk_bytes(&self) -> (u64, u64) {
        self.reserve.disk_bytes()
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> DataDirStats {
        let segments = self.log.segments();
        let runs = self.runs.all();
        let run_bytes = runs.iter().map(|(_, bytes)| bytes).sum();
        let live = |files: Vec<u64>| files.into_iter().map(|file| self.index.table.live_bytes(file)).sum::<u64>();
        let (disk_total_bytes, disk_free_bytes) = self.disk_bytes();
        DataDirStats {
            log: self.log.stats(),
            segments: segments.len() as u64,
            log_bytes: segments.iter().map(|segment| u64::from(segment.used_bytes)).sum(),
            live_bytes: live(segments.iter().map(|segment| segment.sequence).collect())
                + live(runs.iter().map(|(run, _)| run.file_number()).collect()),
            file_bytes: segments.iter().map(|segment| segment.file_bytes).sum::<u64>() + run_bytes,
            runs: runs.len() as u64,
            run_bytes,
            rewrites: self.rewriter.jobs.load(Ordering::Relaxed),
            rewritten_bytes: self.rewriter.rewritten_bytes.load(Ordering::Relaxed),
            compactions: self.rewriter.passes.load(Ordering::Relaxed),
            compacted_bytes: self.rewriter.compacted_bytes.load(Ordering::Relaxed),
            damaged_sources: self.rewriter.left_alone.lock().len() as u64,
            repaired_batches: self.repaired_batches(),
            unlinked_runs: self.counters.unlinked_runs.load(Ordering::Relaxed),
            disk_total_bytes,
            disk_free_bytes,
            checkpoints: self.counters.checkpoints.load(Ordering::Relaxed),
            checkpoint_bytes: self.counters.checkpoint_bytes.load(Ordering::Relaxed),
            unlinked_segments: self.counters.unlinked_segments.load(Ordering::Relaxed),
            index_files: self.counters.index_files.load(Ordering::Relaxed),
            damaged_reads: self.counters.damaged_reads.load(Ordering::Relaxed),
            scrubs: self.counters.scrubs.load(Ordering::Relaxed),
            scrubbed_bytes: self.counters.scrubbed_bytes.load(Ordering::Relaxed),
        }
    }

    /// Writes a last checkpoint, closes the log with a clean end, and releases the lock.
    pub async fn close(&self) -> Result<(), DataDirError> {
        let closing = self.closing.swap(true, Ordering::SeqCst);
        self.rewriter.stop().await;
        let outcome = if closing || self.failure.get().is_some() { Ok(()) } else { self.checkpoint_now().await };
        let closed = self.log.close().await.map_err(|error| DataDirError::io(&self.path, error));
        self.lock.lock().take();
        outcome.and(closed)
    }

    /// Writes one checkpoint transaction. Refused after the directory has failed: the entries that the transaction
    /// contains may be waiting for a write that never succeeded.
    async fn transact(
        &self,
        checkpoint: &mut Checkpoint,
        operations: Vec<Operation>,
        rotate: bool,
    ) -> Result<(), DataDirError> {
        self.refuse_if_failed()?;
        let committed = checkpoint.commit(operations, self.log.stats().bytes, rotate).await;
        committed.map_err(|error| self.fail("checkpoint", error))
    }

    /// Writes a checkpoint transaction, and publishes what the checkpoint contains then.
    pub(super) async fn transact_cut(
        &self,
        checkpoint: &mut Checkpoint,
        operations: Vec<Operation>,
        rotate: bool,
    ) -> Result<(), DataDirError> {
        let before = checkpoint.written_bytes();
        self.transact(checkpoint, operations, rotate).await?;
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.counters.checkpoint_bytes.fetch_add(checkpoint.written_bytes() - before, Ordering::Relaxed);
        *self.oldest_kept.lock() = maintain::oldest_kept(checkpoint);
        *self.checkpointed.lock() = maintain::checkpointed(checkpoint);
        self.note_runs(checkpoint);
        Ok(())
    }

    /// The reason as an error, once the directory has failed.
    fn refuse_if_failed(&self) -> Result<(), DataDirError> {
        self.failure.get().map_or(Ok(()), |reason| Err(DataDirError::Failed(reason.to_string())))
    }

    /// The error of a write of `node.json`. One that found no space has changed nothing, and is tried again.
    fn not_written(&self, error: io::Error) -> DataDirError {
        match error.kind() {
            io::ErrorKind::StorageFull => DataDirError::io(&self.path.join("node.json"), error),
            _ => self.fail("node.json", error),
        }
    }

    /// Stops the directory for good.
    fn fail(&self, what: &str, error: io::Error) -> DataDirError {
        self.failure.set(&format!("{what}: {error}"));
        DataDirError::io(&self.path.join(what), error)
    }
}
