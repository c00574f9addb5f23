//! The number of a shard.
//!
//! May not know: what a shard carries.

use std::fmt;

/// One Raft group that carries partitions (or the metadata). Ids are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardId(pub u64);

impl ShardId {
    /// The shard that is the metadata group itself.
    pub const METADATA: ShardId = ShardId(0);
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
