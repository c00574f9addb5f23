//! A partition as Metadata and DescribeTopicPartitions show it: leader, epoch, replicas, in-sync replicas.
//!
//! May not know: which API calls.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::BrokerId;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;

use crate::handlers::context::Context;
use crate::metadata::{MetadataImage, Topic};
use crate::partition::Leaders;

/// The leader and replicas of a partition as a response shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::handlers) struct PartitionMetadata {
    pub(in crate::handlers) error: ErrorCode,
    pub(in crate::handlers) leader: BrokerId,
    pub(in crate::handlers) leader_epoch: i32,
    pub(in crate::handlers) replicas: Vec<BrokerId>,
    pub(in crate::handlers) in_sync: Vec<BrokerId>,
    /// Replicas on nodes that are fenced or not registered.
    pub(in crate::handlers) offline: Vec<BrokerId>,
}

/// Looks partitions up for one response; each shard and each node is looked up once.
pub(in crate::handlers) struct PartitionLookup<'a> {
    ctx: &'a Context,
    image: &'a MetadataImage,
    leaders: Leaders,
    /// The leaders so far; the response names those that can be reached.
    reachable: BTreeMap<NodeId, bool>,
}

impl<'a> PartitionLookup<'a> {
    pub(in crate::handlers) fn new(ctx: &'a Context, image: &'a MetadataImage) -> Self {
        let leaders = ctx.partitions.leaders();
        Self { ctx, image, leaders, reachable: BTreeMap::new() }
    }

    /// The leaders that the response names.
    pub(in crate::handlers) fn named(self) -> BTreeSet<NodeId> {
        self.reachable.into_iter().filter(|(_, can_be)| *can_be).map(|(leader, _)| leader).collect()
    }

    /// The metadata of partition `index`; LEADER_NOT_AVAILABLE while this node knows no leader of its shard, and
    /// LISTENER_NOT_FOUND if the leader cannot be reached over the client's listener.
    pub(in crate::handlers) fn of(&mut self, topic: &Topic, index: i32) -> PartitionMetadata {
        let (ctx, image) = (self.ctx, self.image);
        let found = self.leaders.of(topic, index);
        let mut reachable = |node: NodeId| {
            *self.reachable.entry(node).or_insert_with(|| {
                image.nodes.get(&node).is_some_and(|record| record.endpoint(&ctx.connection.peer.listener).is_some())
            })
        };
        let (error, leader) = match found.node {
            Some(leader) if reachable(leader) => (ErrorCode::None, leader),
            Some(_) => (ErrorCode::ListenerNotFound, NodeId(-1)),
            None => (ErrorCode::LeaderNotAvailable, NodeId(-1)),
        };
        PartitionMetadata {
            error,
            leader: BrokerId(leader.0),
            leader_epoch: found.epoch.0,
            offline: found.offline.iter().map(|node| BrokerId(node.0)).collect(),
            replicas: found.replicas.iter().map(|node| BrokerId(node.0)).collect(),
            in_sync: found.in_sync.iter().map(|node| BrokerId(node.0)).collect(),
        }
    }
}
