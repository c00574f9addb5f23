//! Nodes as clients of one listener are told of them: each with the address it advertises for that listener.
//!
//! May not know: which API asks.

use kafka_protocol::protocol::StrBytes;
use ottla_protocol::ids::NodeId;
use ottla_protocol::produce::NodeEndpoint;

use crate::metadata::MetadataImage;
use crate::server::Context;

/// All nodes that have an address for the client's listener, by id.
pub(super) fn reachable(ctx: &Context, image: &MetadataImage) -> Vec<NodeEndpoint> {
    image.nodes.keys().filter_map(|node| endpoint(ctx, image, *node)).collect()
}

/// The address of one node for the client's listener.
pub(super) fn endpoint(ctx: &Context, image: &MetadataImage, node: NodeId) -> Option<NodeEndpoint> {
    let record = image.nodes.get(&node)?;
    let listener = record.endpoint(&ctx.connection.peer.listener)?;
    Some(NodeEndpoint {
        node,
        host: text(&listener.host),
        port: i32::from(listener.port),
        rack: record.rack.as_deref().map(text),
    })
}

/// The broker that is named as controller: any live one takes admin requests, so the one that is asked.
pub(super) fn controller(ctx: &Context) -> NodeId {
    ctx.config.node_id
}

/// A string of ours on its way to the wire.
pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
