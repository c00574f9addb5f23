//! How metadata's commands and records are written: fixed big-endian numbers, varints for counts, strings by length.
//!
//! Reading checks every length before anything is allocated. May not know: what it writes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;
use uuid::Uuid;

/// Bytes are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end within a value.
    #[error("the bytes end within {0}")]
    Short(&'static str),
    /// A value that was never written.
    #[error("{0} has a value that is not known")]
    Unknown(&'static str),
    /// Written by a newer release.
    #[error("format version {0} is newer than this release understands")]
    Newer(u8),
    /// Bytes are left over.
    #[error("bytes are left over")]
    Trailing,
}

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub(super) struct Writer(BytesMut);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.put_u8(value);
        self
    }

    pub(super) fn i32(&mut self, value: i32) -> &mut Self {
        self.0.put_i32(value);
        self
    }

    pub(super) fn i64(&mut self, value: i64) -> &mut Self {
        self.0.put_i64(value);
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.put_u64(value);
        self
    }

    pub(super) fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.put_u8(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.0.put_u8(u8::try_from(value).unwrap_or(0));
        self
    }

    pub(super) fn count(&mut self, value: usize) -> &mut Self {
        self.varint(value as u64)
    }

    pub(super) fn uuid(&mut self, value: &Uuid) -> &mut Self {
        self.0.put_slice(value.as_bytes());
        self
    }

    pub(super) fn string(&mut self, value: &str) -> &mut Self {
        self.count(value.len());
        self.0.put_slice(value.as_bytes());
        self
    }

    pub(super) fn optional(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.u8(1).string(value),
            None => self.u8(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn finish(&mut self) -> Bytes {
        self.0.split().freeze()
    }
}

/// Takes values off bytes.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn need(&self, bytes: usize, what: &'static str) -> Result<(), DecodeError> {
        if self.0.len() < bytes { Err(DecodeError::Short(what)) } else { Ok(()) }
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.need(1, what)?;
        Ok(self.0.get_u8())
    }

    pub(super) fn i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        self.need(4, what)?;
        Ok(self.0.get_i32())
    }

    pub(super) fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.need(8, what)?;
        Ok(self.0.get_i64())
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.need(8, what)?;
        Ok(self.0.get_u64())
    }

    pub(super) fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Unknown(what))
    }

    /// A count of things of which each takes at least one byte: never more than the bytes that are left.
    pub(super) fn count(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.varint(what)?).map_err(|_| DecodeError::Unknown(what))?;
        self.need(count, what)?;
        Ok(count)
    }

    pub(super) fn uuid(&mut self, what: &'static str) -> Result<Uuid, DecodeError> {
        self.need(16, what)?;
        let mut bytes = [0; 16];
        self.0.copy_to_slice(&mut bytes);
        Ok(Uuid::from_bytes(bytes))
    }

    pub(super) fn string(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let length = self.count(what)?;
        let (head, rest) = self.0.split_at(length);
        let value = std::str::from_utf8(head).map_err(|_| DecodeError::Unknown(what))?.to_owned();
        self.0 = rest;
        Ok(value)
    }

    pub(super) fn optional(&mut self, what: &'static str) -> Result<Option<String>, DecodeError> {
        match self.u8(what)? {
            0 => Ok(None),
            1 => self.string(what).map(Some),
            _ => Err(DecodeError::Unknown(what)),
        }
    }

    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

/// `items` by count, each as `write` does.
pub(super) fn write_list<T>(
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
pub(super) fn read_list<T>(
    r: &mut Reader<'_>,
    what: &'static str,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = r.count(what)?;
    let mut items = Vec::with_capacity(count.min(1_024));
    for _ in 0..count {
        items.push(read(r)?);
    }
    Ok(items)
}
