//! Produce requests with one error each: the right Kafka error, nothing stored, and the next valid request succeeds.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use ottla_tests::batch::{TestBatch, now_ms, record, varint};
use ottla_tests::process::Broker;
use ottla_tests::raw::Raw;

const CORRUPT_MESSAGE: i16 = 2;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_TOPIC_EXCEPTION: i16 = 17;
const INVALID_REQUIRED_ACKS: i16 = 21;
const INVALID_TIMESTAMP: i16 = 32;
const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
const INVALID_RECORD: i16 = 87;

/// A broker with one topic, and a check that exactly the good records are in it.
struct Bench {
    broker: Broker,
    raw: Raw,
    good: i64,
}

impl Bench {
    fn new() -> Self {
        let broker = Broker::start(&[]);
        let mut raw = Raw::connect(broker.address());
        raw.create_topic("t", 1, &[]);
        Self { broker, raw, good: 0 }
    }

    /// Produces `records`, which have to be refused with one of `codes`, then a good batch, which has to take the next offset.
    fn refuses(&mut self, what: &str, records: Option<Bytes>, codes: &[i16]) {
        let answer = self.raw.call(9, &Raw::produce_request("t", 0, -1, records));
        let code = answer.responses[0].partition_responses[0].error_code;
        assert!(codes.contains(&code), "{what}: error {code}, expected one of {codes:?}");
        let good = self.raw.produce("t", 0, TestBatch::of(&[b"good"]).encode());
        assert_eq!((good.error_code, good.base_offset), (0, self.good), "{what}: the next good batch");
        self.good += 1;
    }

    fn finish(mut self) {
        assert_eq!(
            self.raw.read_all("t", 0).len(),
            usize::try_from(self.good).unwrap(),
            "only good records are stored"
        );
        self.broker.stop();
    }
}

fn altered(change: impl FnOnce(&mut TestBatch)) -> Option<Bytes> {
    let mut batch = TestBatch::of(&[b"one", b"two"]);
    change(&mut batch);
    Some(batch.encode())
}

#[test]
fn each_malformed_batch_gets_its_error() {
    let mut bench = Bench::new();
    let mut bad_crc = TestBatch::of(&[b"x"]).encode().to_vec();
    *bad_crc.last_mut().unwrap() ^= 1;
    bench.refuses("bad CRC", Some(bad_crc.into()), &[CORRUPT_MESSAGE]);
    bench.refuses(
        "magic 0",
        altered(|b| b.magic = 0),
        &[CORRUPT_MESSAGE, UNSUPPORTED_FOR_MESSAGE_FORMAT, INVALID_RECORD],
    );
    bench.refuses(
        "magic 1",
        altered(|b| b.magic = 1),
        &[CORRUPT_MESSAGE, UNSUPPORTED_FOR_MESSAGE_FORMAT, INVALID_RECORD],
    );
    bench.refuses(
        "magic 3",
        altered(|b| b.magic = 3),
        &[CORRUPT_MESSAGE, UNSUPPORTED_FOR_MESSAGE_FORMAT, INVALID_RECORD],
    );
    let mut two = BytesMut::from(&TestBatch::of(&[b"a"]).encode()[..]);
    two.extend_from_slice(&TestBatch::of(&[b"b"]).encode());
    bench.refuses("two batches", Some(two.freeze()), &[INVALID_RECORD]);
    bench.refuses("no batch", Some(Bytes::new()), &[INVALID_RECORD, CORRUPT_MESSAGE]);
    bench.refuses("null records", None, &[INVALID_RECORD, CORRUPT_MESSAGE]);
    bench.refuses("count is not last delta + 1", altered(|b| b.count = 1), &[INVALID_RECORD]);
    bench.refuses("count 0", altered(|b| (b.count, b.last_offset_delta) = (0, -1)), &[INVALID_RECORD, CORRUPT_MESSAGE]);
    bench.refuses(
        "count beyond the records",
        altered(|b| (b.count, b.last_offset_delta) = (100, 99)),
        &[INVALID_RECORD, CORRUPT_MESSAGE],
    );
    bench.refuses("control batch", altered(|b| b.attributes = 0x20), &[INVALID_RECORD]);
    bench.refuses("transactional without a producer id", altered(|b| b.attributes = 0x10), &[INVALID_RECORD]);
    bench.refuses(
        "unset sequence with a producer id",
        altered(|b| (b.producer_id, b.producer_epoch) = (7, 0)),
        &[INVALID_RECORD],
    );
    bench.refuses(
        "unknown codec",
        altered(|b| b.attributes = 7),
        &[UNSUPPORTED_COMPRESSION_TYPE, INVALID_RECORD, CORRUPT_MESSAGE],
    );
    bench.refuses("gzip that is none", altered(|b| b.attributes = 1), &[INVALID_RECORD, CORRUPT_MESSAGE]);
    let whole = TestBatch::of(&[b"truncated"]).encode();
    bench.refuses("truncated", Some(whole.slice(..whole.len() - 3)), &[CORRUPT_MESSAGE, INVALID_RECORD]);
    bench.refuses("shorter than a head", Some(whole.slice(..30)), &[CORRUPT_MESSAGE, INVALID_RECORD]);
    bench.finish();
}

#[test]
fn records_that_lie_about_their_lengths_are_invalid() {
    let mut bench = Bench::new();
    let with = |records: Vec<u8>| {
        let mut batch = TestBatch::of(&[b"x"]);
        batch.records = records;
        Some(batch.encode())
    };
    let body = |key_length: i64, headers: i64| {
        let mut body = vec![0, 0, 0];
        varint(&mut body, key_length);
        varint(&mut body, 1);
        body.push(b'v');
        varint(&mut body, headers);
        let mut out = Vec::new();
        varint(&mut out, i64::try_from(body.len()).unwrap());
        out.extend(body);
        out
    };
    let codes = &[INVALID_RECORD, CORRUPT_MESSAGE];
    bench.refuses("key length -2", with(body(-2, 0)), codes);
    bench.refuses("key beyond the record", with(body(1_000, 0)), codes);
    bench.refuses("header count beyond the record", with(body(-1, 1_000_000)), codes);
    bench.refuses("negative header count", with(body(-1, -5)), codes);
    bench.refuses("offset delta 5", with(record(5, None, &b"v"[..])), codes);
    let mut trailing = record(0, None, &b"v"[..]);
    trailing.extend([0; 9]);
    bench.refuses("bytes after the last record", with(trailing), codes);
    let mut overlong = vec![0xff; 12];
    overlong.push(0);
    bench.refuses("overlong varint", with(overlong), codes);
    bench.finish();
}

#[test]
fn a_compression_bomb_is_bounded() {
    let mut bench = Bench::new();
    let before = bench.broker.resident_bytes();
    let zeros = vec![0_u8; 1 << 20];
    let mut batch = TestBatch::of(&[b"x"]);
    batch.attributes = 1;
    batch.records = gzip_bomb(&zeros, 512);
    bench.refuses("bomb", Some(batch.encode()), &[CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, INVALID_RECORD]);
    assert!(bench.broker.resident_bytes() < before + (192 << 20), "the output of a codec is bounded");
    bench.finish();
}

/// A gzip stream of `times` repetitions of `block`, made with the gzip program.
fn gzip_bomb(block: &[u8], times: usize) -> Vec<u8> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut gzip = Command::new("gzip").arg("-9").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = gzip.stdin.take().unwrap();
    let block = block.to_vec();
    let feeding = std::thread::spawn(move || (0..times).for_each(|_| input.write_all(&block).unwrap()));
    let out = gzip.wait_with_output().unwrap().stdout;
    feeding.join().unwrap();
    out
}

#[test]
fn sizes_times_and_keys_are_checked_against_the_topic() {
    let mut bench = Bench::new();
    bench.raw.create_topic("small", 1, &[("max.message.bytes", "1000")]);
    assert_eq!(bench.raw.produce("small", 0, TestBatch::of(&[&[1; 2000]]).encode()).error_code, MESSAGE_TOO_LARGE);
    bench.raw.create_topic(
        "timed",
        1,
        &[("message.timestamp.after.max.ms", "60000"), ("message.timestamp.before.max.ms", "60000")],
    );
    for shift in [-3_600_000, 3_600_000] {
        let mut batch = TestBatch::of(&[b"x"]);
        batch.base_timestamp = now_ms() + shift;
        batch.max_timestamp = batch.base_timestamp;
        assert_eq!(bench.raw.produce("timed", 0, batch.encode()).error_code, INVALID_TIMESTAMP);
    }
    bench.raw.create_topic("compacted", 1, &[("cleanup.policy", "compact")]);
    let batch = TestBatch::keyed(&[(Some(b"k"), b"v"), (None, b"v")]);
    let answer = bench.raw.produce("compacted", 0, batch.encode());
    assert_eq!(answer.error_code, INVALID_RECORD);
    assert_eq!(answer.record_errors[0].batch_index, 1, "the record without a key is named");
    bench.raw.create_topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let before = now_ms();
    let answer = bench.raw.produce("stamped", 0, TestBatch::of(&[b"x"]).encode());
    assert!(answer.error_code == 0 && answer.log_append_time_ms >= before, "LogAppendTime is returned");
    bench.finish();
}

#[test]
fn acks_and_places_that_do_not_exist() {
    let mut bench = Bench::new();
    let records = Some(TestBatch::of(&[b"x"]).encode());
    let ask =
        |raw: &mut Raw, request: &ProduceRequest| raw.call(9, request).responses[0].partition_responses[0].error_code;
    assert_eq!(ask(&mut bench.raw, &Raw::produce_request("t", 0, 2, records.clone())), INVALID_REQUIRED_ACKS);
    for partition in [-1, 1, i32::MAX] {
        assert_eq!(
            ask(&mut bench.raw, &Raw::produce_request("t", partition, -1, records.clone())),
            UNKNOWN_TOPIC_OR_PARTITION
        );
    }
    let missing = ask(&mut bench.raw, &Raw::produce_request("missing", 0, -1, records.clone()));
    assert_eq!(missing, UNKNOWN_TOPIC_OR_PARTITION);
    let internal = ask(&mut bench.raw, &Raw::produce_request("__consumer_offsets", 0, -1, records));
    assert!([INVALID_TOPIC_EXCEPTION, UNKNOWN_TOPIC_OR_PARTITION].contains(&internal), "error {internal}");
    bench.finish();
}

#[test]
fn acks_0_has_no_answer_and_an_error_closes_the_connection() {
    let mut bench = Bench::new();
    let good = TestBatch::of(&[b"quiet"]).encode();
    bench.raw.ask(9, &Raw::produce_request("t", 0, 0, Some(good)));
    bench.good += 1;
    let after = bench.raw.produce("t", 0, TestBatch::of(&[b"loud"]).encode());
    assert_eq!(after.base_offset, 1, "the answer belongs to the second request");
    bench.good += 1;
    let mut other = Raw::connect(bench.broker.address());
    let mut bad = TestBatch::of(&[b"x"]).encode().to_vec();
    *bad.last_mut().unwrap() ^= 1;
    other.ask(9, &Raw::produce_request("t", 0, 0, Some(bad.into())));
    assert!(other.is_closed());
    bench.finish();
}

#[test]
fn versions_below_3_are_advertised_and_refused() {
    let mut bench = Bench::new();
    let mut other = Raw::connect(bench.broker.address());
    // A v0 request by hand: acks, timeout, no topics.
    let body = [0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b'c', 0, 1, 0, 0, 3, 0xe8_u8, 0, 0, 0, 0];
    other.send(&i32::try_from(body.len()).unwrap().to_be_bytes());
    other.send(&body);
    assert!(other.is_closed());
    bench.refuses("still served", altered(|b| b.attributes = 0x20), &[INVALID_RECORD]);
    bench.finish();
}

#[test]
fn zstd_before_produce_v7_is_an_unsupported_codec() {
    let mut bench = Bench::new();
    let request = Raw::produce_request("t", 0, -1, altered(|b| b.attributes = 4));
    let answer = bench.raw.call(6, &request);
    assert_eq!(answer.responses[0].partition_responses[0].error_code, UNSUPPORTED_COMPRESSION_TYPE);
    bench.refuses("zstd that is none", altered(|b| b.attributes = 4), &[INVALID_RECORD, CORRUPT_MESSAGE]);
    bench.finish();
}

#[test]
fn an_idempotent_producer_is_held_to_its_sequence() {
    let mut bench = Bench::new();
    let init = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
    let id = bench.raw.call(4, &init).producer_id.0;
    let other = bench.raw.call(4, &init).producer_id.0;
    assert_ne!(id, other);
    let send = |raw: &mut Raw, epoch: i16, sequence: i32| {
        let answer = raw.produce("t", 0, TestBatch::of(&[b"a", b"b"]).from_producer(id, epoch, sequence).encode());
        (answer.error_code, answer.base_offset)
    };
    for n in 0..6 {
        assert_eq!(send(&mut bench.raw, 0, n * 2), (0, i64::from(n) * 2));
    }
    for n in 1..6 {
        assert_eq!(send(&mut bench.raw, 0, n * 2), (0, i64::from(n) * 2), "a retry gets its first offset");
    }
    assert_eq!(send(&mut bench.raw, 0, 14).0, OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_eq!(send(&mut bench.raw, 1, 4).0, OUT_OF_ORDER_SEQUENCE_NUMBER, "a new epoch starts at 0");
    assert_eq!(send(&mut bench.raw, 1, 0), (0, 12));
    assert_eq!(send(&mut bench.raw, 0, 14).0, INVALID_PRODUCER_EPOCH);
    bench.broker.kill();
    bench.broker.run();
    bench.raw = Raw::connect(bench.broker.address());
    assert_eq!(send(&mut bench.raw, 1, 0), (0, 12), "what a producer did is known after kill -9");
    assert_eq!(send(&mut bench.raw, 1, 2), (0, 14));
    bench.good = 16;
    bench.finish();
}
