//! The formats that commands, records and requests have in common.
//!
//! May not know: the command or record that a value is part of.

use super::image::{
    DirectoryRecord, IntentKey, ListenerEndpoint, NodeRecord, NodeState, ReplicaRecord, ShardId, ShardKind,
};
use super::liveness::Liveness;
use crate::codec::{CodecError, Reader, Value, Varint, Writer, ids, record};
use crate::levels::{FeatureLevel, Levels};

ids!(ShardId(u64), FeatureLevel(i16));

record! {
    ReplicaRecord { id, node, directory }
    IntentKey { shard, index, topic }

    // What a node registers, apart from its feature levels, which were added later.
    NodeRecord as Registered {
        id, rack, version, epoch, listeners, directories;
        without levels = Levels::FIRST, state = NodeState::Active, liveness = Liveness::default()
    }
    NodeRecord as RegisteredWithLevels = Registered + { levels }
    ListenerEndpoint { name, host, port: Varint }
    DirectoryRecord { id, path, free_bytes }
    enum NodeState { 0 Active, 1 Draining, 2 Leaving }
}

/// By hand: every kind has the bytes of a pool's fields.
impl Value for ShardKind {
    fn write(&self, w: &mut Writer) {
        let (tag, factor, pinned) = match *self {
            Self::Metadata => (0, 0, false),
            Self::Pool { factor, pinned } => (1, factor, pinned),
            Self::ConsumerOffsets => (2, 0, false),
            Self::TransactionState => (3, 0, false),
        };
        pinned.write(w.u8(tag).i32(i32::from(factor)));
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
        let tag = r.u8(what)?;
        let factor = i16::try_from(r.i32("factor")?).map_err(|_| CodecError::Value("factor"))?;
        let pinned = bool::read(r, "pinned")?;
        match tag {
            0 => Ok(Self::Metadata),
            1 => Ok(Self::Pool { factor, pinned }),
            2 => Ok(Self::ConsumerOffsets),
            3 => Ok(Self::TransactionState),
            tag => Err(CodecError::Tag(what, tag)),
        }
    }
}

/// By hand: one field limits the other.
impl Value for Levels {
    fn write(&self, w: &mut Writer) {
        (self.oldest, self.newest).write(w);
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
        let (oldest, newest) = Value::read(r, what)?;
        if oldest > newest { Err(CodecError::Value("feature levels")) } else { Ok(Self { oldest, newest }) }
    }
}
