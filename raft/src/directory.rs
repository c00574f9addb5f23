//! What Raft needs of a data directory: a log per replica, a place for verdicts, and checkpoints.
//!
//! May not know: files. `DataDir` and `ReplicaLog` are the real ones; tests bring others.

use std::io;
use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use ottla_storage::checkpoint::CutSource;
use ottla_storage::data_dir::DataDir;
use ottla_storage::entry::{Entry, Verdict, Vote};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId};
use ottla_storage::log::{EntryRange, GroupCreation, OnSynced, ReplicaLog};

/// A data directory, as seen by the replicas in it.
pub trait Directory: Send + Sync + 'static {
    /// Begins a replica's log; durable when this returns.
    fn create_replica(&self, creation: GroupCreation) -> BoxFuture<'_, io::Result<Arc<dyn EntryLog>>>;

    /// The log of a replica that is there.
    fn replica_log(&self, replica: ReplicaId) -> Option<Arc<dyn EntryLog>>;

    /// Notes what apply decided about an entry. Called for every applied entry, in order, before readers may see it.
    fn record_applied(&self, replica: ReplicaId, entry: &Entry, verdicts: &[Verdict]) -> io::Result<()>;

    /// Where the checkpointer gets the replica's cuts; held weakly.
    fn register(&self, replica: ReplicaId, source: Weak<dyn CutSource>);

    /// The last entry that the durable checkpoint of the replica contains: entries up to it may be purged.
    fn checkpointed(&self, replica: ReplicaId) -> Option<LogId>;
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

    fn register(&self, replica: ReplicaId, source: Weak<dyn CutSource>) {
        DataDir::register(self, replica, source);
    }

    fn checkpointed(&self, replica: ReplicaId) -> Option<LogId> {
        DataDir::checkpointed(self, replica)
    }
}

/// One replica's log; the calls are those of [`ReplicaLog`].
pub trait EntryLog: Send + Sync + 'static {
    /// The replica.
    fn id(&self) -> ReplicaId;
    /// First in every commit, up to a quarter of it: for metadata and coordinators.
    fn set_priority(&self, first: bool);
    /// Appends entries, readable when this returns; `on_synced` is called when they are durable, in order.
    fn append(&self, entries: Vec<Entry>, on_synced: OnSynced);
    /// Makes a vote durable.
    fn save_vote(&self, vote: Vote) -> BoxFuture<'_, io::Result<()>>;
    /// Voids the entries after `last` (all, if `None`); durable when it completes.
    fn truncate_after(&self, last: Option<LogId>) -> BoxFuture<'_, io::Result<()>>;
    /// Forgets the entries up to `upto`, which may lie beyond the last one.
    fn purge(&self, upto: LogId) -> BoxFuture<'_, io::Result<()>>;
    /// The newest vote.
    fn vote(&self) -> Option<Vote>;
    /// The newest entry, or what was purged.
    fn last_log_id(&self) -> Option<LogId>;
    /// The newest entry that is durable, or what was purged.
    fn last_synced(&self) -> Option<LogId>;
    /// Up to where entries are purged.
    fn purged(&self) -> Option<LogId>;
    /// The id of one entry, without reading it.
    fn log_id(&self, index: RaftIndex) -> Option<LogId>;
    /// Entries of `range` from the front, stopping before `bytes_max` is passed but after at least one.
    fn read(&self, range: EntryRange, bytes_max: usize) -> BoxFuture<'_, io::Result<Vec<Entry>>>;
    /// As `read`, for apply alone: records that are damaged on disk come as they are, under sound headers.
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
    fn read(&self, range: EntryRange, bytes_max: usize) -> BoxFuture<'_, io::Result<Vec<Entry>>> {
        Box::pin(ReplicaLog::read(self, range, bytes_max))
    }
    fn read_to_apply(&self, range: EntryRange, bytes_max: usize) -> BoxFuture<'_, io::Result<Vec<Entry>>> {
        Box::pin(ReplicaLog::read_to_apply(self, range, bytes_max))
    }
}
