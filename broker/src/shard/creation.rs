//! What a shard's replica records about itself when it is created, and finds again after a restart.
//!
//! ```text
//!  | version u8 = 1 | shard id u64 | kind u8 | replication factor i16 | pinned u8 |
//! ```
//! Kinds: 0 metadata, 1 pool, 2 `__consumer_offsets`, 3 `__transaction_state`. Never reused. May not know: where it is kept.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{CodecError, Reader};
use crate::metadata::{ShardId, ShardKind};

const VERSION: u8 = 1;

/// A shard as its replicas know it before they know any metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardCreation {
    /// The shard.
    pub shard: ShardId,
    /// What it is for.
    pub kind: ShardKind,
}

impl ShardCreation {
    /// Its bytes in the group-creation frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (tag, factor, pinned) = match self.kind {
            ShardKind::Metadata => (0, 0, false),
            ShardKind::Pool { factor, pinned } => (1, factor, pinned),
            ShardKind::ConsumerOffsets => (2, 0, false),
            ShardKind::TransactionState => (3, 0, false),
        };
        let mut out = BytesMut::with_capacity(13);
        out.put_u8(VERSION);
        out.put_u64_le(self.shard.0);
        out.put_u8(tag);
        out.put_i16_le(factor);
        out.put_u8(u8::from(pinned));
        out.freeze()
    }

    /// Reads it back.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(CodecError::Version(version));
        }
        let shard = ShardId(reader.u64()?);
        let (tag, factor, pinned) = (reader.u8()?, reader.i16()?, reader.u8()? != 0);
        let kind = match tag {
            0 => ShardKind::Metadata,
            1 => ShardKind::Pool { factor, pinned },
            2 => ShardKind::ConsumerOffsets,
            3 => ShardKind::TransactionState,
            tag => return Err(CodecError::Tag(tag)),
        };
        reader.finish()?;
        Ok(Self { shard, kind })
    }

    /// True if partitions of this shard keep groups.
    #[must_use]
    pub fn keeps_groups(&self) -> bool {
        matches!(self.kind, ShardKind::ConsumerOffsets)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_kind_comes_back_and_damage_is_refused() {
        for kind in [
            ShardKind::Metadata,
            ShardKind::Pool { factor: 3, pinned: true },
            ShardKind::ConsumerOffsets,
            ShardKind::TransactionState,
        ] {
            let creation = ShardCreation { shard: ShardId(7), kind };
            let bytes = creation.encode();
            assert_eq!(ShardCreation::decode(&bytes).unwrap(), creation);
            assert!(ShardCreation::decode(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
