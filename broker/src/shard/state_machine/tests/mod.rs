//! The state machine against a simple model: dense offsets, each record once, equal states on equal entries.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::BytesMut;
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;
use ottla_protocol::ids::LeaderEpoch;
use ottla_storage::entry::{EntryBatch, EntryKind, Verdict};
use ottla_storage::ids::Term;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::replicated::command::{
    AdoptedPartition, BatchDecision, Command, DroppedPartition, LogStartChange, LogStartReason,
};
use crate::replicated::shard_state::{ApplyReply, BatchOutcome, OFFSETS_LOST, Rejection};

#[derive(Default)]
struct NoStorage;

impl LocalStorage for NoStorage {
    fn set_log_start(&self, _: PartitionId, _: Offset) {}
    fn drop_partition(&self, _: PartitionId) {}
    fn of_replica(&self, _: ReplicaId) -> Arc<dyn LocalStorage> {
        Arc::new(Self)
    }
}

/// The replica under test, alone in its group.
const REPLICA: ReplicaId = ReplicaId(1);

fn members() -> Membership {
    Membership::of([REPLICA])
}

fn id(index: i32) -> PartitionId {
    PartitionId { topic: Uuid::from_u128(9), index }
}

fn batch(count: i32, producer: Option<(i64, i16, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.with_producer(id, epoch, sequence);
    }
    for _ in 0..count {
        builder.push(&NewRecord { timestamp: 5, key: None, value: Some(b"v"), headers: &[] });
    }
    builder.build().unwrap()
}

/// Proposes to one replica as Raft would.
struct Replica {
    machine: ShardStateMachine,
    next: LogId,
}

impl Replica {
    fn new(state: ShardState) -> Self {
        let next = LogId { term: Term(1), index: RaftIndex(1) };
        Self { machine: ShardStateMachine::new(state, REPLICA, Arc::new(NoStorage), Arc::default()), next }
    }

    fn entry(&mut self, command: &Command, batches: Vec<(PartitionId, Bytes)>) -> Entry {
        let log_id = self.next;
        self.next.index.0 += 1;
        let batches = batches.into_iter().map(|(partition, data)| EntryBatch { partition, data }).collect();
        let clock_ms = i64::try_from(log_id.index.0).unwrap() * 1_000;
        Entry { log_id, kind: EntryKind::Normal, clock_ms, payload: command.encode(), batches }
    }

    fn run(&mut self, command: &Command, batches: Vec<(PartitionId, Bytes)>) -> (Vec<Verdict>, ApplyReply) {
        let entry = self.entry(command, batches);
        let applied = self.machine.apply(&entry, &members());
        self.machine.publish();
        (applied.verdicts, applied.reply.take::<ApplyReply>().unwrap())
    }

    fn adopt(&mut self, intent: u64, index: i32, epoch_base: i32) -> ApplyReply {
        let partitions = vec![AdoptedPartition { id: id(index), intent: RaftIndex(intent), epoch_base }];
        self.run(&Command::Adopt(partitions), vec![]).1
    }

    fn drop_partition(&mut self, intent: u64, index: i32) -> ApplyReply {
        let dropped = DroppedPartition { id: id(index), intent: RaftIndex(intent) };
        self.run(&Command::Drop(vec![dropped]), vec![]).1
    }

    fn append(&mut self, index: i32, data: Bytes) -> BatchOutcome {
        let decisions = Command::Data(vec![BatchDecision::default()]);
        match self.run(&decisions, vec![(id(index), data)]).1 {
            ApplyReply::Data(outcomes) => outcomes[0],
            other => panic!("{other:?}"),
        }
    }

    fn log_start(&mut self, index: i32, offset: i64) -> ApplyReply {
        let change = LogStartChange { id: id(index), offset: Offset(offset), reason: LogStartReason::DeleteRecords };
        self.run(&Command::SetLogStart(vec![change]), vec![]).1
    }

    fn offsets(&self, index: i32) -> Option<LogOffsetSnapshot> {
        self.machine.read_view.get(id(index)).map(|view| view.offsets())
    }
}

fn base(outcome: BatchOutcome) -> i64 {
    match outcome {
        BatchOutcome::Stored { base_offset, .. } => base_offset.0,
        BatchOutcome::Rejected(why) => panic!("{why:?}"),
    }
}

/// The whole replicated state, as the checkpoint holds it.
fn whole(state: &ShardState) -> BTreeMap<Bytes, Bytes> {
    let mut changes = BTreeMap::new();
    for (id, partition) in &state.partitions {
        changes.insert(Key::Partition(*id).encode(), partition_value(partition).encode());
        changes.insert(Key::Epochs(*id).encode(), checkpoint_keys::encode_epochs(&partition.epochs));
        for (producer, history) in partition.producers.iter() {
            changes.insert(Key::Producer(*id, producer).encode(), checkpoint_keys::encode_producer(history));
        }
        for aborted in partition.transactions.aborted.iter() {
            let value = AbortedValue::from(aborted).encode();
            changes.insert(Key::Aborted(*id, aborted.last_offset).encode(), value);
        }
    }
    for (id, intent) in &state.dropped {
        changes.insert(Key::Dropped(*id).encode(), checkpoint_keys::encode_dropped(*intent));
    }
    changes
}

#[test]
fn an_adopt_of_a_dropped_partition_does_not_revive_it() {
    let mut replica = Replica::new(ShardState::new(Keeps::Records));
    assert_eq!(replica.adopt(5, 0, 0), ApplyReply::Changed(1));
    assert_eq!(replica.adopt(5, 0, 0), ApplyReply::Changed(0));
    assert_eq!(replica.drop_partition(7, 0), ApplyReply::Changed(1));
    assert_eq!(replica.adopt(5, 0, 0), ApplyReply::Changed(0));
    assert_eq!(replica.adopt(7, 0, 0), ApplyReply::Changed(0));
    assert!(replica.offsets(0).is_none());
    assert_eq!(replica.append(0, batch(1, None)), BatchOutcome::Rejected(Rejection::NotCarried));
}

#[test]
fn a_drop_that_comes_before_its_adopt_wins() {
    let mut replica = Replica::new(ShardState::new(Keeps::Records));
    assert_eq!(replica.drop_partition(7, 0), ApplyReply::Changed(0));
    assert_eq!(replica.adopt(5, 0, 0), ApplyReply::Changed(0));
}

#[test]
fn forgotten_tombstones_leave_a_floor() {
    let mut replica = Replica::new(ShardState::new(Keeps::Records));
    replica.adopt(5, 0, 0);
    replica.drop_partition(7, 0);
    let forget = Command::ForgetDropped { floor: RaftIndex(8) };
    assert_eq!(replica.run(&forget, vec![]).1, ApplyReply::Changed(1));
    assert!(replica.machine.state.lock().dropped.is_empty());
    assert_eq!(replica.adopt(5, 0, 0), ApplyReply::Changed(0));
    assert_eq!(replica.adopt(9, 1, 0), ApplyReply::Changed(1));
}

#[test]
fn the_epoch_is_base_plus_term_and_the_base_never_falls() {
    let mut replica = Replica::new(ShardState::new(Keeps::Records));
    replica.adopt(5, 0, 10);
    let _ = replica.append(0, batch(2, None));
    replica.adopt(6, 0, 3);
    replica.next.term = Term(4);
    let _ = replica.append(0, batch(2, None));
    let epochs = replica.offsets(0).unwrap().epochs;
    let starts: Vec<_> = epochs.starts().iter().map(|e| (e.epoch, e.start)).collect();
    assert_eq!(starts, [(LeaderEpoch(11), Offset(0)), (LeaderEpoch(14), Offset(2))]);
}

#[test]
fn a_rejected_batch_takes_no_offset_and_a_duplicate_answers_the_first_one() {
    let mut replica = Replica::new(ShardState::new(Keeps::Records));
    replica.adopt(5, 0, 0);
    assert_eq!(base(replica.append(0, batch(3, Some((7, 0, 0))))), 0);
    assert_eq!(replica.append(0, batch(1, Some((7, 0, 9)))), BatchOutcome::Rejected(Rejection::OutOfOrder));
    assert_eq!(base(replica.append(0, batch(2, Some((7, 0, 3))))), 3);
    assert_eq!(base(replica.append(0, batch(3, Some((7, 0, 0))))), 0);
    assert_eq!(base(replica.append(0, batch(1, None))), 5);
    assert_eq!(replica.offsets(0).unwrap().high_watermark, Offset(6));
    assert_eq!(base(replica.append(0, batch(1, Some((7, 1, 0))))), 6);
    assert_eq!(replica.append(0, batch(1, Some((7, 0, 5)))), BatchOutcome::Rejected(Rejection::Fenced));
}

#[test]
fn a_log_start_is_clamped_and_never_falls() {
    let mut replica = Replica::new(ShardState::new(Keeps::Records));
    replica.adopt(5, 0, 0);
    let _ = replica.append(0, batch(4, None));
    assert_eq!(replica.log_start(0, 3), ApplyReply::LogStarts(vec![(id(0), Some(Offset(3)))]));
    assert_eq!(replica.log_start(0, 1), ApplyReply::LogStarts(vec![(id(0), Some(Offset(3)))]));
    assert_eq!(replica.log_start(0, 99), ApplyReply::LogStarts(vec![(id(0), Some(Offset(4)))]));
    assert_eq!(replica.log_start(1, 1), ApplyReply::LogStarts(vec![(id(1), None)]));
}

#[test]
fn producers_expire_by_the_shard_clock_and_then_may_begin_anywhere() {
    let mut replica = Replica::new(ShardState::new(Keeps::Records));
    replica.adopt(5, 0, 0);
    let _ = replica.append(0, batch(1, Some((7, 0, 0))));
    let expired = replica.run(&Command::ExpireProducers { cutoff_ms: 2_000 }, vec![]).1;
    assert_eq!(expired, ApplyReply::Changed(0));
    let expired = replica.run(&Command::ExpireProducers { cutoff_ms: 2_001 }, vec![]).1;
    assert_eq!(expired, ApplyReply::Changed(1));
    assert_eq!(base(replica.append(0, batch(1, Some((7, 0, 40))))), 1);
}

#[test]
fn nothing_is_shown_before_publish() {
    let mut replica = Replica::new(ShardState::new(Keeps::Records));
    replica.adopt(5, 0, 0);
    let entry = replica.entry(&Command::Data(vec![BatchDecision::default()]), vec![(id(0), batch(2, None))]);
    let _ = replica.machine.apply(&entry, &members());
    assert_eq!(replica.offsets(0).unwrap().high_watermark, Offset(0));
    replica.machine.publish();
    assert_eq!(replica.offsets(0).unwrap().high_watermark, Offset(2));
}

#[test]
fn the_oldest_producers_of_a_partition_are_evicted_first() {
    use crate::replicated::producer_state::PRODUCERS_PER_PARTITION_MAX;
    let mut replica = Replica::new(ShardState::new(Keeps::Records));
    replica.adopt(5, 0, 0);
    let extra = 3;
    for producer in 0..i64::try_from(PRODUCERS_PER_PARTITION_MAX).unwrap() + extra {
        let _ = base(replica.append(0, batch(1, Some((producer, 0, 0)))));
    }
    let state = replica.machine.state.lock();
    let producers = &state.partitions[&id(0)].producers;
    assert_eq!(producers.len(), PRODUCERS_PER_PARTITION_MAX);
    assert_eq!(state.producers_by_order.len(), PRODUCERS_PER_PARTITION_MAX);
    assert_eq!(producers.iter().next().unwrap().0.0, extra);
}

#[derive(Debug, Clone)]
enum Step {
    Adopt(i32),
    Drop(i32),
    Append { partition: i32, count: i32 },
    Produce { partition: i32, producer: i64, count: i32, retry: bool },
    LogStart(i32, i64),
    Expire(u64),
    NewTerm,
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3i32).prop_map(Step::Adopt),
        1 => (0..3i32).prop_map(Step::Drop),
        6 => (0..3i32, 1..4i32).prop_map(|(partition, count)| Step::Append { partition, count }),
        8 => (0..3i32, 0..3i64, 1..4i32, any::<bool>())
            .prop_map(|(partition, producer, count, retry)| Step::Produce { partition, producer, count, retry }),
        2 => (0..3i32, 0..60i64).prop_map(|(partition, offset)| Step::LogStart(partition, offset)),
        1 => (0..60u64).prop_map(Step::Expire),
        1 => Just(Step::NewTerm),
        2 => Just(Step::Cut),
    ]
}

/// The expected log of one partition, as its client records it.
#[derive(Default, Clone)]
struct ModelPartition {
    next: i64,
    log_start: i64,
    /// Sequence to send next and the last batch sent, by producer.
    sequences: BTreeMap<i64, (i32, Option<(Bytes, i64)>)>,
}

/// A step with the outcome that the model expects.
struct Planned {
    command: Command,
    batches: Vec<(PartitionId, Bytes)>,
    /// The offset that the batch must get.
    expect: Option<i64>,
}

impl Planned {
    fn command(command: Command) -> Option<Self> {
        Some(Self { command, batches: vec![], expect: None })
    }

    fn data(partition: i32, data: Bytes, expect: Option<i64>) -> Option<Self> {
        let command = Command::Data(vec![BatchDecision::default()]);
        Some(Self { command, batches: vec![(id(partition), data)], expect })
    }
}

/// The expected logs of all partitions.
#[derive(Default)]
struct Model {
    partitions: BTreeMap<i32, ModelPartition>,
    intent: u64,
}

impl Model {
    fn plan(&mut self, step: &Step, state: &ShardState) -> Option<Planned> {
        match *step {
            Step::Adopt(p) => {
                self.intent += 1;
                self.partitions.entry(p).or_default();
                let adopted = AdoptedPartition { id: id(p), intent: RaftIndex(self.intent), epoch_base: p };
                Planned::command(Command::Adopt(vec![adopted]))
            }
            Step::Drop(p) => {
                self.intent += 1;
                self.partitions.remove(&p);
                Planned::command(Command::Drop(vec![DroppedPartition { id: id(p), intent: RaftIndex(self.intent) }]))
            }
            Step::Append { partition, count } => {
                let expect = self.partitions.get_mut(&partition).map(|known| known.take(count));
                Planned::data(partition, batch(count, None), expect)
            }
            Step::Produce { partition, producer, count, retry } => {
                let known = self.partitions.get_mut(&partition)?;
                let (data, offset) = known.produce(producer, count, retry);
                Planned::data(partition, data, Some(offset))
            }
            Step::LogStart(p, offset) => {
                if let Some(known) = self.partitions.get_mut(&p) {
                    known.log_start = known.log_start.max(offset.min(known.next));
                }
                let change = LogStartChange { id: id(p), offset: Offset(offset), reason: LogStartReason::Retention };
                Planned::command(Command::SetLogStart(vec![change]))
            }
            Step::Expire(index) => {
                let cutoff_ms = i64::try_from(index).unwrap() * 1_000;
                for (p, known) in &mut self.partitions {
                    let producers = &state.partitions[&id(*p)].producers;
                    known.sequences.retain(|producer, _| {
                        let history = producers.get(ottla_protocol::ids::ProducerId(*producer));
                        history.is_some_and(|history| history.seen_ms >= cutoff_ms)
                    });
                }
                Planned::command(Command::ExpireProducers { cutoff_ms })
            }
            Step::NewTerm | Step::Cut => None,
        }
    }
}

impl ModelPartition {
    fn take(&mut self, count: i32) -> i64 {
        let base = self.next;
        self.next += i64::from(count);
        base
    }

    /// The batch that a producer sends, and the offset it must get: a new one, or the last one's again.
    fn produce(&mut self, producer: i64, count: i32, retry: bool) -> (Bytes, i64) {
        let base = self.next;
        let (sequence, last) = self.sequences.entry(producer).or_default();
        if let (Some(again), true) = (last.clone(), retry) {
            return again;
        }
        let sent = (batch(count, Some((producer, 0, *sequence))), base);
        *last = Some(sent.clone());
        *sequence += count;
        self.next += i64::from(count);
        sent
    }
}

fn keep(checkpoint: &mut BTreeMap<Bytes, Bytes>, replica: &mut Replica) {
    for (key, value) in replica.machine.cut() {
        match value {
            Some(value) => checkpoint.insert(key, value),
            None => checkpoint.remove(&key),
        };
    }
}

/// A second replica: restored from a checkpoint, then given the entries since.
fn restarted(checkpoint: BTreeMap<Bytes, Bytes>, since: &[Entry]) -> Replica {
    let stored: Vec<_> = checkpoint.into_iter().collect();
    let mut restored = Replica::new(restore(Keeps::Records, &stored).unwrap());
    for entry in since {
        let _ = restored.machine.apply(entry, &members());
    }
    restored.machine.publish();
    restored
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Random histories: the model knows every offset beforehand; a second replica that is restored from the cuts of
    /// the first and then applies the rest ends in the same state, with the same checksum (I6).
    #[test]
    fn histories_follow_the_model_and_survive_a_restart_at_any_cut(steps in proptest::collection::vec(step(), 1..80)) {
        let mut replica = Replica::new(ShardState::new(Keeps::Records));
        let mut model = Model::default();
        let mut checkpoint: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let mut since_cut: Vec<Entry> = Vec::new();
        for step in steps {
            match step {
                Step::NewTerm => replica.next.term.0 += 1,
                Step::Cut => {
                    keep(&mut checkpoint, &mut replica);
                    since_cut.clear();
                }
                _ => {}
            }
            let planned = model.plan(&step, &replica.machine.state.lock());
            let Some(Planned { command, batches, expect }) = planned else { continue };
            let entry = replica.entry(&command, batches);
            let reply = replica.machine.apply(&entry, &members()).reply.take::<ApplyReply>().unwrap();
            replica.machine.publish();
            since_cut.push(entry);
            if let Some(offset) = expect {
                let ApplyReply::Data(outcomes) = reply else { panic!("no outcomes") };
                prop_assert_eq!(base(outcomes[0]), offset);
            }
            for (p, known) in &model.partitions {
                let offsets = replica.offsets(*p).unwrap();
                prop_assert_eq!((offsets.log_start.0, offsets.high_watermark.0), (known.log_start, known.next));
            }
        }
        let restored = restarted(checkpoint, &since_cut);
        prop_assert_eq!(restored.machine.checksum(), replica.machine.checksum());
        let (restored, first) = (restored.machine.state.lock(), replica.machine.state.lock());
        prop_assert_eq!(whole(&restored), whole(&first));
        prop_assert_eq!(&restored.producers_by_order, &first.producers_by_order);
    }

    #[test]
    fn a_batch_of_any_bytes_is_refused_or_stored_but_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut replica = Replica::new(ShardState::new(Keeps::Records));
        replica.adopt(1, 0, 0);
        let mut data = BytesMut::new();
        data.extend_from_slice(&bytes);
        let _ = replica.append(0, data.freeze());
    }
}

mod merge;
mod split;
mod transactions;

mod groups {
    //! Partitions that keep groups: guards are judged at apply, the state survives in the checkpoint alone.

    use super::*;
    use crate::replicated::group::guard::Guard;
    use crate::replicated::group::records::{CommittedOffset, Record};

    fn commit(group: &str, offset: i64) -> Bytes {
        let value = CommittedOffset {
            offset,
            leader_epoch: 0,
            metadata: "".into(),
            commit_time_ms: 1,
            expire_time_ms: None,
            topic_id: Uuid::nil(),
        };
        let record =
            Record::Offset { group: group.to_owned(), topic: "t".to_owned(), partition: 0, value: Some(value) };
        let (key, value) = record.encode();
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(&NewRecord { timestamp: 1, key: Some(&key), value: value.as_deref(), headers: &[] });
        builder.build().unwrap()
    }

    fn guarded(generation: i32) -> BatchDecision {
        let guard = Guard::Commit { group: "g".to_owned(), generation, member_id: String::new() };
        BatchDecision { coordinator: true, guard: Some(guard.encode()), ..BatchDecision::default() }
    }

    fn offset_of(state: &ShardState) -> Option<i64> {
        let groups = state.partitions[&id(0)].kept.as_ref().unwrap().groups().unwrap().clone();
        let groups = groups.lock();
        groups.offset("g", "t", 0).map(|committed| committed.offset)
    }

    #[test]
    fn a_commit_that_its_guard_forbids_takes_no_offset_and_changes_nothing() {
        let mut replica = Replica::new(ShardState::new(Keeps::Groups));
        replica.adopt(1, 0, 0);
        let data = Command::Data(vec![guarded(-1), guarded(4), guarded(-1)]);
        let batches = [10, 20, 30].map(|offset| (id(0), commit("g", offset))).to_vec();
        let ApplyReply::Data(outcomes) = replica.run(&data, batches).1 else { panic!("data") };
        assert_eq!((base(outcomes[0]), base(outcomes[2])), (0, 1));
        assert_eq!(outcomes[1], BatchOutcome::Rejected(Rejection::Group(22)));
        assert_eq!(offset_of(&replica.machine.state.lock()), Some(30));
    }

    /// Refused here and taken by a newer release it would shift the offsets behind it.
    #[test]
    #[should_panic(expected = "is it of a newer release?")]
    fn a_guard_of_a_kind_that_is_not_known_stops_the_replica() {
        let mut replica = Replica::new(ShardState::new(Keeps::Groups));
        replica.adopt(1, 0, 0);
        let unknown = BatchDecision {
            coordinator: true,
            guard: Some(Bytes::from_static(b"\x09\x00\x01g")),
            ..BatchDecision::default()
        };
        let _ = replica.run(&Command::Data(vec![unknown]), vec![(id(0), commit("g", 10))]);
    }

    #[test]
    fn groups_go_with_a_split() {
        let mut parent = Replica::new(ShardState::new(Keeps::Groups));
        (0..2).for_each(|index| drop(parent.adopt(1, index, 0)));
        let mut checkpoint = BTreeMap::new();
        let _ = parent.run(&Command::Data(vec![guarded(-1)]), vec![(id(0), commit("g", 10))]);
        keep(&mut checkpoint, &mut parent);
        let _ = parent.run(&Command::Data(vec![guarded(-1)]), vec![(id(0), commit("h", 11))]);
        let before = parent.machine.state.lock().partitions[&id(0)].kept.clone().unwrap().checksum();
        let mut child = split::split(&mut parent, vec![id(0)]).unwrap();
        let mut child_checkpoint = BTreeMap::new();
        keep(&mut checkpoint, &mut parent);
        keep(&mut child_checkpoint, &mut child);
        assert!(checkpoint.keys().all(|key| key[0] != 6), "no group stays with the parent");
        let restored = restore(Keeps::Groups, &child_checkpoint.into_iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(offset_of(&restored), Some(10));
        assert_eq!(restored.partitions[&id(0)].kept.clone().unwrap().checksum(), before);
        let _ = child.run(&Command::Data(vec![guarded(-1)]), vec![(id(0), commit("g", 12))]);
        assert_eq!(offset_of(&child.machine.state.lock()), Some(12));
    }

    #[test]
    fn groups_come_back_from_the_checkpoint_and_go_with_their_partition() {
        let mut replica = Replica::new(ShardState::new(Keeps::Groups));
        replica.adopt(1, 0, 0);
        let mut checkpoint = BTreeMap::new();
        let _ = replica.run(&Command::Data(vec![guarded(-1)]), vec![(id(0), commit("g", 10))]);
        keep(&mut checkpoint, &mut replica);
        let covered = replica.machine.cut_points.lock().covered_by(RaftIndex(u64::MAX)).cloned();
        assert_eq!(covered.unwrap().ends, [(id(0), Offset(1))]);
        let stored: Vec<_> = checkpoint.clone().into_iter().collect();
        let restored = restore(Keeps::Groups, &stored).unwrap();
        assert_eq!(offset_of(&restored), Some(10));
        assert_eq!(restored.checksum(), replica.machine.checksum());
        // Committed after the cut and dropped before the next: no key of it may stay.
        let _ = replica.run(&Command::Data(vec![guarded(-1)]), vec![(id(0), commit("h", 11))]);
        keep(&mut checkpoint, &mut replica);
        replica.drop_partition(2, 0);
        keep(&mut checkpoint, &mut replica);
        let tags: Vec<u8> = checkpoint.keys().map(|key| key[0]).collect();
        assert_eq!(tags, [1, 5]);
    }
}

#[test]
fn where_entries_are_lost_no_offset_is_given_again_and_producers_go_on() {
    let mut replica = Replica::new(ShardState::new(Keeps::Records));
    replica.adopt(1, 0, 0);
    assert_eq!(base(replica.append(0, batch(3, Some((7, 0, 0))))), 0);
    let placed = [(0, 1), (1, 2)].map(|(index, intent)| AdoptedPartition {
        id: id(index),
        intent: RaftIndex(intent),
        epoch_base: 0,
    });
    replica.machine.placed = placed.to_vec();
    replica.machine.entries_lost(replica.next);
    replica.machine.publish();
    // The batch before it stood in what is gone: out of order, were the producer still known.
    assert_eq!(base(replica.append(0, batch(2, Some((7, 0, 5))))), 3 + OFFSETS_LOST);
    let log_starts = [0, 1].map(|index| replica.offsets(index).unwrap().log_start.0);
    assert_eq!(log_starts, [0, OFFSETS_LOST], "one that is not known to have been there begins behind it");
    assert_eq!(base(replica.append(1, batch(1, None))), OFFSETS_LOST);
    let state = whole(&replica.machine.state.lock());
    let stored: Vec<_> = state.into_iter().collect();
    assert_eq!(restore(Keeps::Records, &stored).unwrap().partitions[&id(0)].next_offset, Offset(5 + OFFSETS_LOST));
}
