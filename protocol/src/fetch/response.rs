//! Encoding of Fetch responses: into one buffer with one copy of the records, or as chunks without any.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use super::{
    ENDPOINTS_FROM, FLEXIBLE_FROM, FetchChunk, FetchPartitionResponse, FetchResponse, FetchTopicResponse,
    LOG_START_FROM, RACK_FROM, SESSIONS_FROM, TOPIC_IDS_FROM,
};
use crate::leader_hint::{put_current_leader_tag, put_endpoints_as_only_tag};
use crate::response::put_head;
use crate::versions::ApiKey;
use crate::wire::{put_count, put_no_tags, put_nullable_str_bytes, put_unsigned_varint};

const DIVERGING_EPOCH_TAG: u32 = 0;
const CURRENT_LEADER_TAG: u32 = 1;
/// Epoch in four bytes, offset in eight, and the count of their own tags.
const DIVERGING_EPOCH_BYTES: u32 = 13;

/// The output of the encoder: one buffer, or chunks for a vectored write.
trait Sink {
    fn prefix(&mut self) -> &mut BytesMut;
    fn records(&mut self, chunks: &[Bytes], later_bytes: usize);
}

impl Sink for &mut BytesMut {
    fn prefix(&mut self) -> &mut BytesMut {
        self
    }

    fn records(&mut self, chunks: &[Bytes], later_bytes: usize) {
        assert_eq!(later_bytes, 0, "bytes of a stream, which cannot be copied here");
        for chunk in chunks {
            self.extend_from_slice(chunk);
        }
    }
}

/// Prefixes in buffers of their own, records as they are.
struct Chunks<'a> {
    prefix: BytesMut,
    done: &'a mut Vec<FetchChunk>,
    done_bytes: usize,
}

impl Sink for Chunks<'_> {
    fn prefix(&mut self) -> &mut BytesMut {
        &mut self.prefix
    }

    fn records(&mut self, chunks: &[Bytes], later_bytes: usize) {
        if chunks.is_empty() && later_bytes == 0 {
            return;
        }
        let prefix = self.prefix.split().freeze();
        for chunk in std::iter::once(&prefix).chain(chunks) {
            self.done_bytes += chunk.len();
            self.done.push(FetchChunk::Bytes(chunk.clone()));
        }
        if later_bytes > 0 {
            self.done_bytes += later_bytes;
            self.done.push(FetchChunk::Later(later_bytes));
        }
    }
}

impl FetchResponse {
    /// Appends the body; records are copied once.
    pub fn encode(&self, version: i16, mut out: &mut BytesMut) {
        out.reserve(self.encoded_bytes_about());
        self.put(version, &mut out);
    }

    /// Appends the whole frame (length, header, body) as chunks; records are not copied.
    pub fn encode_chunks(&self, version: i16, correlation_id: i32, out: &mut Vec<FetchChunk>) {
        let first = out.len();
        let mut prefix = BytesMut::with_capacity(256);
        put_head(ApiKey::Fetch, version, correlation_id, &mut prefix);
        // The length is known at the end only: it gets a chunk of its own.
        let head = prefix.split_off(4);
        let mut sink = Chunks { prefix: head, done: out, done_bytes: 0 };
        self.put(version, &mut sink);
        let tail = sink.prefix.freeze();
        let length = sink.done_bytes + tail.len();
        if !tail.is_empty() {
            out.push(FetchChunk::Bytes(tail));
        }
        out.insert(first, FetchChunk::Bytes(Bytes::copy_from_slice(&(length as i32).to_be_bytes())));
    }

    /// Upper estimate of the body's size, for reserving.
    fn encoded_bytes_about(&self) -> usize {
        let topic_bytes = |topic: &FetchTopicResponse| -> usize {
            topic.partitions.iter().map(|partition| 64 + partition.records_bytes()).sum::<usize>() + 64
        };
        64 + self.topics.iter().map(topic_bytes).sum::<usize>()
    }

    fn put(&self, version: i16, sink: &mut impl Sink) {
        let flexible = version >= FLEXIBLE_FROM;
        let out = sink.prefix();
        out.put_i32(self.throttle_time_ms);
        if version >= SESSIONS_FROM {
            out.put_i16(self.error.code());
            out.put_i32(self.session_id);
        }
        put_count(out, flexible, self.topics.len());
        for topic in &self.topics {
            let out = sink.prefix();
            if version >= TOPIC_IDS_FROM {
                out.put_slice(topic.id.unwrap_or_default().as_bytes());
            } else {
                put_nullable_str_bytes(out, flexible, Some(topic.name.as_ref().unwrap_or(&StrBytes::new())));
            }
            put_count(out, flexible, topic.partitions.len());
            for partition in &topic.partitions {
                partition.put(version, sink);
            }
            put_no_tags(sink.prefix(), flexible);
        }
        if version >= ENDPOINTS_FROM {
            put_endpoints_as_only_tag(sink.prefix(), &self.node_endpoints);
        } else {
            put_no_tags(sink.prefix(), flexible);
        }
    }
}

impl FetchPartitionResponse {
    fn put(&self, version: i16, sink: &mut impl Sink) {
        let flexible = version >= FLEXIBLE_FROM;
        let out = sink.prefix();
        out.put_i32(self.index);
        out.put_i16(self.error.code());
        out.put_i64(self.high_watermark.0);
        out.put_i64(self.last_stable_offset.0);
        if version >= LOG_START_FROM {
            out.put_i64(self.log_start.0);
        }
        self.put_aborted(flexible, out);
        if version >= RACK_FROM {
            out.put_i32(self.preferred_read_replica.0);
        }
        let bytes = self.records_bytes();
        if flexible {
            put_unsigned_varint(out, bytes as u32 + 1);
        } else {
            out.put_i32(bytes as i32);
        }
        sink.records(&self.records, self.later_bytes);
        if flexible {
            self.put_tags(sink.prefix());
        }
    }

    fn put_aborted(&self, flexible: bool, out: &mut BytesMut) {
        match &self.aborted_transactions {
            None if flexible => out.put_u8(0),
            None => out.put_i32(-1),
            Some(aborted) => {
                put_count(out, flexible, aborted.len());
                for transaction in aborted {
                    out.put_i64(transaction.producer_id);
                    out.put_i64(transaction.first_offset.0);
                    put_no_tags(out, flexible);
                }
            }
        }
    }

    fn put_tags(&self, out: &mut BytesMut) {
        let count = u32::from(self.diverging_epoch.is_some()) + u32::from(self.current_leader.is_some());
        put_unsigned_varint(out, count);
        if let Some(diverging) = &self.diverging_epoch {
            put_unsigned_varint(out, DIVERGING_EPOCH_TAG);
            put_unsigned_varint(out, DIVERGING_EPOCH_BYTES);
            out.put_i32(diverging.epoch.0);
            out.put_i64(diverging.end_offset.0);
            put_no_tags(out, true);
        }
        if let Some(hint) = &self.current_leader {
            put_current_leader_tag(out, CURRENT_LEADER_TAG, hint);
        }
    }
}
