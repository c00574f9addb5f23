//! A node that nobody tells anything finds out whether it still belongs: it may have been forgotten while it was away, and then
//! waits for a leader for ever.
//!
//! Silence proves nothing; what a desk says after a read index does. May not know: what becomes of a node that is expelled.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ottla_raft::WeakHost;
use ottla_storage::env::rt;

use super::controller::{Inner, Metadata};
use super::image::ReplicaRecord;
use super::seeds::{Neighbours, is_unknown};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(10);

/// Looks as long as the group runs here. `own` is the node's replica of the metadata.
pub(super) async fn keep(metadata: Weak<Inner>, host: WeakHost, own: ReplicaRecord, neighbours: Arc<dyn Neighbours>) {
    loop {
        rt::sleep(LOOK).await;
        let Some(metadata) = Metadata::upgrade(&metadata) else { return };
        if metadata.group().role().borrow().stopped {
            return;
        }
        if metadata.read_index().await.is_ok() {
            continue;
        }
        let Some(host) = host.upgrade() else { return };
        if is_unknown(&host, &own, &*neighbours).await {
            tracing::error!(
                replica = own.id.0,
                "the cluster has forgotten this node, or has replaced what it held of the metadata"
            );
            return metadata.expel();
        }
    }
}
