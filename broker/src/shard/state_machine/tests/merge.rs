//! Merges of states: whatever was applied before, the union has all that both had, goes on as they would have gone on, and is
//! restored from its checkpoint; replicas that take over at other moments agree.

use std::collections::BTreeMap;

use ottla_protocol::ids::ProducerId;
use proptest::prelude::*;

use super::split::restored;
use super::*;
use crate::metadata::MergeReplica;
use crate::replicated::command::{Absorb, Seal};

const OTHER: u64 = 77;
const INTENT: RaftIndex = RaftIndex(500);
const PAIR: MergeReplica = MergeReplica { survivor: REPLICA, absorbed: ReplicaId(2) };

fn seal() -> Command {
    Command::Seal(Seal { intent: INTENT, replicas: vec![REPLICA] })
}

fn absorb(other: &ShardState) -> Absorb {
    let sealed = other.sealed.unwrap();
    Absorb { intent: INTENT, shard: OTHER, sealed: sealed.index, checksum: sealed.checksum, replicas: vec![PAIR] }
}

/// Runs the survivor's entry against a sealed replica: what apply does once it has found that here.
fn take_over(survivor: &mut Replica, other: &mut Replica) -> Vec<PartitionId> {
    let command = Command::Absorb(absorb(&other.machine.state.lock()));
    let entry = survivor.entry(&command, vec![]);
    let taken = {
        let mut state = survivor.machine.state.lock();
        let members = [REPLICA].into_iter().collect();
        let (_, reply) = state.apply(&entry, Some(&members));
        assert_eq!(reply, ApplyReply::Changed(1));
        let absorb = state.take_absorb().unwrap();
        state.absorb(&absorb, &mut other.machine.state.lock())
    };
    survivor.machine.publish();
    other.machine.publish();
    taken
}

fn merged(survivor: &mut Replica, other: &mut Replica) {
    assert_eq!(other.run(&seal(), vec![]).1, ApplyReply::Changed(1));
    take_over(survivor, other);
}

/// Two shards: even partitions in one, odd ones in the other.
fn two(adopted: i32) -> (Replica, Replica) {
    let (mut survivor, mut other) =
        (Replica::new(ShardState::new(Keeps::Records)), Replica::new(ShardState::new(Keeps::Records)));
    for index in 0..adopted {
        let shard = if index % 2 == 0 { &mut survivor } else { &mut other };
        shard.adopt(1, index, 3);
    }
    (survivor, other)
}

proptest! {
    #[test]
    fn the_union_goes_on_as_both_would(
        steps in proptest::collection::vec((0i32..6, 0i64..4, 1i32..4), 0..80),
        cuts in proptest::collection::vec(0usize..80, 0..4),
        more in 0usize..3,
    ) {
        let (mut survivor, mut other) = two(6);
        let (mut checkpoint, mut other_checkpoint) = (BTreeMap::new(), BTreeMap::new());
        let mut sent: BTreeMap<(i32, i64), i32> = BTreeMap::new();
        for (at, (index, producer, count)) in steps.iter().enumerate() {
            let shard = if index % 2 == 0 { &mut survivor } else { &mut other };
            let next = sent.entry((*index, *producer)).or_default();
            let _stored = base(shard.append(*index, batch(*count, Some((*producer, 0, *next)))));
            *next += count;
            if cuts.contains(&at) {
                keep(&mut checkpoint, &mut survivor);
                keep(&mut other_checkpoint, &mut other);
            }
        }
        prop_assert_eq!(other.run(&seal(), vec![]).1, ApplyReply::Changed(1));
        let sealed_digest = digest(&other.machine.state.lock());
        let ends: Vec<_> = (0..6).map(|index| {
            let shard = if index % 2 == 0 { &survivor } else { &other };
            shard.offsets(index).unwrap().high_watermark
        }).collect();
        // The sealed one may elect leaders, and refuses all else.
        for _ in 0..more {
            prop_assert_eq!(other.append(1, batch(1, None)), BatchOutcome::Rejected(Rejection::Sealed));
        }
        let taken = take_over(&mut survivor, &mut other);
        prop_assert_eq!(taken, vec![id(1), id(3), id(5)]);
        prop_assert!(more > 0 || digest(&other.machine.state.lock()) == sealed_digest, "it does not show what was taken");
        keep(&mut checkpoint, &mut survivor);
        keep(&mut other_checkpoint, &mut other);
        prop_assert_eq!(digest(&restored(&checkpoint)), digest(&survivor.machine.state.lock()));
        let left = restored(&other_checkpoint);
        prop_assert!(left.partitions.is_empty() && left.producers_by_order.is_empty() && left.sealed.is_some());
        for ((index, producer), next) in &sent {
            let end = survivor.offsets(*index).unwrap().high_watermark;
            prop_assert!(end >= ends[usize::try_from(*index).unwrap()]);
            let again = survivor.machine.state.lock().partitions[&id(*index)].producers.get(ProducerId(*producer)).cloned();
            let last = again.unwrap().batches.last().copied().unwrap();
            let count = last.last_sequence - last.first_sequence + 1;
            let repeated = survivor.append(*index, batch(count, Some((*producer, 0, last.first_sequence))));
            prop_assert_eq!(base(repeated), last.base_offset.0);
            prop_assert_eq!(base(survivor.append(*index, batch(1, Some((*producer, 0, *next))))), end.0);
        }
        prop_assert_eq!(survivor.run(&Command::Absorb(Absorb { sealed: RaftIndex(0), checksum: 0, ..absorb(&other.machine.state.lock()) }), vec![]).1, ApplyReply::Changed(0), "carried out once");
    }
}

/// A replica that takes over a partner that is ahead of its Seal has the same state as one that does so at once.
#[test]
fn replicas_agree_whenever_they_take_over() {
    let digests = [0, 3].map(|later| {
        let (mut survivor, mut other) = two(4);
        let _stored = base(other.append(1, batch(2, Some((7, 0, 0)))));
        assert_eq!(other.run(&seal(), vec![]).1, ApplyReply::Changed(1));
        for _ in 0..later {
            other.next.term = Term(other.next.term.0 + 1);
            let log_id = other.next;
            other.next.index.0 += 1;
            other.machine.term_started(log_id);
        }
        take_over(&mut survivor, &mut other);
        let state = survivor.machine.state.lock();
        (digest(&state), state.checksum())
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn epochs_go_on_above_both() {
    let (mut survivor, mut other) = two(2);
    other.next.term = Term(40);
    let _stored = base(other.append(1, batch(1, None)));
    let before = other.offsets(1).unwrap().epochs.newest().unwrap();
    merged(&mut survivor, &mut other);
    let _stored = base(survivor.append(1, batch(1, None)));
    let after = survivor.offsets(1).unwrap().epochs.newest().unwrap();
    assert!(after > before, "{after:?} follows {before:?}");
    assert_eq!(survivor.offsets(0).unwrap().epoch_base, 3, "what was there before keeps its base");
}

#[test]
fn a_sealed_shard_changes_nothing_until_it_is_unsealed() {
    let (_, mut other) = two(2);
    assert_eq!(other.run(&seal(), vec![]).1, ApplyReply::Changed(1));
    assert_eq!(other.append(1, batch(1, None)), BatchOutcome::Rejected(Rejection::Sealed));
    assert_eq!(other.adopt(600, 7, 0), ApplyReply::Changed(0));
    assert_eq!(other.drop_partition(600, 1), ApplyReply::Changed(0));
    assert_eq!(other.log_start(1, 1), ApplyReply::LogStarts(vec![(id(1), None)]));
    assert_eq!(other.run(&Command::SetClock { to_ms: 1 }, vec![]).1, ApplyReply::Changed(0));
    assert_eq!(other.run(&Command::Unseal { intent: RaftIndex(499) }, vec![]).1, ApplyReply::Changed(0));
    assert!(other.machine.state.lock().is_sealed(), "another merge was cancelled");
    assert_eq!(other.run(&Command::Unseal { intent: INTENT }, vec![]).1, ApplyReply::Changed(1));
    assert_eq!(base(other.append(1, batch(1, None))), 0);
    assert_eq!(other.run(&seal(), vec![]).1, ApplyReply::Changed(0), "a late Seal of a merge that was cancelled");
    let mut checkpoint = BTreeMap::new();
    keep(&mut checkpoint, &mut other);
    assert_eq!(restored(&checkpoint).last_seal, INTENT);
}

#[test]
fn a_seal_or_absorb_for_other_members_changes_nothing_and_may_come_again() {
    let (mut survivor, mut other) = two(2);
    let others = Command::Seal(Seal { intent: INTENT, replicas: vec![REPLICA, ReplicaId(9)] });
    assert_eq!(other.run(&others, vec![]).1, ApplyReply::OtherMembers);
    assert_eq!(other.run(&seal(), vec![]).1, ApplyReply::Changed(1));
    let pair = MergeReplica { survivor: ReplicaId(8), ..PAIR };
    let others = Absorb { replicas: vec![pair], ..absorb(&other.machine.state.lock()) };
    assert_eq!(survivor.run(&Command::Absorb(others), vec![]).1, ApplyReply::OtherMembers);
    assert_eq!(take_over(&mut survivor, &mut other), [id(1)]);
}

/// What was split off comes home, though the survivor has a tombstone of it.
#[test]
fn a_partition_that_was_split_off_comes_back() {
    let mut parent = Replica::new(ShardState::new(Keeps::Records));
    (0..2).for_each(|index| drop(parent.adopt(1, index, 0)));
    let _stored = base(parent.append(1, batch(3, Some((7, 0, 0)))));
    let mut child = split::split(&mut parent, vec![id(1)]).unwrap();
    let _stored = base(child.append(1, batch(2, Some((7, 0, 3)))));
    merged(&mut parent, &mut child);
    assert_eq!(base(parent.append(1, batch(1, Some((7, 0, 5))))), 5);
    assert!(child.offsets(1).is_none());
    assert_eq!(parent.adopt(300, 1, 0), ApplyReply::Changed(0), "an intent from before the merge");
}

#[test]
#[should_panic(expected = "index and checksum at which it was sealed")]
fn another_state_than_was_sealed_is_not_taken_over() {
    let (mut survivor, mut other) = two(2);
    assert_eq!(other.run(&seal(), vec![]).1, ApplyReply::Changed(1));
    let wrong = Absorb { checksum: 1, ..absorb(&other.machine.state.lock()) };
    let entry = survivor.entry(&Command::Absorb(wrong.clone()), vec![]);
    let mut state = survivor.machine.state.lock();
    let _ = state.apply(&entry, Some(&[REPLICA].into_iter().collect()));
    state.absorb(&wrong, &mut other.machine.state.lock());
}

/// A snapshot from behind a merge would bring bytes that are here under another owner.
#[test]
fn a_snapshot_from_behind_a_merge_is_for_replicas_that_have_nothing() {
    let (mut survivor, mut other) = two(2);
    let behind = two(2).0;
    merged(&mut survivor, &mut other);
    let mut checkpoint = BTreeMap::new();
    keep(&mut checkpoint, &mut survivor);
    let stored: Vec<_> = checkpoint.into_iter().collect();
    let refused = behind.machine.extents(&stored).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(Replica::new(ShardState::new(Keeps::Records)).machine.extents(&stored).unwrap().len(), 2);
    assert_eq!(survivor.machine.extents(&stored).unwrap().len(), 2);
}

/// Found by the simulation (seeds 127131 and 127191): the leader of a sealed shard that was taken over on its node offered a
/// snapshot without partitions to a replica that lacked what it had purged; taken over, that replica brought nothing.
#[test]
fn a_snapshot_of_what_was_taken_over_elsewhere_is_not_installed() {
    let (mut survivor, mut other) = two(2);
    let behind = two(2).1;
    merged(&mut survivor, &mut other);
    assert!(other.machine.needs_entries() && !survivor.machine.needs_entries());
    let mut checkpoint = BTreeMap::new();
    keep(&mut checkpoint, &mut other);
    let stored: Vec<_> = checkpoint.into_iter().collect();
    assert_eq!(behind.machine.extents(&stored).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert!(Replica::new(ShardState::new(Keeps::Records)).machine.extents(&stored).unwrap().is_empty());
    assert!(other.machine.extents(&stored).unwrap().is_empty(), "it has given all of it away itself");
}
