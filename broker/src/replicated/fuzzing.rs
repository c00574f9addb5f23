//! The shards' part of the fuzz targets: commands of entries, and what a checkpoint holds of a shard.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId, ProducerId};
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use super::checkpoint_keys::{self, AbortedValue, Key, PartitionValue, ShardValue};
use super::command::{
    Absorb, AdoptedPartition, BatchDecision, Command, CompactionChange, DroppedPartition, LogStartChange,
    LogStartReason, Seal, Split, SplitReplica,
};
use super::compaction::CompactionState;
use super::epochs::EpochHistory;
use super::merge_state::{LastMerge, Sealed};
use super::producer_state::{Claim, ProducerTable};
use crate::metadata::MergeReplica;

/// An entry's command: decoded bytes encode to the same bytes.
pub(crate) fn command(data: &[u8]) {
    let Ok(command) = Command::decode(data) else { return };
    assert_eq!(Command::decode(&command.encode()), Ok(command));
}

fn id(index: i32) -> PartitionId {
    PartitionId { topic: Uuid::from_u128(9), index }
}

pub(crate) fn command_seeds() -> Vec<Vec<u8>> {
    let guarded =
        BatchDecision { coordinator: true, guard: Some(Bytes::from_static(b"guard")), ..BatchDecision::default() };
    let adopted = |index| AdoptedPartition { id: id(index), intent: RaftIndex(7), epoch_base: 3 };
    let reasons = [LogStartReason::DeleteRecords, LogStartReason::Retention, LogStartReason::Checkpointed];
    let starts = reasons.map(|reason| LogStartChange { id: id(1), offset: Offset(1 << 33), reason });
    let replicas = vec![SplitReplica { parent: ReplicaId(3), child: ReplicaId(12) }];
    let creation = Bytes::from_static(b"creation");
    let split = Split { intent: RaftIndex(10), child: 4, creation, replicas, partitions: vec![id(0), id(5)] };
    let pair = MergeReplica { survivor: ReplicaId(3), absorbed: ReplicaId(12) };
    let absorb = Absorb { intent: RaftIndex(11), shard: 4, sealed: RaftIndex(80), checksum: 81, replicas: vec![pair] };
    let commands = [
        Command::Data(Vec::new()),
        Command::Data(vec![BatchDecision::default(), guarded]),
        Command::Adopt(vec![adopted(0), adopted(1)]),
        Command::Drop(vec![DroppedPartition { id: id(2), intent: RaftIndex(8) }]),
        Command::SetLogStart(starts.to_vec()),
        Command::ExpireProducers { cutoff_ms: 1_000 },
        Command::ForgetDropped { floor: RaftIndex(9) },
        Command::Split(split),
        Command::Seal(Seal { intent: RaftIndex(11), replicas: vec![ReplicaId(3), ReplicaId(12)] }),
        Command::Unseal { intent: RaftIndex(11) },
        Command::Absorb(absorb),
        Command::SetClock { to_ms: 2_000 },
        Command::Compact(vec![CompactionChange { id: id(1), number: 12, horizon: Offset(13), cutoff: Offset(5) }]),
    ];
    commands.iter().map(|command| command.encode().to_vec()).collect()
}

/// A key and its value; the first byte is the length of the key. The key determines the kind of value.
pub(crate) fn state(data: &[u8]) {
    let Some((&key_bytes, rest)) = data.split_first() else { return };
    let Some((key, value)) = rest.split_at_checked(usize::from(key_bytes)) else { return };
    let Ok(key) = Key::decode(&Bytes::copy_from_slice(key)) else { return };
    assert_eq!(Key::decode(&key.encode()), Ok(key.clone()));
    // A value encoded by us decodes and encodes to the same bytes; unknown flags are dropped.
    match key {
        Key::Shard => {
            if let Ok(shard) = ShardValue::decode(value) {
                assert_eq!(shard.encode(), value);
            }
        }
        Key::Partition(_) => {
            if let Ok(partition) = PartitionValue::decode(value) {
                assert_eq!(PartitionValue::decode(&partition.encode()), Ok(partition));
            }
        }
        Key::Epochs(_) => {
            if let Ok(epochs) = checkpoint_keys::decode_epochs(value) {
                assert_eq!(checkpoint_keys::encode_epochs(&epochs), value);
            }
        }
        Key::Producer(..) => {
            if let Ok(history) = checkpoint_keys::decode_producer(value) {
                assert_eq!(checkpoint_keys::decode_producer(&checkpoint_keys::encode_producer(&history)), Ok(history));
            }
        }
        Key::Dropped(_) => {
            if let Ok(intent) = checkpoint_keys::decode_dropped(value) {
                assert_eq!(checkpoint_keys::encode_dropped(intent), value);
            }
        }
        Key::Aborted(..) => {
            if let Ok(aborted) = AbortedValue::decode(value) {
                assert_eq!(aborted.encode(), value);
            }
        }
        Key::Group(..) => {}
    }
}

pub(crate) fn state_seeds() -> Vec<Vec<u8>> {
    let mut epochs = EpochHistory::default();
    for (epoch, offset) in [(1, 0), (4, 30)] {
        let _ = epochs.note_append(LeaderEpoch(epoch), Offset(offset));
    }
    let mut producers = ProducerTable::default();
    for order in 1..7 {
        let first_sequence = i32::try_from(order).unwrap() * 2;
        let producer_id = ProducerId(5);
        let log_append_time = order % 2 == 0;
        let claim =
            Claim { producer_id, epoch: 1, first_sequence, last_offset_delta: 1, timestamp_ms: 9, log_append_time };
        let _ = producers.record(&claim, Offset(10), 4, order, false);
    }
    let shard = ShardValue {
        clock_ms: 1,
        term: 2,
        order: 3,
        checksum: 4,
        floor: RaftIndex(5),
        split: RaftIndex(6),
        ..ShardValue::default()
    };
    let sealed = Sealed { intent: RaftIndex(7), term: 8, index: RaftIndex(9), clock_ms: 10, order: 11, checksum: 12 };
    let merge = LastMerge { intent: RaftIndex(13), index: RaftIndex(15), term: 14 };
    let merging = ShardValue { merge, seal: RaftIndex(7), sealed: Some(sealed), ..shard };
    let partition = PartitionValue {
        intent: RaftIndex(1),
        epoch_base: 2,
        log_start: Offset(3),
        next_offset: Offset(9),
        last_stable: Offset(9),
        last_marker: 0,
        forgotten_marker: 0,
        compaction: CompactionState::default(),
    };
    let compaction = CompactionState { number: 2, horizon: Offset(8), since_ms: 4, ..CompactionState::default() };
    let history = producers.get(ProducerId(5)).unwrap();
    let aborted = AbortedValue { producer_id: ProducerId(5), first_offset: Offset(4), last_stable: Offset(9) };
    let pairs = [
        (Key::Shard, shard.encode()),
        (Key::Shard, merging.encode()),
        (Key::Partition(id(0)), partition.encode()),
        (Key::Epochs(id(0)), checkpoint_keys::encode_epochs(&epochs)),
        (Key::Producer(id(0), ProducerId(5)), checkpoint_keys::encode_producer(history)),
        (Key::Dropped(id(1)), checkpoint_keys::encode_dropped(RaftIndex(6))),
        (Key::Group(id(2), Bytes::from_static(b"kafka's")), Bytes::from_static(b"value")),
        (Key::Partition(id(3)), PartitionValue { last_marker: 7, forgotten_marker: 3, ..partition }.encode()),
        (Key::Aborted(id(0), Offset(8)), aborted.encode()),
        (Key::Partition(id(4)), PartitionValue { compaction, ..partition }.encode()),
    ];
    let seed = |(key, value): (Key, Bytes)| {
        let key = key.encode();
        [&[u8::try_from(key.len()).unwrap()], &key[..], &value[..]].concat()
    };
    pairs.map(seed).to_vec()
}
