//! Where other nodes and their replicas are: from the seeds' addresses before there is metadata, then from its image.
//!
//! May not know: what is sent there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use ottla_protocol::ids::NodeId;
use ottla_raft::{Home, Homes, TcpNetwork};
use ottla_storage::env::{rt, watch};
use ottla_storage::ids::ReplicaId;
use parking_lot::RwLock;

use crate::config::Endpoint;
use crate::metadata::{Member, MetadataImage, Neighbours, ReplicaRecord, ShardKind, node_of_address};

/// Between two looks at seeds that did not answer yet.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

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
pub(super) struct Places(RwLock<Known>);

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
    fn introduce(&self, members: &[Member]) {
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

/// The nodes at the seeds.
pub(super) struct AtSeeds {
    network: TcpNetwork,
    places: Arc<Places>,
    /// Each address and the node that was found there.
    seeds: RwLock<BTreeMap<String, Option<NodeId>>>,
}

impl AtSeeds {
    /// Asks at once, and then until all have answered: hosts may have other addresses than the metadata says.
    pub(super) fn start(network: TcpNetwork, places: Arc<Places>, seeds: &[Endpoint]) -> Arc<Self> {
        let seeds = seeds.iter().map(|seed| (seed.to_string(), None)).collect();
        let at_seeds = Arc::new(Self { network, places, seeds: RwLock::new(seeds) });
        let weak = Arc::downgrade(&at_seeds);
        rt::spawn(async move {
            while let Some(at_seeds) = weak.upgrade() {
                if at_seeds.at_seeds().await.1 {
                    return;
                }
                drop(at_seeds);
                rt::sleep(LOOK_INTERVAL).await;
            }
        });
        at_seeds
    }

    async fn look(&self, address: String) {
        match self.network.who_is_at(&address).await {
            Ok(found) => {
                self.places.0.write().addresses.insert(found.node, address.clone());
                tracing::info!(node = found.node.0, address, "seed found");
                self.seeds.write().insert(address, Some(found.node));
            }
            Err(error) => tracing::info!(address, "seed not reached yet: {error}"),
        }
    }
}

impl Neighbours for AtSeeds {
    fn at_seeds(&self) -> BoxFuture<'_, (BTreeSet<NodeId>, bool)> {
        Box::pin(async move {
            let unknown: Vec<_> =
                self.seeds.read().iter().filter(|(_, node)| node.is_none()).map(|(seed, _)| seed.clone()).collect();
            join_all(unknown.into_iter().map(|address| self.look(address))).await;
            let seeds = self.seeds.read();
            (seeds.values().flatten().copied().collect(), seeds.values().all(Option::is_some))
        })
    }

    fn founded_by(&self, founders: &[ReplicaRecord]) {
        let mut known = self.places.0.write();
        for founder in founders {
            known.told.insert(founder.id, Home { node: founder.node, is_urgent: true });
        }
    }

    fn introduced_to(&self, members: &[Member]) {
        self.places.introduce(members);
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
