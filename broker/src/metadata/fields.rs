//! Encoding and decoding of the fields that commands, records and requests have in common.
//!
//! May not know: the command or record that a field is part of.

use std::collections::BTreeMap;

use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};

use super::image::{
    DirectoryRecord, IntentKey, ListenerEndpoint, NodeRecord, NodeState, ReplicaRecord, ShardId, ShardKind,
};
use super::levels::{FeatureLevel, Levels};
use super::liveness::Liveness;
use crate::codec::{CodecError, Reader, Writer, ids, read_list, write_list};

ids!(ShardId(u64));

pub(super) fn write_values(w: &mut Writer, values: &BTreeMap<String, String>) {
    write_list(w, values.iter(), |w, (name, value)| {
        w.string(name).string(value);
    });
}

pub(super) fn read_values(r: &mut Reader<'_>) -> Result<BTreeMap<String, String>, CodecError> {
    let values = read_list(r, "config values", |r| Ok((r.string("config name")?, r.string("config value")?)))?;
    Ok(values.into_iter().collect())
}

pub(super) fn write_replica(w: &mut Writer, replica: &ReplicaRecord) {
    w.u64(replica.id.0).i32(replica.node.0).uuid(&replica.directory);
}

pub(super) fn read_replica(r: &mut Reader<'_>) -> Result<ReplicaRecord, CodecError> {
    Ok(ReplicaRecord {
        id: ReplicaId(r.u64("replica id")?),
        node: NodeId(r.i32("node id")?),
        directory: r.uuid("directory")?,
    })
}

pub(super) fn write_replicas(w: &mut Writer, replicas: &[ReplicaRecord]) {
    write_list(w, replicas.iter(), write_replica);
}

pub(super) fn read_replicas(r: &mut Reader<'_>) -> Result<Vec<ReplicaRecord>, CodecError> {
    read_list(r, "replicas", read_replica)
}

pub(super) fn write_ids(w: &mut Writer, replicas: &[ReplicaId]) {
    write_list(w, replicas.iter(), |w, replica| {
        w.u64(replica.0);
    });
}

pub(super) fn read_ids(r: &mut Reader<'_>) -> Result<Vec<ReplicaId>, CodecError> {
    read_list(r, "replica ids", |r| r.u64("replica id").map(ReplicaId))
}

pub(super) fn write_intent_key(w: &mut Writer, key: &IntentKey) {
    w.u64(key.shard.0).u64(key.index.0).uuid(&key.topic);
}

pub(super) fn read_intent_key(r: &mut Reader<'_>) -> Result<IntentKey, CodecError> {
    Ok(IntentKey { shard: ShardId(r.u64("shard")?), index: RaftIndex(r.u64("index")?), topic: r.uuid("topic id")? })
}

pub(super) fn write_shard_kind(w: &mut Writer, kind: ShardKind) {
    let (tag, factor, pinned) = match kind {
        ShardKind::Metadata => (0, 0, false),
        ShardKind::Pool { factor, pinned } => (1, factor, pinned),
        ShardKind::ConsumerOffsets => (2, 0, false),
        ShardKind::TransactionState => (3, 0, false),
    };
    w.u8(tag).i32(i32::from(factor)).u8(u8::from(pinned));
}

pub(super) fn read_shard_kind(r: &mut Reader<'_>) -> Result<ShardKind, CodecError> {
    let tag = r.u8("shard kind")?;
    let factor = i16::try_from(r.i32("factor")?).map_err(|_| CodecError::Value("factor"))?;
    let pinned = r.u8("pinned")? != 0;
    match tag {
        0 => Ok(ShardKind::Metadata),
        1 => Ok(ShardKind::Pool { factor, pinned }),
        2 => Ok(ShardKind::ConsumerOffsets),
        3 => Ok(ShardKind::TransactionState),
        tag => Err(CodecError::Tag("shard kind", tag)),
    }
}

/// A node without its state and its liveness, which it does not register itself, and without its feature levels, which
/// were added later.
pub(super) fn write_node(w: &mut Writer, node: &NodeRecord) {
    w.i32(node.id.0).optional(node.rack.as_deref()).string(&node.version).u64(node.epoch.0);
    write_list(w, node.listeners.iter(), |w, listener| {
        w.string(&listener.name).string(&listener.host).varint(u64::from(listener.port));
    });
    write_list(w, node.directories.iter(), |w, directory| {
        w.uuid(&directory.id).string(&directory.path).u64(directory.free_bytes);
    });
}

pub(super) fn read_node(r: &mut Reader<'_>) -> Result<NodeRecord, CodecError> {
    Ok(NodeRecord {
        id: NodeId(r.i32("node id")?),
        rack: r.optional("rack")?,
        version: r.string("version")?,
        epoch: RaftIndex(r.u64("epoch")?),
        listeners: read_list(r, "listeners", |r| {
            Ok(ListenerEndpoint {
                name: r.string("listener name")?,
                host: r.string("host")?,
                port: u16::try_from(r.varint("port")?).map_err(|_| CodecError::Value("port"))?,
            })
        })?,
        directories: read_list(r, "directories", |r| {
            Ok(DirectoryRecord { id: r.uuid("directory")?, path: r.string("path")?, free_bytes: r.u64("free bytes")? })
        })?,
        levels: Levels::FIRST,
        state: NodeState::Active,
        liveness: Liveness::default(),
    })
}

pub(super) fn write_levels(w: &mut Writer, levels: Levels) {
    w.i16(levels.oldest.0).i16(levels.newest.0);
}

pub(super) fn read_levels(r: &mut Reader<'_>) -> Result<Levels, CodecError> {
    let (oldest, newest) = (FeatureLevel(r.i16("oldest level")?), FeatureLevel(r.i16("newest level")?));
    if oldest > newest { Err(CodecError::Value("feature levels")) } else { Ok(Levels { oldest, newest }) }
}

/// Writes the levels at the end of a value that older builds read, too: no bytes for the levels that those builds
/// assume.
pub(super) fn write_levels_at_end(w: &mut Writer, levels: Levels) {
    if levels != Levels::FIRST {
        write_levels(w, levels);
    }
}

pub(super) fn read_levels_at_end(r: &mut Reader<'_>) -> Result<Levels, CodecError> {
    if r.is_empty() { Ok(Levels::FIRST) } else { read_levels(r) }
}

pub(super) fn write_node_state(w: &mut Writer, state: NodeState) {
    w.u8(match state {
        NodeState::Active => 0,
        NodeState::Draining => 1,
        NodeState::Leaving => 2,
    });
}

pub(super) fn read_node_state(r: &mut Reader<'_>) -> Result<NodeState, CodecError> {
    match r.u8("node state")? {
        0 => Ok(NodeState::Active),
        1 => Ok(NodeState::Draining),
        2 => Ok(NodeState::Leaving),
        tag => Err(CodecError::Tag("node state", tag)),
    }
}
