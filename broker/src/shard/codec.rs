//! Little-endian reading and writing of the shard's own formats: commands, creation records, checkpoint values.
//!
//! Reading never panics and never allocates from a length that the bytes do not back.
//! May not know: what the bytes mean.

use bytes::{BufMut, Bytes, BytesMut};
use ottla_protocol::ids::PartitionId;
use thiserror::Error;
use uuid::Uuid;

/// The bytes are not what the format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The bytes end within a field.
    #[error("the bytes end within a field")]
    Truncated,
    /// Bytes are left over after the last field.
    #[error("bytes are left over after the last field")]
    TrailingBytes,
    /// Written by a newer release.
    #[error("format version {0} is newer than this release knows")]
    Version(u8),
    /// A tag that this version does not know.
    #[error("unknown tag {0}")]
    Tag(u8),
    /// A count above the format's limit.
    #[error("a count is above the format's limit")]
    Limit,
}

/// Encoded length of a partition id.
pub(crate) const PARTITION_ID_BYTES: usize = 20;

/// A cursor over bytes of one of the shard's formats.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(CodecError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(CodecError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, CodecError> {
        self.array().map(i16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, CodecError> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, CodecError> {
        self.array().map(i64::from_le_bytes)
    }

    /// A count of items that take at least `item_bytes_min` each: never more than the bytes can hold.
    pub(crate) fn count(&mut self, item_bytes_min: usize) -> Result<usize, CodecError> {
        let count = usize::try_from(self.u32()?).map_err(|_| CodecError::Limit)?;
        match count.checked_mul(item_bytes_min) {
            Some(bytes) if bytes <= self.0.len() => Ok(count),
            _ => Err(CodecError::Truncated),
        }
    }

    /// A length-prefixed byte string.
    pub(crate) fn blob(&mut self) -> Result<Bytes, CodecError> {
        let count = self.count(1)?;
        self.bytes(count).map(Bytes::copy_from_slice)
    }

    pub(crate) fn partition(&mut self) -> Result<PartitionId, CodecError> {
        let topic = Uuid::from_bytes(self.array()?);
        Ok(PartitionId { topic, index: i32::from_be_bytes(self.array()?) })
    }

    pub(crate) fn finish(self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::TrailingBytes) }
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Writes a partition id; big-endian, so that keys sort as partitions do.
pub(crate) fn put_partition(out: &mut BytesMut, id: PartitionId) {
    out.put_slice(id.topic.as_bytes());
    out.put_i32(id.index);
}

/// Writes a count or a length; the formats' limits keep it far below 2^32.
pub(crate) fn put_count(out: &mut BytesMut, count: usize) {
    debug_assert!(u32::try_from(count).is_ok());
    out.put_u32_le(u32::try_from(count).unwrap_or(u32::MAX));
}

/// Writes a length-prefixed byte string.
pub(crate) fn put_blob(out: &mut BytesMut, blob: &[u8]) {
    put_count(out, blob.len());
    out.put_slice(blob);
}
