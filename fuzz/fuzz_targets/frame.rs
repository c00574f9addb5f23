//! A connection's bytes, cut into frames and decoded: nothing panics, and no frame is above its limit.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use ottla_protocol::frame::{FrameLimits, missing_bytes, next_frame};
use ottla_protocol::request;

fuzz_target!(|data: &[u8]| {
    let Some((&flags, data)) = data.split_first() else { return };
    let limits = FrameLimits { data_bytes_max: 4_096, control_bytes_max: 1_024, authenticated: flags & 1 != 0 };
    let mut buffer = BytesMut::new();
    for piece in data.chunks(usize::from(flags >> 1) + 1) {
        buffer.extend_from_slice(piece);
        let _ = missing_bytes(&buffer, &limits);
        loop {
            match next_frame(&mut buffer, &limits) {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= limits.data_bytes_max.max(65_536));
                    let _ = request::decode(frame);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
