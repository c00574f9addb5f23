//! The state machine of a shard, as Raft uses it: it applies entries in order, and its state can be cut.
//!
//! May not know: openraft.

use std::any::Any;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::checkpoint::StateDelta;
use ottla_storage::entry::{Entry, Verdict};
use ottla_storage::ids::{LogId, ReplicaId};

use crate::membership::Membership;

/// The reply of apply to the proposer of the entry; only the proposer knows its type.
pub struct Reply(pub Box<dyn Any + Send + Sync>);

impl Reply {
    /// Wraps a reply.
    pub fn new<T: Any + Send + Sync>(answer: T) -> Self {
        Reply(Box::new(answer))
    }

    /// The reply of a state machine that returns nothing.
    #[must_use]
    pub fn none() -> Self {
        Reply::new(())
    }

    /// The reply, if it is a `T`.
    #[must_use]
    pub fn take<T: Any>(self) -> Option<T> {
        self.0.downcast().ok().map(|boxed| *boxed)
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

/// What apply decided about one entry.
pub struct Applied {
    /// One verdict per batch of the entry, in its order.
    pub verdicts: Vec<Verdict>,
    /// The reply to the proposer.
    pub reply: Reply,
    /// What the entry has split off, if it is a split.
    pub split_off: Option<Box<SplitOff>>,
    /// What the entry has taken over, if it is a merge.
    pub absorbed: Option<Absorbed>,
}

/// What an entry has taken over of another replica here, whose state has nothing of it any more.
pub struct Absorbed {
    /// The other replica.
    pub from: Arc<dyn AbsorbedReplica>,
    /// The partitions that are served by this replica from now on.
    pub partitions: Vec<PartitionId>,
}

/// A replica whose state another one here takes over: [`crate::GroupHandle::to_absorb`].
pub trait AbsorbedReplica: Send + Sync {
    /// The replica.
    fn replica(&self) -> ReplicaId;
    /// From now on it gives no cut to a checkpoint. Called before its state is taken: one without what was taken must not become
    /// durable by itself.
    fn begin_merge(&self);
    /// Cuts its state, with what no checkpoint has taken of earlier cuts.
    ///
    /// # Errors
    /// When it has failed: its state may be anything.
    fn cut(&self) -> io::Result<StateDelta>;
    /// Readers find there that the partitions are gone.
    fn publish(&self);
    /// What was cut is durable.
    fn end_merge(&self);
}

/// What an entry has split off the state of a replica.
pub struct SplitOff {
    /// The child's replica here.
    pub child: ReplicaId,
    /// All replicas of the child: one for each member of the parent.
    pub members: Membership,
    /// Data that the child's shard stores about itself.
    pub shard: Bytes,
    /// The partitions that the child serves from now on.
    pub partitions: Vec<PartitionId>,
    /// The child's state, all of which its first cut returns. It is not published before the child owns its bytes.
    pub state_machine: Box<dyn StateMachine>,
}

/// The batches of one partition that belong to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The partition.
    pub partition: PartitionId,
    /// Its first offset.
    pub log_start: Offset,
    /// The offset after its last record.
    pub end: Offset,
}

/// The replicated state of one shard. A pure function of the entries applied: no configuration, local
/// clock, randomness or hash order. A panic stops this replica and nothing else.
pub trait StateMachine: Send + 'static {
    /// What apply of an entry needs of another replica here, if anything: it is applied when that is there. The error says why
    /// it never will be; the replica is then as lost as the other one is.
    fn prerequisite(&self, _entry: &Entry) -> Option<BoxFuture<'static, Result<(), String>>> {
        None
    }

    /// Applies a normal entry. `members`: those of the group at this entry.
    fn apply(&mut self, entry: &Entry, members: &Membership) -> Applied;

    /// True if apply reads the records of batches, not their headers alone: without them the replica cannot continue.
    fn needs_records(&self) -> bool {
        false
    }

    /// True while a snapshot does not hold what a member that lags needs: it gets the entries, however far behind it is.
    fn needs_entries(&self) -> bool {
        false
    }

    /// Checks that what apply will read of the entry is sound; an error names the damage. The replica then stops, with
    /// the state of the entry before.
    fn check(&self, _entry: &Entry) -> Result<(), String> {
        Ok(())
    }

    /// A leader's first entry, which has no content, was applied: its term has begun.
    fn term_started(&mut self, log_id: LogId);

    /// The entry at `log_id`, or entries after it, are lost, and an operator has ordered the replica to continue
    /// without them ([`crate::accept_loss`]): what was decided by them, and by everything after them, is unknown.
    fn entries_lost(&mut self, _log_id: LogId) {}

    /// The group's membership changed at this entry.
    fn membership_changed(&mut self, _log_id: LogId) {}

    /// Called after what was applied is recorded in the batch index: only now may watermarks move and readers see it.
    /// One call may cover several entries.
    fn publish(&mut self);

    /// The keys that changed since the last cut, with their values (`None`: removed).
    fn cut(&mut self) -> Vec<(Bytes, Option<Bytes>)>;

    /// Checksum of the replicated state; equal on all replicas that applied the same index.
    fn checksum(&self) -> u64;

    /// The batches that belong to a state that another replica cut: `state` is keys and values in the order of the
    /// keys.
    fn extents(&self, state: &[(Bytes, Bytes)]) -> io::Result<Vec<Extent>>;

    /// Replaces the state and publishes it: it contains everything up to `applied`.
    fn install(&mut self, applied: LogId, state: &[(Bytes, Bytes)]) -> io::Result<()>;
}
