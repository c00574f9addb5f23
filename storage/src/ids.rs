//! The numbers of the log, as types that never convert silently.

use std::fmt;

/// One shard's copy on one node, a Raft member. Never used again once it is gone (design section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReplicaId(pub u64);

/// Raft term of a shard. Not a Kafka leader epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

/// Index of an entry in a shard's Raft log. Not a Kafka offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RaftIndex(pub u64);

/// Identity of an entry. With one leader per term (`leader_id_std`) term and index suffice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId {
    /// Term of the leader that proposed the entry.
    pub term: Term,
    /// Place of the entry in the shard's log.
    pub index: RaftIndex,
}

/// A place in the log of one data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// Sequence number of the segment file.
    pub segment: u64,
    /// Byte within the segment; segments stay far below 4 GiB.
    pub byte: u32,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term.0, self.index.0)
    }
}
