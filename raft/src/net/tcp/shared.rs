//! What all connections of a node know: who it is, where others are, who is connected.
//!
//! May not know: sockets.

use std::sync::Arc;

use ottla_protocol::ids::NodeId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::guests::Guests;
use super::hello::Identity;
use crate::net::PeerDirectory;

/// Whether a node has died, once that is known. An error says that nobody will know: it is taken for alive.
pub type Confirmation = oneshot::Receiver<bool>;

/// Told at once when a node has closed a connection, as the process that dies does; a moment later it is known whether
/// nobody listens there any more.
pub type OnClosed = Arc<dyn Fn(NodeId, Confirmation) + Send + Sync>;

pub(super) struct Shared {
    pub(super) identity: Mutex<Identity>,
    pub(super) peers: Arc<dyn PeerDirectory>,
    pub(super) guests: Arc<Guests>,
    pub(super) on_closed: Mutex<Option<OnClosed>>,
}

impl Shared {
    pub(super) fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }

    pub(super) fn has_closed(&self, node: NodeId, confirmation: Confirmation) {
        let on_closed = self.on_closed.lock().clone();
        if let Some(on_closed) = on_closed {
            on_closed(node, confirmation);
        }
    }
}
