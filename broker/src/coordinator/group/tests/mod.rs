//! The coordinator as handlers see it, over a log without shards, in virtual time.
#![allow(clippy::unwrap_used)]

mod fake_log;
mod groups;
mod liveness;
mod offsets;
mod takeover;

use bytes::{BufMut, Bytes, BytesMut};

/// What a consumer says that it reads: | version | count | topic ... | user data: none |
pub(super) fn subscription(version: i16, topics: &[&str]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(version);
    out.put_i32(topics.len() as i32);
    for topic in topics {
        out.put_i16(topic.len() as i16);
        out.put_slice(topic.as_bytes());
    }
    out.put_i32(-1);
    out.freeze()
}
