//! Keeps known where the leader of the metadata group is. A node that was cut off for long may follow a leader on a node that
//! joined meanwhile: the address stands in entries that only that leader has, and a snapshot is fetched from it.
//!
//! The other nodes that this one knows are asked, those at the seed addresses included. May not know: how a snapshot is
//! fetched.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_raft::{PeerDirectory, WeakHost};

use super::discovery::{MEMBERS_INTERVAL, SeedNodes, learn_members};
use super::handle::{Inner, MetadataHandle};
use super::peer_table::PeerTable;

/// Works as long as the group runs on this node. `seed_nodes`: none in a cluster that this node founded alone.
pub(super) async fn run(
    metadata: Weak<Inner>,
    host: WeakHost,
    seed_nodes: Option<Arc<dyn SeedNodes>>,
    peer_table: Arc<PeerTable>,
) {
    loop {
        let Some(here) = MetadataHandle::upgrade(&metadata) else { return };
        let mut roles = here.group().role();
        let role = *roles.borrow_and_update();
        if role.stopped {
            return;
        }
        let is_unknown = role.leader.is_some_and(|leader| peer_table.locate(leader).is_none());
        if is_unknown && !mutants::is_on(Bug::LeaderNotLocated) {
            let mut nodes = match &seed_nodes {
                Some(seed_nodes) => seed_nodes.resolve().await.0,
                None => BTreeSet::new(),
            };
            nodes.extend(here.image().nodes.keys());
            let Some(host) = host.upgrade() else { return };
            learn_members(&host, here.node_id(), nodes, &peer_table).await;
        }
        drop(here);
        let changed = match is_unknown {
            true => rt::timeout(MEMBERS_INTERVAL, roles.changed()).await.unwrap_or(Ok(())),
            false => roles.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}
