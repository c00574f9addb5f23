//! The keys and values of a shard's state in the checkpoint. Everything is keyed by partition, so that a
//! split is a cut of these keys and a merge is their union (design section 8).
//!
//! ```text
//!  1                                  shard     ver, clock i64, term u64, order u64, checksum u64, floor u64,
//!                                               split u64 (if one was applied), merge (intent u64, index u64, term u64), seal u64, sealed u8
//!                                               (intent u64, term u64, index u64, clock i64, order u64, checksum u64) (if one
//!                                               of these was applied)
//!  2 | partition 20                   partition ver, intent u64, base i32, log start i64, next offset i64, last stable i64,
//!                                               last marker u64, forgotten marker u64 (if there was a marker), compaction (pass u64,
//!                                               horizon i64, cutoff i64, decided at u64, next cutoff i64, since i64) (if there was a pass)
//!  3 | partition 20                   epochs    ver, count u32, (epoch i32, start i64)*
//!  4 | partition 20 | producer id 8   producer  ver, epoch i16, timestamp i64, seen i64, order u64, coordinator epoch i32,
//!                                               transaction start i64, count u8, (first i32, last i32, base i64, time i64, flags u8)*,
//!                                               last marker u64 (if there was one)
//!  5 | partition 20                   dropped   ver, intent u64
//!  6 | partition 20 | Kafka's key     Kafka's value: group state, as in __consumer_offsets
//!  7 | partition 20 | marker i64      aborted   ver, producer id i64, first offset i64, last stable i64
//! ```
//! 8.. are kept for later. Tags are never reused. Values are little-endian;
//! keys are big-endian, so that they sort as partitions do.

use bytes::Bytes;
use ottla_protocol::ids::{Offset, PartitionId, ProducerId};
use ottla_storage::ids::RaftIndex;

use super::compaction::CompactionState;
use super::epochs::{EpochHistory, EpochStart};
use super::merge_state::{LastMerge, Sealed};
use super::producer_state::{BATCHES_REMEMBERED_MAX, ProducerHistory, RememberedBatch};
use super::transactions::AbortedTransaction;
use crate::codec::{
    CodecError, Counted, Encoding, OrMinusOne, Reader, Rest, Sorted, Value, Writer, decode, decode_version, encode,
    encode_version, record,
};

const VERSION: u8 = 1;

/// A key of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Shard,
    Partition(PartitionId),
    Epochs(PartitionId),
    Producer(PartitionId, ProducerId),
    Dropped(PartitionId),
    Group(PartitionId, Bytes),
    Aborted(PartitionId, Offset),
}

impl Key {
    pub(crate) fn encode(&self) -> Bytes {
        encode(self)
    }

    pub(crate) fn decode(key: &Bytes) -> Result<Self, CodecError> {
        decode(key, "key")
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
    pub(crate) split: RaftIndex,
    pub(crate) merge: LastMerge,
    pub(crate) seal: RaftIndex,
    pub(crate) sealed: Option<Sealed>,
}

impl ShardValue {
    pub(crate) fn encode(&self) -> Bytes {
        encode_version(VERSION, self)
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, CodecError> {
        decode_version(VERSION, value, "shard")
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
    pub(crate) last_marker: u64,
    pub(crate) forgotten_marker: u64,
    pub(crate) compaction: CompactionState,
}

/// An aborted transaction apart from the offset of its marker, which is in the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AbortedValue {
    pub(crate) producer_id: ProducerId,
    pub(crate) first_offset: Offset,
    pub(crate) last_stable: Offset,
}

impl AbortedValue {
    pub(crate) fn encode(&self) -> Bytes {
        encode_version(VERSION, self)
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, CodecError> {
        decode_version(VERSION, value, "aborted")
    }
}

impl From<&AbortedTransaction> for AbortedValue {
    fn from(aborted: &AbortedTransaction) -> Self {
        let AbortedTransaction { producer_id, first_offset, last_stable, .. } = *aborted;
        Self { producer_id, first_offset, last_stable }
    }
}

impl PartitionValue {
    pub(crate) fn encode(&self) -> Bytes {
        encode_version(VERSION, self)
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, CodecError> {
        decode_version(VERSION, value, "partition")
    }
}

pub(crate) fn encode_epochs(history: &EpochHistory) -> Bytes {
    let mut w = Writer::with_capacity(8 + history.starts().len() * 12);
    Epochs::write_slice(history.starts(), w.u8(VERSION));
    w.finish()
}

pub(crate) fn decode_epochs(value: &[u8]) -> Result<EpochHistory, CodecError> {
    let mut r = Reader::of_version(value, VERSION)?;
    let starts = Epochs::read(&mut r, "epochs")?;
    r.end()?;
    Ok(EpochHistory::restored(starts))
}

pub(crate) fn encode_producer(history: &ProducerHistory) -> Bytes {
    let mut w = Writer::with_capacity(48 + history.batches.len() * 25);
    history.write(w.u8(VERSION));
    w.finish()
}

pub(crate) fn decode_producer(value: &[u8]) -> Result<ProducerHistory, CodecError> {
    decode_version(VERSION, value, "producer")
}

pub(crate) fn encode_dropped(intent: RaftIndex) -> Bytes {
    encode_version(VERSION, &intent)
}

pub(crate) fn decode_dropped(value: &[u8]) -> Result<RaftIndex, CodecError> {
    decode_version(VERSION, value, "intent")
}

/// As many as there are: a partition has one for each epoch that wrote to it.
type Epochs = Counted<u32, { u32::MAX as usize }>;

record! {
    enum Key {
        1 Shard,
        2 Partition(id),
        3 Epochs(id),
        4 Producer(id, producer: Sorted),
        5 Dropped(id),
        6 Group(id, key: Rest),
        7 Aborted(id, marker: Sorted),
    }

    ShardValue { clock_ms, term, order, checksum, floor; later split, merge, seal, sealed }
    LastMerge { intent, index, term }
    Sealed { intent, term, index, clock_ms, order, checksum }
    PartitionValue { intent, epoch_base, log_start, next_offset, last_stable; later last_marker, forgotten_marker, compaction }
    CompactionState { number, horizon, cutoff, decided_at, next_cutoff, since_ms }
    AbortedValue { producer_id, first_offset, last_stable }
    EpochStart { epoch, start }
    ProducerHistory {
        epoch, timestamp_ms, seen_ms, order, coordinator_epoch, transaction_start: OrMinusOne,
        batches: Counted<u8, BATCHES_REMEMBERED_MAX>;
        later last_marker
    }
    RememberedBatch { first_sequence, last_sequence, base_offset, timestamp_ms, log_append_time: LowestBit }
}

/// A flag of which the other bits are kept for later ones.
struct LowestBit;

impl Encoding<bool> for LowestBit {
    fn write(value: &bool, w: &mut Writer) {
        w.u8(u8::from(*value));
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<bool, CodecError> {
        r.u8(what).map(|flags| flags & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ottla_protocol::ids::LeaderEpoch;
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
                Key::Aborted(id, Offset(producer)),
            ] {
                prop_assert_eq!(Key::decode(&key.encode()).unwrap(), key);
            }
        }

        #[test]
        fn a_producer_comes_back(epoch: i16, order: u64, last_marker: u64, start in proptest::option::of(0i64..), batches in proptest::collection::vec((any::<i32>(), any::<i32>(), any::<i64>(), any::<bool>()), 0..=5)) {
            let history = ProducerHistory {
                epoch,
                timestamp_ms: 3,
                seen_ms: 4,
                order,
                coordinator_epoch: -1,
                transaction_start: start.map(Offset),
                last_marker,
                batches: batches.into_iter().map(|(first_sequence, last_sequence, base, log_append_time)| RememberedBatch {
                    first_sequence, last_sequence, base_offset: Offset(base), timestamp_ms: base, log_append_time,
                }).collect(),
            };
            prop_assert_eq!(decode_producer(&encode_producer(&history)).unwrap(), history);
        }

        #[test]
        fn foreign_values_never_panic(bytes: Vec<u8>) {
            let _ = (ShardValue::decode(&bytes), PartitionValue::decode(&bytes), decode_epochs(&bytes));
            let _ = (decode_producer(&bytes), decode_dropped(&bytes), AbortedValue::decode(&bytes), Key::decode(&Bytes::from(bytes)));
        }
    }

    #[test]
    fn the_other_values_come_back() {
        let shard = ShardValue {
            clock_ms: 1,
            term: 2,
            order: 3,
            checksum: 4,
            floor: RaftIndex(5),
            split: RaftIndex(6),
            ..ShardValue::default()
        };
        assert_eq!(ShardValue::decode(&shard.encode()).unwrap(), shard);
        let sealed =
            Sealed { intent: RaftIndex(7), term: 8, index: RaftIndex(9), clock_ms: 10, order: 11, checksum: 12 };
        let merge = LastMerge { intent: RaftIndex(13), index: RaftIndex(15), term: 14 };
        let merging = ShardValue { merge, seal: RaftIndex(7), sealed: Some(sealed), ..shard };
        assert_eq!(ShardValue::decode(&merging.encode()).unwrap(), merging);
        let partition = PartitionValue {
            intent: RaftIndex(1),
            epoch_base: 2,
            log_start: Offset(3),
            next_offset: Offset(4),
            last_stable: Offset(4),
            last_marker: 0,
            forgotten_marker: 0,
            compaction: CompactionState::default(),
        };
        let with_markers = PartitionValue { last_marker: 5, forgotten_marker: 2, ..partition };
        let compaction = CompactionState { number: 1, horizon: Offset(4), since_ms: 5, ..CompactionState::default() };
        let compacted = PartitionValue { compaction, ..partition };
        assert_eq!(PartitionValue::decode(&compacted.encode()).unwrap(), compacted);
        assert_eq!(PartitionValue::decode(&partition.encode()).unwrap(), partition);
        assert_eq!(PartitionValue::decode(&with_markers.encode()).unwrap(), with_markers);
        let aborted = AbortedValue { producer_id: ProducerId(1), first_offset: Offset(2), last_stable: Offset(3) };
        assert_eq!(AbortedValue::decode(&aborted.encode()).unwrap(), aborted);
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
