//! Heartbeats: every node that serves sends them to the leader of the metadata group. The leader fences nodes whose
//! session has expired, and unfences nodes that send heartbeats again.
//!
//! A leader fences no node until a majority confirms its leadership. A node that stops in order announces that itself.
//! May not know: what follows from a node being fenced.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use ottla_env::{rt, watch};
use ottla_raft::{GroupHandle, Role};

use super::decide::ControllerRequest;
use super::fencing;
use super::handle::{Inner, MetadataHandle};
use super::image::MetadataImage;
use super::liveness::{FenceReason, Liveness, LivenessChange};
use super::sessions::Heartbeat;
use crate::config::LivenessConfig;

/// The wait where no session is to be checked.
const IDLE: Duration = Duration::from_secs(3_600);

/// Checks the sessions of all nodes while this node leads the metadata group.
pub(super) async fn keep_sessions(
    metadata: Weak<Inner>,
    group: GroupHandle,
    mut images: watch::Receiver<Arc<MetadataImage>>,
    mut fenced_heartbeats: watch::Receiver<u64>,
) {
    let mut role = group.role();
    loop {
        let now = *role.borrow_and_update();
        let image = images.borrow_and_update().clone();
        drop(fenced_heartbeats.borrow_and_update());
        if now.stopped {
            return;
        }
        let Some(metadata) = MetadataHandle::upgrade(&metadata) else { return };
        let wait = match now.ready && fencing::is_in_force(&image) {
            true => metadata.check_sessions(now, &image).await,
            false => {
                metadata.controller_client().sessions.lock().resign();
                IDLE
            }
        };
        drop(metadata);
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            changed = images.changed() => if changed.is_err() { return },
            changed = fenced_heartbeats.changed() => if changed.is_err() { return },
            () = rt::sleep(wait) => {}
        }
    }
}

impl MetadataHandle {
    /// Starts to send heartbeats: this node serves clients, and may be listed to them.
    pub fn start_heartbeats(&self) {
        rt::spawn(send(self.downgrade()));
    }

    /// Announces that this node stops: it is not listed to clients any more, and its replicas are shown as out of sync.
    /// Returns when that is recorded, or `wait` has passed.
    pub async fn announce_stop(&self, wait: Duration) {
        self.stopping().store(true, Ordering::Relaxed);
        let image = self.image();
        let Some(record) = image.nodes.get(&self.node_id()).filter(|_| fencing::is_in_force(&image)) else { return };
        let to = Liveness { fenced: Some(FenceReason::Stopped), since_ms: rt::wall_clock_ms() };
        let change = LivenessChange { node: record.id, epoch: record.epoch, to };
        if fencing::decide(&image, &change).is_none() {
            return;
        }
        if let Err(error) = self.controller_client().submit(ControllerRequest::SetLiveness(change), false, wait).await {
            tracing::warn!(
                "the others are not told that this node stops, and find out when its session expires: {error}"
            );
        }
    }

    /// Checks all sessions once; returns the time until the next check.
    async fn check_sessions(&self, role: Role, image: &MetadataImage) -> Duration {
        let (client, config) = (self.controller_client(), &image.config.liveness);
        let due = || {
            let moment = (rt::now(), rt::wall_clock_ms());
            client.sessions.lock().due(role.term.0, image, config.session_timeout, moment)
        };
        let mut changes = due();
        if changes.iter().any(|change| change.to.fenced.is_some()) {
            // A leader that was partitioned away received no heartbeats for that reason: it grants new sessions once a
            // majority confirms it.
            if client.local_read_index().await.is_err() {
                client.sessions.lock().resign();
                return config.heartbeat_interval;
            }
            changes = due();
        }
        let recorded = changes.into_iter().map(|change| async move {
            match (
                client.submit_locally(ControllerRequest::SetLiveness(change), false, config.session_timeout).await,
                change.to.fenced,
            ) {
                (Ok(_), Some(why)) => tracing::warn!(node = change.node.0, "fenced: {why}"),
                (Ok(_), None) => tracing::info!(node = change.node.0, "not fenced any more"),
                (Err(error), _) => tracing::debug!(node = change.node.0, "not recorded whether it lives: {error}"),
            }
        });
        join_all(recorded).await;
        let next = client.sessions.lock().next_check(config.session_timeout, config.heartbeat_interval, rt::now());
        next.max(LivenessConfig::INTERVAL_MIN)
    }
}

/// The state whose change makes a heartbeat due at once: another leader, another registration, the node being fenced.
fn situation(metadata: &MetadataHandle, role: Role) -> impl PartialEq + use<> {
    let image = metadata.image();
    let own = image.nodes.get(&metadata.node_id()).map(|record| (record.epoch, record.is_fenced()));
    (role.term, role.leader, role.ready, own, fencing::is_in_force(&image))
}

async fn send(metadata: Weak<Inner>) {
    loop {
        let Some(here) = MetadataHandle::upgrade(&metadata) else { return };
        let (mut images, mut roles) = (here.watch(), here.group().role());
        let (image, role) = (images.borrow_and_update().clone(), *roles.borrow_and_update());
        if role.stopped || here.stopping().load(Ordering::Relaxed) {
            return;
        }
        let interval = image.config.liveness.heartbeat_interval;
        let before = situation(&here, role);
        let until = rt::now() + interval;
        if let Some(record) = image.nodes.get(&here.node_id()).filter(|_| fencing::is_in_force(&image)) {
            let heartbeat = Heartbeat { node: record.id, epoch: record.epoch };
            if let Err(error) = here.controller_client().send_heartbeat(heartbeat, interval).await {
                tracing::debug!("no heartbeat: {error}");
            }
        }
        drop(here);
        loop {
            tokio::select! {
                biased;
                changed = roles.changed() => if changed.is_err() { return },
                changed = images.changed() => if changed.is_err() { return },
                () = rt::sleep_until(until) => break,
            }
            let Some(here) = MetadataHandle::upgrade(&metadata) else { return };
            let role = *roles.borrow_and_update();
            drop(images.borrow_and_update());
            if role.stopped || situation(&here, role) != before {
                break;
            }
        }
    }
}
