//! Nodes with the addresses that they advertise for the client's listener, as responses name brokers.
//!
//! May not know: which API calls.

use std::collections::BTreeSet;

use ottla_protocol::ids::NodeId;
use ottla_protocol::produce::NodeEndpoint;

use super::text;
use crate::handlers::context::Context;
use crate::metadata::MetadataImage;

/// All nodes that are visible to clients and have an address for the client's listener, by id. `named`: nodes that the
/// response names as leaders.
pub(in crate::handlers) fn reachable(
    ctx: &Context,
    image: &MetadataImage,
    named: BTreeSet<NodeId>,
) -> Vec<NodeEndpoint> {
    let mut visible = ctx.partitions.visible_nodes(image);
    visible.extend(named);
    visible.into_iter().filter_map(|node| endpoint(ctx, image, node)).collect()
}

/// The address of one node for the client's listener.
pub(in crate::handlers) fn endpoint(ctx: &Context, image: &MetadataImage, node: NodeId) -> Option<NodeEndpoint> {
    let record = image.nodes.get(&node)?;
    let listener = record.endpoint(&ctx.connection.peer.listener)?;
    Some(NodeEndpoint {
        node,
        host: text(&listener.host),
        port: i32::from(listener.port),
        rack: record.rack.as_deref().map(text),
    })
}

/// The broker that responses name as controller: any live one accepts admin requests, so this node.
pub(in crate::handlers) fn controller(ctx: &Context) -> NodeId {
    ctx.config.node_id
}
