//! The current leader of a partition in Produce and Fetch responses (KIP-951), so that a client need not send a
//! Metadata request first. May not know: how leaders are found.

use bytes::{BufMut, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::ids::{LeaderEpoch, NodeId};
use crate::wire::{put_count, put_no_tags, put_nullable_str_bytes, put_unsigned_varint};

/// The leader of a partition, sent along with NOT_LEADER_OR_FOLLOWER or FENCED_LEADER_EPOCH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentLeader {
    /// The leading node; -1 if unknown.
    pub leader: NodeId,
    /// Its epoch; -1 if unknown.
    pub epoch: LeaderEpoch,
}

/// The address of a node that a [`CurrentLeader`] names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The node.
    pub node: NodeId,
    /// Host of the listener that the request came in on.
    pub host: StrBytes,
    /// Its port.
    pub port: i32,
    /// Its zone.
    pub rack: Option<StrBytes>,
}

/// Epoch and id in four bytes each, and the count of their own tags.
const CURRENT_LEADER_BYTES: u32 = 9;

/// Appends tag number, size and content.
pub(crate) fn put_current_leader_tag(out: &mut BytesMut, tag: u32, hint: &CurrentLeader) {
    put_unsigned_varint(out, tag);
    put_unsigned_varint(out, CURRENT_LEADER_BYTES);
    out.put_i32(hint.leader.0);
    out.put_i32(hint.epoch.0);
    put_no_tags(out, true);
}

/// Appends the tagged fields of a response whose only tag, number 0, holds the endpoints.
pub(crate) fn put_endpoints_as_only_tag(out: &mut BytesMut, endpoints: &[NodeEndpoint]) {
    if endpoints.is_empty() {
        return put_no_tags(out, true);
    }
    // The size comes before the content: encode aside. Leader changes are rare.
    let mut content = BytesMut::new();
    put_count(&mut content, true, endpoints.len());
    for endpoint in endpoints {
        content.put_i32(endpoint.node.0);
        put_nullable_str_bytes(&mut content, true, Some(&endpoint.host));
        content.put_i32(endpoint.port);
        put_nullable_str_bytes(&mut content, true, endpoint.rack.as_ref());
        put_no_tags(&mut content, true);
    }
    put_unsigned_varint(out, 1);
    put_unsigned_varint(out, 0);
    put_unsigned_varint(out, content.len() as u32);
    out.put_slice(&content);
}
