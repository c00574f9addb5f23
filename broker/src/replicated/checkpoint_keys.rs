//! The keys and values of a shard's state in the checkpoint. Everything is keyed by partition, so that a
//! split is a cut of these keys and a merge is their union (design section 8).
//!
//! ```text
//!  1                                  shard     ver, clock i64, term u64, order u64, checksum u64, floor u64
//!  2 | partition 20                   partition ver, intent u64, base i32, log start i64, next offset i64, last stable i64
//!  3 | partition 20                   epochs    ver, count u32, (epoch i32, start i64)*
//!  4 | partition 20 | producer id 8   producer  ver, epoch i16, timestamp i64, seen i64, order u64, coordinator epoch i32,
//!                                               transaction start i64, count u8, (first i32, last i32, base i64, time i64, flags u8)*
//!  5 | partition 20                   dropped   ver, intent u64
//!  6 | partition 20 | Kafka's key     Kafka's value: group state, as in __consumer_offsets
//! ```
//! 7 is kept for aborted transactions, 8 for markers, 9.. for splits. Tags are never reused. Values are little-endian;
//! keys are big-endian, so that they sort as partitions do.

use bytes::Bytes;
use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId, ProducerId};
use ottla_storage::ids::RaftIndex;

use super::epochs::{EpochHistory, EpochStart};
use super::producer_state::{BATCHES_REMEMBERED_MAX, ProducerHistory, RememberedBatch};
use crate::codec::{CodecError, Reader, Writer};

const VERSION: u8 = 1;
const NO_TRANSACTION: i64 = -1;
const FLAG_LOG_APPEND_TIME: u8 = 1;

/// A key of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Shard,
    Partition(PartitionId),
    Epochs(PartitionId),
    Producer(PartitionId, ProducerId),
    Dropped(PartitionId),
    Group(PartitionId, Bytes),
}

impl Key {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(32);
        match self {
            Self::Shard => out.u8(1),
            Self::Partition(id) => out.u8(2).partition(*id),
            Self::Epochs(id) => out.u8(3).partition(*id),
            Self::Producer(id, producer) => out.u8(4).partition(*id).sorted_i64(producer.0),
            Self::Dropped(id) => out.u8(5).partition(*id),
            Self::Group(id, key) => out.u8(6).partition(*id).bytes(key),
        }
        .finish()
    }

    pub(crate) fn decode(key: &Bytes) -> Result<Self, CodecError> {
        let mut reader = Reader::new(key);
        let decoded = match reader.u8("key")? {
            1 => Self::Shard,
            2 => Self::Partition(reader.partition()?),
            3 => Self::Epochs(reader.partition()?),
            4 => Self::Producer(reader.partition()?, ProducerId(reader.sorted_i64("producer id")?)),
            5 => Self::Dropped(reader.partition()?),
            6 => {
                let id = reader.partition()?;
                return Ok(Self::Group(id, Bytes::copy_from_slice(reader.rest())));
            }
            tag => return Err(CodecError::Tag("key", tag)),
        };
        reader.end()?;
        Ok(decoded)
    }
}

/// The state of a shard apart from its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ShardValue {
    pub(crate) clock_ms: i64,
    pub(crate) term: u64,
    pub(crate) order: u64,
    pub(crate) checksum: u64,
    pub(crate) floor: RaftIndex,
}

impl ShardValue {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(48);
        out.u8(VERSION);
        out.i64(self.clock_ms);
        out.u64(self.term);
        out.u64(self.order);
        out.u64(self.checksum);
        out.u64(self.floor.0);
        out.finish()
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::of_version(value, VERSION)?;
        let decoded = Self {
            clock_ms: reader.i64("clock")?,
            term: reader.u64("term")?,
            order: reader.u64("order")?,
            checksum: reader.u64("checksum")?,
            floor: RaftIndex(reader.u64("floor")?),
        };
        reader.end()?;
        Ok(decoded)
    }
}

/// The state of a partition apart from its epochs and producers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionValue {
    pub(crate) intent: RaftIndex,
    pub(crate) epoch_base: i32,
    pub(crate) log_start: Offset,
    pub(crate) next_offset: Offset,
    /// Equal to `next_offset` while no transaction is open.
    pub(crate) last_stable: Offset,
}

impl PartitionValue {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(40);
        out.u8(VERSION);
        out.u64(self.intent.0);
        out.i32(self.epoch_base);
        out.i64(self.log_start.0);
        out.i64(self.next_offset.0);
        out.i64(self.last_stable.0);
        out.finish()
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::of_version(value, VERSION)?;
        let decoded = Self {
            intent: RaftIndex(reader.u64("intent")?),
            epoch_base: reader.i32("epoch base")?,
            log_start: Offset(reader.i64("log start")?),
            next_offset: Offset(reader.i64("next offset")?),
            last_stable: Offset(reader.i64("last stable")?),
        };
        reader.end()?;
        Ok(decoded)
    }
}

pub(crate) fn encode_epochs(history: &EpochHistory) -> Bytes {
    let mut out = Writer::with_capacity(8 + history.starts().len() * 12);
    out.u8(VERSION);
    out.count_u32(history.starts().len());
    for known in history.starts() {
        out.i32(known.epoch.0);
        out.i64(known.start.0);
    }
    out.finish()
}

pub(crate) fn decode_epochs(value: &[u8]) -> Result<EpochHistory, CodecError> {
    let mut reader = Reader::of_version(value, VERSION)?;
    let count = reader.count_u32(12, "epochs")?;
    let mut starts = Vec::with_capacity(count);
    for _ in 0..count {
        starts.push(EpochStart { epoch: LeaderEpoch(reader.i32("epoch")?), start: Offset(reader.i64("start")?) });
    }
    reader.end()?;
    Ok(EpochHistory::restored(starts))
}

pub(crate) fn encode_producer(history: &ProducerHistory) -> Bytes {
    let mut out = Writer::with_capacity(48 + history.batches.len() * 25);
    out.u8(VERSION);
    out.i16(history.epoch);
    out.i64(history.timestamp_ms);
    out.i64(history.seen_ms);
    out.u64(history.order);
    out.i32(history.coordinator_epoch);
    out.i64(history.transaction_start.map_or(NO_TRANSACTION, |offset| offset.0));
    out.u8(u8::try_from(history.batches.len()).unwrap_or(u8::MAX));
    for batch in &history.batches {
        out.i32(batch.first_sequence);
        out.i32(batch.last_sequence);
        out.i64(batch.base_offset.0);
        out.i64(batch.timestamp_ms);
        out.u8(if batch.log_append_time { FLAG_LOG_APPEND_TIME } else { 0 });
    }
    out.finish()
}

pub(crate) fn decode_producer(value: &[u8]) -> Result<ProducerHistory, CodecError> {
    let mut reader = Reader::of_version(value, VERSION)?;
    let mut history = ProducerHistory {
        epoch: reader.i16("epoch")?,
        timestamp_ms: reader.i64("timestamp")?,
        seen_ms: reader.i64("seen")?,
        order: reader.u64("order")?,
        coordinator_epoch: reader.i32("coordinator epoch")?,
        transaction_start: Some(reader.i64("transaction start")?)
            .filter(|offset| *offset != NO_TRANSACTION)
            .map(Offset),
        batches: Vec::new(),
    };
    let count = usize::from(reader.u8("batches")?);
    if count > BATCHES_REMEMBERED_MAX {
        return Err(CodecError::Limit("batches"));
    }
    for _ in 0..count {
        history.batches.push(RememberedBatch {
            first_sequence: reader.i32("first sequence")?,
            last_sequence: reader.i32("last sequence")?,
            base_offset: Offset(reader.i64("base offset")?),
            timestamp_ms: reader.i64("timestamp")?,
            log_append_time: reader.u8("log append time")? & FLAG_LOG_APPEND_TIME != 0,
        });
    }
    reader.end()?;
    Ok(history)
}

pub(crate) fn encode_dropped(intent: RaftIndex) -> Bytes {
    let mut out = Writer::with_capacity(9);
    out.u8(VERSION);
    out.u64(intent.0);
    out.finish()
}

pub(crate) fn decode_dropped(value: &[u8]) -> Result<RaftIndex, CodecError> {
    let mut reader = Reader::of_version(value, VERSION)?;
    let intent = RaftIndex(reader.u64("intent")?);
    reader.end()?;
    Ok(intent)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn id(topic: u128, index: i32) -> PartitionId {
        PartitionId { topic: Uuid::from_u128(topic), index }
    }

    proptest! {
        #[test]
        fn keys_come_back(topic: u128, index: i32, producer: i64, kafka: Vec<u8>) {
            let id = id(topic, index);
            for key in [
                Key::Shard,
                Key::Partition(id),
                Key::Epochs(id),
                Key::Producer(id, ProducerId(producer)),
                Key::Dropped(id),
                Key::Group(id, Bytes::from(kafka.clone())),
            ] {
                prop_assert_eq!(Key::decode(&key.encode()).unwrap(), key);
            }
        }

        #[test]
        fn a_producer_comes_back(epoch: i16, order: u64, start in proptest::option::of(0i64..), batches in proptest::collection::vec((any::<i32>(), any::<i32>(), any::<i64>(), any::<bool>()), 0..=5)) {
            let history = ProducerHistory {
                epoch,
                timestamp_ms: 3,
                seen_ms: 4,
                order,
                coordinator_epoch: -1,
                transaction_start: start.map(Offset),
                batches: batches.into_iter().map(|(first_sequence, last_sequence, base, log_append_time)| RememberedBatch {
                    first_sequence, last_sequence, base_offset: Offset(base), timestamp_ms: base, log_append_time,
                }).collect(),
            };
            prop_assert_eq!(decode_producer(&encode_producer(&history)).unwrap(), history);
        }

        #[test]
        fn foreign_values_never_panic(bytes: Vec<u8>) {
            let _ = (ShardValue::decode(&bytes), PartitionValue::decode(&bytes), decode_epochs(&bytes));
            let _ = (decode_producer(&bytes), decode_dropped(&bytes), Key::decode(&Bytes::from(bytes)));
        }
    }

    #[test]
    fn the_other_values_come_back() {
        let shard = ShardValue { clock_ms: 1, term: 2, order: 3, checksum: 4, floor: RaftIndex(5) };
        assert_eq!(ShardValue::decode(&shard.encode()).unwrap(), shard);
        let partition = PartitionValue {
            intent: RaftIndex(1),
            epoch_base: 2,
            log_start: Offset(3),
            next_offset: Offset(4),
            last_stable: Offset(4),
        };
        assert_eq!(PartitionValue::decode(&partition.encode()).unwrap(), partition);
        let mut epochs = EpochHistory::default();
        let _ = epochs.note_append(LeaderEpoch(3), Offset(7));
        assert_eq!(decode_epochs(&encode_epochs(&epochs)).unwrap(), epochs);
        assert_eq!(decode_dropped(&encode_dropped(RaftIndex(9))).unwrap(), RaftIndex(9));
    }

    #[test]
    fn keys_sort_as_partitions_do() {
        assert!(Key::Partition(id(1, 2)).encode() < Key::Partition(id(1, 10)).encode());
        assert!(Key::Partition(id(1, 300)).encode() < Key::Partition(id(2, 0)).encode());
    }
}
