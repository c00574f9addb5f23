//! Where replicas and nodes are, as far as one node knows.
//!
//! May not know: who tells it.

use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;

/// Where a replica lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// The node.
    pub node: NodeId,
    /// Its group never waits behind what clients send: metadata, coordinators.
    pub is_urgent: bool,
}

/// What is known of where replicas and nodes are; it changes.
pub trait Homes: Send + Sync + 'static {
    /// Where a replica lives, if that is known.
    fn home(&self, replica: ReplicaId) -> Option<Home>;
    /// `host:port` at which a node is reached by other nodes, if that is known.
    fn address(&self, node: NodeId) -> Option<String>;
}
