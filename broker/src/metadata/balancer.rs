//! The balancer: submits the shard moves that are due, while this node leads the metadata group. `moves` determines
//! which are due for what operators and topics ask, `balance` those by which load is spread.
//!
//! May not know: why a shard is moved.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ottla_env::{rt, watch};
use ottla_raft::GroupHandle;

use super::action::{KEPT_FROM, Step};
use super::clock::Clock;
use super::handle::{Inner, MetadataHandle};
use super::image::MetadataImage;
use super::moves;

/// Before a refused request is retried.
const RETRY: Duration = Duration::from_secs(1);
/// How long a node that holds nothing any more has to stop by itself before it is removed.
const REMOVAL_DELAY: Duration = Duration::from_secs(3);
/// How often it is asked whether load is to be spread.
const SPREAD_INTERVAL: Duration = Duration::from_secs(2);
/// Between two steps by which topics get the shards that they ask for. A client that has met one, and asks for the leaders anew, is
/// served again before it meets the next one: 63 splits within a second were felt as one pause of two.
const RESIZE_REST: Duration = Duration::from_millis(200);
/// The wait where nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);

/// Runs until the group stops or the metadata handle is dropped.
pub(super) async fn run(metadata: Weak<Inner>, group: GroupHandle, mut images: watch::Receiver<Arc<MetadataImage>>) {
    let mut role = group.role();
    let mut rests_until = rt::now();
    loop {
        let now = *role.borrow_and_update();
        let image = images.borrow_and_update().clone();
        if now.stopped {
            return;
        }
        let mut wait = IDLE;
        let due = if now.ready { moves::due(&image) } else { Vec::new() };
        let rest = rests_until.since(rt::now());
        if !due.is_empty() && !rest.is_zero() && due.iter().all(moves::is_resize_step) {
            wait = rest;
        } else if !due.is_empty() {
            if due.iter().all(moves::is_removal_step) {
                // A node learns that it is to be removed only while it still gets entries of the metadata group.
                rt::sleep(REMOVAL_DELAY).await;
            }
            let Some(metadata) = MetadataHandle::upgrade(&metadata) else { return };
            if let Err(error) = metadata.balance().await {
                tracing::debug!("shards are not moved now: {error}");
                wait = RETRY;
            }
            if due.iter().any(moves::is_resize_step) {
                rests_until = rt::now() + RESIZE_REST;
            }
        } else if now.ready {
            let Some(metadata) = MetadataHandle::upgrade(&metadata) else { return };
            spread(&metadata, now.term.0, &image).await;
            wait = SPREAD_INTERVAL;
        }
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            changed = images.changed() => if changed.is_err() { return },
            () = rt::sleep(wait) => {}
        }
    }
}

/// Takes the steps by which load is to be spread now.
async fn spread(metadata: &MetadataHandle, term: u64, image: &MetadataImage) {
    let state = &metadata.controller_client().balance;
    let actions = state.lock().due(term, image, &Clock::now());
    for action in actions {
        let clock = Clock::now();
        let at_ms = if image.level >= KEPT_FROM { clock.wall_ms } else { 0 };
        match metadata.rebalance(Step { action: action.clone(), at_ms }).await {
            Ok(()) => {
                tracing::info!(shard = action.change.shard().0, "{}", action.reason);
                state.lock().done(&action, image, &clock);
            }
            Err(error) => tracing::debug!(shard = action.change.shard().0, "not moved now: {error}"),
        }
    }
}
