//! Kafka's primitive types over a byte slice: a bounds-checked reader and the few writers that the
//! hand-written codecs need. Every length is checked against what is left before it is used.
//!
//! May not know: any message.

use bytes::{BufMut, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

/// Why bytes cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A length or a fixed-size field reaches beyond the end.
    #[error("field reaches {missing} bytes beyond the end")]
    Truncated {
        /// How many bytes were missing.
        missing: usize,
    },
    /// A length below -1, or null where null has no meaning.
    #[error("negative length")]
    NegativeLength,
    /// A varint with more bits than its type.
    #[error("varint longer than its type")]
    VarintTooLong,
    /// More elements than the rest of the frame can hold, or than the bound for this message.
    #[error("more elements than the frame can hold or the limit allows")]
    TooManyElements,
    /// More tagged fields than the limit.
    #[error("more tagged fields than allowed")]
    TooManyTags,
    /// A tagged field whose number is out of range.
    #[error("malformed tagged field")]
    BadTag,
    /// A string that is not UTF-8.
    #[error("string is not UTF-8")]
    NotUtf8,
    /// A string longer than the 32,767 bytes that Kafka allows.
    #[error("string longer than 32767 bytes")]
    StringTooLong,
    /// The message ended before the frame did.
    #[error("{extra} bytes after the end of the message")]
    TrailingBytes {
        /// How many bytes were left over.
        extra: usize,
    },
}

/// Most tagged fields that one struct may carry, as in Kafka 4.4.
pub const MAX_TAGS: u32 = 10_000;
/// Most array elements that one message may hold, in all its arrays together; Kafka 4.4 allows as many in each. An element of one byte
/// on the wire takes a hundred in memory.
pub const MAX_ELEMENTS: usize = 1_000_000;
/// Tagged fields that a message of any size may carry; kafka-protocol keeps each unknown one in a tree node of
/// some 450 bytes.
const TAGS_FREE: usize = 256;
/// Bytes of a message that allow one more tagged field.
const BYTES_PER_TAG: usize = 32;
/// Longest string, as in Kafka's own generated code.
pub const MAX_STRING_BYTES: usize = i16::MAX as usize;

/// Reads primitives from a slice; never panics, never allocates.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    elements_left: usize,
    tags_left: usize,
}

macro_rules! fixed {
    ($($name:ident -> $type:ty),*) => {
        $(
            #[allow(missing_docs)]
            #[inline]
            pub fn $name(&mut self) -> Result<$type, WireError> {
                let raw = self.take(size_of::<$type>())?;
                let mut array = [0; size_of::<$type>()];
                array.copy_from_slice(raw);
                Ok(<$type>::from_be_bytes(array))
            }
        )*
    };
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, elements_left: MAX_ELEMENTS, tags_left: TAGS_FREE + bytes.len() / BYTES_PER_TAG }
    }

    /// How many bytes were read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `count` bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let left = self.remaining();
        let Some(taken) = self.bytes.get(self.at..).and_then(|rest| rest.get(..count)) else {
            return Err(WireError::Truncated { missing: count.saturating_sub(left) });
        };
        self.at += count;
        Ok(taken)
    }

    /// Skips `count` bytes.
    pub fn skip(&mut self, count: usize) -> Result<(), WireError> {
        self.take(count).map(|_| ())
    }

    /// Fails unless everything was read.
    #[inline]
    pub fn finish(&self) -> Result<(), WireError> {
        match self.remaining() {
            0 => Ok(()),
            extra => Err(WireError::TrailingBytes { extra }),
        }
    }

    fixed!(u8 -> u8, i8 -> i8, i16 -> i16, u16 -> u16, i32 -> i32, u32 -> u32, i64 -> i64);

    /// A boolean: any byte but 0 is true, as in Kafka.
    pub fn bool(&mut self) -> Result<bool, WireError> {
        Ok(self.u8()? != 0)
    }

    /// A UUID: sixteen bytes.
    pub fn uuid(&mut self) -> Result<Uuid, WireError> {
        let mut array = [0; 16];
        array.copy_from_slice(self.take(16)?);
        Ok(Uuid::from_bytes(array))
    }

    /// An unsigned varint of at most 32 bits.
    #[inline]
    pub fn unsigned_varint(&mut self) -> Result<u32, WireError> {
        // Most are one byte long.
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u32::from(byte))
            }
            _ => self.long_unsigned_varint(),
        }
    }

    fn long_unsigned_varint(&mut self) -> Result<u32, WireError> {
        let mut value: u32 = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.u8()?;
            let bits = u32::from(byte & 0x7f);
            // The fifth byte has room for four bits only.
            if shift == 28 && bits > 0x0f {
                return Err(WireError::VarintTooLong);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::VarintTooLong)
    }

    /// A zigzag varint of at most 32 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<i32, WireError> {
        let raw = self.unsigned_varint()?;
        Ok(((raw >> 1) as i32) ^ -((raw & 1) as i32))
    }

    /// A zigzag varint of at most 64 bits.
    #[inline]
    pub fn varlong(&mut self) -> Result<i64, WireError> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1))
            }
            _ => self.long_varlong(),
        }
    }

    fn long_varlong(&mut self) -> Result<i64, WireError> {
        let mut value: u64 = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit only.
            if shift == 63 && bits > 1 {
                return Err(WireError::VarintTooLong);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(((value >> 1) as i64) ^ -((value & 1) as i64));
            }
        }
        Err(WireError::VarintTooLong)
    }

    /// Bytes with a two-byte length; -1 is null.
    pub fn nullable_bytes_i16(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        let length = i32::from(self.i16()?);
        self.sized(length)
    }

    /// Bytes with a four-byte length; -1 is null.
    pub fn nullable_bytes_i32(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        let length = self.i32()?;
        self.sized(length)
    }

    /// Bytes with a varint length plus one; 0 is null.
    pub fn nullable_bytes_compact(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        match self.unsigned_varint()? {
            0 => Ok(None),
            length => self.take((length - 1) as usize).map(Some),
        }
    }

    /// A nullable string of either encoding, as bytes of at most [`MAX_STRING_BYTES`]; UTF-8 is not checked.
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, WireError> {
        let raw = if flexible { self.nullable_bytes_compact()? } else { self.nullable_bytes_i16()? };
        match raw {
            Some(raw) if raw.len() > MAX_STRING_BYTES => Err(WireError::StringTooLong),
            raw => Ok(raw),
        }
    }

    /// Nullable bytes of either encoding.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, WireError> {
        if flexible { self.nullable_bytes_compact() } else { self.nullable_bytes_i32() }
    }

    /// The number of elements of an array; None is null. `element_bytes_min` is what the smallest
    /// element takes, so a count that the rest of the frame cannot hold is refused here.
    pub fn array_count(&mut self, flexible: bool, element_bytes_min: usize) -> Result<Option<usize>, WireError> {
        let count = if flexible {
            match self.unsigned_varint()? {
                0 => return Ok(None),
                count => (count - 1) as usize,
            }
        } else {
            match self.i32()? {
                -1 => return Ok(None),
                count => usize::try_from(count).map_err(|_| WireError::NegativeLength)?,
            }
        };
        if count.saturating_mul(element_bytes_min.max(1)) > self.remaining() || count > self.elements_left {
            return Err(WireError::TooManyElements);
        }
        self.elements_left -= count;
        Ok(Some(count))
    }

    /// Skips a struct's tagged fields.
    pub fn skip_tags(&mut self) -> Result<(), WireError> {
        self.each_tag(|_, _| Ok(()))
    }

    /// Calls `known` for every tagged field with its number and content. Like Kafka, takes them in any order.
    pub fn each_tag(&mut self, mut known: impl FnMut(u32, &'a [u8]) -> Result<(), WireError>) -> Result<(), WireError> {
        let count = self.unsigned_varint()?;
        if count > MAX_TAGS || count as usize > self.tags_left {
            return Err(WireError::TooManyTags);
        }
        self.tags_left -= count as usize;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            // Tags are signed in Kafka and in kafka-protocol.
            if i32::try_from(tag).is_err() {
                return Err(WireError::BadTag);
            }
            let size = self.unsigned_varint()?;
            known(tag, self.take(size as usize)?)?;
        }
        Ok(())
    }

    fn sized(&mut self, length: i32) -> Result<Option<&'a [u8]>, WireError> {
        match length {
            -1 => Ok(None),
            length => self.take(usize::try_from(length).map_err(|_| WireError::NegativeLength)?).map(Some),
        }
    }
}

/// Appends an unsigned varint.
#[inline]
pub fn put_unsigned_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends a zigzag varint of 32 bits.
#[inline]
pub fn put_varint(out: &mut BytesMut, value: i32) {
    put_unsigned_varint(out, ((value << 1) ^ (value >> 31)) as u32);
}

/// Appends a zigzag varint of 64 bits.
#[inline]
pub fn put_varlong(out: &mut BytesMut, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.put_u8((zigzag as u8 & 0x7f) | 0x80);
        zigzag >>= 7;
    }
    out.put_u8(zigzag as u8);
}

/// Length of a zigzag varint of 64 bits; a 32-bit value takes the same number of bytes.
#[must_use]
pub fn varlong_length(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (zigzag | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends an array's count.
pub(crate) fn put_count(out: &mut BytesMut, flexible: bool, count: usize) {
    if flexible {
        put_unsigned_varint(out, count as u32 + 1);
    } else {
        out.put_i32(count as i32);
    }
}

/// Appends a nullable string; one that is too long for the wire is cut at a character boundary,
/// which only error messages can be.
pub(crate) fn put_nullable_string(out: &mut BytesMut, flexible: bool, text: Option<&str>) {
    match text {
        None if flexible => out.put_u8(0),
        None => out.put_i16(-1),
        Some(text) => {
            let text = &text[..text.floor_char_boundary(MAX_STRING_BYTES)];
            if flexible {
                put_unsigned_varint(out, text.len() as u32 + 1);
            } else {
                out.put_i16(text.len() as i16);
            }
            out.put_slice(text.as_bytes());
        }
    }
}

/// Appends a nullable string.
pub(crate) fn put_nullable_str_bytes(out: &mut BytesMut, flexible: bool, text: Option<&StrBytes>) {
    put_nullable_string(out, flexible, text.map(|text| &**text));
}

/// Appends the count of a struct's tagged fields where there are none.
pub(crate) fn put_no_tags(out: &mut BytesMut, flexible: bool) {
    if flexible {
        out.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn varints_at_their_edges() {
        let read = |bytes: &[u8]| Reader::new(bytes).unsigned_varint();
        assert_eq!(read(&[0]), Ok(0));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x00]), Ok(0), "not the shortest, but Kafka reads it");
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(WireError::VarintTooLong));
        assert_eq!(read(&[0x80; 6]), Err(WireError::VarintTooLong));
        assert_eq!(read(&[0x80]), Err(WireError::Truncated { missing: 1 }));
        let long = |bytes: &[u8]| Reader::new(bytes).varlong();
        assert_eq!(long(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Ok(i64::MIN));
        assert_eq!(long(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), Err(WireError::VarintTooLong));
        assert_eq!(long(&[0x80; 11]), Err(WireError::VarintTooLong));
    }

    #[test]
    fn lengths_below_null_and_beyond_the_end_are_refused() {
        assert_eq!(Reader::new(&[0xff, 0xff]).nullable_bytes_i16(), Ok(None));
        assert_eq!(Reader::new(&[0xff, 0xfe]).nullable_bytes_i16(), Err(WireError::NegativeLength));
        assert_eq!(Reader::new(&[0, 5, 1]).nullable_bytes_i16(), Err(WireError::Truncated { missing: 4 }));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xfe]).nullable_bytes_i32(), Err(WireError::NegativeLength));
        assert_eq!(Reader::new(&[0x80; 4]).array_count(false, 1), Err(WireError::NegativeLength));
        assert_eq!(Reader::new(&[0, 0, 0, 2, 0]).array_count(false, 1), Err(WireError::TooManyElements));
        assert_eq!(Reader::new(&[0, 0, 0, 0]).array_count(false, 1), Ok(Some(0)));
    }

    #[test]
    fn a_compact_string_above_32767_bytes_is_refused() {
        let mut out = BytesMut::new();
        put_unsigned_varint(&mut out, MAX_STRING_BYTES as u32 + 2);
        out.resize(out.len() + MAX_STRING_BYTES + 1, b'a');
        assert_eq!(Reader::new(&out).nullable_string(true), Err(WireError::StringTooLong));
    }

    /// The limit holds for all arrays together, not for each.
    #[test]
    fn the_limit_of_elements_holds_for_all_arrays_together() {
        let count = MAX_ELEMENTS as u32 / 2 + 1;
        let mut out = BytesMut::new();
        out.put_u32(count);
        out.put_u32(count);
        out.resize(out.len() + 2 * count as usize, 0);
        let mut reader = Reader::new(&out);
        assert_eq!(reader.array_count(false, 1), Ok(Some(count as usize)));
        assert_eq!(reader.array_count(false, 1), Err(WireError::TooManyElements));
    }

    #[test]
    fn an_error_message_too_long_for_the_wire_is_cut_between_characters() {
        let text = "\u{00e4}".repeat(20_000);
        let mut out = BytesMut::new();
        put_nullable_string(&mut out, false, Some(&text));
        let mut reader = Reader::new(&out);
        let raw = reader.nullable_string(false).unwrap().unwrap();
        assert_eq!(raw.len(), 32_766);
        assert!(std::str::from_utf8(raw).is_ok() && reader.remaining() == 0);
    }

    proptest! {
        #[test]
        fn varints_round_trip(long in any::<i64>(), int in any::<i32>(), unsigned in any::<u32>(), shift in 0u32..64) {
            let mut out = BytesMut::new();
            let (long, int, unsigned) = (long >> shift, int >> (shift / 2), unsigned >> (shift / 2));
            put_varlong(&mut out, long);
            prop_assert_eq!(out.len(), varlong_length(long));
            put_varint(&mut out, int);
            prop_assert_eq!(out.len(), varlong_length(long) + varlong_length(i64::from(int)));
            put_unsigned_varint(&mut out, unsigned);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varlong(), Ok(long));
            prop_assert_eq!(reader.varint(), Ok(int));
            prop_assert_eq!(reader.unsigned_varint(), Ok(unsigned));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }
}
