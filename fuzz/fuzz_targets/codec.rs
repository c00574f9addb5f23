//! One codec, named by the target: garbage in, no panic and never more than the limit out; and a round trip.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla_protocol::compression::{Codec, compress, decompress};

const LIMIT: usize = 64 * 1024;

fuzz_target!(|data: &[u8]| {
    let codec = Codec::from_name(env!("CARGO_BIN_NAME").trim_start_matches("codec_")).expect("a codec's name");
    if let Ok(output) = decompress(codec, &Bytes::copy_from_slice(data), LIMIT) {
        assert!(output.len() <= LIMIT);
    }
    let packed = compress(codec, None, data).expect("anything can be compressed");
    assert_eq!(decompress(codec, &packed, data.len()).expect("our own"), data);
});
