//! A partition as Metadata and DescribeTopicPartitions show it: leader, epoch, replicas, in-sync replicas.
//!
//! May not know: which API asks.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::BrokerId;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;

use crate::metadata::{MetadataImage, Topic};
use crate::partition::Leaders;
use crate::server::Context;

/// What clients are told of a partition's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartitionView {
    pub(super) error: ErrorCode,
    pub(super) leader: BrokerId,
    pub(super) leader_epoch: i32,
    pub(super) replicas: Vec<BrokerId>,
    pub(super) in_sync: Vec<BrokerId>,
    /// Replicas on nodes that are fenced or not registered.
    pub(super) offline: Vec<BrokerId>,
}

/// Looks partitions up for one answer; each shard and each node is looked at once.
pub(super) struct Views<'a> {
    ctx: &'a Context,
    image: &'a MetadataImage,
    leaders: Leaders,
    reachable: BTreeMap<NodeId, bool>,
    /// Leaders that were named.
    named: BTreeSet<NodeId>,
}

impl<'a> Views<'a> {
    pub(super) fn new(ctx: &'a Context, image: &'a MetadataImage) -> Self {
        let leaders = ctx.partitions.leaders();
        Self { ctx, image, leaders, reachable: BTreeMap::new(), named: BTreeSet::new() }
    }

    /// The leaders that were named until now.
    pub(super) fn named(self) -> BTreeSet<NodeId> {
        self.named
    }

    /// The place of partition `index`; LEADER_NOT_AVAILABLE while its shard has no leader that this node knows of, and
    /// LISTENER_NOT_FOUND if the leader cannot be reached over the client's listener.
    pub(super) fn of(&mut self, topic: &Topic, index: i32) -> PartitionView {
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
        self.named.extend(Some(leader).filter(|leader| leader.0 >= 0));
        PartitionView {
            error,
            leader: BrokerId(leader.0),
            leader_epoch: found.epoch.0,
            offline: found.offline.iter().map(|node| BrokerId(node.0)).collect(),
            replicas: found.replicas.iter().map(|node| BrokerId(node.0)).collect(),
            in_sync: found.in_sync.iter().map(|node| BrokerId(node.0)).collect(),
        }
    }
}
