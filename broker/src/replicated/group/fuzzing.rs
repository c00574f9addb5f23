//! The groups' part of the fuzz targets: records of `__consumer_offsets`, which other programs write too, and guards.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use uuid::Uuid;

use super::guard::Guard;
use super::records::{CommittedOffset, GroupValue, MemberValue, Record};
use super::store::GroupStore;

/// One record; the first two bytes say how long its key is. What is read is written so that it reads the same, and
/// every replica takes it into its store.
pub(crate) fn record(data: &[u8]) {
    let Some((key_bytes, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((key, value)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*key_bytes))) else { return };
    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    let value = (!value.is_empty()).then_some(value);
    let Ok(record) = Record::decode(key, value) else { return };
    let (key, value) = record.encode();
    assert_eq!(Record::decode(key, value), Ok(record.clone()));
    let mut store = GroupStore::new();
    store.apply_record(record, false);
    // What its checkpoint then holds makes the same store again.
    let mut restored = GroupStore::new();
    for (key, value) in store.changes() {
        value.into_iter().for_each(|value| restored.restore(key.clone(), value).unwrap());
    }
    assert!(restored.groups().map(|(name, _)| name).eq(store.groups().map(|(name, _)| name)));
}

pub(crate) fn record_seeds() -> Vec<Vec<u8>> {
    let offset = |expire_time_ms, topic_id| CommittedOffset {
        offset: 7,
        leader_epoch: 2,
        metadata: "m".into(),
        commit_time_ms: 9,
        expire_time_ms,
        topic_id,
    };
    let member = MemberValue {
        member_id: "m1".into(),
        instance_id: Some("i".into()),
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: 5,
        session_timeout_ms: 6,
        subscription: Bytes::from_static(b"sub"),
        assignment: Bytes::from_static(b"share"),
    };
    let group = |members: Vec<MemberValue>, awaits_assignment| GroupValue {
        protocol_type: "consumer".into(),
        generation: 3,
        protocol: Some("range".into()),
        leader: members.first().map(|member| member.member_id.clone()),
        state_time_ms: 4,
        members,
        awaits_assignment,
    };
    let an_offset = |value| Record::Offset { group: "g".into(), topic: "t".into(), partition: 1, value };
    let a_group = |value| Record::Group { group: "g".into(), value };
    let records = [
        an_offset(None),
        an_offset(Some(offset(None, Uuid::nil()))),
        an_offset(Some(offset(Some(50), Uuid::nil()))),
        an_offset(Some(offset(None, Uuid::from_u128(5)))),
        a_group(None),
        a_group(Some(group(Vec::new(), false))),
        a_group(Some(group(vec![member.clone()], false))),
        a_group(Some(group(vec![member.clone(), member], true))),
    ];
    let seed = |record: &Record| {
        let (key, value) = record.encode();
        let key_bytes = u16::try_from(key.len()).unwrap().to_le_bytes();
        [&key_bytes, &key[..], &value.unwrap_or_default()[..]].concat()
    };
    records.iter().map(seed).collect()
}

/// What a batch assumes of its group.
pub(crate) fn guard(data: &[u8]) {
    let Ok(guard) = Guard::decode(&Bytes::copy_from_slice(data)) else { return };
    assert_eq!(Guard::decode(&guard.encode()), Ok(guard));
}

pub(crate) fn guard_seeds() -> Vec<Vec<u8>> {
    let group = || "g".to_owned();
    let guards = [
        Guard::Commit { group: group(), generation: 3, member_id: "m".into() },
        Guard::Membership { group: group(), generation: 4, awaits_assignment: false },
        Guard::Membership { group: group(), generation: 5, awaits_assignment: true },
        Guard::Removal { group: group() },
        Guard::Expiry { group: group(), cutoff_ms: 5 },
    ];
    guards.iter().map(|guard| guard.encode().to_vec()).collect()
}
