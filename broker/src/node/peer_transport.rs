//! The transport between nodes as a node is given it, and the one of a cluster of one node.
//!
//! May not know: sockets.

use std::sync::Arc;

use ottla_raft::{Identity, NoPeers, RaftHost, RaftOptions};

use super::error::StartError;
use crate::config::Config;
use crate::metadata::{ListenerEndpoint, Seeds};

/// The transport between nodes, before it is open.
pub trait PeerTransport: Send {
    /// The listener for other nodes as this node advertises it; `None` for a cluster of one node.
    fn advertised(&self) -> Option<ListenerEndpoint>;

    /// Opens the transport: from now on messages of other nodes reach the returned host.
    ///
    /// # Errors
    /// When the listener cannot be opened.
    fn open(self: Box<Self>, config: &Config, identity: Identity, options: RaftOptions) -> Result<Peers, StartError>;
}

/// The open transport between nodes.
pub struct Peers {
    /// The Raft groups of this node, reached by other nodes.
    pub host: RaftHost,
    /// The nodes that discovery asks first.
    pub seeds: Seeds,
    /// The transport stays open until this is dropped.
    pub connections: Box<dyn PeerConnections>,
}

/// The connections of an open transport.
pub trait PeerConnections: Send + Sync {
    /// From now on connections to and from nodes of another cluster are refused.
    fn set_cluster_id(&self, cluster_id: &str);
}

/// A cluster of one node: no node is ever reached.
pub(super) struct NoTransport;

impl PeerTransport for NoTransport {
    fn advertised(&self) -> Option<ListenerEndpoint> {
        None
    }

    fn open(self: Box<Self>, _config: &Config, _identity: Identity, options: RaftOptions) -> Result<Peers, StartError> {
        let host = RaftHost::new(Arc::new(NoPeers), options);
        Ok(Peers { host, seeds: Seeds::single_node(Arc::default()), connections: self })
    }
}

impl PeerConnections for NoTransport {
    fn set_cluster_id(&self, _cluster_id: &str) {}
}
