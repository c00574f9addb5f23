//! The storage interface of Raft: a log per replica, a record of verdicts, and checkpoints.
//!
//! May not know: files. `DataDir` and `ReplicaLog` implement it; tests have their own implementations.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::checkpoint::CheckpointSource;
use ottla_storage::compact::PassDone;
use ottla_storage::data_dir::{
    DataDir, Exported, ExportedBatch, Import, MergeCut, PassConflict, Peers, ReplicaSnapshot, SplitCut,
};
use ottla_storage::entry::{Entry, Verdict, Vote};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId};
use ottla_storage::index::ExtentKey;
use ottla_storage::log::{EntryRange, GroupCreation, OnSynced, ReplicaLog};
use ottla_storage::read::{ReadRequest, Wanted};

use crate::state_machine::Extent;

/// A data directory, as used by the replicas in it.
pub trait Directory: Send + Sync + 'static {
    /// Creates a replica's log; durable when this returns.
    fn create_replica(&self, creation: GroupCreation) -> BoxFuture<'_, io::Result<Arc<dyn EntryLog>>>;

    /// The log of an existing replica.
    fn replica_log(&self, replica: ReplicaId) -> Option<Arc<dyn EntryLog>>;

    /// Records what apply decided about an entry. Called for every applied entry, in order, before readers may see it.
    fn record_applied(&self, replica: ReplicaId, entry: &Entry, verdicts: &[Verdict]) -> io::Result<()>;

    /// Registers the source of the replica's cuts for the checkpointer; held weakly.
    fn register(&self, replica: ReplicaId, source: Weak<dyn CheckpointSource>);

    /// Registers the peers that have the replica's batches if they are damaged here; held weakly.
    fn register_peers(&self, _replica: ReplicaId, _peers: Weak<dyn Peers>) {}

    /// The last entry that the durable checkpoint of the replica contains: entries up to it may be purged.
    fn checkpointed(&self, replica: ReplicaId) -> Option<LogId>;

    /// The replica's state in the newest checkpoint.
    fn snapshot_of(&self, replica: ReplicaId) -> BoxFuture<'_, io::Result<Option<ReplicaSnapshot>>>;

    /// Batches of a partition for another member.
    fn export(
        &self,
        replica: ReplicaId,
        partition: PartitionId,
        offsets: Range<Offset>,
        bytes_max: usize,
    ) -> BoxFuture<'_, io::Result<Exported>>;

    /// The last pass of compaction over a partition here: see [`DataDir::pass_done`].
    fn pass_done(&self, _replica: ReplicaId, _partition: PartitionId) -> Option<PassDone> {
        None
    }

    /// Begins to import a snapshot.
    fn begin_import(self: Arc<Self>, replica: ReplicaId) -> Box<dyn SnapshotImport>;

    /// From now on `to` serves what `from` served of these partitions: see [`DataDir::move_partitions`].
    fn move_partitions(&self, _from: ReplicaId, _to: ReplicaId, _partitions: &[PartitionId]) -> Vec<ExtentKey> {
        Vec::new()
    }

    /// Creates the child of a split: see [`DataDir::create_child`].
    fn create_child(
        &self,
        _parent: ReplicaId,
        _split: RaftIndex,
        _creation: GroupCreation,
    ) -> BoxFuture<'_, io::Result<Arc<dyn EntryLog>>> {
        Box::pin(async { Err(io::Error::from(io::ErrorKind::Unsupported)) })
    }

    /// Makes a split real: see [`DataDir::commit_split`].
    fn commit_split(&self, _cut: SplitCut) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Err(io::Error::from(io::ErrorKind::Unsupported)) })
    }

    /// Makes a merge real: see [`DataDir::commit_merge`].
    fn commit_merge(&self, _cut: MergeCut) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Err(io::Error::from(io::ErrorKind::Unsupported)) })
    }

    /// False when records of a leader on another node must wait for space.
    fn accepts_replicated(&self) -> bool {
        true
    }

    /// Why the directory has failed for good, if it has.
    fn poisoned(&self) -> Option<Arc<str>> {
        None
    }
}

/// A snapshot that is being imported; dropped before it is committed, it leaves nothing that counts.
pub trait SnapshotImport: Send {
    /// Sorts partitions into the order in which they are best imported.
    fn order(&self, extents: &mut [Extent]);
    /// The first offset of the partition that is missing.
    fn position(&self, partition: PartitionId) -> Offset;
    /// What lies below the offset has expired. Called for each partition that the snapshot has: any other is dead with the import.
    fn skip_to(&mut self, partition: PartitionId, offset: Offset);
    /// Judges whether the next batches may come from a source that has done this pass: see [`Import::agree`].
    fn agree(&mut self, _partition: PartitionId, _source: Option<PassDone>, _end: Offset) -> Result<(), PassConflict> {
        Ok(())
    }
    /// Takes a partition from its log start on, after [`PassConflict::Anew`].
    fn begin_anew(&mut self, _partition: PartitionId) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
    /// Imports the next batch of a partition, verified.
    fn push(&mut self, partition: PartitionId, batch: ExportedBatch) -> BoxFuture<'_, io::Result<()>>;
    /// Completes the import: what was pushed is written. After an error some of it is missing again.
    fn seal(&mut self) -> BoxFuture<'_, io::Result<()>>;
    /// Installs everything in one transaction: state, batches, and the new start of the log.
    fn commit<'a>(self: Box<Self>, snapshot: &'a ReplicaSnapshot) -> BoxFuture<'a, io::Result<()>>;
}

impl SnapshotImport for Import {
    fn order(&self, extents: &mut [Extent]) {
        extents.sort_by_cached_key(|extent| (self.class_of(extent.partition), extent.partition));
    }

    fn position(&self, partition: PartitionId) -> Offset {
        Import::position(self, partition)
    }

    fn skip_to(&mut self, partition: PartitionId, offset: Offset) {
        Import::skip_to(self, partition, offset);
    }

    fn agree(&mut self, partition: PartitionId, source: Option<PassDone>, end: Offset) -> Result<(), PassConflict> {
        Import::agree(self, partition, source, end)
    }

    fn begin_anew(&mut self, partition: PartitionId) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(Import::begin_anew(self, partition))
    }

    fn push(&mut self, partition: PartitionId, batch: ExportedBatch) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(Import::push(self, partition, batch))
    }

    fn seal(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(Import::seal(self))
    }

    fn commit<'a>(self: Box<Self>, snapshot: &'a ReplicaSnapshot) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(Import::commit(*self, snapshot))
    }
}

impl Directory for DataDir {
    fn create_replica(&self, creation: GroupCreation) -> BoxFuture<'_, io::Result<Arc<dyn EntryLog>>> {
        Box::pin(async move {
            let log = DataDir::create_replica(self, creation).await?;
            Ok(Arc::new(log) as Arc<dyn EntryLog>)
        })
    }

    fn replica_log(&self, replica: ReplicaId) -> Option<Arc<dyn EntryLog>> {
        DataDir::replica_log(self, replica).map(|log| Arc::new(log) as Arc<dyn EntryLog>)
    }

    fn record_applied(&self, replica: ReplicaId, entry: &Entry, verdicts: &[Verdict]) -> io::Result<()> {
        DataDir::record_applied(self, replica, entry, verdicts)
    }

    fn register(&self, replica: ReplicaId, source: Weak<dyn CheckpointSource>) {
        DataDir::register(self, replica, source);
    }

    fn register_peers(&self, replica: ReplicaId, peers: Weak<dyn Peers>) {
        DataDir::register_peers(self, replica, peers);
    }

    fn checkpointed(&self, replica: ReplicaId) -> Option<LogId> {
        DataDir::checkpointed(self, replica)
    }

    fn snapshot_of(&self, replica: ReplicaId) -> BoxFuture<'_, io::Result<Option<ReplicaSnapshot>>> {
        Box::pin(DataDir::snapshot_of(self, replica))
    }

    fn export(
        &self,
        replica: ReplicaId,
        partition: PartitionId,
        offsets: Range<Offset>,
        bytes_max: usize,
    ) -> BoxFuture<'_, io::Result<Exported>> {
        let key = self.extent(replica, partition);
        let (from, up_to) = (offsets.start, offsets.end);
        let request = ReadRequest { key, from, up_to, bytes_max, at_least_one: true, wanted: Wanted::All };
        Box::pin(async move { DataDir::export(self, request).await.map_err(io::Error::other) })
    }

    fn pass_done(&self, replica: ReplicaId, partition: PartitionId) -> Option<PassDone> {
        DataDir::pass_done(self, replica, partition)
    }

    fn begin_import(self: Arc<Self>, replica: ReplicaId) -> Box<dyn SnapshotImport> {
        Box::new(DataDir::begin_import(&self, replica))
    }

    fn move_partitions(&self, from: ReplicaId, to: ReplicaId, partitions: &[PartitionId]) -> Vec<ExtentKey> {
        DataDir::move_partitions(self, from, to, partitions)
    }

    fn create_child(
        &self,
        parent: ReplicaId,
        split: RaftIndex,
        creation: GroupCreation,
    ) -> BoxFuture<'_, io::Result<Arc<dyn EntryLog>>> {
        Box::pin(async move {
            let log = DataDir::create_child(self, parent, split, creation).await?;
            Ok(Arc::new(log) as Arc<dyn EntryLog>)
        })
    }

    fn commit_split(&self, cut: SplitCut) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move { DataDir::commit_split(self, cut).await.map_err(io::Error::from) })
    }

    fn commit_merge(&self, cut: MergeCut) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move { DataDir::commit_merge(self, cut).await.map_err(io::Error::from) })
    }

    fn accepts_replicated(&self) -> bool {
        DataDir::accepts_replicated(self)
    }

    fn poisoned(&self) -> Option<Arc<str>> {
        DataDir::poisoned(self)
    }
}

/// One replica's log; the calls are those of [`ReplicaLog`].
pub trait EntryLog: Send + Sync + 'static {
    /// The replica.
    fn id(&self) -> ReplicaId;
    /// Puts this log's writes first in every commit, up to a quarter of it: for metadata and coordinators.
    fn set_priority(&self, first: bool);
    /// Appends entries, readable when this returns; `on_synced` is called when they are durable, in order.
    fn append(&self, entries: Vec<Entry>, on_synced: OnSynced);
    /// Marks the replica as lost, durably.
    fn mark_lost(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
    /// Makes a vote durable.
    fn save_vote(&self, vote: Vote) -> BoxFuture<'_, io::Result<()>>;
    /// Voids the entries after `last` (all, if `None`); durable when it completes.
    fn truncate_after(&self, last: Option<LogId>) -> BoxFuture<'_, io::Result<()>>;
    /// Purges the entries up to `upto`, which may lie beyond the last one.
    fn purge(&self, upto: LogId) -> BoxFuture<'_, io::Result<()>>;
    /// The newest vote.
    fn vote(&self) -> Option<Vote>;
    /// The newest entry, or the last purged one.
    fn last_log_id(&self) -> Option<LogId>;
    /// The newest entry that is durable, or the last purged one.
    fn last_synced(&self) -> Option<LogId>;
    /// The last purged entry.
    fn purged(&self) -> Option<LogId>;
    /// The id of one entry, without reading it.
    fn log_id(&self, index: RaftIndex) -> Option<LogId>;
    /// The last entry after which more than `bytes` were written to the whole log, by all replicas.
    fn behind(&self, bytes: u64) -> Option<LogId>;
    /// Entries of `range` from the front, stopping before `bytes_max` is passed but after at least one.
    fn read(&self, range: EntryRange, bytes_max: usize) -> BoxFuture<'_, io::Result<Vec<Entry>>>;
    /// As `read`, for apply alone: records that are damaged on disk are returned as they are, under sound headers.
    fn read_to_apply(&self, range: EntryRange, bytes_max: usize) -> BoxFuture<'_, io::Result<Vec<Entry>>>;
}

impl EntryLog for ReplicaLog {
    fn id(&self) -> ReplicaId {
        ReplicaLog::id(self)
    }
    fn set_priority(&self, first: bool) {
        ReplicaLog::set_priority(self, first);
    }
    fn append(&self, entries: Vec<Entry>, on_synced: OnSynced) {
        ReplicaLog::append(self, entries, on_synced);
    }
    fn mark_lost(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(ReplicaLog::mark_lost(self))
    }
    fn save_vote(&self, vote: Vote) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(ReplicaLog::save_vote(self, vote))
    }
    fn truncate_after(&self, last: Option<LogId>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(ReplicaLog::truncate_after(self, last))
    }
    fn purge(&self, upto: LogId) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(ReplicaLog::purge(self, upto))
    }
    fn vote(&self) -> Option<Vote> {
        ReplicaLog::vote(self)
    }
    fn last_log_id(&self) -> Option<LogId> {
        ReplicaLog::last_log_id(self)
    }
    fn last_synced(&self) -> Option<LogId> {
        ReplicaLog::last_synced(self)
    }
    fn purged(&self) -> Option<LogId> {
        ReplicaLog::purged(self)
    }
    fn log_id(&self, index: RaftIndex) -> Option<LogId> {
        ReplicaLog::log_id(self, index)
    }
    fn behind(&self, bytes: u64) -> Option<LogId> {
        ReplicaLog::behind(self, bytes)
    }
    fn read(&self, range: EntryRange, bytes_max: usize) -> BoxFuture<'_, io::Result<Vec<Entry>>> {
        Box::pin(ReplicaLog::read(self, range, bytes_max))
    }
    fn read_to_apply(&self, range: EntryRange, bytes_max: usize) -> BoxFuture<'_, io::Result<Vec<Entry>>> {
        Box::pin(ReplicaLog::read_to_apply(self, range, bytes_max))
    }
}
