//! Codec of the primitive types of Kafka's schema, as its internal records use them.
//!
//! A [`Reader`] never reads past its input and never allocates more than its input is long. May not know what the
//! fields mean.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// The bytes do not follow the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed coordinator record: {0}")]
pub struct Malformed(pub &'static str);

/// Takes fields off the front of some bytes.
pub(crate) struct Reader(Bytes);

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn remaining(&self) -> usize {
        self.0.len()
    }

    fn need(&self, count: usize) -> Result<(), Malformed> {
        if self.0.len() < count { Err(Malformed("ends too early")) } else { Ok(()) }
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        self.need(2)?;
        Ok(self.0.get_i16())
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.need(4)?;
        Ok(self.0.get_i32())
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.need(8)?;
        Ok(self.0.get_i64())
    }

    pub(crate) fn uuid(&mut self) -> Result<Uuid, Malformed> {
        self.need(16)?;
        Ok(Uuid::from_u128(self.0.get_u128()))
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<Bytes, Malformed> {
        self.need(count)?;
        Ok(self.0.split_to(count))
    }

    /// An unsigned varint of at most 32 bits.
    pub(crate) fn uvarint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            self.need(1)?;
            let byte = self.0.get_u8();
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Malformed("varint above 32 bits"));
            }
        }
        Err(Malformed("varint too long"))
    }

    /// Length of a nullable field; `None` is null.
    fn length(&mut self, compact: bool, wide: bool) -> Result<Option<usize>, Malformed> {
        if compact {
            let coded = self.uvarint()?;
            return Ok(coded.checked_sub(1).map(|n| n as usize));
        }
        let signed = if wide { self.i32()? } else { i32::from(self.i16()?) };
        match signed {
            -1 => Ok(None),
            n => usize::try_from(n).map(Some).map_err(|_| Malformed("negative length")),
        }
    }

    pub(crate) fn nullable_string(&mut self, compact: bool) -> Result<Option<String>, Malformed> {
        let Some(length) = self.length(compact, false)? else { return Ok(None) };
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map(Some).map_err(|_| Malformed("not UTF-8"))
    }

    pub(crate) fn string(&mut self, compact: bool) -> Result<String, Malformed> {
        self.nullable_string(compact)?.ok_or(Malformed("null string"))
    }

    pub(crate) fn bytes(&mut self, compact: bool) -> Result<Bytes, Malformed> {
        let length = self.length(compact, true)?.ok_or(Malformed("null bytes"))?;
        self.take(length)
    }

    /// The same of an array that may be null, which has none.
    pub(crate) fn nullable_array(&mut self, compact: bool) -> Result<usize, Malformed> {
        let count = self.length(compact, true)?.unwrap_or(0);
        if count > self.remaining() { Err(Malformed("array longer than its record")) } else { Ok(count) }
    }

    /// Number of elements of an array. Each takes at least a byte, so the input's length bounds it.
    pub(crate) fn array(&mut self, compact: bool) -> Result<usize, Malformed> {
        let count = self.length(compact, true)?.ok_or(Malformed("null array"))?;
        if count > self.remaining() { Err(Malformed("array longer than its record")) } else { Ok(count) }
    }

    /// Calls `field` with each tagged field's number and bytes; nothing in versions that have none.
    pub(crate) fn tags(
        &mut self,
        flexible: bool,
        mut field: impl FnMut(u32, Bytes) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if !flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let length = self.uvarint()? as usize;
            let value = self.take(length)?;
            field(tag, value)?;
        }
        Ok(())
    }
}

/// Appends `text` with a 16-bit length. Callers hold texts that came off the wire under that very limit.
pub(crate) fn put_string(out: &mut BytesMut, text: &str) {
    put_nullable_string(out, Some(text));
}

pub(crate) fn put_nullable_string(out: &mut BytesMut, text: Option<&str>) {
    match text {
        None => out.put_i16(-1),
        Some(text) => {
            // Kafka's own limit; a longer text cannot come off the wire. Cut at a character, never in the middle of
            // one.
            let mut end = text.len().min(i16::MAX as usize);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let bytes = &text.as_bytes()[..end];
            out.put_i16(bytes.len() as i16);
            out.put_slice(bytes);
        }
    }
}

/// Appends a nullable text, with a 16-bit or, in flexible versions, a compact length.
pub(crate) fn put_text(out: &mut BytesMut, compact: bool, text: Option<&str>) {
    match text {
        Some(text) if compact => {
            put_length(out, true, text.len());
            out.put_slice(text.as_bytes());
        }
        None if compact => put_uvarint(out, 0),
        text => put_nullable_string(out, text),
    }
}

/// Appends the length of an array or of bytes; far below 2 GiB, since all came in one frame.
pub(crate) fn put_length(out: &mut BytesMut, compact: bool, length: usize) {
    let length = i32::try_from(length).unwrap_or(i32::MAX);
    if compact { put_uvarint(out, length as u32 + 1) } else { out.put_i32(length) }
}

pub(crate) fn put_uvarint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
