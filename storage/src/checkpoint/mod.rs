//! The checkpoint: every replica's state at a Raft index of its own, in one append-only file of delta transactions.
//!
//! May not know: what a key or a value means.

use bytes::Bytes;

use crate::ids::{LogId, ReplicaId};

/// The state of one replica between two of its entries: what changed since the cut before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Whose state.
    pub replica: ReplicaId,
    /// The last entry that the state contains.
    pub applied: LogId,
    /// The membership in force at `applied`, encoded by Raft.
    pub membership: Bytes,
    /// Keys with their new values; `None` removes the key.
    pub changes: Vec<(Bytes, Option<Bytes>)>,
    /// Checksum of the replicated state at `applied`.
    pub checksum: u64,
}

/// Whoever can be asked for a cut of one replica's state.
pub trait CutSource: Send + Sync {
    /// The changes since the last call; `None` if nothing was applied since. What is returned is never asked
    /// for again: if it cannot be made durable the whole directory fails.
    fn cut(&self) -> Option<Cut>;
}
