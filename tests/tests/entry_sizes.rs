//! Small segments under load: a batch that no entry can hold is refused before it is proposed, all others are accepted,
//! and no replica stops because of it. Contradictory settings are refused at start.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::Raw;

const MESSAGE_TOO_LARGE: i16 = 10;
const SEGMENT_BYTES: usize = 1 << 20;
/// What of a segment of one MiB a batch may take.
const BATCH_BYTES_MAX: usize = SEGMENT_BYTES / 8 * 7;

/// A batch of exactly this many bytes.
fn batch_of(bytes: usize) -> bytes::Bytes {
    let mut value = vec![b'v'; bytes - 100];
    loop {
        let batch = TestBatch::of(&[&value]).encode();
        if batch.len() == bytes {
            return batch;
        }
        value.resize(value.len() + bytes - batch.len(), b'v');
    }
}

#[test]
fn segments_of_a_mebibyte_take_all_that_fits_and_refuse_the_rest() {
    let segment = SEGMENT_BYTES.to_string();
    let message = BATCH_BYTES_MAX.to_string();
    let mut broker = Broker::start(&[("OTTLA_LOG_SEGMENT_BYTES", &segment), ("KAFKA_MESSAGE_MAX_BYTES", &message)]);
    let mut raw = Raw::connect(broker.address());
    // A topic may say otherwise: its setting is known to nodes with other segments.
    raw.create_topic("t", 2, &[("max.message.bytes", "50000000")]);
    let sizes = [200, BATCH_BYTES_MAX - 1, BATCH_BYTES_MAX, 600_000, BATCH_BYTES_MAX, 70_000];
    let mut count = 0;
    for _ in 0..3 {
        for size in sizes {
            let answer = raw.produce("t", 0, batch_of(size));
            assert_eq!((answer.error_code, answer.base_offset), (0, count), "{size} bytes");
            count += 1;
        }
        for size in [BATCH_BYTES_MAX + 1, SEGMENT_BYTES, 3 * SEGMENT_BYTES] {
            let answer = raw.produce("t", 0, batch_of(size));
            assert_eq!(answer.error_code, MESSAGE_TOO_LARGE, "{size} bytes");
        }
    }
    assert_eq!(raw.read_all("t", 0).len(), usize::try_from(count).unwrap());
    broker.kill();
    broker.run();
    let mut raw = Raw::connect(broker.address());
    assert_eq!(raw.read_all("t", 0).len(), usize::try_from(count).unwrap());
    assert_eq!(raw.produce("t", 0, batch_of(BATCH_BYTES_MAX)).error_code, 0, "its replica serves");
    broker.stop();
}
