//! Frames, the hand-written Produce codec, and the look at a batch: bytes in, bytes out, nothing else.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use ottla_protocol::batch::{self, BatchLimits};
use ottla_protocol::frame::{FrameLimits, next_frame};
use ottla_protocol::ids::Offset;
use ottla_protocol::produce::{
    ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopic, ProduceTopicResponse,
};
use ottla_protocol::records::{self, RecordRules, TimestampBounds};
use ottla_protocol::request;
use ottla_protocol::response::{self, Response};
use ottla_protocol::versions::ApiKey;

use super::Case;
use super::client::frame;

const VERSION: i16 = 12;
const NOW_MS: i64 = 1_700_000_000_000;
const BURST_FRAMES: usize = 64;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, what, run| Case { name, what, few: 100, many: 1100, run };
    vec![
        case("produce_decode_1k", "decodes a Produce request of one record of 1 KiB", |n| decode(n, 1)),
        case("produce_decode_16k", "decodes a Produce request of 16 records of 1 KiB", |n| decode(n, 16)),
        case("produce_encode_response", "encodes the answer to a Produce request", encode),
        case("batch_check_16x1k", "checks CRC and records of a batch of 16 records of 1 KiB", |n| check(n, 16, 1024)),
        case("batch_check_160x100", "the same of 160 records of 100 bytes", |n| check(n, 160, 100)),
        case("frames_split_64", "cuts 64 frames of 100 bytes out of a burst", split),
    ]
}

fn topic_name() -> ottla_protocol::StrBytes {
    ottla_protocol::StrBytes::from_static_str("orders")
}

/// The frame of a Produce request with one batch.
pub(super) fn produce_frame(topic: ottla_protocol::StrBytes, index: i32, records: Bytes) -> Bytes {
    let partitions = vec![ProducePartition { index, records: Some(records) }];
    let topics = vec![ProduceTopic { name: Some(topic), id: None, partitions }];
    let mut body = BytesMut::new();
    ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 30_000, topics }.encode(VERSION, &mut body);
    frame(ApiKey::Produce, VERSION, 7, &body)
}

fn decode(iterations: u64, records: usize) {
    let frame = produce_frame(topic_name(), 3, super::batch(records, 1024, NOW_MS, None));
    for _ in 0..iterations {
        black_box(request::decode(black_box(frame.clone())).unwrap());
    }
}

fn encode(iterations: u64) {
    let partition = ProducePartitionResponse::appended(3, Offset(1_000_000), -1, Offset(0));
    let topic = ProduceTopicResponse { name: Some(topic_name()), id: None, partitions: vec![partition] };
    let response = Response::Produce(ProduceResponse { topics: vec![topic], ..ProduceResponse::default() });
    let mut out = BytesMut::with_capacity(4096);
    for _ in 0..iterations {
        out.clear();
        response::encode(ApiKey::Produce, VERSION, 7, black_box(&response), &mut out).unwrap();
        black_box(&out);
    }
}

/// What the broker does with a client's batch before it is proposed.
fn check(iterations: u64, records: usize, value_bytes: usize) {
    let data = super::batch(records, value_bytes, NOW_MS, None);
    let limits = BatchLimits { batch_bytes_max: 1 << 20, zstd_allowed: true, from_coordinator: false };
    let rules =
        RecordRules { key_required: false, timestamps: Some(TimestampBounds::around(NOW_MS, i64::MAX, 3_600_000)) };
    for _ in 0..iterations {
        let header = batch::validate(black_box(&data), &limits).unwrap();
        let opened = records::open(&header, &data, 1 << 24).unwrap();
        let checked = records::check_opened(&header, &opened, &rules).unwrap();
        assert!(checked.faults.is_empty());
        black_box(checked);
    }
}

fn split(iterations: u64) {
    let mut burst = BytesMut::new();
    for number in 0..BURST_FRAMES {
        let frame = frame(ApiKey::Metadata, 12, number as i32, &[0; 82]);
        burst.extend_from_slice(&(frame.len() as i32).to_be_bytes());
        burst.extend_from_slice(&frame);
    }
    let limits = FrameLimits::default();
    for _ in 0..iterations {
        let mut buffer = BytesMut::from(&burst[..]);
        let mut frames = 0;
        while let Some(frame) = next_frame(&mut buffer, &limits).unwrap() {
            black_box(frame);
            frames += 1;
        }
        assert_eq!(frames, BURST_FRAMES);
    }
}
