//! The store: what it judges, what it keeps, that a checkpoint and a replay make the same.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;
use proptest::prelude::*;
use uuid::Uuid;

use crate::replicated::group::batch;
use crate::replicated::group::guard::Guard;
use crate::replicated::group::records::{CommittedOffset, GroupValue, MemberValue, Record};
use crate::replicated::group::store::{GroupChange, GroupStore, refusal};

fn offset(group: &str, topic: &str, offset: Option<i64>) -> Record {
    let value = offset.map(|offset| CommittedOffset {
        offset,
        leader_epoch: 3,
        metadata: "".into(),
        commit_time_ms: 1_000 + offset,
        expire_time_ms: None,
        topic_id: Uuid::nil(),
    });
    Record::Offset { group: group.into(), topic: topic.into(), partition: 0, value }
}

fn membership(group: &str, generation: i32, members: &[&str]) -> Record {
    let members = members.iter().map(|id| MemberValue {
        member_id: (*id).into(),
        instance_id: None,
        client_id: String::new(),
        client_host: String::new(),
        rebalance_timeout_ms: 1,
        session_timeout_ms: 1,
        subscription: Bytes::new(),
        assignment: Bytes::new(),
    });
    let value = GroupValue {
        protocol_type: "consumer".into(),
        generation,
        protocol: None,
        leader: None,
        state_time_ms: 0,
        members: members.collect(),
        awaits_assignment: false,
    };
    Record::Group { group: group.into(), value: Some(value) }
}

fn apply(store: &mut GroupStore, records: &[Record]) {
    for batch in batch::build(records, 0, None) {
        store.apply(GroupChange::of(None, &batch));
    }
}

fn judge(store: &GroupStore, guard: &Guard, records: &[Record]) -> Result<(), i16> {
    let batches = batch::build(records, 0, None);
    store.judge(&GroupChange::of(Some(guard), &batches[0]))
}

fn commit(generation: i32, member: &str) -> Guard {
    Guard::Commit { group: "g".into(), generation, member_id: member.into() }
}

#[test]
fn a_zombies_commit_is_refused_at_apply() {
    let mut store = GroupStore::new();
    let records = [offset("g", "t", Some(1))];
    assert_eq!(judge(&store, &commit(-1, ""), &records), Ok(()));
    assert_eq!(judge(&store, &commit(1, "a"), &records), Err(refusal::ILLEGAL_GENERATION));
    apply(&mut store, &[membership("g", 4, &["a", "b"])]);
    assert_eq!(judge(&store, &commit(4, "a"), &records), Ok(()));
    assert_eq!(judge(&store, &commit(3, "a"), &records), Err(refusal::ILLEGAL_GENERATION));
    assert_eq!(judge(&store, &commit(4, "c"), &records), Err(refusal::UNKNOWN_MEMBER_ID));
    assert_eq!(judge(&store, &commit(-1, ""), &records), Err(refusal::UNKNOWN_MEMBER_ID));
    apply(&mut store, &[membership("g", 5, &[])]);
    assert_eq!(judge(&store, &commit(-1, ""), &records), Ok(()));
    assert_eq!(judge(&store, &commit(4, "a"), &records), Err(refusal::ILLEGAL_GENERATION));
}

#[test]
fn a_generation_never_falls_at_apply() {
    let mut store = GroupStore::new();
    apply(&mut store, &[membership("g", 4, &["a"])]);
    let guard = |generation| Guard::Membership { group: "g".into(), generation, awaits_assignment: false };
    let record = [membership("g", 3, &["b"])];
    assert_eq!(judge(&store, &guard(3), &record), Err(refusal::ILLEGAL_GENERATION));
    assert_eq!(judge(&store, &guard(4), &record), Ok(()));
}

/// The record in the log is Kafka's; that the generation is incomplete comes with the guard and lasts in checkpoints.
#[test]
fn an_incomplete_generation_is_known_from_its_guard() {
    let mut store = GroupStore::new();
    let records = [membership("g", 4, &["a"])];
    let guard = Guard::Membership { group: "g".into(), generation: 4, awaits_assignment: true };
    store.apply(GroupChange::of(Some(&guard), &batch::build(&records, 0, None)[0]));
    let awaits = |store: &GroupStore| store.group("g").unwrap().membership.as_ref().unwrap().awaits_assignment;
    assert!(awaits(&store));
    let mut restored = GroupStore::new();
    for (key, value) in store.changes() {
        restored.restore(key, value.unwrap()).unwrap();
    }
    assert!(awaits(&restored));
    assert_eq!(restored.checksum(), store.checksum());
    let guard = Guard::Membership { group: "g".into(), generation: 4, awaits_assignment: false };
    store.apply(GroupChange::of(Some(&guard), &batch::build(&records, 0, None)[0]));
    assert!(!awaits(&store));
}

#[test]
fn a_group_with_members_is_not_removed_and_a_fresh_offset_does_not_expire() {
    let mut store = GroupStore::new();
    apply(&mut store, &[membership("g", 1, &["a"]), offset("g", "t", Some(1))]);
    let gone = [offset("g", "t", None)];
    assert_eq!(judge(&store, &Guard::Removal { group: "g".into() }, &gone), Err(refusal::NON_EMPTY_GROUP));
    let expiry = |cutoff_ms| Guard::Expiry { group: "g".into(), cutoff_ms };
    assert_eq!(judge(&store, &expiry(1_000), &gone), Err(refusal::CHANGED_MEANWHILE));
    assert_eq!(judge(&store, &expiry(1_001), &gone), Ok(()));
    let group = [Record::Group { group: "g".into(), value: None }];
    assert_eq!(judge(&store, &expiry(1_001), &group), Err(refusal::CHANGED_MEANWHILE));
    apply(&mut store, &[membership("g", 2, &[])]);
    assert_eq!(judge(&store, &expiry(1_001), &group), Ok(()));
    assert_eq!(judge(&store, &expiry(1_001), &[offset("g", "t", Some(2))]), Err(refusal::INVALID_RECORD));
}

/// Refused here and taken by a newer release it would give the batches behind it different offsets.
#[test]
fn what_this_release_does_not_know_cannot_be_read() {
    let batch = &batch::build(&[offset("g", "t", Some(1))], 0, None)[0];
    assert!(GroupChange::decode(None, batch).is_ok());
    assert!(GroupChange::decode(Some(&Bytes::from_static(b"\x09")), batch).is_err());
    let mut newer = BatchBuilder::new(Codec::None);
    newer.push(&NewRecord { timestamp: 0, key: Some(&[0, 3, 0, 1, b'g']), value: Some(b"v"), headers: &[] });
    assert!(GroupChange::decode(None, &newer.build().unwrap()).is_err());
}

/// Memory follows the keys: the checkpoint's delta after many commits to few keys is those keys.
#[test]
fn many_commits_to_few_keys_leave_few_keys() {
    let mut store = GroupStore::new();
    for round in 0..500 {
        let records: Vec<Record> =
            (0..100).map(|n| offset(&format!("g{}", n % 10), &format!("t{n}"), Some(round))).collect();
        apply(&mut store, &records);
    }
    assert_eq!(store.groups().map(|(_, group)| group.offsets.len()).sum::<usize>(), 100);
    assert_eq!(store.changes().len(), 100);
    assert!(store.changes().is_empty());
}

#[test]
fn a_stored_membership_does_not_keep_its_batch_in_memory() {
    let mut store = GroupStore::new();
    let batch = batch::build(&[membership("g", 1, &["a"])], 0, None).remove(0);
    store.apply(GroupChange::of(None, &batch));
    let member = &store.group("g").unwrap().membership.as_ref().unwrap().members[0];
    let range = batch.as_ptr_range();
    assert!(!range.contains(&member.subscription.as_ptr()));
}

fn any_record() -> impl Strategy<Value = Record> {
    let group = || "[ab]";
    let topic = || "[tu]";
    prop_oneof![
        (group(), topic(), proptest::option::weighted(0.7, 0_i64..50)).prop_map(|(g, t, o)| offset(&g, &t, o)),
        (group(), 0..5, any::<bool>()).prop_map(|(g, n, m)| membership(&g, n, if m { &["m"] } else { &[] })),
        group().prop_map(|group| Record::Group { group, value: None }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Base and deltas, taken anywhere, restore what replaying everything makes; checksums say so (I6).
    #[test]
    fn checkpoints_restore_what_was_applied(
        records in proptest::collection::vec(any_record(), 0..60),
        cuts in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let mut store = GroupStore::new();
        let mut checkpoint: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let take = |store: &mut GroupStore, checkpoint: &mut BTreeMap<Bytes, Bytes>| {
            for (key, value) in store.changes() {
                match value {
                    Some(value) => { checkpoint.insert(key, value); }
                    None => { checkpoint.remove(&key); }
                }
            }
        };
        for (record, cut) in records.iter().zip(&cuts) {
            apply(&mut store, std::slice::from_ref(record));
            if *cut {
                take(&mut store, &mut checkpoint);
            }
        }
        take(&mut store, &mut checkpoint);
        let mut restored = GroupStore::new();
        for (key, value) in checkpoint {
            restored.restore(key, value).unwrap();
        }
        prop_assert!(restored.changes().is_empty());
        prop_assert_eq!(restored.checksum(), store.checksum());
        let all = |store: &GroupStore| store.groups().map(|(id, group)| (id.clone(), group.clone())).collect::<Vec<_>>();
        prop_assert_eq!(all(&restored), all(&store));
        prop_assert_eq!(restored.topics().collect::<Vec<_>>(), store.topics().collect::<Vec<_>>());
        let mut named: Vec<_> = store.groups().flat_map(|(_, group)| group.offsets.keys()).collect();
        named.sort();
        named.dedup();
        prop_assert_eq!(store.topics().map(|(topic, _)| topic).collect::<Vec<_>>(), named);
        // An empty store sums to nothing.
        if store.groups().next().is_none() {
            prop_assert_eq!(store.checksum(), 0);
        }
    }
}
