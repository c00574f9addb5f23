//! The codec of the broker's own formats: little-endian numbers, varints, strings and lists by count.
//!
//! Used for commands, creation records and checkpoint records of the shards and of the metadata group, and for requests
//! between nodes. Reading never panics, and allocates nothing for a length that exceeds the remaining bytes. May not
//! know: what the bytes mean.
//!
//! - [`Writer`] and [`Reader`] are what the encodings are made of.
//! - `value`: the encodings of numbers, strings, lists, options, ids.
//! - `record`: the macro by which a format is declared once, from which writing and reading follow.

mod record;
mod value;

use bytes::{BufMut, Bytes, BytesMut};
use ottla_protocol::ids::PartitionId;
use thiserror::Error;
use uuid::Uuid;

pub(crate) use record::{is_default, record};
pub(crate) use value::{
    Counted, Each, Encoding, Number, Optional, OrMinusOne, Padded, Plain, Rest, Sorted, TagOrZero, Tagged, Value,
    Varint, VarintOrZero, ids,
};

/// The bytes do not match the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The bytes end within a value.
    #[error("the bytes end within {0}")]
    Truncated(&'static str),
    /// Bytes are left over after the last value.
    #[error("bytes are left over after the last value")]
    TrailingBytes,
    /// Written by a newer release.
    #[error("format version {0} is newer than this release understands")]
    Version(u8),
    /// The cluster is at a feature level that this release does not understand.
    #[error("feature level {0} is newer than this release understands")]
    Level(i16),
    /// An unassigned tag.
    #[error("unknown {0} {1}")]
    Tag(&'static str, u8),
    /// A value that no release writes.
    #[error("{0} has a value that is not known")]
    Value(&'static str),
    /// A count above the format's limit.
    #[error("the count of {0} is above the format's limit")]
    Limit(&'static str),
}

/// The most items whose memory is allocated before they are read.
const ROOM_MAX: usize = 1_024;
/// Most values are shorter: their buffer is allocated once.
const VALUE_BYTES: usize = 64;

/// A value in its usual encoding.
pub(crate) fn encode(value: &impl Value) -> Bytes {
    let mut w = Writer::with_capacity(VALUE_BYTES);
    value.write(&mut w);
    w.finish()
}

/// The counterpart of [`encode`]: all of the bytes are one value, which `what` names.
pub(crate) fn decode<T: Value>(bytes: &[u8], what: &'static str) -> Result<T, CodecError> {
    let mut r = Reader::new(bytes);
    let value = T::read(&mut r, what)?;
    r.end()?;
    Ok(value)
}

/// A version byte and a value.
pub(crate) fn encode_version(version: u8, value: &impl Value) -> Bytes {
    let mut w = Writer::with_capacity(VALUE_BYTES);
    value.write(w.u8(version));
    w.finish()
}

/// The counterpart of [`encode_version`]; the version must be `version`.
pub(crate) fn decode_version<T: Value>(version: u8, bytes: &[u8], what: &'static str) -> Result<T, CodecError> {
    let r = Reader::of_version(bytes, version)?;
    decode(r.0, what)
}

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub(crate) struct Writer(BytesMut);

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(BytesMut::with_capacity(bytes))
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.put_u8(value);
        self
    }

    pub(crate) fn i16(&mut self, value: i16) -> &mut Self {
        self.0.put_i16_le(value);
        self
    }

    pub(crate) fn i32(&mut self, value: i32) -> &mut Self {
        self.0.put_i32_le(value);
        self
    }

    pub(crate) fn i64(&mut self, value: i64) -> &mut Self {
        self.0.put_i64_le(value);
        self
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.put_u32_le(value);
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.put_u64_le(value);
        self
    }

    /// Big-endian, so that keys sort like their numbers.
    pub(crate) fn sorted_i64(&mut self, value: i64) -> &mut Self {
        self.0.put_i64(value);
        self
    }

    pub(crate) fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.put_u8(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.0.put_u8(u8::try_from(value).unwrap_or(0));
        self
    }

    /// A count as varint.
    pub(crate) fn count(&mut self, value: usize) -> &mut Self {
        self.varint(value as u64)
    }

    /// A count of fixed width; the formats' limits keep it far below 2^32.
    pub(crate) fn count_u32(&mut self, count: usize) -> &mut Self {
        debug_assert!(u32::try_from(count).is_ok());
        self.u32(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Bytes without their length.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.put_slice(bytes);
        self
    }

    /// Bytes after their length of fixed width.
    pub(crate) fn blob(&mut self, blob: &[u8]) -> &mut Self {
        self.count_u32(blob.len()).bytes(blob)
    }

    pub(crate) fn uuid(&mut self, value: &Uuid) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// Its number is big-endian, so that keys sort like partitions.
    pub(crate) fn partition(&mut self, id: PartitionId) -> &mut Self {
        self.uuid(&id.topic).0.put_i32(id.index);
        self
    }

    pub(crate) fn string(&mut self, value: &str) -> &mut Self {
        self.count(value.len()).bytes(value.as_bytes())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn finish(&mut self) -> Bytes {
        self.0.split().freeze()
    }
}

/// Reads values from bytes; an error names the value that is wrong.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes after the version byte, which must be `version`.
    pub(crate) fn of_version(bytes: &'a [u8], version: u8) -> Result<Self, CodecError> {
        let mut reader = Self(bytes);
        let found = reader.u8("version")?;
        if found == version { Ok(reader) } else { Err(CodecError::Version(found)) }
    }

    fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(CodecError::Truncated(what))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(CodecError::Truncated(what))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, CodecError> {
        self.array(what).map(u8::from_le_bytes)
    }

    pub(crate) fn i16(&mut self, what: &'static str) -> Result<i16, CodecError> {
        self.array(what).map(i16::from_le_bytes)
    }

    pub(crate) fn i32(&mut self, what: &'static str) -> Result<i32, CodecError> {
        self.array(what).map(i32::from_le_bytes)
    }

    pub(crate) fn i64(&mut self, what: &'static str) -> Result<i64, CodecError> {
        self.array(what).map(i64::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, CodecError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, CodecError> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(crate) fn sorted_i64(&mut self, what: &'static str) -> Result<i64, CodecError> {
        self.array(what).map(i64::from_be_bytes)
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, CodecError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::Value(what))
    }

    /// A varint count of items that take at least one byte each: never more than the bytes that are left.
    pub(crate) fn count(&mut self, what: &'static str) -> Result<usize, CodecError> {
        let count = usize::try_from(self.varint(what)?).map_err(|_| CodecError::Value(what))?;
        self.backed(count, 1, what)
    }

    /// A count of fixed width of items that take at least `item_bytes_min` each: never more than the bytes can hold.
    pub(crate) fn count_u32(&mut self, item_bytes_min: usize, what: &'static str) -> Result<usize, CodecError> {
        let count = usize::try_from(self.u32(what)?).map_err(|_| CodecError::Limit(what))?;
        self.backed(count, item_bytes_min, what)
    }

    fn backed(&self, count: usize, item_bytes_min: usize, what: &'static str) -> Result<usize, CodecError> {
        match count.checked_mul(item_bytes_min) {
            Some(bytes) if bytes <= self.0.len() => Ok(count),
            _ => Err(CodecError::Truncated(what)),
        }
    }

    pub(crate) fn blob(&mut self, what: &'static str) -> Result<Bytes, CodecError> {
        let count = self.count_u32(1, what)?;
        self.bytes(count, what).map(Bytes::copy_from_slice)
    }

    pub(crate) fn uuid(&mut self, what: &'static str) -> Result<Uuid, CodecError> {
        self.array(what).map(Uuid::from_bytes)
    }

    pub(crate) fn partition(&mut self, what: &'static str) -> Result<PartitionId, CodecError> {
        Ok(PartitionId { topic: self.uuid(what)?, index: i32::from_be_bytes(self.array(what)?) })
    }

    pub(crate) fn string(&mut self, what: &'static str) -> Result<String, CodecError> {
        let length = self.count(what)?;
        let text = std::str::from_utf8(self.bytes(length, what)?);
        text.map(str::to_owned).map_err(|_| CodecError::Value(what))
    }

    /// Fails if bytes are left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn end(&self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::TrailingBytes) }
    }

    /// All remaining bytes.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Writes the number of `items`, then each with `write`.
pub(crate) fn write_list<T>(
    w: &mut Writer,
    items: impl ExactSizeIterator<Item = T>,
    mut write: impl FnMut(&mut Writer, T),
) {
    w.count(items.len());
    for item in items {
        write(w, item);
    }
}

/// The counterpart of [`write_list`].
pub(crate) fn read_list<T>(
    r: &mut Reader<'_>,
    what: &'static str,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, CodecError>,
) -> Result<Vec<T>, CodecError> {
    let count = r.count(what)?;
    let mut items = Vec::with_capacity(count.min(ROOM_MAX));
    for _ in 0..count {
        items.push(read(r)?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(id: PartitionId, number: u64, text: Option<&str>, blob: &[u8]) -> Bytes {
        let mut w = Writer::with_capacity(64);
        w.u8(1).i16(-2).i32(-3).i64(-4).u64(number).sorted_i64(-5).varint(number).uuid(&id.topic);
        w.partition(id).blob(blob);
        text.map(str::to_owned).write(&mut w);
        write_list(&mut w, blob.iter(), |w, byte| {
            w.u8(*byte);
        });
        w.finish()
    }

    fn read(bytes: &[u8]) -> Result<(PartitionId, u64, Option<String>, Vec<u8>), CodecError> {
        let mut r = Reader::of_version(bytes, 1)?;
        assert_eq!((r.i16("a")?, r.i32("b")?, r.i64("c")?), (-2, -3, -4));
        let number = r.u64("d")?;
        assert_eq!(r.sorted_i64("e")?, -5);
        assert_eq!(r.varint("f")?, number);
        let topic = r.uuid("g")?;
        let id = r.partition("h")?;
        assert_eq!(id.topic, topic);
        let blob = r.blob("i")?;
        let text = Option::read(&mut r, "h")?;
        let list = read_list(&mut r, "j", |r| r.u8("k"))?;
        assert_eq!(list, blob);
        r.end()?;
        Ok((id, number, text, list))
    }

    proptest! {
        #[test]
        fn values_come_back_and_cut_ones_are_refused(topic: u128, index: i32, number: u64, text: Option<String>, blob in proptest::collection::vec(any::<u8>(), 0..40), keep in any::<prop::sample::Index>()) {
            let id = PartitionId { topic: Uuid::from_u128(topic), index };
            let bytes = write(id, number, text.as_deref(), &blob);
            prop_assert_eq!(read(&bytes), Ok((id, number, text, blob)));
            prop_assert!(matches!(read(&bytes[..keep.index(bytes.len())]), Err(CodecError::Truncated(_))));
            let longer = [&bytes[..], &[0]].concat();
            prop_assert_eq!(read(&longer), Err(CodecError::TrailingBytes));
        }
    }

    #[test]
    fn numbers_are_little_endian_and_what_sorts_is_not() {
        let bytes = Writer::default().i32(1).count_u32(2).sorted_i64(3).varint(300).finish();
        assert_eq!(&bytes[..], [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0xac, 2]);
    }

    #[test]
    fn a_count_that_the_bytes_do_not_back_is_refused() {
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).count("things"), Err(CodecError::Truncated("things")));
        assert_eq!(Reader::new(&[2, 0, 0, 0, 1, 1]).count_u32(2, "things"), Err(CodecError::Truncated("things")));
    }
}
