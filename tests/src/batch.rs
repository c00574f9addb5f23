//! Record batches (message format v2) built by hand, so that a test can make each field invalid.

use bytes::{BufMut, Bytes, BytesMut};

/// The 61-byte head of a batch and its records; `encode` computes length and CRC-32C last.
#[derive(Debug, Clone)]
pub struct TestBatch {
    pub magic: i8,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
    /// The records section as it goes onto the wire (compressed if `attributes` say so).
    pub records: Vec<u8>,
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

impl TestBatch {
    /// A well-formed, uncompressed batch without a producer id; keys are null.
    pub fn of(values: &[&[u8]]) -> Self {
        let pairs: Vec<(Option<&[u8]>, &[u8])> = values.iter().map(|v| (None, *v)).collect();
        Self::keyed(&pairs)
    }

    /// Like [`TestBatch::of`], with a key (or null) for each record.
    pub fn keyed(pairs: &[(Option<&[u8]>, &[u8])]) -> Self {
        Self::of_records(pairs.iter().map(|(key, value)| (*key, Some(*value))))
    }

    /// Like [`TestBatch::keyed`], with a value (or null) for each record.
    pub fn of_records<'a>(pairs: impl IntoIterator<Item = (Option<&'a [u8]>, Option<&'a [u8]>)>) -> Self {
        let (mut records, mut count) = (Vec::new(), 0);
        for (key, value) in pairs {
            records.extend(record(i64::from(count), key, value));
            count += 1;
        }
        let now = now_ms();
        Self {
            magic: 2,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: now,
            max_timestamp: now,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count,
            records,
        }
    }

    /// The same batch from an idempotent producer.
    #[must_use]
    pub fn from_producer(mut self, id: i64, epoch: i16, sequence: i32) -> Self {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (id, epoch, sequence);
        self
    }

    /// The batch as it goes onto the wire.
    pub fn encode(&self) -> Bytes {
        let mut tail = BytesMut::new();
        tail.put_i16(self.attributes);
        tail.put_i32(self.last_offset_delta);
        tail.put_i64(self.base_timestamp);
        tail.put_i64(self.max_timestamp);
        tail.put_i64(self.producer_id);
        tail.put_i16(self.producer_epoch);
        tail.put_i32(self.base_sequence);
        tail.put_i32(self.count);
        tail.put_slice(&self.records);
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &tail);
        let mut out = BytesMut::new();
        out.put_i64(0);
        out.put_i32(i32::try_from(tail.len() + 9).unwrap());
        out.put_i32(-1);
        out.put_i8(self.magic);
        out.put_u32(u32::try_from(crc).unwrap());
        out.put_slice(&tail);
        out.freeze()
    }
}

/// One record with the given offset delta, its length first.
pub fn record<'a>(offset_delta: i64, key: Option<&[u8]>, value: impl Into<Option<&'a [u8]>>) -> Vec<u8> {
    let mut body = vec![0_u8];
    varint(&mut body, 0);
    varint(&mut body, offset_delta);
    for part in [key, value.into()] {
        match part {
            None => varint(&mut body, -1),
            Some(part) => {
                varint(&mut body, i64::try_from(part.len()).unwrap());
                body.extend(part);
            }
        }
    }
    varint(&mut body, 0);
    let mut out = Vec::new();
    varint(&mut out, i64::try_from(body.len()).unwrap());
    out.extend(body);
    out
}

/// A zig-zag varint as records use it.
pub fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
