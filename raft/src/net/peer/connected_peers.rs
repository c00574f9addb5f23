//! The nodes that are connected to this one: a node id belongs to one data directory at a time.
//!
//! A node that has lost power ends no connection. Its successor on an empty disk is taken for the node once nothing has come
//! from the other directory for longer than between two pings. May not know: what they send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ottla_env::rt::{self, Instant};
use ottla_protocol::ids::NodeId;
use parking_lot::Mutex;
use uuid::Uuid;

use super::frame::IDLE_PING_INTERVAL;
use super::handshake::{HandshakeRejection, HandshakeRequest};

/// One ping may be lost.
const SILENCE_MAX: Duration = Duration::from_secs(2 * IDLE_PING_INTERVAL.as_secs() + 1);

/// A connected node.
struct Known {
    directory: Uuid,
    connections: usize,
    /// When something was received on any of the connections.
    heard_at: Arc<AtomicI64>,
}

/// The connected nodes by their ids.
#[derive(Default)]
pub(super) struct ConnectedPeers(Mutex<BTreeMap<NodeId, Known>>);

/// A registered connection of a node; dropped, it is deregistered.
pub(super) struct ConnectedPeer {
    connected: Arc<ConnectedPeers>,
    node: NodeId,
    directory: Uuid,
    heard_at: Arc<AtomicI64>,
}

impl ConnectedPeers {
    /// Registers a connection, unless another node with the same id is connected.
    pub(super) fn register(
        connected: &Arc<Self>,
        request: &HandshakeRequest,
    ) -> Result<ConnectedPeer, HandshakeRejection> {
        let (node, directory) = (request.identity.node, request.identity.directory);
        let now = rt::now();
        let mut known = connected.0.lock();
        let other = known.get(&node).filter(|known| known.directory != directory);
        if let Some(other) = other {
            let silent_for = now.since(Instant(other.heard_at.load(Ordering::Relaxed)));
            if silent_for <= SILENCE_MAX {
                return Err(HandshakeRejection::InUse { node, directory: other.directory });
            }
            tracing::warn!(
                node = node.0,
                "nothing comes from data directory {}: {directory} is the node now",
                other.directory
            );
            known.remove(&node);
        }
        let new = || Known { directory, connections: 0, heard_at: Arc::default() };
        let known = known.entry(node).or_insert_with(new);
        known.connections += 1;
        let peer = ConnectedPeer { connected: connected.clone(), node, directory, heard_at: known.heard_at.clone() };
        peer.heard();
        Ok(peer)
    }
}

impl ConnectedPeer {
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// Something was received from the node.
    pub(super) fn heard(&self) {
        self.heard_at.store(rt::now().0, Ordering::Relaxed);
    }
}

impl Drop for ConnectedPeer {
    fn drop(&mut self) {
        let mut all = self.connected.0.lock();
        if let Some(known) = all.get_mut(&self.node).filter(|known| known.directory == self.directory) {
            known.connections -= 1;
            if known.connections == 0 {
                all.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ottla_env::sim;

    use super::*;
    use crate::net::peer::handshake::{ConnectionClass, Identity};

    fn request_of(node: i32, directory: u128) -> HandshakeRequest {
        let identity = Identity { node: NodeId(node), directory: Uuid::from_u128(directory), cluster: None };
        HandshakeRequest::new(identity, ConnectionClass::Urgent, None)
    }

    fn is_in_use(connected: &Arc<ConnectedPeers>, directory: u128) -> bool {
        matches!(ConnectedPeers::register(connected, &request_of(1, directory)), Err(HandshakeRejection::InUse { .. }))
    }

    #[test]
    fn a_node_whose_disk_was_replaced_after_a_loss_of_power_is_not_kept_out_for_long() {
        sim::run(1, || async {
            let connected = Arc::<ConnectedPeers>::default();
            let before =
                ConnectedPeers::register(&connected, &request_of(1, 10)).unwrap_or_else(|error| panic!("{error}"));
            let second = Duration::from_secs(1);
            rt::sleep(SILENCE_MAX - second).await;
            assert!(is_in_use(&connected, 20), "a ping may be on its way");
            before.heard();
            rt::sleep(SILENCE_MAX - second).await;
            assert!(is_in_use(&connected, 20), "it was heard");
            rt::sleep(2 * second).await;
            let now =
                ConnectedPeers::register(&connected, &request_of(1, 20)).unwrap_or_else(|error| panic!("{error}"));
            // The end of the old connection is not the end of the new one.
            drop(before);
            assert!(is_in_use(&connected, 10));
            drop(now);
            assert!(!is_in_use(&connected, 10));
        });
    }
}
