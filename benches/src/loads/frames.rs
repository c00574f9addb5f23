//! Requests encoded once, before a load begins: a produce request is its head, a batch that all share, and its tail.

use bytes::Bytes;

use crate::peers::nats;
use crate::wire::{Topic, batch, fetch_request, frame, produce_request, produced_error_at};

/// How an answer is told from the next, and a good one from a bad one.
pub(crate) enum Answers {
    /// Frames with their length first; the error code is so far from the beginning.
    Kafka { error_at: usize },
    /// Lines, and a payload after those that begin with `MSG`.
    Nats,
}

/// The produce requests of a topic, one per partition, around one batch.
pub(crate) struct ProduceFrames {
    heads: Vec<Bytes>,
    batch: Bytes,
    tail: Bytes,
    pub(crate) answers: Answers,
    pub(crate) records: u64,
    pub(crate) payload: u64,
}

impl ProduceFrames {
    pub(crate) fn new(topic: &Topic, records: usize, size: usize) -> Self {
        let batch = batch(records, size);
        let whole = |p| frame(9, &produce_request(&topic.name, &[p], &batch));
        let cut = |bytes: &Bytes| {
            let at = bytes.windows(batch.len()).position(|w| w == batch).expect("the batch in its request");
            (bytes.slice(..at), bytes.slice(at + batch.len()..))
        };
        let tail = cut(&whole(0)).1;
        // A copy, so that the whole frame is not kept for its head.
        let heads = (0..topic.partitions).map(|p| Bytes::copy_from_slice(&cut(&whole(p)).0)).collect();
        let error_at = produced_error_at(&topic.name);
        let payload = (records * size) as u64;
        Self { heads, batch, tail, answers: Answers::Kafka { error_at }, records: records as u64, payload }
    }

    /// For NATS, which takes one message at a time: a head per connection instead of one per partition.
    pub(crate) fn nats(connections: usize, size: usize) -> Self {
        let heads = (0..connections).map(|n| Bytes::from(nats::publish_head(n, size))).collect();
        let (batch, tail) = (Bytes::from(vec![b'x'; size]), Bytes::from_static(b"\r\n"));
        Self { heads, batch, tail, answers: Answers::Nats, records: 1, payload: size as u64 }
    }

    pub(crate) fn parts(&self, partition: u32) -> [&[u8]; 3] {
        [&self.heads[partition as usize], &self.batch, &self.tail]
    }

    pub(crate) fn len(&self, partition: u32) -> usize {
        self.parts(partition).iter().map(|p| p.len()).sum()
    }
}

/// One fetch request whose partition and offset are patched before each use.
pub(crate) struct FetchFrame {
    bytes: Vec<u8>,
    partition_at: usize,
    offset_at: usize,
    /// Bytes of an answer before its batches, the length of the frame included.
    pub(crate) answer_head: usize,
}

impl FetchFrame {
    pub(crate) fn new(topic: &Topic, bytes_max: i32, wait_ms: i32) -> Self {
        let (partition, offset) = (0x5ca1_ab1e_i32, 0x0ddb_a11c_afe0_beef_i64);
        let bytes = frame(11, &fetch_request(&topic.name, partition, offset, bytes_max, wait_ms)).to_vec();
        let find = |wanted: &[u8]| bytes.windows(wanted.len()).position(|w| w == wanted).expect("a mark");
        let (partition_at, offset_at) = (find(&partition.to_be_bytes()), find(&offset.to_be_bytes()));
        // Length, correlation, throttle, error, session, topics, name, partitions; index, error, three offsets,
        // aborted transactions (none), preferred replica, length of the records.
        let answer_head = 4 + 4 + 4 + 2 + 4 + 4 + (2 + topic.name.len()) + 4 + 4 + 2 + 24 + 4 + 4 + 4;
        Self { bytes, partition_at, offset_at, answer_head }
    }

    pub(crate) fn with(&mut self, partition: u32, offset: u64) -> &[u8] {
        self.bytes[self.partition_at..self.partition_at + 4].copy_from_slice(&partition.to_be_bytes());
        self.bytes[self.offset_at..self.offset_at + 8].copy_from_slice(&offset.to_be_bytes());
        &self.bytes
    }
}
