//! Resolves the seed addresses to node ids, by opening a connection to each.
//!
//! May not know: which requests are sent to the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use ottla_env::critical::Owner;
use ottla_env::rt;
use ottla_protocol::ids::NodeId;
use ottla_raft::PeerNetwork;
use parking_lot::RwLock;

use crate::config::Endpoint;
use crate::metadata::{PeerTable, SeedNodes};

/// Between two attempts to reach the seeds that did not respond yet.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The seed addresses and the nodes found at them.
pub(super) struct SeedResolver {
    network: PeerNetwork,
    peer_table: Arc<PeerTable>,
    /// Each address and the node that was found there.
    seeds: RwLock<BTreeMap<String, Option<NodeId>>>,
}

impl SeedResolver {
    /// Resolves at once and retries until all have responded: hosts may have other addresses than the metadata records.
    pub(super) fn start(network: PeerNetwork, peer_table: Arc<PeerTable>, seeds: &[Endpoint]) -> Arc<Self> {
        let seeds = seeds.iter().map(|seed| (seed.to_string(), None)).collect();
        let resolver = Arc::new(Self { network, peer_table, seeds: RwLock::new(seeds) });
        let weak = Arc::downgrade(&resolver);
        rt::spawn_critical("seed-resolver", Owner::process(), async move {
            while let Some(resolver) = weak.upgrade() {
                if resolver.resolve().await.1 {
                    return;
                }
                drop(resolver);
                rt::sleep(RETRY_INTERVAL).await;
            }
        });
        resolver
    }

    async fn resolve_one(&self, address: String) {
        match self.network.identify(&address).await {
            Ok(found) => {
                self.peer_table.set_address(found.node, address.clone());
                tracing::info!(node = found.node.0, address, "seed found");
                self.seeds.write().insert(address, Some(found.node));
            }
            Err(error) => tracing::info!(address, "seed not reached yet: {error}"),
        }
    }
}

impl SeedNodes for SeedResolver {
    fn resolve(&self) -> BoxFuture<'_, (BTreeSet<NodeId>, bool)> {
        Box::pin(async move {
            let unknown: Vec<_> =
                self.seeds.read().iter().filter(|(_, node)| node.is_none()).map(|(seed, _)| seed.clone()).collect();
            join_all(unknown.into_iter().map(|address| self.resolve_one(address))).await;
            let seeds = self.seeds.read();
            (seeds.values().flatten().copied().collect(), seeds.values().all(Option::is_some))
        })
    }
}
