//! Has shards moved that are due, as long as this node leads the metadata group. What is due, `moves` says.
//!
//! May not know: why a shard is moved.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ottla_raft::GroupHandle;
use ottla_storage::env::{rt, watch};

use super::handle::{Inner, Metadata};
use super::image::MetadataImage;
use super::moves;

/// Before what was refused is asked for again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a node that holds nothing any more has to end by itself.
const FAREWELL: Duration = Duration::from_secs(3);
/// Where nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);

/// Runs as long as the group and somebody who holds the metadata.
pub(super) async fn run(metadata: Weak<Inner>, group: GroupHandle, mut images: watch::Receiver<Arc<MetadataImage>>) {
    let mut role = group.role();
    loop {
        let now = *role.borrow_and_update();
        let image = images.borrow_and_update().clone();
        if now.stopped {
            return;
        }
        let mut wait = IDLE;
        if now.ready && !moves::due(&image).is_empty() {
            if moves::due(&image).iter().all(moves::is_farewell) {
                // Whoever is to be forgotten learns it as long as it is told anything.
                rt::sleep(FAREWELL).await;
            }
            let Some(metadata) = Metadata::upgrade(&metadata) else { return };
            if let Err(error) = metadata.balance().await {
                tracing::debug!("shards are not moved now: {error}");
                wait = RETRY;
            }
        }
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            changed = images.changed() => if changed.is_err() { return },
            () = rt::sleep(wait) => {}
        }
    }
}
