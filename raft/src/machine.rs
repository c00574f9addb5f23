//! What a shard's state is to Raft: something that applies entries in order, and can be cut.
//!
//! May not know: openraft.

use std::any::Any;

use bytes::Bytes;
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

/// The replicated state of one shard. A pure function of the entries applied: no configuration, local
/// clock, randomness or hash order. A panic stops this replica and nothing else.
pub trait StateMachine: Send + 'static {
    /// Applies a normal entry.
    fn apply(&mut self, entry: &Entry) -> Applied;

    /// A leader's first entry, which has no content, was applied: its term has begun.
    fn term_started(&mut self, log_id: LogId);

    /// Called after what was applied is recorded in the batch index: only now may watermarks move and
    /// readers see it. One call may cover several entries.
    fn publish(&mut self);

    /// The keys that changed since the last cut, with their values (`None`: removed).
    fn cut(&mut self) -> Vec<(Bytes, Option<Bytes>)>;

    /// Checksum of the replicated state; equal on all replicas that applied the same index.
    fn checksum(&self) -> u64;
}
