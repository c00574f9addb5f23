//! Names and numbers that are fixed for every simulated cluster. Everything else about the cluster is in its metadata.

use ottla_env::sim::SimNode;
use ottla_protocol::ids::NodeId;

/// The topic that most clients use.
pub(crate) const TOPIC: &str = "t";
/// Partitions of the topic.
pub(crate) const PARTITIONS: i32 = 6;
/// Partitions of `__consumer_offsets`.
pub(crate) const OFFSETS_PARTITIONS: i32 = 2;

/// Racks of a cluster whose nodes have any.
pub(crate) const RACKS: u32 = 3;

/// The rack of a node.
pub(crate) fn rack(node: SimNode) -> String {
    format!("rack-{}", node.0 % RACKS)
}

/// The broker id of a node.
pub(crate) fn broker(node: SimNode) -> NodeId {
    NodeId(i32::try_from(node.0).unwrap_or(i32::MAX))
}

/// The node of a broker id.
pub(crate) fn node_of(broker: NodeId) -> SimNode {
    SimNode(u32::try_from(broker.0).unwrap_or(0))
}
