//! The numbers of the log, as types that never convert silently.

use std::fmt;

/// One shard's copy on one node, a Raft member. The id is never used again after its removal (design section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReplicaId(pub u64);

/// One stay of a partition's bytes in a data directory, whichever replicas wrote them and serve them now (design section 8).
/// It never leaves the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lineage(pub u64);

impl Lineage {
    /// The lineage that a replica's bytes begin with.
    #[must_use]
    pub const fn of(replica: ReplicaId) -> Self {
        Self(replica.0)
    }
}

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
    /// Index of the entry in the shard's log.
    pub index: RaftIndex,
}

/// A run of one data directory. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RunId(pub u64);

/// From here on the number of a file means a run, below it a segment: far more segments than any disk will ever see.
const FIRST_RUN: u64 = 1 << 62;

impl RunId {
    /// The file number of positions in this run.
    #[must_use]
    pub const fn file_number(self) -> u64 {
        FIRST_RUN | self.0
    }

    /// The run of a file number; `None` if it means a segment.
    #[must_use]
    pub const fn of_file(number: u64) -> Option<Self> {
        if number >= FIRST_RUN { Some(Self(number & (FIRST_RUN - 1))) } else { None }
    }
}

/// A position in the log of one data directory, or in one of its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// Sequence number of the segment file, or the file number of a run.
    pub segment: u64,
    /// Byte within the segment; segments stay far below 4 GiB.
    pub byte: u32,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term.0, self.index.0)
    }
}
