//! The nodes at the seeds, of which only addresses are known.
//!
//! May not know: what they are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use ottla_protocol::ids::NodeId;
use ottla_raft::TcpNetwork;
use ottla_storage::env::critical::Owner;
use ottla_storage::env::rt;
use parking_lot::RwLock;

use crate::config::Endpoint;
use crate::metadata::{Neighbours, Places};

/// Between two looks at seeds that did not answer yet.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

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
        rt::spawn_critical("seed-resolver", Owner::process(), async move {
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
        match self.network.identify(&address).await {
            Ok(found) => {
                self.places.found(found.node, address.clone());
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
}
