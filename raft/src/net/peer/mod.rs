//! The transport between nodes: one connection per node and class, shared by all groups.
//!
//! ```text
//!  call -> location of the replica -> connection (node, class) -> frames
//!       -> inbound of that node -> MessageHandler::deliver -> response
//! ```
//! Between replicas of one node there is no connection: see `LocalDelivery`.
//! A slow node delays its own connections only. The streams are those of the world: sockets, or simulated ones. May not
//! know: what the messages mean, beyond which of them may wait for others.

mod connected_peers;
mod frame;
mod handshake;
mod inbound;
mod local_node;
mod peer_connection;
mod send_window;
#[cfg(test)]
mod tests;

/// Both ends of a simulated connection.
#[cfg(test)]
async fn connected_pair() -> (ottla_env::net::Duplex, ottla_env::net::Duplex) {
    use ottla_env::net::{Duplex, accept};
    let mut listener = ottla_env::sim::net::SimListener::default();
    let near = Duplex::new(Box::new(listener.connect()));
    match accept(&mut listener).await {
        Ok((far, _)) => (near, Duplex::new(far)),
        Err(error) => panic!("{error}"),
    }
}

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ottla_env::net::{Connector, Listener};
use ottla_env::rt;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;

pub use handshake::{HandshakeRejection, Identity};
pub use inbound::Listening;
pub use local_node::{DeathConfirmation, OnPeerClosed};

use crate::net::{LocalDelivery, Message, MessageHandler, Network, NoResponse, PeerDirectory, Priority};
use handshake::ConnectionClass;
use local_node::LocalNode;
use peer_connection::{PeerConnection, connect_to, late};

/// The network of a node in a cluster of several; cheap to clone.
#[derive(Clone)]
pub struct PeerNetwork {
    local: Arc<LocalNode>,
    connections: Arc<Mutex<BTreeMap<(NodeId, ConnectionClass), Arc<PeerConnection>>>>,
}

impl PeerNetwork {
    /// The network of this node; no other node reaches it before [`Self::listen`].
    #[must_use]
    pub fn new(identity: Identity, connector: Arc<dyn Connector>, peers: Arc<dyn PeerDirectory>) -> Self {
        let local = LocalNode {
            connector,
            identity: Mutex::new(identity),
            peers,
            connected: Arc::default(),
            on_peer_closed: Mutex::default(),
            delivery: LocalDelivery::default(),
        };
        Self { local: Arc::new(local), connections: Arc::default() }
    }

    /// Sets the cluster of this node: handshakes with nodes of another cluster fail from now on.
    pub fn set_cluster(&self, cluster: &str) {
        self.local.identity.lock().cluster = Some(cluster.to_owned());
    }

    /// From now on `callback` is called when another node closes a connection. It should not keep the network alive.
    pub fn on_peer_closed(&self, callback: OnPeerClosed) {
        *self.local.on_peer_closed.lock() = Some(callback);
    }

    /// Accepts connections of other nodes until the returned value is dropped; their messages go to `handler`, and so do those between
    /// replicas of this node.
    #[must_use]
    pub fn listen(&self, listener: Box<dyn Listener>, handler: Arc<dyn MessageHandler>) -> Listening {
        self.local.delivery.deliver_to(&handler);
        inbound::listen(listener, handler, self.local.clone())
    }

    /// The identity of the node at an address.
    ///
    /// # Errors
    /// When no node is there, or the node rejects the handshake.
    pub async fn identify(&self, address: &str) -> io::Result<Identity> {
        let (_stream, (_, found)) = connect_to(&self.local, address, ConnectionClass::Urgent, None).await?;
        Ok(found)
    }

    fn connection(&self, node: NodeId, class: ConnectionClass) -> Arc<PeerConnection> {
        let mut connections = self.connections.lock();
        let connection =
            connections.entry((node, class)).or_insert_with(|| Arc::new(PeerConnection::new(&self.local, node, class)));
        connection.clone()
    }
}

/// The connection on which a request travels: requests of one class do not wait for those of another.
fn class_of(request: &Message, priority: Priority, is_urgent: bool) -> ConnectionClass {
    match request {
        _ if priority == Priority::Bulk => ConnectionClass::Bulk,
        Message::FetchState { .. } | Message::FetchBatches { .. } => ConnectionClass::Bulk,
        _ if priority == Priority::InOrder && !is_urgent => ConnectionClass::Entries,
        _ => ConnectionClass::Urgent,
    }
}

impl Network for PeerNetwork {
    fn call(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        request: Message,
        priority: Priority,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Message, NoResponse>> {
        let Some(location) = self.local.peers.locate(to) else {
            return NoResponse::unknown_location(to);
        };
        if location.node == self.local.identity.lock().node {
            return self.local.delivery.call(from, to, request, priority, timeout);
        }
        let connection = self.connection(location.node, class_of(&request, priority, location.is_urgent));
        Box::pin(async move {
            if priority == Priority::InOrder {
                return connection.call_in_order((from, to), &request, timeout).await;
            }
            rt::timeout(timeout, connection.call((from, to), &request)).await.unwrap_or_else(|_| Err(late()))
        })
    }
}
