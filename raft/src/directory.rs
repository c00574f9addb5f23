//! What Raft needs of a data directory: a log per replica, a place for verdicts, and checkpoints.
//!
//! May not know: files. `DataDir` is the real one.

use std::io;
use std::sync::Weak;

use futures_util::future::BoxFuture;
use ottla_storage::checkpoint::CutSource;
use ottla_storage::entry::{Entry, Verdict};
use ottla_storage::ids::{LogId, ReplicaId};
use ottla_storage::log::{GroupCreation, ReplicaLog};

/// A data directory, as seen by the replicas in it.
pub trait Directory: Send + Sync + 'static {
    /// Begins a replica's log; durable when this returns.
    fn create_replica(&self, creation: GroupCreation) -> BoxFuture<'_, io::Result<ReplicaLog>>;

    /// The log of a replica that is there.
    fn replica_log(&self, replica: ReplicaId) -> Option<ReplicaLog>;

    /// Notes what apply decided about an entry. Called for every applied entry, in order, before readers may see it.
    fn record_applied(&self, replica: ReplicaId, entry: &Entry, verdicts: &[Verdict]) -> io::Result<()>;

    /// Where the checkpointer gets the replica's cuts; held weakly.
    fn register(&self, replica: ReplicaId, source: Weak<dyn CutSource>);

    /// The last entry that the oldest kept checkpoint of the replica contains: entries up to it may be purged.
    fn oldest_kept(&self, replica: ReplicaId) -> Option<LogId>;
}
