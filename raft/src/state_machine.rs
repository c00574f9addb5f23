//! What a shard's state is to Raft: something that applies entries in order, and can be cut.
//!
//! May not know: openraft.

use std::any::Any;
use std::io;

use bytes::Bytes;
use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::entry::{Entry, Verdict};
use ottla_storage::ids::LogId;

/// What apply answers to whoever proposed the entry; only the proposer knows its type.
pub struct Reply(pub Box<dyn Any + Send + Sync>);

impl Reply {
    /// Wraps an answer.
    pub fn new<T: Any + Send + Sync>(answer: T) -> Self {
        Reply(Box::new(answer))
    }

    /// The answer of a state machine that has nothing to say.
    #[must_use]
    pub fn none() -> Self {
        Reply::new(())
    }

    /// The answer, if it is a `T`.
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
#[derive(Debug)]
pub struct Applied {
    /// One verdict per batch of the entry, in its order.
    pub verdicts: Vec<Verdict>,
    /// The answer to the proposer.
    pub reply: Reply,
}

/// The batches of one partition that belong to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The partition.
    pub partition: PartitionId,
    /// Where it begins.
    pub log_start: Offset,
    /// One beyond its last record.
    pub end: Offset,
}

/// The replicated state of one shard. A pure function of the entries applied: no configuration, local
/// clock, randomness or hash order. A panic stops this replica and nothing else.
pub trait StateMachine: Send + 'static {
    /// Applies a normal entry.
    fn apply(&mut self, entry: &Entry) -> Applied;

    /// Apply reads the records of batches, not their heads alone: without them the replica cannot go on.
    fn needs_records(&self) -> bool {
        false
    }

    /// What apply will read of the entry is sound; else what is damaged. The replica then stops, with the state of the entry
    /// before.
    fn check(&self, _entry: &Entry) -> Result<(), String> {
        Ok(())
    }

    /// A leader's first entry, which has no content, was applied: its term has begun.
    fn term_started(&mut self, log_id: LogId);

    /// What stood at this entry, or behind it, is gone, and an operator has the replica go on without it
    /// ([`crate::accept_loss`]): what was decided by it, and by everything behind it, is not known.
    fn entries_lost(&mut self, _log_id: LogId) {}

    /// The group's members changed at this entry.
    fn membership_changed(&mut self, _log_id: LogId) {}

    /// Called after what was applied is recorded in the batch index: only now may watermarks move and
    /// readers see it. One call may cover several entries.
    fn publish(&mut self);

    /// The keys that changed since the last cut, with their values (`None`: removed).
    fn cut(&mut self) -> Vec<(Bytes, Option<Bytes>)>;

    /// Checksum of the replicated state; equal on all replicas that applied the same index.
    fn checksum(&self) -> u64;

    /// What batches belong to a state, as another replica cut it: `state` is keys and values in the order of the keys.
    fn extents(&self, state: &[(Bytes, Bytes)]) -> io::Result<Vec<Extent>>;

    /// Puts a state in place of the own one, and shows it: everything up to `applied` is in it.
    fn install(&mut self, applied: LogId, state: &[(Bytes, Bytes)]) -> io::Result<()>;
}
