//! [`record!`]: from one declaration of a format, what writes it and what reads it.
//!
//! ```text
//! record! {
//!     // A struct: its fields in the order of the format, each in its usual encoding or in the one that is named.
//!     NewShard { id: Varint, kind, replicas }
//!     // Fields that later releases added stand at the end. `= value`: what a record means that ends before the field.
//!     // `later`: such fields that are also left out, where they and all after them have their default.
//!     ClusterRecord { cluster_id, checksum; later level }
//!     // Another encoding of a type that has several, named so that other formats can name it. `without`: the fields
//!     // that it does not have, and what they are when it is read.
//!     NodeRecord as Registered { id, rack, version; without state = NodeState::Active, levels = Levels::FIRST }
//!     // The same, and more fields after it.
//!     NodeRecord as Recorded = Registered + { state = NodeState::Active; later levels }
//!     // An enum: each variant's tag u8, then its fields. A variant may have two tags: the first that fits is written.
//!     enum Command {
//!         2 RegisterNode(node: Registered) if node.levels == Levels::FIRST,
//!         15 RegisterNode(node: WithLevels),
//!         3 AddShard(shard),
//!         5 DeleteTopic { id },
//!         14 DeleteNamed[TopicName::Name](name),   // a variant within a variant
//!         18 Balance,
//!     }
//! }
//! ```
//!
//! - The types themselves are ordinary Rust beside their documentation; a format that forgets a field of a struct, or a
//!   variant, does not compile, nor does a tag that is used twice (an unreachable pattern).
//! - Errors name the field, and an unknown tag names the field that the enum is in.
//! - What reads a struct is always inlined: otherwise each item of a list is moved through memory twice.

/// See the head of the file.
macro_rules! record {
    () => {};

    (@encoding) => { $crate::codec::Plain };
    (@encoding $encoding:ty) => { $encoding };

    (@write $w:ident $field:ident $($encoding:ty)?) => {
        <$crate::codec::record!(@encoding $($encoding)?) as $crate::codec::Encoding<_>>::write($field, $w)
    };

    (@read $r:ident $field:ident ($($encoding:ty)?)) => {
        <$crate::codec::record!(@encoding $($encoding)?) as $crate::codec::Encoding<_>>::read($r, stringify!($field))?
    };
    (@read $r:ident $field:ident ($($encoding:ty)?) $absent:expr) => {
        if $r.is_empty() { $absent } else { $crate::codec::record!(@read $r $field ($($encoding)?)) }
    };

    (@write_later $w:ident) => {};
    (@write_later $w:ident $field:ident $($after:ident)*) => {
        if !$crate::codec::is_default($field) $(|| !$crate::codec::is_default($after))* {
            $crate::codec::Value::write($field, $w);
            $crate::codec::record!(@write_later $w $($after)*);
        }
    };

    (enum $type:ident {$(
        $tag:literal $variant:ident
        $([$inner:path]($only:ident))?
        $(($($item:ident $(: $item_encoding:ty)?),*))?
        $({ $($field:ident $(: $encoding:ty)?),* })?
        $(if $guard:expr)?
    ),* $(,)?} $($rest:tt)*) => {
        impl $crate::codec::Value for $type {
            fn write(&self, w: &mut $crate::codec::Writer) {
                match self {$(
                    Self::$variant $(($inner($only)))? $(($($item),*))? $({ $($field),* })? $(if $guard)? => {
                        w.u8($tag);
                        $($crate::codec::record!(@write w $only);)?
                        $($($crate::codec::record!(@write w $item $($item_encoding)?);)*)?
                        $($($crate::codec::record!(@write w $field $($encoding)?);)*)?
                    }
                )*}
            }

            fn read(
                r: &mut $crate::codec::Reader<'_>,
                what: &'static str,
            ) -> Result<Self, $crate::codec::CodecError> {
                let tag = r.u8(what)?;
                $crate::codec::Tagged::read_tagged(tag, r, what)
            }
        }

        impl $crate::codec::Tagged for $type {
            #[allow(unused_variables)]
            #[deny(unreachable_patterns)]
            fn read_tagged(
                tag: u8,
                r: &mut $crate::codec::Reader<'_>,
                what: &'static str,
            ) -> Result<Self, $crate::codec::CodecError> {
                Ok(match tag {
                    $($tag => {
                        $(let $only = $crate::codec::record!(@read r $only ());)?
                        $($(let $item = $crate::codec::record!(@read r $item ($($item_encoding)?));)*)?
                        $($(let $field = $crate::codec::record!(@read r $field ($($encoding)?));)*)?
                        Self::$variant $(($inner($only)))? $(($($item),*))? $({ $($field),* })?
                    })*
                    tag => return Err($crate::codec::CodecError::Tag(what, tag)),
                })
            }
        }

        $crate::codec::record!($($rest)*);
    };

    ($type:ident { $($fields:tt)* } $($rest:tt)*) => {
        impl $crate::codec::Value for $type {
            fn write(&self, w: &mut $crate::codec::Writer) {
                let value = self;
                $crate::codec::record!(@write_struct $type value w { $($fields)* });
            }

            #[inline(always)]
            fn read(
                r: &mut $crate::codec::Reader<'_>,
                _what: &'static str,
            ) -> Result<Self, $crate::codec::CodecError> {
                $crate::codec::record!(@read_struct $type r () { $($fields)* })
            }
        }

        $crate::codec::record!($($rest)*);
    };

    ($type:ident as $encoding:ident $(= $base:ident +)? { $($fields:tt)* } $($rest:tt)*) => {
        pub(crate) struct $encoding;

        impl $crate::codec::Encoding<$type> for $encoding {
            fn write(value: &$type, w: &mut $crate::codec::Writer) {
                $($base::write(value, w);)?
                $crate::codec::record!(@write_struct $type value w { $($fields)* });
            }

            #[inline(always)]
            fn read(
                r: &mut $crate::codec::Reader<'_>,
                _what: &'static str,
            ) -> Result<$type, $crate::codec::CodecError> {
                $crate::codec::record!(@read_struct $type r ($($base::read(r, _what)?)?) { $($fields)* })
            }
        }

        $crate::codec::record!($($rest)*);
    };

    (@write_struct $type:ident $value:ident $w:ident {
        $($field:ident $(: $encoding:ty)? $(= $absent:expr)?),* $(,)?
        $(; later $($later:ident),+)?
        $(; without $($other:ident = $filler:expr),+)?
    }) => {
        let $type { $($field,)* $($($later,)+)? .. } = $value;
        $($crate::codec::record!(@write $w $field $($encoding)?);)*
        $($crate::codec::record!(@write_later $w $($later)+);)?
    };

    (@read_struct $type:ident $r:ident ($($base:expr)?) {
        $($field:ident $(: $encoding:ty)? $(= $absent:expr)?),* $(,)?
        $(; later $($later:ident),+)?
        $(; without $($other:ident = $filler:expr),+)?
    }) => {{
        $crate::codec::record!(@bind_base base $($base)?);
        $(let $field = $crate::codec::record!(@read $r $field ($($encoding)?) $($absent)?);)*
        $($(let $later = $crate::codec::record!(@read $r $later () Default::default());)+)?
        Ok($type { $($field,)* $($($later,)+)? $($($other: $filler,)+)? $(..$crate::codec::record!(@base base $base))? })
    }};

    (@bind_base $name:ident) => {};
    (@bind_base $name:ident $base:expr) => { let $name = $base; };
    (@base $name:ident $base:expr) => { $name };
}
pub(crate) use record;

/// True if a field has its default, so that it may be left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::super::{CodecError, Each, Encoding, OrMinusOne, Padded, Reader, TagOrZero, Varint, Writer};
    use super::super::{decode, encode};

    #[derive(Debug, Clone, PartialEq, Default)]
    struct Host {
        name: String,
        port: u16,
        rack: Option<i32>,
        level: i16,
        is_old: bool,
    }

    #[derive(Debug, PartialEq)]
    enum Name {
        Id(u64),
        Text(String),
    }

    #[derive(Debug, PartialEq)]
    enum Change {
        Add(Host),
        Remove(Name),
        Move { from: u64, to: Vec<u32> },
        Fence(Option<Reason>, Option<i64>),
        Nothing,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Reason {
        Stopped,
        Lost,
    }

    record! {
        Host as First { name, port: Varint; without rack = None, level = 0, is_old = true }
        Host as Second = First + { rack: OrMinusOne = Some(9); later level, is_old }
        Host { name, port: Varint; later rack, level, is_old }
        enum Reason { 1 Stopped, 2 Lost }
        enum Change {
            0 Nothing,
            1 Add(host: First) if host.is_old,
            2 Add(host),
            3 Remove[Name::Id](id),
            4 Remove[Name::Text](text),
            5 Move { from, to: Each<Varint> },
            6 Fence(reason: TagOrZero, at: Padded<-1>),
        }
    }

    fn host() -> Host {
        Host { name: "h".to_owned(), port: 300, ..Host::default() }
    }

    fn second(host: &Host) -> Vec<u8> {
        let mut w = Writer::default();
        Second::write(host, &mut w);
        w.finish().to_vec()
    }

    #[test]
    fn a_declaration_gives_the_bytes_and_reads_them() {
        let old = Host { is_old: true, ..host() };
        let cases = [
            (Change::Nothing, vec![0]),
            (Change::Add(old), vec![1, 1, b'h', 0xac, 2]),
            (Change::Add(host()), vec![2, 1, b'h', 0xac, 2]),
            (Change::Remove(Name::Id(7)), vec![3, 7, 0, 0, 0, 0, 0, 0, 0]),
            (Change::Remove(Name::Text("a".to_owned())), vec![4, 1, b'a']),
            (Change::Move { from: 1, to: vec![2, 300] }, vec![5, 1, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0xac, 2]),
            (Change::Fence(None, None), [&[6, 0, 0][..], &[0xff; 8]].concat()),
            (Change::Fence(Some(Reason::Lost), Some(1)), vec![6, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (change, bytes) in cases {
            assert_eq!(encode(&change), bytes);
            assert_eq!(decode(&bytes, "change"), Ok(change));
            assert!((0..bytes.len()).all(|cut| decode::<Change>(&bytes[..cut], "change").is_err()));
        }
        assert_eq!(decode::<Change>(&[9], "change"), Err(CodecError::Tag("change", 9)));
        assert_eq!(decode::<Change>(&[3, 1], "change"), Err(CodecError::Truncated("id")));
        assert_eq!(decode::<Change>(&[6, 3], "change"), Err(CodecError::Tag("reason", 3)));
    }

    #[test]
    fn later_fields_are_absent_where_they_say_nothing_new() {
        assert_eq!(encode(&host()).len(), 4);
        let leveled = Host { level: 1, ..host() };
        assert_eq!(encode(&leveled)[4..], [0, 1, 0]);
        for host in [host(), leveled, Host { is_old: true, ..host() }] {
            assert_eq!(decode(&encode(&host), "host"), Ok(host));
        }
    }

    #[test]
    fn a_field_that_a_release_lacked_has_the_value_that_it_stands_for() {
        let with_rack = Host { rack: Some(2), is_old: true, ..host() };
        assert_eq!(second(&Host { is_old: false, ..with_rack.clone() })[4..], [2, 0, 0, 0]);
        assert_eq!(second(&with_rack)[4..], [2, 0, 0, 0, 0, 0, 1]);
        let of_first = &second(&with_rack)[..4];
        let read = Second::read(&mut Reader::new(of_first), "host");
        assert_eq!(read, Ok(Host { rack: Some(9), ..host() }));
    }
}
