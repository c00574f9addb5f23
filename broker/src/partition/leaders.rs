//! The leaders of partitions, as far as this node knows: for answers about one partition or about thousands.
//!
//! Each shard is read once, so one answer does not name two leaders of one shard. May not know: what is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_protocol::ids::{LeaderEpoch, NodeId};

use super::types::Leadership;
use crate::metadata::{MetadataImage, NodeRecord, ShardId, Topic};
use crate::replicated::shard_state::epoch_of;
use crate::shard::{Shard, Shards, leader_known_to};

/// The leaders of partitions as of one moment.
pub struct Leaders {
    image: Arc<MetadataImage>,
    shards: Shards,
    views: BTreeMap<ShardId, ShardView>,
}

/// A shard's replicas and leader when it was read.
struct ShardView {
    replicas: Vec<NodeId>,
    in_sync: Vec<NodeId>,
    offline: Vec<NodeId>,
    /// The shard, if it has a replica here, the leader's node and the term.
    led: Option<(Option<Arc<Shard>>, NodeId, u64)>,
}

/// One partition's leadership, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Leader<'a> {
    /// The leader's node, if known.
    pub node: Option<NodeId>,
    /// The partition's leader epoch, -1 if unknown.
    pub epoch: LeaderEpoch,
    /// Nodes that hold a replica or are to, in the shard's order; those that are about to leave last.
    pub replicas: &'a [NodeId],
    /// Voters that have caught up, without those that are offline.
    pub in_sync: &'a [NodeId],
    /// Replicas on nodes that are fenced or not registered.
    pub offline: &'a [NodeId],
}

impl Leaders {
    pub(super) fn new(shards: Shards) -> Self {
        Self { image: shards.metadata().image(), shards, views: BTreeMap::new() }
    }

    /// The leader of a partition.
    pub fn of(&mut self, topic: &Topic, index: i32) -> Leader<'_> {
        let unknown = LeaderEpoch(-1);
        let Some(route) = topic.route(index) else {
            return Leader { node: None, epoch: unknown, replicas: &[], in_sync: &[], offline: &[] };
        };
        let view = self.views.entry(route.shard).or_insert_with(|| view_of(&self.image, &self.shards, route.shard));
        let (node, epoch) = match &view.led {
            None => (None, unknown),
            Some((shard, node, term)) => {
                let adopted = shard.as_ref().and_then(|shard| shard.read_view().get(topic.partition(index)));
                let adopted_base = adopted.map(|view| view.epoch_base());
                let base = adopted_base.map_or(route.epoch_base, |base| base.max(route.epoch_base));
                led_since(base, *node, *term)
            }
        };
        let ShardView { replicas, in_sync, offline, .. } = view;
        Leader { node, epoch, replicas, in_sync, offline }
    }
}

/// A partition's leader and its epoch, of the leader of its shard in `term`. A term older than the partition is that of a
/// deposed leader, which does not have the partition: none is known.
fn led_since(epoch_base: i32, node: NodeId, term: u64) -> (Option<NodeId>, LeaderEpoch) {
    match epoch_of(epoch_base, term) {
        epoch if epoch >= LeaderEpoch(0) => (Some(node), epoch),
        _ => (None, LeaderEpoch(-1)),
    }
}

fn view_of(image: &MetadataImage, shards: &Shards, id: ShardId) -> ShardView {
    let Some(record) = image.shard(id) else {
        return ShardView { replicas: Vec::new(), in_sync: Vec::new(), offline: Vec::new(), led: None };
    };
    let (remote, here) = (shards.remote_leader_of(id), shards.get(id));
    let led = match &here {
        Some(shard) => leader_known_to(shard, image).map(|(leader, term)| (here.clone(), leader, term)),
        None => remote.as_ref().map(|(node, led)| (None, *node, led.term)),
    };
    // The leader knows who is in sync; other nodes have it from the leader's last update.
    let in_sync = here.filter(|shard| shard.leading().is_some()).map(|shard| shard.in_sync());
    let in_sync = in_sync.or_else(|| remote.map(|(_, led)| led.in_sync));
    let in_sync: Vec<NodeId> = match in_sync {
        Some(known) => {
            record.members().filter(|replica| known.contains(&replica.id)).map(|replica| replica.node).collect()
        }
        None => record.in_sync_nodes(),
    };
    // This node is alive, and so is the leader, whatever the image records.
    let leader = led.as_ref().map(|(_, node, _)| *node);
    let is_here = |node: NodeId| node == shards.node() || Some(node) == leader;
    let is_offline = |node: &NodeId| !is_here(*node) && image.nodes.get(node).is_none_or(NodeRecord::is_fenced);
    let replicas = record.nodes();
    let offline = replicas.iter().copied().filter(is_offline).collect();
    ShardView { in_sync: online(in_sync, is_offline), replicas, offline, led }
}

/// Those in sync that are not offline. If all are offline they stay, as with Kafka: they have what is committed.
fn online(in_sync: Vec<NodeId>, is_offline: impl Fn(&NodeId) -> bool) -> Vec<NodeId> {
    if in_sync.iter().all(&is_offline) {
        return in_sync;
    }
    in_sync.into_iter().filter(|node| !is_offline(node)).collect()
}

impl From<Leader<'_>> for Leadership {
    fn from(leader: Leader<'_>) -> Self {
        Self {
            leader: leader.node,
            leader_epoch: leader.epoch,
            replicas: leader.replicas.to_vec(),
            in_sync: leader.in_sync.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_of_before_a_partition_was_created_does_not_lead_it() {
        let created_in_term_3 = -3;
        assert_eq!(led_since(created_in_term_3, NodeId(1), 3), (Some(NodeId(1)), LeaderEpoch(0)));
        assert_eq!(led_since(created_in_term_3, NodeId(1), 2), (None, LeaderEpoch(-1)));
    }
}
