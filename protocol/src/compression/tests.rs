//! Every codec: round trips, limits, damage, and the framings that clients use.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const LIMIT: usize = 4 << 20;

fn round_trip(codec: Codec, level: Option<i32>, input: &[u8]) {
    let packed = compress(codec, level, input).unwrap();
    assert_eq!(decompress(codec, &packed, LIMIT).unwrap(), input, "{codec} {level:?}");
}

fn text(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| b"the quick brown fox "[at % 20] ^ (at / 1_000) as u8).collect()
}

#[test]
fn sizes_around_the_blocks_of_the_codecs_round_trip() {
    for codec in Codec::ALL {
        for bytes in [0, 1, 32_767, 32_768, 32_769, 65_536, 65_537, 1 << 20] {
            round_trip(codec, None, &text(bytes));
        }
    }
}

#[test]
fn names_and_numbers_are_kafkas() {
    let names = ["none", "gzip", "snappy", "lz4", "zstd"];
    for (id, name) in (0u8..).zip(names) {
        let codec = Codec::from_id(id).unwrap();
        assert_eq!((codec.id(), codec.name()), (id, name));
        assert_eq!(Codec::from_name(name), Some(codec));
    }
    assert_eq!(Codec::from_name("uncompressed"), Some(Codec::None));
    assert_eq!(Codec::from_name("producer"), None);
    assert!((5..=255).all(|id| Codec::from_id(id).is_none()));
}

#[test]
fn the_limit_is_exact() {
    let input = text(100_000);
    for codec in Codec::ALL {
        let packed = compress(codec, None, &input).unwrap();
        assert!(decompress(codec, &packed, input.len()).is_ok(), "{codec}");
        let error = decompress(codec, &packed, input.len() - 1).unwrap_err();
        assert_eq!(error, CompressionError::TooLarge { codec, limit: input.len() - 1 });
    }
}

#[test]
fn cut_input_is_damaged() {
    let input = text(100_000);
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let packed = compress(codec, None, &input).unwrap();
        for length in [1, 5, 17, packed.len() / 2, packed.len() - 1] {
            let cut = decompress(codec, &packed.slice(..length), LIMIT);
            assert_eq!(cut, Err(CompressionError::Damaged { codec }), "{codec} cut to {length}");
        }
    }
}

#[test]
fn snappy_is_read_raw_framed_and_concatenated() {
    let input = text(70_000);
    let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
    assert_eq!(decompress(Codec::Snappy, &raw.into(), LIMIT).unwrap(), input);
    let framed = compress(Codec::Snappy, None, &input).unwrap();
    assert_eq!(framed[..16], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let twice = Bytes::from([&framed[..], &framed[..]].concat());
    assert_eq!(decompress(Codec::Snappy, &twice, LIMIT).unwrap(), [&input[..], &input[..]].concat());
}

/// The claimed length of a raw block is four bytes: five bytes of input must not reserve four gigabytes.
#[test]
fn a_snappy_block_that_claims_too_much_is_refused_at_once() {
    let claim = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
    assert!(decompress(Codec::Snappy, &claim, usize::MAX).is_err());
}

#[test]
fn gzip_members_may_be_concatenated() {
    let member = compress(Codec::Gzip, None, b"half").unwrap();
    let twice = Bytes::from([&member[..], &member[..]].concat());
    assert_eq!(&decompress(Codec::Gzip, &twice, LIMIT).unwrap()[..], b"halfhalf");
}

#[test]
fn a_zstd_stream_without_a_content_size_is_read() {
    use std::io::Write;
    let input = text(300_000);
    let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 19).unwrap();
    encoder.write_all(&input).unwrap();
    let packed = Bytes::from(encoder.finish().unwrap());
    assert_eq!(decompress(Codec::Zstd, &packed, LIMIT).unwrap(), input);
}

#[test]
fn what_follows_an_lz4_frame_is_ignored() {
    let frame = compress(Codec::Lz4, None, b"one").unwrap();
    for tail in [&frame[..], &b"anything"[..]] {
        let input = Bytes::from([&frame[..], tail].concat());
        assert_eq!(&decompress(Codec::Lz4, &input, LIMIT).unwrap()[..], b"one");
    }
}

#[test]
fn lz4_frames_with_linked_blocks_and_checksums_are_read() {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let input = text(300_000);
    let info = FrameInfo::new()
        .block_mode(BlockMode::Linked)
        .block_size(BlockSize::Max256KB)
        .block_checksums(true)
        .content_checksum(true);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(&input).unwrap();
    let packed = Bytes::from(encoder.finish().unwrap());
    assert_eq!(decompress(Codec::Lz4, &packed, LIMIT).unwrap(), input);
}

proptest! {
    #[test]
    fn anything_round_trips(input in prop::collection::vec(any::<u8>(), 0..5_000), codec in prop::sample::select(&Codec::ALL[..])) {
        round_trip(codec, None, &input);
    }

    #[test]
    fn garbage_never_panics_and_stays_within_the_limit(
        garbage in prop::collection::vec(any::<u8>(), 0..2_000),
        start in prop::sample::select(vec![&b""[..], b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", b"\x04\x22\x4d\x18\x60\x40\x82", b"\x28\xb5\x2f\xfd\0\x58"]),
        codec in prop::sample::select(&Codec::ALL[..]),
    ) {
        let input = Bytes::from([start, &garbage[..]].concat());
        if let Ok(output) = decompress(codec, &input, 10_000) {
            prop_assert!(output.len() <= 10_000);
        }
    }
}
