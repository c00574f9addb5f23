//! State shared by all connections of a node: its identity, how it reaches peers, where they are located, which are connected.
//!
//! May not know: sockets.

use std::sync::Arc;

use ottla_env::net::Connector;
use ottla_protocol::ids::NodeId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::connected_peers::ConnectedPeers;
use super::handshake::Identity;
use crate::net::{LocalDelivery, PeerDirectory};

/// Whether a node has died, once that is known. An error means that it will not be known: the node counts as alive.
pub type DeathConfirmation = oneshot::Receiver<bool>;

/// Called at once when a node has closed a connection, as a dying process does; a moment later the confirmation says
/// whether its port is still open.
pub type OnPeerClosed = Arc<dyn Fn(NodeId, DeathConfirmation) + Send + Sync>;

pub(super) struct LocalNode {
    pub(super) identity: Mutex<Identity>,
    pub(super) connector: Arc<dyn Connector>,
    pub(super) peers: Arc<dyn PeerDirectory>,
    pub(super) connected: Arc<ConnectedPeers>,
    pub(super) on_peer_closed: Mutex<Option<OnPeerClosed>>,
    /// For what one of its own replicas sends another one.
    pub(super) delivery: LocalDelivery,
}

impl LocalNode {
    pub(super) fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }

    pub(super) fn peer_closed(&self, node: NodeId, confirmation: DeathConfirmation) {
        let on_peer_closed = self.on_peer_closed.lock().clone();
        if let Some(on_peer_closed) = on_peer_closed {
            on_peer_closed(node, confirmation);
        }
    }
}
