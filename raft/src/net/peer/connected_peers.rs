//! The nodes that are connected to this one: a node id belongs to one data directory at a time.
//!
//! May not know: what they send.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_protocol::ids::NodeId;
use parking_lot::Mutex;
use uuid::Uuid;

use super::handshake::{HandshakeRejection, HandshakeRequest};

/// The connected nodes: by id, the directory and the number of connections.
#[derive(Default)]
pub(super) struct ConnectedPeers(Mutex<BTreeMap<NodeId, (Uuid, usize)>>);

/// A registered connection of a node; dropped, it is deregistered.
pub(super) struct ConnectedPeer {
    connected: Arc<ConnectedPeers>,
    node: NodeId,
}

impl ConnectedPeers {
    /// Registers a connection, unless another node with the same id is connected.
    pub(super) fn register(
        connected: &Arc<Self>,
        request: &HandshakeRequest,
    ) -> Result<ConnectedPeer, HandshakeRejection> {
        let (node, directory) = (request.identity.node, request.identity.directory);
        let mut known = connected.0.lock();
        let (first, connections) = known.entry(node).or_insert((directory, 0));
        if *first != directory {
            return Err(HandshakeRejection::InUse { node, directory: *first });
        }
        *connections += 1;
        Ok(ConnectedPeer { connected: connected.clone(), node })
    }
}

impl ConnectedPeer {
    pub(super) fn node(&self) -> NodeId {
        self.node
    }
}

impl Drop for ConnectedPeer {
    fn drop(&mut self) {
        let mut known = self.connected.0.lock();
        if let Some((_, connections)) = known.get_mut(&self.node) {
            *connections -= 1;
            if *connections == 0 {
                known.remove(&self.node);
            }
        }
    }
}
