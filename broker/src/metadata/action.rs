//! One step of the balancer, why it is taken, and what the metadata keeps of one that was taken.
//!
//! May not know: how steps are chosen, how they are carried out.

use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;
use uuid::Uuid;

use super::shard_id::ShardId;
use crate::codec::record;
use crate::levels::FeatureLevel;

/// The feature level from which on the metadata keeps what was done.
pub(super) const KEPT_FROM: FeatureLevel = FeatureLevel(6);

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

/// A step that is to be taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// What, and why.
    pub action: Action,
    /// Wall clock of the controller, milliseconds; 0 below the level from which on the step is kept.
    pub at_ms: i64,
}

/// An action that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Wall clock of the controller, milliseconds.
    pub at_ms: i64,
    /// What was done. Of a split without the partitions, which may be thousands.
    pub action: Action,
}

/// What the metadata keeps of an action, so that the next controller knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionRecord {
    /// What was done, and when.
    pub done: Done,
    /// The nodes from which replicas went elsewhere.
    pub left: Vec<NodeId>,
    /// The topic whose shards were split or merged.
    pub topic: Option<Uuid>,
}

record! {
    Action { change, reason }
    // Releases before feature level 6 know no time.
    Step as UndatedStep { action; without at_ms = 0 }
    Step as DatedStep { action, at_ms }
    Done { at_ms, action }
    ActionRecord { done, left, topic }
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
