//! The schema walk: bounds every length of a request before kafka-protocol decodes it.
//!
//! kafka-protocol reserves memory for as many elements as the wire announces, before it looks at the first:
//! an array of 2^31-1 elements aborts the process. So each request has a schema here (see `requests`), and no
//! body is decoded whose lengths, counts and tags do not all lie within the frame and within the limits of
//! [`crate::wire`]. What the walk does not check (null, UTF-8, ranges) the decoder refuses by itself.
//! May not know: what a field means.

mod requests;

use crate::versions::ApiKey;
use crate::wire::{Reader, WireError};

/// One field of a message, in the versions that have it.
#[derive(Debug, Clone, Copy)]
struct Field {
    since: i16,
    until: i16,
    kind: Kind,
}

/// The type of a field on the wire. Whether it may be null is not checked here.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A string.
    Text,
    /// Bytes.
    Blob,
    /// An array of structs.
    Structs(&'static [Field]),
    /// An array of a simple type.
    Each(&'static Kind),
    /// A struct after a byte that says whether it is present.
    Optional(&'static [Field]),
}

impl Field {
    const fn new(kind: Kind) -> Self {
        Self { since: 0, until: i16::MAX, kind }
    }

    /// Only from this version on.
    const fn since(self, version: i16) -> Self {
        Self { since: version, ..self }
    }

    /// Only up to this version.
    const fn until(self, version: i16) -> Self {
        Self { until: version, ..self }
    }

    fn is_in(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }
}

/// Version and encoding of the message under the walk.
#[derive(Clone, Copy)]
struct Encoding {
    version: i16,
    flexible: bool,
}

/// Walks a body and returns its length. Like Kafka, ignores bytes that follow it.
pub(crate) fn walk(api_key: ApiKey, version: i16, body: &[u8]) -> Result<usize, WireError> {
    let encoding = Encoding { version, flexible: api_key.is_flexible(version) };
    let mut reader = Reader::new(body);
    encoding.walk_struct(requests::schema(api_key), &mut reader)?;
    Ok(reader.position())
}

impl Encoding {
    fn walk_struct(self, fields: &[Field], reader: &mut Reader<'_>) -> Result<(), WireError> {
        for field in fields.iter().filter(|field| field.is_in(self.version)) {
            self.walk_field(&field.kind, reader)?;
        }
        if self.flexible { reader.skip_tags() } else { Ok(()) }
    }

    fn walk_field(self, kind: &Kind, reader: &mut Reader<'_>) -> Result<(), WireError> {
        match kind {
            Kind::Fixed(bytes) => reader.skip(*bytes),
            Kind::Text => reader.nullable_string(self.flexible).map(|_| ()),
            Kind::Blob => reader.nullable_bytes(self.flexible).map(|_| ()),
            Kind::Structs(fields) => {
                let count = reader.array_count(self.flexible, self.struct_bytes_min(fields))?;
                (0..count.unwrap_or(0)).try_for_each(|_| self.walk_struct(fields, reader))
            }
            Kind::Each(kind) => {
                let count = reader.array_count(self.flexible, self.bytes_min(kind))?;
                (0..count.unwrap_or(0)).try_for_each(|_| self.walk_field(kind, reader))
            }
            // kafka-protocol takes every byte but 1 as absent.
            Kind::Optional(fields) => match reader.i8()? {
                1 => self.walk_struct(fields, reader),
                _ => Ok(()),
            },
        }
    }

    /// Size of the smallest field of this kind.
    fn bytes_min(self, kind: &Kind) -> usize {
        match kind {
            Kind::Fixed(bytes) => *bytes,
            Kind::Optional(_) => 1,
            Kind::Text | Kind::Blob | Kind::Structs(_) | Kind::Each(_) if self.flexible => 1,
            Kind::Text => 2,
            Kind::Blob | Kind::Structs(_) | Kind::Each(_) => 4,
        }
    }

    /// Size of the smallest struct, its count of tags included.
    fn struct_bytes_min(self, fields: &[Field]) -> usize {
        let in_version = fields.iter().filter(|field| field.is_in(self.version));
        in_version.map(|field| self.bytes_min(&field.kind)).sum::<usize>() + usize::from(self.flexible)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::request::Request;
    use crate::samples;
    use crate::versions::SUPPORTED;

    /// Every request that kafka-protocol decodes, in every served version.
    fn walked() -> impl Iterator<Item = (ApiKey, i16)> {
        let by_hand = [ApiKey::Produce, ApiKey::Fetch];
        let rows = SUPPORTED.iter().filter(move |row| !by_hand.contains(&row.key));
        rows.flat_map(|row| (row.min..=row.max).map(|version| (row.key, version)))
    }

    #[test]
    fn the_walk_ends_where_the_encoder_ended_for_every_request_in_every_version() {
        for (api_key, version) in walked() {
            for sample in samples::requests(api_key, version) {
                let body = samples::encode(&sample, version);
                let at = format!("{} v{version}", api_key.name());
                assert_eq!(walk(api_key, version, &body), Ok(body.len()), "{at}");
                assert_eq!(Request::decode_body(api_key, version, body), Ok(sample), "{at}");
            }
        }
    }

    /// A walk that skipped a field would accept a body that lacks it.
    #[test]
    fn every_shorter_body_is_refused() {
        for (api_key, version) in walked() {
            for sample in samples::requests(api_key, version) {
                let body = samples::encode(&sample, version);
                for length in 0..body.len() {
                    let cut = Request::decode_body(api_key, version, body.slice(..length));
                    assert!(cut.is_err(), "{} v{version} cut to {length} of {}", api_key.name(), body.len());
                }
            }
        }
    }

    #[test]
    fn an_array_of_two_billion_elements_is_refused_before_anything_is_allocated() {
        let group_then_count = [0, 1, b'g', 0x7f, 0xff, 0xff, 0xff];
        assert_eq!(walk(ApiKey::OffsetDelete, 0, &group_then_count), Err(WireError::TooManyElements));
        let compact = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(walk(ApiKey::DescribeProducers, 0, &compact), Err(WireError::TooManyElements));
    }

    #[test]
    fn ten_thousand_unknown_tags_are_refused() {
        let mut body = vec![2, b'g', 0, 0, 0, 1, 2, b'm', 0];
        body.extend_from_slice(&[0x90, 0x4e]);
        for tag in 0..10_000u32 {
            body.extend_from_slice(&[(tag & 0x7f) as u8 | 0x80, (tag >> 7) as u8, 0]);
        }
        assert_eq!(walk(ApiKey::Heartbeat, 4, &body), Err(WireError::TooManyTags));
    }

    /// One byte on the wire is a hundred in memory: a request of empty names must stay bounded.
    #[test]
    fn millions_of_empty_strings_are_refused() {
        let count = 4_000_000u32;
        let mut body = bytes::BytesMut::new();
        crate::wire::put_unsigned_varint(&mut body, count + 1);
        body.resize(body.len() + count as usize, 1);
        body.extend_from_slice(&[0, 0]);
        assert_eq!(walk(ApiKey::DescribeGroups, 5, &body), Err(WireError::TooManyElements));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn garbage_never_panics(
            at in 0usize..1_000,
            garbage in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..300),
        ) {
            let all: Vec<_> = walked().collect();
            let (api_key, version) = all[at % all.len()];
            let _ = Request::decode_body(api_key, version, garbage.into());
        }

        #[test]
        fn a_sound_request_with_flipped_bytes_never_panics(
            at in 0usize..1_000,
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let all: Vec<_> = walked().collect();
            let (api_key, version) = all[at % all.len()];
            for sample in samples::requests(api_key, version) {
                let mut body = samples::encode(&sample, version).to_vec();
                for (place, value) in &flips {
                    if !body.is_empty() {
                        let place = place.index(body.len());
                        body[place] = *value;
                    }
                }
                let _ = Request::decode_body(api_key, version, body.into());
            }
        }
    }
}
