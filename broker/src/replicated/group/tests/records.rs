//! The records' formats: Kafka's own bytes, round trips, damage.
#![allow(clippy::unwrap_used)]

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use uuid::Uuid;

use crate::replicated::group::records::{CommittedOffset, GroupValue, MemberValue, Record, group_key, offset_key};

fn text(out: &mut BytesMut, text: &str) {
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

/// As Kafka 2.1 to 4.0 write them.
#[test]
fn an_offset_is_read_and_written_as_kafka_does() {
    let mut key = BytesMut::new();
    key.put_i16(1);
    text(&mut key, "group");
    text(&mut key, "topic");
    key.put_i32(3);
    let mut value = BytesMut::new();
    value.put_i16(3);
    value.put_i64(42);
    value.put_i32(7);
    text(&mut value, "note");
    value.put_i64(1_700_000_000_000);
    let record = Record::Offset {
        group: "group".into(),
        topic: "topic".into(),
        partition: 3,
        value: Some(CommittedOffset {
            offset: 42,
            leader_epoch: 7,
            metadata: "note".into(),
            commit_time_ms: 1_700_000_000_000,
            expire_time_ms: None,
            topic_id: Uuid::nil(),
        }),
    };
    let bytes = (key.freeze(), Some(value.freeze()));
    assert_eq!(record.encode(), bytes);
    assert_eq!(Record::decode(bytes.0, bytes.1).unwrap(), record);
}

/// Values that brokers before 2.1 wrote: v0 and v2 have no epoch, v1 has an explicit end.
#[test]
fn offsets_of_old_brokers_are_read() {
    for version in [0_i16, 1, 2] {
        let mut value = BytesMut::new();
        value.put_i16(version);
        value.put_i64(42);
        text(&mut value, "");
        value.put_i64(5);
        if version == 1 {
            value.put_i64(99);
        }
        let read = Record::decode(offset_key("g", "t", 0), Some(value.freeze())).unwrap();
        let Record::Offset { value: Some(value), .. } = read else { panic!("{read:?}") };
        assert_eq!((value.offset, value.leader_epoch, value.commit_time_ms), (42, -1, 5));
        assert_eq!(value.expire_time_ms, (version == 1).then_some(99));
    }
}

#[test]
fn a_membership_is_read_and_written_as_kafka_does() {
    let mut value = BytesMut::new();
    value.put_i16(3);
    text(&mut value, "consumer");
    value.put_i32(5);
    text(&mut value, "range");
    text(&mut value, "m-1");
    value.put_i64(1_700_000_000_000);
    value.put_i32(1);
    text(&mut value, "m-1");
    value.put_i16(-1);
    text(&mut value, "client");
    text(&mut value, "/10.0.0.7");
    value.put_i32(60_000);
    value.put_i32(10_000);
    value.put_i32(2);
    value.put_slice(&[1, 2]);
    value.put_i32(1);
    value.put_slice(&[3]);
    let value = value.freeze();
    let record = Record::decode(group_key("g"), Some(value.clone())).unwrap();
    let Record::Group { group, value: Some(read) } = &record else { panic!("{record:?}") };
    assert_eq!((group.as_str(), read.generation, read.members.len()), ("g", 5, 1));
    assert_eq!(read.members[0].rebalance_timeout_ms, 60_000);
    assert_eq!(record.encode().1, Some(value));
}

/// v0 and v1 lack the instance id and the time of the state, v0 the rebalance timeout: the session timeout served.
#[test]
fn a_membership_of_an_old_broker_is_read() {
    let mut value = BytesMut::new();
    value.put_i16(0);
    text(&mut value, "consumer");
    value.put_i32(5);
    text(&mut value, "range");
    text(&mut value, "m-1");
    value.put_i32(1);
    for field in ["m-1", "client", "/10.0.0.7"] {
        text(&mut value, field);
    }
    value.put_i32(10_000);
    value.put_i32(0);
    value.put_i32(0);
    let record = Record::decode(group_key("g"), Some(value.freeze())).unwrap();
    let Record::Group { value: Some(read), .. } = &record else { panic!("{record:?}") };
    assert_eq!((read.state_time_ms, read.members[0].rebalance_timeout_ms), (-1, 10_000));
    assert_eq!(read.members[0].instance_id, None);
}

fn hex(digits: &str) -> Bytes {
    let digits: String = digits.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Read from `__consumer_offsets` of Apache Kafka 4.4.0, and a v4 without an id of 4.1.1: key and value of a consumer's
/// membership, of its last leave, and of a commit.
#[test]
fn records_of_apache_kafka_are_read_and_written_byte_by_byte() {
    let stable = "0003 0008636f6e73756d6572 00000001 000572616e6765
        0032636f6e73756d65722d67672d312d63613664336133392d383066332d343962612d386362632d633266653939343030383339
        000001a2078912db 00000001
        0032636f6e73756d65722d67672d312d63613664336133392d383066332d343962612d386362632d633266653939343030383339
        ffff 000d636f6e73756d65722d67672d31 000a2f3132372e302e302e31 000493e0 0000afc8
        00000018 00030000000100027474ffffffff00000000ffffffffffff
        00000016 000300000001000274740000000100000000ffffffff";
    let written = [
        ("0002 0002 6767", stable),
        ("0002 0002 6767", "0003 0008636f6e73756d6572 00000002 ffff ffff 000001a207891560 00000000"),
        (
            "0001 0002 6767 0002 7474 00000000",
            "0004 0000000000000001 00000000 01 000001a20789152c 01 00 10 8cbbac1e8b3a47d29e3b403f6549539b",
        ),
    ];
    for (key, value) in written {
        let bytes = (hex(key), Some(hex(value)));
        let record = Record::decode(bytes.0.clone(), bytes.1.clone()).unwrap();
        assert_eq!(record.encode(), bytes, "{record:?}");
    }
    let read = [
        ("0002 0002 6767", "0003 0000 00000000 ffff ffff 000001a2078911d7 00000000"),
        ("0001 0002 6767 0002 7474 00000000", "0004 0000000000000001 00000000 01 000001a207883fe7 00"),
    ];
    for (key, value) in read {
        assert!(Record::decode(hex(key), Some(hex(value))).is_ok(), "{value}");
    }
}

/// Passed over they would make this replica differ from one that keeps them.
#[test]
fn other_kinds_are_errors() {
    let key = Bytes::from_static(&[0, 3, 0, 1, b'g']);
    assert!(Record::decode(key, None).is_err());
}

fn word() -> impl Strategy<Value = String> {
    "[a-zä-ü.]{0,12}"
}

fn offset_value() -> impl Strategy<Value = CommittedOffset> {
    (any::<i64>(), any::<i32>(), word(), any::<i64>(), proptest::option::of(0..i64::MAX), any::<u128>()).prop_map(
        |(offset, leader_epoch, metadata, commit_time_ms, expire_time_ms, id)| CommittedOffset {
            offset,
            // v1, which has the explicit end, has neither epoch nor id.
            leader_epoch: if expire_time_ms.is_some() { -1 } else { leader_epoch },
            metadata: metadata.into(),
            commit_time_ms,
            expire_time_ms,
            topic_id: if expire_time_ms.is_some() { Uuid::nil() } else { Uuid::from_u128(id) },
        },
    )
}

fn member() -> impl Strategy<Value = MemberValue> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    (word(), proptest::option::of(word()), word(), 0..i32::MAX, bytes(), bytes()).prop_map(
        |(member_id, instance_id, client_id, timeout_ms, subscription, assignment)| MemberValue {
            member_id,
            instance_id,
            client_id,
            client_host: "/::1".into(),
            rebalance_timeout_ms: timeout_ms,
            session_timeout_ms: timeout_ms / 2,
            subscription,
            assignment,
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let offset = (word(), word(), any::<i32>(), proptest::option::of(offset_value()))
        .prop_map(|(group, topic, partition, value)| Record::Offset { group, topic, partition, value });
    let members = proptest::collection::vec(member(), 0..4);
    let value = (word(), any::<i32>(), proptest::option::of(word()), any::<i64>(), members, any::<bool>()).prop_map(
        |(protocol_type, generation, protocol, state_time_ms, members, awaits_assignment)| GroupValue {
            protocol_type,
            generation,
            leader: protocol.clone(),
            protocol,
            state_time_ms,
            members,
            awaits_assignment,
        },
    );
    let group = (word(), proptest::option::of(value)).prop_map(|(group, value)| Record::Group { group, value });
    prop_oneof![offset, group]
}

proptest! {
    #[test]
    fn whatever_is_written_reads_back_equal(record in record()) {
        let (key, value) = record.encode();
        prop_assert_eq!(Record::decode(key, value).unwrap(), record);
    }

    #[test]
    fn damage_never_panics(record in record(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let (key, value) = record.encode();
        for (is_key, bytes) in [(true, Some(key.clone())), (false, value.clone())] {
            let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { continue };
            let at = at.index(bytes.len());
            let mut damaged = bytes.to_vec();
            damaged[at] = byte;
            if cut {
                damaged.truncate(at);
            }
            let damaged = Bytes::from(damaged);
            let _ = if is_key { Record::decode(damaged, value.clone()) } else { Record::decode(key.clone(), Some(damaged)) };
        }
    }
}
