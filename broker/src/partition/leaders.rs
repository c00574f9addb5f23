//! Who leads partitions, as far as this node knows: for answers about one partition or about thousands.
//!
//! Each shard is looked at once, so one answer does not tell of two leaders of one shard. May not know: what is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_protocol::ids::{LeaderEpoch, NodeId};

use super::types::Leadership;
use crate::metadata::{MetadataImage, ShardId, Topic};
use crate::shard::state::epoch_of;
use crate::shard::{Shard, Shards};

/// The leaders of partitions as of one moment.
pub struct Leaders {
    image: Arc<MetadataImage>,
    shards: Shards,
    seen: BTreeMap<ShardId, Seen>,
}

/// A shard when it was looked at.
struct Seen {
    replicas: Vec<NodeId>,
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
    /// Nodes that hold a replica, in the shard's order.
    pub replicas: &'a [NodeId],
    /// Voters that have caught up.
    pub in_sync: &'a [NodeId],
}

impl Leaders {
    pub(super) fn new(shards: Shards) -> Self {
        Self { image: shards.registry().image(), shards, seen: BTreeMap::new() }
    }

    /// Who leads a partition.
    pub fn of(&mut self, topic: &Topic, index: i32) -> Leader<'_> {
        let unknown = LeaderEpoch(-1);
        let Some(route) = topic.route(index) else {
            return Leader { node: None, epoch: unknown, replicas: &[], in_sync: &[] };
        };
        let seen = self.seen.entry(route.shard).or_insert_with(|| look(&self.image, &self.shards, route.shard));
        let (node, epoch) = match &seen.led {
            None => (None, unknown),
            Some((shard, node, term)) => {
                let adopted = shard.as_ref().and_then(|shard| shard.published().get(topic.partition(index)));
                let adopted_base = adopted.map(|cell| cell.epoch_base());
                let base = adopted_base.map_or(route.epoch_base, |base| base.max(route.epoch_base));
                (Some(*node), epoch_of(base, *term))
            }
        };
        Leader { node, epoch, replicas: &seen.replicas, in_sync: &seen.replicas }
    }
}

fn look(image: &MetadataImage, shards: &Shards, id: ShardId) -> Seen {
    let Some(record) = image.shard(id) else { return Seen { replicas: Vec::new(), led: None } };
    let led = match shards.get(id) {
        Some(shard) => {
            let role = shard.role();
            let leader = record.replicas.iter().find(|replica| Some(replica.id) == role.leader);
            // A leader that nobody answers does not name itself: whoever asks elsewhere finds the one that was elected.
            leader.filter(|_| !role.stopped && !role.unheard).map(|leader| (Some(shard), leader.node, role.term.0))
        }
        None => shards.leader_elsewhere(id).map(|(node, term)| (None, node, term)),
    };
    Seen { replicas: record.replicas.iter().map(|replica| replica.node).collect(), led }
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
