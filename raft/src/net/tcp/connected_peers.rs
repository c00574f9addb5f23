//! Which nodes are connected: one node id belongs to one data directory at a time.
//!
//! May not know: what they say.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_protocol::ids::NodeId;
use parking_lot::Mutex;
use uuid::Uuid;

use super::handshake::{HandshakeRejection, HandshakeRequest};

/// Nodes that are connected: by id, the directory and how many connections.
#[derive(Default)]
pub(super) struct ConnectedPeers(Mutex<BTreeMap<NodeId, (Uuid, usize)>>);

/// A node that was let in.
pub(super) struct ConnectedPeer {
    connected: Arc<ConnectedPeers>,
    node: NodeId,
}

impl ConnectedPeers {
    /// Lets a node in, unless another one with its id is here.
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
