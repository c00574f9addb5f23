//! One step of the balancer, and why it is taken.
//!
//! May not know: how steps are chosen, how they are carried out.

use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;
use uuid::Uuid;

use crate::codec::record;
use crate::metadata::image::ShardId;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// What is changed.
    pub change: Change,
    /// Why, in one sentence.
    pub reason: String,
}

/// What a step changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A shard's replicas are to be on these nodes, the preferred leader first.
    Replicas {
        /// The shard.
        shard: ShardId,
        /// Its replicas when this was planned; later it is void.
        before: Vec<ReplicaId>,
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// Partitions of a shard become a shard of their own.
    Split {
        /// The shard.
        shard: ShardId,
        /// Topic and number of each.
        partitions: Vec<(Uuid, i32)>,
    },
    /// A shard is merged into one of these, or moved beside the first of them, to be merged later.
    Merge {
        /// The shard, which ends with that.
        shard: ShardId,
        /// The shards that may take it over.
        into: Vec<ShardId>,
    },
}

record! {
    Action { change, reason }
    enum Change {
        0 Replicas { shard, before, nodes },
        1 Split { shard, partitions },
        2 Merge { shard, into },
    }
}

impl Change {
    /// The shard that is changed.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        match self {
            Self::Replicas { shard, .. } | Self::Split { shard, .. } | Self::Merge { shard, .. } => *shard,
        }
    }
}

/// A rate for people.
pub(super) fn rate(bytes_per_second: u64) -> String {
    let rate = bytes_per_second as f64;
    if rate < 1e6 { format!("{:.1} kB/s", rate / 1e3) } else { format!("{:.1} MB/s", rate / 1e6) }
}
