//! Addresses of the other nodes and the nodes of their replicas: from the seeds before there is metadata, then from the
//! image.
//!
//! May not know: how a node is reached at its address.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_env::watch;
use ottla_protocol::ids::NodeId;
use ottla_raft::{PeerDirectory, ReplicaLocation};
use ottla_storage::ids::ReplicaId;
use parking_lot::RwLock;

use super::bootstrap_service::{Member, node_of_address};
use super::image::{MetadataImage, ReplicaRecord, ShardKind};

#[derive(Default)]
struct Entries {
    /// From the newest image.
    replicas: BTreeMap<ReplicaId, ReplicaLocation>,
    /// Replicas of the metadata group from before there is an image, which comes from one of them: the founders, and
    /// the members in responses of seed nodes.
    bootstrap: BTreeMap<ReplicaId, ReplicaLocation>,
    addresses: BTreeMap<NodeId, String>,
}

/// The nodes of replicas, and the addresses of nodes.
#[derive(Default)]
pub struct PeerTable(RwLock<Entries>);

impl PeerDirectory for PeerTable {
    fn locate(&self, replica: ReplicaId) -> Option<ReplicaLocation> {
        if let Some(node) = node_of_address(replica) {
            return Some(ReplicaLocation { node, is_urgent: true });
        }
        let entries = self.0.read();
        entries.replicas.get(&replica).or_else(|| entries.bootstrap.get(&replica)).copied()
    }

    fn address(&self, node: NodeId) -> Option<String> {
        self.0.read().addresses.get(&node).cloned()
    }
}

impl PeerTable {
    /// Sets the address of a node: the one that it advertises, or that of the seed at which it was reached.
    pub fn set_address(&self, node: NodeId, address: String) {
        self.0.write().addresses.insert(node, address);
    }

    /// Adds the first replicas of the metadata group, which are known before any metadata is.
    pub(super) fn add_founders(&self, founders: &[ReplicaRecord]) {
        let homes =
            founders.iter().map(|founder| (founder.id, ReplicaLocation { node: founder.node, is_urgent: true }));
        self.0.write().bootstrap.extend(homes);
    }

    /// Takes over the replicas and addresses of an image. An address is kept until there is another one.
    fn update(&self, image: &MetadataImage) {
        let mut entries = self.0.write();
        for node in image.nodes.values() {
            if let Some(address) = node.cluster_address() {
                entries.addresses.insert(node.id, address);
            }
        }
        let homes = image.shards.values().flat_map(|shard| {
            let is_urgent = !matches!(shard.kind, ShardKind::Pool { .. });
            shard.members().map(move |replica| (replica.id, ReplicaLocation { node: replica.node, is_urgent }))
        });
        entries.replicas = homes.collect();
    }

    /// Adds members from the response of a seed node. An image takes precedence, and an address that is known is kept.
    pub(super) fn add_members(&self, members: &[Member]) {
        let mut entries = self.0.write();
        for (replica, address) in members {
            entries.bootstrap.insert(replica.id, ReplicaLocation { node: replica.node, is_urgent: true });
            entries.addresses.entry(replica.node).or_insert_with(|| address.clone());
        }
    }

    /// Follows the metadata until its image has no sender any more.
    pub(super) async fn follow(self: Arc<Self>, mut images: watch::Receiver<Arc<MetadataImage>>) {
        loop {
            let image = images.borrow_and_update().clone();
            self.update(&image);
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
    fn a_joining_node_finds_a_leader_that_was_no_founder() {
        let peer_table = PeerTable::default();
        let leader = ReplicaRecord { id: ReplicaId(22), node: NodeId(4), directory: Uuid::nil() };
        assert_eq!(peer_table.locate(leader.id), None);
        peer_table.add_members(&[(leader, "n4:19092".to_owned())]);
        assert_eq!(peer_table.locate(leader.id), Some(ReplicaLocation { node: NodeId(4), is_urgent: true }));
        assert_eq!(peer_table.address(NodeId(4)).as_deref(), Some("n4:19092"));
        // A node that was found at a seed keeps the address of the seed.
        peer_table.add_members(&[(leader, "elsewhere:19092".to_owned())]);
        assert_eq!(peer_table.address(NodeId(4)).as_deref(), Some("n4:19092"));
        // An old image, which lacks the replica, removes nothing.
        peer_table.update(&MetadataImage::default());
        assert!(peer_table.locate(leader.id).is_some());
    }
}
