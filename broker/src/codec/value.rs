//! How values of Rust's and of the project's own types are written: each has one usual encoding ([`Value`]), and where a
//! format differs from it, the format names another ([`Encoding`]).
//!
//! - The usual encoding: numbers little-endian and of fixed width; a bool as 0 or 1; lists and maps by a varint count;
//!   an `Option` as a bool and the value.
//! - The others are types without values, so that a format names them where it names its field: `shards: Each<Varint>`.
//!
//! May not know: which format a value is part of.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ids::{LeaderEpoch, NodeId, Offset, PartitionId, ProducerId};
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use super::{CodecError, ROOM_MAX, Reader, Writer, read_list, write_list};

/// A type with a usual encoding.
pub(crate) trait Value: Sized {
    fn write(&self, w: &mut Writer);

    /// `what` names the value in an error.
    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError>;
}

/// An encoding of `T`.
pub(crate) trait Encoding<T> {
    fn write(value: &T, w: &mut Writer);

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<T, CodecError>;
}

/// An enum whose encoding is a tag and the fields of its variant.
pub(crate) trait Tagged: Value {
    /// The counterpart of [`Value::write`], once the tag is read.
    fn read_tagged(tag: u8, r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError>;
}

/// A number, or an id that is one.
pub(crate) trait Number: Copy {
    fn to_wide(self) -> i128;

    /// `None` if it is out of range.
    fn of_wide(number: i128) -> Option<Self>;
}

/// The usual encoding.
pub(crate) struct Plain;

impl<T: Value> Encoding<T> for Plain {
    fn write(value: &T, w: &mut Writer) {
        value.write(w);
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<T, CodecError> {
        T::read(r, what)
    }
}

macro_rules! integers {
    ($($type:ident),*) => {$(
        impl Number for $type {
            fn to_wide(self) -> i128 {
                self as i128
            }

            fn of_wide(number: i128) -> Option<Self> {
                Self::try_from(number).ok()
            }
        }
    )*};
}

integers!(u8, u16, u32, u64, usize, i16, i32, i64);

/// Values that the writer and the reader have a method for.
macro_rules! methods {
    ($($type:ty: $method:ident($($by:tt)*)),*) => {$(
        impl Value for $type {
            fn write(&self, w: &mut Writer) {
                w.$method($($by)* self);
            }

            fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
                r.$method(what)
            }
        }
    )*};
}

methods!(u8: u8(*), u32: u32(*), u64: u64(*), i16: i16(*), i32: i32(*), i64: i64(*));
methods!(Uuid: uuid(), String: string(), Bytes: blob(), PartitionId: partition(*));

/// Ids: each is encoded as its number.
macro_rules! ids {
    ($($id:ident($number:ty)),*) => {$(
        impl $crate::codec::Value for $id {
            fn write(&self, w: &mut $crate::codec::Writer) {
                self.0.write(w);
            }

            fn read(
                r: &mut $crate::codec::Reader<'_>,
                what: &'static str,
            ) -> Result<Self, $crate::codec::CodecError> {
                <$number as $crate::codec::Value>::read(r, what).map(Self)
            }
        }

        impl $crate::codec::Number for $id {
            fn to_wide(self) -> i128 {
                self.0.to_wide()
            }

            fn of_wide(number: i128) -> Option<Self> {
                <$number as $crate::codec::Number>::of_wide(number).map(Self)
            }
        }
    )*};
}
pub(crate) use ids;

ids!(NodeId(i32), RaftIndex(u64), ReplicaId(u64), Offset(i64), LeaderEpoch(i32), ProducerId(i64));

/// Nothing, in no bytes.
impl Value for () {
    fn write(&self, _: &mut Writer) {}

    fn read(_: &mut Reader<'_>, _: &'static str) -> Result<Self, CodecError> {
        Ok(())
    }
}

impl Value for bool {
    fn write(&self, w: &mut Writer) {
        w.u8(u8::from(*self));
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
        match r.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Value(what)),
        }
    }
}

impl<T: Value> Value for Option<T> {
    fn write(&self, w: &mut Writer) {
        self.is_some().write(w);
        if let Some(value) = self {
            value.write(w);
        }
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
        if bool::read(r, what)? { T::read(r, what).map(Some) } else { Ok(None) }
    }
}

/// 0 and the value, or 1 and the error.
impl<T: Value, E: Value> Value for Result<T, E> {
    fn write(&self, w: &mut Writer) {
        match self {
            Ok(value) => value.write(w.u8(0)),
            Err(error) => error.write(w.u8(1)),
        }
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
        match r.u8(what)? {
            0 => T::read(r, what).map(Ok),
            1 => E::read(r, what).map(Err),
            tag => Err(CodecError::Tag(what, tag)),
        }
    }
}

impl<A: Value, B: Value> Value for (A, B) {
    fn write(&self, w: &mut Writer) {
        self.0.write(w);
        self.1.write(w);
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
        Ok((A::read(r, what)?, B::read(r, what)?))
    }
}

impl<A, B, E: Encoding<A>, F: Encoding<B>> Encoding<(A, B)> for (E, F) {
    fn write(value: &(A, B), w: &mut Writer) {
        E::write(&value.0, w);
        F::write(&value.1, w);
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<(A, B), CodecError> {
        Ok((E::read(r, what)?, F::read(r, what)?))
    }
}

impl<T: Value> Value for Vec<T> {
    fn write(&self, w: &mut Writer) {
        Each::<Plain>::write(self, w);
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
        Each::<Plain>::read(r, what)
    }
}

impl<T: Value> Value for Arc<[T]> {
    fn write(&self, w: &mut Writer) {
        write_list(w, self.iter(), |w, item| item.write(w));
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
        Vec::read(r, what).map(Into::into)
    }
}

impl<K: Value + Ord, V: Value> Value for BTreeMap<K, V> {
    fn write(&self, w: &mut Writer) {
        write_list(w, self.iter(), |w, (key, value)| {
            key.write(w);
            value.write(w);
        });
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
        Vec::<(K, V)>::read(r, what).map(|pairs| pairs.into_iter().collect())
    }
}

/// Pointers: as what they point to.
macro_rules! pointers {
    ($($pointer:ident),*) => {$(
        impl<T: Value> Value for $pointer<T> {
            fn write(&self, w: &mut Writer) {
                T::write(self, w);
            }

            fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
                T::read(r, what).map(Self::new)
            }
        }
    )*};
}

pointers!(Arc, Box);

/// An optional value: a bool, then the value in the encoding `E`.
pub(crate) struct Optional<E>(PhantomData<E>);

impl<T, E: Encoding<T>> Encoding<Option<T>> for Optional<E> {
    fn write(value: &Option<T>, w: &mut Writer) {
        value.is_some().write(w);
        if let Some(value) = value {
            E::write(value, w);
        }
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Option<T>, CodecError> {
        if bool::read(r, what)? { E::read(r, what).map(Some) } else { Ok(None) }
    }
}

/// A number as varint. One below 0 counts as 0: no format has one here.
pub(crate) struct Varint;

impl<T: Number> Encoding<T> for Varint {
    fn write(value: &T, w: &mut Writer) {
        w.varint(u64::try_from(value.to_wide()).unwrap_or(0));
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<T, CodecError> {
        T::of_wide(r.varint(what)?.into()).ok_or(CodecError::Value(what))
    }
}

/// An optional number as varint: 0 for none, else the number + 1.
pub(crate) struct VarintOrZero;

impl<T: Number> Encoding<Option<T>> for VarintOrZero {
    fn write(value: &Option<T>, w: &mut Writer) {
        let number = value.map_or(0, |value| value.to_wide().max(0) + 1);
        w.varint(u64::try_from(number).unwrap_or(u64::MAX));
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Option<T>, CodecError> {
        let number = r.varint(what)?.checked_sub(1);
        number.map(|number| T::of_wide(number.into()).ok_or(CodecError::Value(what))).transpose()
    }
}

/// An optional number that is not negative: -1 for none.
pub(crate) struct OrMinusOne;

impl<T: Number + Value> Encoding<Option<T>> for OrMinusOne {
    fn write(value: &Option<T>, w: &mut Writer) {
        // An unsigned number has no -1: such a format would be read as cut.
        if let Some(value) = value.or(T::of_wide(-1)) {
            value.write(w);
        }
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Option<T>, CodecError> {
        T::read(r, what).map(|value| Some(value).filter(|value| value.to_wide() >= 0))
    }
}

/// An optional number of fixed width: a bool, then the number, or `FILLER` for none.
pub(crate) struct Padded<const FILLER: i8>;

impl<T: Number + Value, const FILLER: i8> Encoding<Option<T>> for Padded<FILLER> {
    fn write(value: &Option<T>, w: &mut Writer) {
        value.is_some().write(w);
        if let Some(value) = value.or(T::of_wide(FILLER.into())) {
            value.write(w);
        }
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Option<T>, CodecError> {
        let is_some = bool::read(r, what)?;
        T::read(r, what).map(|value| is_some.then_some(value))
    }
}

/// An optional enum: the tag 0, which the enum does not have, for none.
pub(crate) struct TagOrZero;

impl<T: Tagged> Encoding<Option<T>> for TagOrZero {
    fn write(value: &Option<T>, w: &mut Writer) {
        match value {
            Some(value) => value.write(w),
            None => drop(w.u8(0)),
        }
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Option<T>, CodecError> {
        match r.u8(what)? {
            0 => Ok(None),
            tag => T::read_tagged(tag, r, what).map(Some),
        }
    }
}

/// A list by a varint count, each item in the encoding `E`.
pub(crate) struct Each<E>(PhantomData<E>);

impl<T, E: Encoding<T>> Encoding<Vec<T>> for Each<E> {
    fn write(value: &Vec<T>, w: &mut Writer) {
        write_list(w, value.iter(), |w, item| E::write(item, w));
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Vec<T>, CodecError> {
        read_list(r, what, |r| E::read(r, what))
    }
}

/// A list of at most `MAX` items, by a count of the fixed width of `N`.
pub(crate) struct Counted<N, const MAX: usize>(PhantomData<N>);

impl<N: Number + Value, const MAX: usize> Counted<N, MAX> {
    pub(crate) fn write_slice<T: Value>(items: &[T], w: &mut Writer) {
        debug_assert!(items.len() <= MAX);
        // The limit is below what `N` can count.
        if let Some(count) = N::of_wide(items.len().to_wide()) {
            count.write(w);
        }
        items.iter().for_each(|item| item.write(w));
    }
}

impl<T: Value, N: Number + Value, const MAX: usize> Encoding<Vec<T>> for Counted<N, MAX> {
    fn write(value: &Vec<T>, w: &mut Writer) {
        Self::write_slice(value, w);
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Vec<T>, CodecError> {
        let count = usize::of_wide(N::read(r, what)?.to_wide()).ok_or(CodecError::Limit(what))?;
        let count = r.backed(count, 1, what)?;
        if count > MAX {
            return Err(CodecError::Limit(what));
        }
        let mut items = Vec::with_capacity(count.min(ROOM_MAX));
        for _ in 0..count {
            items.push(T::read(r, what)?);
        }
        Ok(items)
    }
}

/// Big-endian, so that keys sort like their numbers.
pub(crate) struct Sorted;

impl Encoding<ProducerId> for Sorted {
    fn write(value: &ProducerId, w: &mut Writer) {
        w.sorted_i64(value.0);
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<ProducerId, CodecError> {
        r.sorted_i64(what).map(ProducerId)
    }
}

impl Encoding<Offset> for Sorted {
    fn write(value: &Offset, w: &mut Writer) {
        w.sorted_i64(value.0);
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Offset, CodecError> {
        r.sorted_i64(what).map(Offset)
    }
}

/// All bytes that remain, without their length.
pub(crate) struct Rest;

impl Encoding<Bytes> for Rest {
    fn write(value: &Bytes, w: &mut Writer) {
        w.bytes(value);
    }

    fn read(r: &mut Reader<'_>, _what: &'static str) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(r.rest()))
    }
}
