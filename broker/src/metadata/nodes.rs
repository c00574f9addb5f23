//! Decides changes of node states: drain, end a drain, unregister. Pure functions of the image, as `decide` is.
//!
//! May not know: which nodes are alive.

use ottla_protocol::ids::NodeId;

use super::command::Command;
use super::error::MetadataError;
use super::image::{MetadataImage, NodeRecord, NodeState, ShardKind};
use super::requests::Nodes;

fn named<'a>(image: &'a MetadataImage, nodes: &Nodes) -> Result<Vec<&'a NodeRecord>, MetadataError> {
    let is_meant = |node: &&NodeRecord| match nodes {
        Nodes::One(id) => node.id == *id,
        Nodes::Zone(zone) => node.rack.as_deref() == Some(zone),
    };
    let named: Vec<_> = image.nodes.values().filter(is_meant).collect();
    match (nodes, named.is_empty()) {
        (_, false) => Ok(named),
        (Nodes::One(id), true) => Err(MetadataError::NotRegistered(id.0.to_string())),
        (Nodes::Zone(zone), true) => Err(MetadataError::NotRegistered(format!("of zone {zone}"))),
    }
}

/// Number of nodes that could take replicas if these nodes did not.
fn others(image: &MetadataImage, without: &[&NodeRecord]) -> usize {
    let takes = |node: &&NodeRecord| node.takes_replicas() && without.iter().all(|gone| gone.id != node.id);
    image.nodes.values().filter(takes).count()
}

fn set(nodes: &[&NodeRecord], state: NodeState) -> Vec<Command> {
    let changes = nodes.iter().filter(|node| node.state != state);
    changes.map(|node| Command::SetNodeState { node: node.id, state }).collect()
}

/// Drains the nodes, or ends that.
pub(super) fn drain(image: &MetadataImage, nodes: &Nodes, drain: bool) -> Result<Vec<Command>, MetadataError> {
    let named = named(image, nodes)?;
    if !drain {
        let staying: Vec<_> = named.iter().copied().filter(|node| !image.is_decommissioned(node.id)).collect();
        return match (staying.is_empty(), named.first()) {
            (true, Some(gone)) => Err(MetadataError::InvalidRequest(format!(
                "Broker {} holds nothing any more and is being forgotten. When that is done, start it again: it joins as a new one.",
                gone.id.0
            ))),
            _ => Ok(set(&staying, NodeState::Active)),
        };
    }
    if others(image, &named) == 0 {
        return Err(MetadataError::InvalidRequest("No other node could take what these nodes hold.".to_owned()));
    }
    let staying: Vec<_> = named.into_iter().filter(|node| node.state != NodeState::Leaving).collect();
    Ok(set(&staying, NodeState::Draining))
}

/// Unregisters the node: it is removed once it holds nothing. Refused where the other nodes cannot take its replicas.
pub(super) fn unregister(image: &MetadataImage, node: NodeId) -> Result<Vec<Command>, MetadataError> {
    let named = named(image, &Nodes::One(node))?;
    let left = others(image, &named);
    let lies_here = |shard: &&std::sync::Arc<super::image::ShardRecord>| {
        shard.kind != ShardKind::Metadata && shard.members().any(|replica| replica.node == node)
    };
    let needed = image.shards.values().filter(lies_here).map(|shard| shard.replicas.len()).max().unwrap_or(1);
    if left < needed {
        return Err(MetadataError::PolicyViolation(format!(
            "Broker {} cannot be unregistered: it holds replicas of shards that are to have {needed}, and only {left} other \
             broker(s) can take them. Add a broker, or reduce the replication factor of what lies on it first.",
            node.0
        )));
    }
    Ok(set(&named, NodeState::Leaving))
}
