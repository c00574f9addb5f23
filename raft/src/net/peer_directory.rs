//! Where replicas and nodes are located, as far as one node knows.
//!
//! A message names replicas; a transport needs the node of a replica and the address of a node. May not know: where
//! these locations are learned from.

use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;

/// Where a replica is located.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaLocation {
    /// The node.
    pub node: NodeId,
    /// Messages of its group never wait behind those of client data: metadata, coordinators.
    pub is_urgent: bool,
}

/// The locations of replicas and the addresses of nodes; both change while the node runs.
pub trait PeerDirectory: Send + Sync + 'static {
    /// The location of a replica, if it is known.
    fn locate(&self, replica: ReplicaId) -> Option<ReplicaLocation>;
    /// `host:port` at which other nodes reach a node, if it is known.
    fn address(&self, node: NodeId) -> Option<String>;
}
