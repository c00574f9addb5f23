//! Where other nodes and their replicas are, as far as this node knows: from its seeds before there is metadata, then from its
//! image.
//!
//! May not know: how they are reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_protocol::ids::NodeId;
use ottla_raft::{Home, Homes};
use ottla_storage::env::watch;
use ottla_storage::ids::ReplicaId;
use parking_lot::RwLock;

use super::bootstrap_service::{Member, node_of_address};
use super::image::{MetadataImage, ReplicaRecord, ShardKind};

#[derive(Default)]
struct Known {
    /// As the newest image says.
    replicas: BTreeMap<ReplicaId, Home>,
    /// Those of the metadata group without an image, which comes from one of them: those with which it began, and those that
    /// nodes at the seeds told of.
    told: BTreeMap<ReplicaId, Home>,
    addresses: BTreeMap<NodeId, String>,
}

/// What is known of where replicas and nodes are.
#[derive(Default)]
pub struct Places(RwLock<Known>);

impl Homes for Places {
    fn home(&self, replica: ReplicaId) -> Option<Home> {
        if let Some(node) = node_of_address(replica) {
            return Some(Home { node, is_urgent: true });
        }
        let known = self.0.read();
        known.replicas.get(&replica).or_else(|| known.told.get(&replica)).copied()
    }

    fn address(&self, node: NodeId) -> Option<String> {
        self.0.read().addresses.get(&node).cloned()
    }
}

impl Places {
    /// A node was found at an address, as others reach it or as a seed names it.
    pub fn found(&self, node: NodeId, address: String) {
        self.0.write().addresses.insert(node, address);
    }

    /// Takes over where the first replicas of the metadata group live: known before any metadata is.
    pub(super) fn founded_by(&self, founders: &[ReplicaRecord]) {
        let homes = founders.iter().map(|founder| (founder.id, Home { node: founder.node, is_urgent: true }));
        self.0.write().told.extend(homes);
    }

    /// Takes over what an image says. An address is kept until there is another one.
    fn learn(&self, image: &MetadataImage) {
        let mut known = self.0.write();
        for node in image.nodes.values() {
            if let Some(address) = node.cluster_address() {
                known.addresses.insert(node.id, address);
            }
        }
        let homes = image.shards.values().flat_map(|shard| {
            let is_urgent = !matches!(shard.kind, ShardKind::Pool { .. });
            shard.members().map(move |replica| (replica.id, Home { node: replica.node, is_urgent }))
        });
        known.replicas = homes.collect();
    }

    /// Takes over what nodes at the seeds say. What an image says counts more, and an address that is known is kept.
    pub(super) fn introduce(&self, members: &[Member]) {
        let mut known = self.0.write();
        for (replica, address) in members {
            known.told.insert(replica.id, Home { node: replica.node, is_urgent: true });
            known.addresses.entry(replica.node).or_insert_with(|| address.clone());
        }
    }

    /// Follows the metadata as long as there is any.
    pub(super) async fn follow(self: Arc<Self>, mut images: watch::Receiver<Arc<MetadataImage>>) {
        loop {
            let image = images.borrow_and_update().clone();
            self.learn(&image);
            if images.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn who_joins_finds_a_leader_that_was_no_founder() {
        let places = Places::default();
        let leader = ReplicaRecord { id: ReplicaId(22), node: NodeId(4), directory: Uuid::nil() };
        assert_eq!(places.home(leader.id), None);
        places.introduce(&[(leader, "n4:19092".to_owned())]);
        assert_eq!(places.home(leader.id), Some(Home { node: NodeId(4), is_urgent: true }));
        assert_eq!(places.address(NodeId(4)).as_deref(), Some("n4:19092"));
        // Whoever was found at a seed is reached as it was found.
        places.introduce(&[(leader, "elsewhere:19092".to_owned())]);
        assert_eq!(places.address(NodeId(4)).as_deref(), Some("n4:19092"));
        // An image without it, as an old one is, takes nothing away.
        places.learn(&MetadataImage::default());
        assert!(places.home(leader.id).is_some());
    }
}
