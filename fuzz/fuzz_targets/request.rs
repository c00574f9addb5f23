//! The body of one request, the API named by the target, the version by the first byte.
//! What is decoded can be encoded, and decodes to the same again.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use ottla_protocol::request::Request;
use ottla_protocol::versions::{ApiRange, SUPPORTED};

/// The row of the table whose name the target bears: `request_join_group` is JoinGroup.
fn row() -> &'static ApiRange {
    let wanted = env!("CARGO_BIN_NAME").trim_start_matches("request_").replace('_', "");
    SUPPORTED.iter().find(|row| row.name.eq_ignore_ascii_case(&wanted)).expect("the target is named after an API")
}

fuzz_target!(|data: &[u8]| {
    let Some((&version, body)) = data.split_first() else { return };
    let row = row();
    let version = row.min + i16::from(version) % (row.max - row.min + 1);
    if !row.serves(version) {
        return;
    }
    let Ok(request) = Request::decode_body(row.key, version, Bytes::copy_from_slice(body)) else { return };
    if let Request::Produce(produce) = &request {
        let mut again = BytesMut::new();
        produce.encode(version, &mut again);
        assert_eq!(Request::decode_body(row.key, version, again.freeze()).as_ref(), Ok(&request));
    }
});
