//! The types that fields of a message have, in both encodings.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{GroupId, ProducerId, TopicName, TransactionalId};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::protocol::buf::ByteBuf;
use uuid::Uuid;

use crate::versions::ApiKey;
use crate::wire::{Reader, WireError, put_count, put_nullable_str_bytes};

/// Version and encoding of the message that a field belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoding {
    pub(crate) version: i16,
    pub(crate) flexible: bool,
}

impl Encoding {
    /// Fails for a version that the message does not have.
    pub(crate) fn of(version: i16, api_key: ApiKey) -> anyhow::Result<Self> {
        anyhow::ensure!(api_key.range().serves(version), "{} has no version {version}", api_key.name());
        Ok(Self { version, flexible: api_key.is_flexible(version) })
    }
}

/// What fields are read from; strings are slices of it.
pub(crate) struct Source<'a> {
    bytes: &'a Bytes,
    reader: Reader<'a>,
    pub(crate) encoding: Encoding,
}

impl Source<'_> {
    /// Skips the tagged fields at the end of a struct.
    pub(crate) fn skip_tags(&mut self) -> Result<(), WireError> {
        if self.encoding.flexible { self.reader.skip_tags() } else { Ok(()) }
    }
}

/// A field, or a struct of fields.
pub(crate) trait Field: Sized {
    fn encode(&self, out: &mut BytesMut, encoding: Encoding);

    fn decode(from: &mut Source<'_>) -> anyhow::Result<Self>;
}

/// The bytes of a message.
pub(crate) fn encoded(message: &impl Field, encoding: Encoding) -> BytesMut {
    let mut out = BytesMut::new();
    message.encode(&mut out, encoding);
    out
}

/// Reads a message from the beginning of the buffer, and takes its bytes out of it.
pub(crate) fn decoded<T: Field>(from: &mut impl ByteBuf, encoding: Encoding) -> anyhow::Result<T> {
    let bytes = from.peek_bytes(0..from.remaining());
    let mut source = Source { bytes: &bytes, reader: Reader::new(&bytes), encoding };
    let message = T::decode(&mut source)?;
    from.advance(source.reader.position());
    Ok(message)
}

macro_rules! fixed {
    ($($type:ty: $put:ident, $take:ident;)*) => {
        $(impl Field for $type {
            fn encode(&self, out: &mut BytesMut, _: Encoding) {
                out.$put((*self).into());
            }

            fn decode(from: &mut Source<'_>) -> anyhow::Result<Self> {
                Ok(from.reader.$take()?)
            }
        })*
    };
}

fixed! {
    bool: put_u8, bool;
    i8: put_i8, i8;
    i16: put_i16, i16;
    i32: put_i32, i32;
    i64: put_i64, i64;
}

impl Field for ProducerId {
    fn encode(&self, out: &mut BytesMut, encoding: Encoding) {
        self.0.encode(out, encoding);
    }

    fn decode(from: &mut Source<'_>) -> anyhow::Result<Self> {
        i64::decode(from).map(Self)
    }
}

impl Field for Uuid {
    fn encode(&self, out: &mut BytesMut, _: Encoding) {
        out.put_slice(self.as_bytes());
    }

    fn decode(from: &mut Source<'_>) -> anyhow::Result<Self> {
        Ok(from.reader.uuid()?)
    }
}

impl Field for Option<StrBytes> {
    fn encode(&self, out: &mut BytesMut, encoding: Encoding) {
        put_nullable_str_bytes(out, encoding.flexible, self.as_ref());
    }

    fn decode(from: &mut Source<'_>) -> anyhow::Result<Self> {
        let text = from.reader.nullable_string(from.encoding.flexible)?;
        let text = text.map(|text| StrBytes::try_from(from.bytes.slice_ref(text)));
        text.transpose().map_err(|_| WireError::NotUtf8.into())
    }
}

impl Field for StrBytes {
    fn encode(&self, out: &mut BytesMut, encoding: Encoding) {
        put_nullable_str_bytes(out, encoding.flexible, Some(self));
    }

    fn decode(from: &mut Source<'_>) -> anyhow::Result<Self> {
        Option::decode(from)?.ok_or_else(|| WireError::NegativeLength.into())
    }
}

macro_rules! names {
    ($($type:ident)*) => {
        $(impl Field for $type {
            fn encode(&self, out: &mut BytesMut, encoding: Encoding) {
                self.0.encode(out, encoding);
            }

            fn decode(from: &mut Source<'_>) -> anyhow::Result<Self> {
                StrBytes::decode(from).map(Self)
            }
        })*
    };
}

names! { GroupId TopicName TransactionalId }

impl<T: Field> Field for Option<Vec<T>> {
    fn encode(&self, out: &mut BytesMut, encoding: Encoding) {
        match self {
            Some(all) => all.encode(out, encoding),
            None if encoding.flexible => out.put_u8(0),
            None => out.put_i32(-1),
        }
    }

    fn decode(from: &mut Source<'_>) -> anyhow::Result<Self> {
        let Some(count) = from.reader.array_count(from.encoding.flexible, 1)? else { return Ok(None) };
        (0..count).map(|_| T::decode(from)).collect::<anyhow::Result<_>>().map(Some)
    }
}

impl<T: Field> Field for Vec<T> {
    fn encode(&self, out: &mut BytesMut, encoding: Encoding) {
        put_count(out, encoding.flexible, self.len());
        self.iter().for_each(|one| one.encode(out, encoding));
    }

    fn decode(from: &mut Source<'_>) -> anyhow::Result<Self> {
        Option::decode(from)?.ok_or_else(|| WireError::NegativeLength.into())
    }
}
