//! The records' format: Kafka's own bytes, round trips, damage; and the store that they make.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;
use ottla_protocol::ids::ProducerId;
use proptest::prelude::*;

use super::records::{NO_EPOCH, TransactionRecord};
use super::{Status, TransactionStore, TransactionValue};

fn value() -> TransactionValue {
    TransactionValue {
        producer_id: ProducerId(1_000),
        previous_producer_id: None,
        next_producer_id: None,
        epoch: 3,
        last_epoch: NO_EPOCH,
        timeout_ms: 60_000,
        status: Status::Ongoing,
        partitions: BTreeMap::from([(Arc::from("t"), BTreeSet::from([0, 7]))]),
        updated_ms: 1_700_000_000_001,
        started_ms: 1_700_000_000_000,
        client_version: 0,
    }
}

/// As Kafka with `transaction.version` 1 or 2 writes it.
#[test]
fn a_transaction_is_read_and_written_as_kafka_does() {
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    bytes.put_i64(1_000);
    bytes.put_i16(3);
    bytes.put_i32(60_000);
    bytes.put_u8(1);
    bytes.put_slice(&[2, 2, b't', 3]);
    bytes.put_i32(0);
    bytes.put_i32(7);
    bytes.put_u8(0);
    bytes.put_i64(1_700_000_000_001);
    bytes.put_i64(1_700_000_000_000);
    bytes.put_slice(&[1, 2, 2, 0, 2]);
    let record = TransactionRecord { id: "id".into(), value: Some(TransactionValue { client_version: 2, ..value() }) };
    let key = Bytes::from_static(&[0, 0, 0, 2, b'i', b'd']);
    assert_eq!(record.encode(), (key.clone(), Some(bytes.clone().freeze())));
    assert_eq!(TransactionRecord::decode(key, Some(bytes.freeze())).unwrap(), record);
}

/// As Kafka before 4.0 wrote it.
#[test]
fn a_transaction_of_an_old_broker_is_read() {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i64(1_000);
    bytes.put_i16(3);
    bytes.put_i32(60_000);
    bytes.put_u8(0);
    bytes.put_i32(-1);
    bytes.put_i64(5);
    bytes.put_i64(-1);
    let key = Bytes::from_static(&[0, 0, 0, 2, b'i', b'd']);
    let read = TransactionRecord::decode(key, Some(bytes.freeze())).unwrap().value.unwrap();
    let empty = TransactionValue {
        status: Status::Empty,
        partitions: BTreeMap::new(),
        updated_ms: 5,
        started_ms: -1,
        ..value()
    };
    assert_eq!(read, empty);
}

fn any_value() -> impl Strategy<Value = TransactionValue> {
    let ids = (0_i64.., proptest::option::of(0_i64..), proptest::option::of(0_i64..));
    let partitions = proptest::collection::btree_map("[a-z]{1,5}", proptest::collection::btree_set(0..99, 1..4), 0..3);
    (ids, any::<i16>(), -1_i16.., 1_u8..6, partitions, any::<i64>(), 0_i16..3).prop_map(
        |((id, previous, next), epoch, last_epoch, status, partitions, time, client_version)| TransactionValue {
            producer_id: ProducerId(id),
            previous_producer_id: previous.map(ProducerId),
            next_producer_id: next.map(ProducerId),
            epoch,
            last_epoch,
            timeout_ms: 5,
            status: [Status::Ongoing, Status::PrepareCommit, Status::PrepareAbort, Status::CompleteCommit]
                [usize::from(status) % 4],
            partitions: partitions.into_iter().map(|(topic, indexes)| (Arc::from(topic), indexes)).collect(),
            updated_ms: time,
            started_ms: time.wrapping_sub(1),
            client_version,
        },
    )
}

fn batch(records: &[TransactionRecord]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    for (key, value) in records.iter().map(TransactionRecord::encode) {
        builder.push(&NewRecord { timestamp: 5, key: Some(&key), value: value.as_deref(), headers: &[] });
    }
    builder.build().unwrap()
}

proptest! {
    #[test]
    fn a_record_reads_back_and_no_part_of_it_does(value in any_value(), id in "[a-z]{0,9}") {
        let record = TransactionRecord { id, value: Some(value) };
        let (key, bytes) = record.encode();
        let bytes = bytes.unwrap();
        prop_assert_eq!(TransactionRecord::decode(key.clone(), Some(bytes.clone())).unwrap(), record);
        for end in 0..bytes.len() {
            prop_assert!(TransactionRecord::decode(key.clone(), Some(bytes.slice(..end))).is_err());
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic(key: Vec<u8>, value: Vec<u8>) {
        let value = Bytes::from([&[0, 1][..], &value].concat());
        let _ = TransactionRecord::decode(Bytes::from(key), Some(value.clone()));
        let _ = TransactionRecord::decode(Bytes::from_static(&[0, 0, 0, 0]), Some(value));
    }

    #[test]
    fn a_store_is_restored_from_its_changes(steps in proptest::collection::vec((0..5, proptest::option::of(any_value())), 1..30)) {
        let mut store = TransactionStore::new();
        let (mut model, mut checkpoint) = (BTreeMap::new(), BTreeMap::new());
        for (place, (id, value)) in steps.into_iter().enumerate() {
            let record = TransactionRecord { id: format!("id-{id}"), value: value.clone() };
            store.apply(TransactionStore::decode(&batch(&[record])).unwrap());
            match value {
                Some(value) => _ = model.insert(format!("id-{id}"), value),
                None => _ = model.remove(&format!("id-{id}")),
            }
            if place % 3 == 0 {
                checkpoint.extend(store.changes());
            }
        }
        checkpoint.extend(store.changes());
        prop_assert!(store.iter().map(|(id, value)| (id.to_string(), (**value).clone())).eq(model));
        let mut restored = TransactionStore::new();
        for (key, value) in checkpoint {
            if let Some(value) = value {
                restored.restore(key, value).unwrap();
            }
        }
        prop_assert!(restored.iter().eq(store.iter()));
        prop_assert_eq!(restored.checksum(), store.checksum());
        prop_assert!(restored.changes().is_empty());
        let ids = |keep: &dyn Fn(&TransactionValue) -> bool| {
            store.iter().filter(|(_, value)| keep(value)).map(|(id, _)| id.clone()).collect::<BTreeSet<_>>()
        };
        let sorted = |found: Vec<Arc<str>>| found.into_iter().collect::<BTreeSet<_>>();
        prop_assert_eq!(sorted(restored.prepared().cloned().collect()), ids(&TransactionValue::is_prepared));
        for time in [0, i64::MAX] {
            let due = ids(&|value| value.deadline_ms().is_some_and(|deadline| deadline <= time));
            prop_assert_eq!(sorted(restored.timed_out(time, usize::MAX)), due);
            let unused = ids(&|value| value.is_at_rest() && value.updated_ms <= time);
            prop_assert_eq!(sorted(restored.unused_since(time, usize::MAX)), unused);
        }
    }
}
