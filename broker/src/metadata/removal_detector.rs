//! Detects that this node was removed from the cluster while it could not reach it: nothing reaches a removed node, so
//! it would wait for a leader forever.
//!
//! A missing leader is no proof; only a bootstrap response that was given after a read index counts. May not know: what
//! a node does once it is removed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_raft::WeakHost;

use super::discovery::{SeedNodes, is_removed};
use super::handle::{Inner, MetadataHandle};
use super::image::ReplicaRecord;

/// Between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Checks as long as the group runs on this node. `own` is the node's replica of the metadata.
pub(super) async fn run(
    metadata: Weak<Inner>,
    host: WeakHost,
    own: ReplicaRecord,
    seed_nodes: Option<Arc<dyn SeedNodes>>,
) {
    loop {
        rt::sleep(CHECK_INTERVAL).await;
        let Some(metadata) = MetadataHandle::upgrade(&metadata) else { return };
        if metadata.group().role().borrow().stopped {
            return;
        }
        if metadata.read_index().await.is_ok() {
            continue;
        }
        let Some(host) = host.upgrade() else { return };
        if mutants::is_on(Bug::RemovalNotDetected) {
            continue;
        }
        let known = metadata.image().nodes.keys().copied().collect();
        if is_removed(&host, &own, seed_nodes.as_deref(), known).await {
            tracing::error!(
                replica = own.id.0,
                "the cluster has forgotten this node, or has replaced what it held of the metadata"
            );
            return metadata.set_removed_from_cluster();
        }
    }
}
