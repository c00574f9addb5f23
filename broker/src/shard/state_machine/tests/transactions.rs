//! Transactions of partitions against a model that remembers every transaction: what is stable, what was aborted, and that a
//! batch which was late never opens one.

use std::collections::BTreeSet;

use ottla_protocol::ids::ProducerId;

use super::*;
use crate::replicated::command::TransactionDecision;
use crate::replicated::transactions::Marker;

const PARTITIONS: i32 = 2;
const PRODUCERS: i64 = 3;

fn transactional(count: i32, (id, epoch, sequence): (i64, i16, i32)) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None).with_producer(id, epoch, sequence).transactional();
    for _ in 0..count {
        builder.push(&NewRecord { timestamp: 5, key: None, value: Some(b"v"), headers: &[] });
    }
    builder.build().unwrap()
}

fn control(id: i64, epoch: i16) -> Bytes {
    let builder = BatchBuilder::new(Codec::None).with_producer(id, epoch, -1).transactional();
    let mut builder = builder.control();
    builder.push(&NewRecord { timestamp: 5, key: Some(&[0, 0, 0, 1]), value: Some(&[0; 6]), headers: &[] });
    builder.build().unwrap()
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A batch of a transaction, with the number as it is now or as it was before the last marker.
    Send {
        partition: i32,
        producer: i64,
        is_late: bool,
    },
    /// The same without a transaction.
    Plain {
        partition: i32,
        producer: i64,
    },
    Mark {
        partition: i32,
        producer: i64,
        commits: bool,
        version: u8,
        is_stale: bool,
    },
    LogStart {
        partition: i32,
        ahead: i64,
    },
    Expire,
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    let place = (0..PARTITIONS, 0..PRODUCERS);
    prop_oneof![
        6 => (place.clone(), prop::bool::weighted(0.2))
            .prop_map(|((partition, producer), is_late)| Step::Send { partition, producer, is_late }),
        2 => place.clone().prop_map(|(partition, producer)| Step::Plain { partition, producer }),
        4 => (place, any::<bool>(), 1_u8..=2, prop::bool::weighted(0.2)).prop_map(
            |((partition, producer), commits, version, is_stale)| Step::Mark {
                partition, producer, commits, version, is_stale
            }
        ),
        1 => (0..PARTITIONS, 0_i64..8).prop_map(|(partition, ahead)| Step::LogStart { partition, ahead }),
        1 => Just(Step::Expire),
        1 => Just(Step::Cut),
    ]
}

#[derive(Debug, Clone)]
struct ModelProducer {
    epoch: i16,
    sequence: i32,
    open: Option<i64>,
    coordinator_epoch: i32,
}

impl Default for ModelProducer {
    fn default() -> Self {
        Self { epoch: 0, sequence: 0, open: None, coordinator_epoch: -1 }
    }
}

#[derive(Debug, Default)]
struct ModelPartition {
    next: i64,
    log_start: i64,
    producers: BTreeMap<i64, ModelProducer>,
    /// Producer, first offset, offset of the marker.
    aborted: Vec<(i64, i64, i64)>,
}

impl ModelPartition {
    fn stable(&self) -> i64 {
        self.producers.values().filter_map(|producer| producer.open).min().unwrap_or(self.next)
    }

    fn within(&self, from: i64, to: i64) -> Vec<(i64, i64, i64)> {
        let kept = self.aborted.iter().filter(|(_, first, last)| *last >= from.max(self.log_start) && *first < to);
        let mut kept: Vec<_> = kept.copied().collect();
        kept.sort_by_key(|(_, first, last)| (*first, *last));
        kept
    }
}

struct World {
    replica: Replica,
    partitions: Vec<ModelPartition>,
    /// The number of each producer's last marker before that marker, by partition and producer.
    numbers_before: BTreeMap<(i32, i64), u64>,
    checkpoint: BTreeMap<Bytes, Bytes>,
    since_cut: Vec<Entry>,
}

impl World {
    fn new() -> Self {
        let replica = Replica::new(ShardState::new(Keeps::Records));
        let partitions = (0..PARTITIONS).map(|_| ModelPartition::default()).collect();
        let mut world = Self {
            replica,
            partitions,
            numbers_before: BTreeMap::new(),
            checkpoint: BTreeMap::new(),
            since_cut: vec![],
        };
        let adopted = |index| AdoptedPartition { id: id(index), intent: RaftIndex(1), epoch_base: 0 };
        world.run(&Command::Adopt((0..PARTITIONS).map(adopted).collect()), vec![]);
        world
    }

    fn run(&mut self, command: &Command, batches: Vec<(PartitionId, Bytes)>) -> ApplyReply {
        let entry = self.replica.entry(command, batches);
        let reply = self.replica.machine.apply(&entry, &members()).reply.take::<ApplyReply>().unwrap();
        self.replica.machine.publish();
        self.since_cut.push(entry);
        reply
    }

    fn data(&mut self, index: i32, data: Bytes, transaction: Option<TransactionDecision>) -> BatchOutcome {
        let decision = BatchDecision { transaction, ..BatchDecision::default() };
        match self.run(&Command::Data(vec![decision]), vec![(id(index), data)]) {
            ApplyReply::Data(outcomes) => outcomes[0],
            other => panic!("{other:?}"),
        }
    }

    fn number(&self, index: i32, producer: i64) -> u64 {
        let state = self.replica.machine.state.lock();
        let partition = &state.partitions[&id(index)];
        partition.transactions.marker_number(partition.producers.get(ProducerId(producer)))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send { partition, producer, is_late } => self.send(partition, producer, is_late),
            Step::Plain { partition, producer } => self.plain(partition, producer),
            Step::Mark { partition, producer, commits, version, is_stale } => {
                self.mark(partition, producer, (commits, version), is_stale);
            }
            Step::LogStart { partition, ahead } => {
                let known = &mut self.partitions[usize::try_from(partition).unwrap()];
                let wanted = known.log_start + ahead;
                known.log_start = wanted.min(known.stable()).max(known.log_start);
                let change =
                    LogStartChange { id: id(partition), offset: Offset(wanted), reason: LogStartReason::DeleteRecords };
                let _ = self.run(&Command::SetLogStart(vec![change]), vec![]);
            }
            Step::Expire => {
                let _ = self.run(&Command::ExpireProducers { cutoff_ms: i64::MAX }, vec![]);
                for known in &mut self.partitions {
                    known.producers.retain(|_, producer| producer.open.is_some());
                }
            }
            Step::Cut => {
                keep(&mut self.checkpoint, &mut self.replica);
                self.since_cut.clear();
            }
        }
    }

    fn send(&mut self, index: i32, producer: i64, is_late: bool) {
        let number = self.number(index, producer);
        let before = self.numbers_before.get(&(index, producer)).copied();
        let carried = before.filter(|_| is_late).unwrap_or(number);
        let known = &mut self.partitions[usize::try_from(index).unwrap()];
        let sender = known.producers.get(&producer).cloned().unwrap_or_default();
        let data = transactional(2, (producer, sender.epoch, sender.sequence));
        let outcome = self.data(index, data, Some(TransactionDecision::Opens { marker_number: carried }));
        let known = &mut self.partitions[usize::try_from(index).unwrap()];
        if sender.open.is_none() && carried != number {
            assert_eq!(outcome, BatchOutcome::Rejected(Rejection::TransactionEnded), "a late batch");
            return;
        }
        assert_eq!(base(outcome), known.next);
        let sender = ModelProducer { sequence: sender.sequence + 2, open: sender.open.or(Some(known.next)), ..sender };
        known.producers.insert(producer, sender);
        known.next += 2;
    }

    fn plain(&mut self, index: i32, producer: i64) {
        let known = &self.partitions[usize::try_from(index).unwrap()];
        let sender = known.producers.get(&producer).cloned().unwrap_or_default();
        let outcome = self.data(index, batch(1, Some((producer, sender.epoch, sender.sequence))), None);
        let known = &mut self.partitions[usize::try_from(index).unwrap()];
        if sender.open.is_some() {
            assert_eq!(outcome, BatchOutcome::Rejected(Rejection::TransactionOpen));
            return;
        }
        assert_eq!(base(outcome), known.next);
        known.producers.insert(producer, ModelProducer { sequence: sender.sequence + 1, ..sender });
        known.next += 1;
    }

    fn mark(&mut self, index: i32, producer: i64, (commits, version): (bool, u8), is_stale: bool) {
        let number = self.number(index, producer);
        let known = &self.partitions[usize::try_from(index).unwrap()];
        let sender = known.producers.get(&producer).cloned().unwrap_or_default();
        let is_known = known.producers.contains_key(&producer);
        let epoch = sender.epoch + i16::from(version >= 2 && !is_stale);
        let coordinator_epoch = sender.coordinator_epoch.max(3) - 4 * i32::from(is_stale && version == 1 && is_known);
        let marker = Marker { commits, coordinator_epoch, version };
        let outcome = self.data(index, control(producer, epoch), Some(TransactionDecision::Ends(marker)));
        let known = &mut self.partitions[usize::try_from(index).unwrap()];
        if coordinator_epoch < sender.coordinator_epoch {
            assert_eq!(outcome, BatchOutcome::Rejected(Rejection::CoordinatorFenced));
            return;
        }
        if version >= 2 && is_stale && sender.open.is_some() {
            // The marker of the transaction before comes a second time.
            assert_eq!(outcome, BatchOutcome::Rejected(Rejection::Fenced));
            return;
        }
        assert_eq!(base(outcome), known.next);
        if let Some(first) = sender.open {
            known.aborted.extend((!commits).then_some((producer, first, known.next)));
            known.next += 1;
        }
        let sequence = if epoch == sender.epoch && is_known { sender.sequence } else { 0 };
        known.producers.insert(producer, ModelProducer { epoch, sequence, open: None, coordinator_epoch });
        self.numbers_before.insert((index, producer), number);
        assert!(self.number(index, producer) > number, "markers are numbered");
    }

    fn check(&self) {
        for (index, known) in self.partitions.iter().enumerate() {
            let offsets = self.replica.offsets(i32::try_from(index).unwrap()).unwrap();
            let shown = (offsets.log_start.0, offsets.last_stable.0, offsets.high_watermark.0);
            assert_eq!(shown, (known.log_start, known.stable(), known.next));
            for (from, to) in
                [(known.log_start, known.stable()), (known.next / 2, known.next), (known.next / 3, known.next / 2)]
            {
                let shown = offsets.aborted.within(Offset(from), Offset(to)).into_iter();
                let shown: Vec<_> =
                    shown.map(|one| (one.producer_id.0, one.first_offset.0, one.last_offset.0)).collect();
                assert_eq!(shown, known.within(from, to), "aborted in {from}..{to}");
            }
        }
        let state = self.replica.machine.state.lock();
        let open = self.partitions.iter().flat_map(|known| known.producers.values()).filter(|one| one.open.is_some());
        assert_eq!(state.transactions_open, open.count());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn transactions_follow_the_model_and_survive_a_restart_at_any_cut(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
        let restored = restarted(world.checkpoint, &world.since_cut);
        prop_assert_eq!(restored.machine.checksum(), world.replica.machine.checksum());
        let (restored, first) = (restored.machine.state.lock(), world.replica.machine.state.lock());
        prop_assert_eq!(whole(&restored), whole(&first));
        prop_assert_eq!(&restored.producers_by_order, &first.producers_by_order);
        prop_assert_eq!(restored.transactions_open, first.transactions_open);
        for (id, partition) in &first.partitions {
            prop_assert_eq!(restored.partitions[id].last_stable(), partition.last_stable());
        }
    }
}

#[test]
fn a_transaction_that_nobody_asked_for_is_refused() {
    let mut replica = Replica::new(ShardState::new(Keeps::Records));
    replica.adopt(5, 0, 0);
    let refused = BatchOutcome::Rejected(Rejection::TransactionEnded);
    assert_eq!(replica.append(0, transactional(1, (7, 0, 0))), refused);
    assert_eq!(replica.offsets(0).unwrap().high_watermark, Offset(0));
}

/// What an evicted producer's last marker was is not forgotten: its late batch is refused, whoever else came meanwhile.
#[test]
fn a_late_batch_of_a_producer_that_was_forgotten_opens_nothing() {
    let mut world = World::new();
    let asked = world.number(0, 1);
    world.mark(0, 1, (false, 2), false);
    world.step(Step::Expire);
    let late = world.data(0, transactional(1, (1, 0, 0)), Some(TransactionDecision::Opens { marker_number: asked }));
    assert_eq!(late, BatchOutcome::Rejected(Rejection::TransactionEnded));
    world.check();
}

/// Transactional ids are state of their partition: restored after a restart, and taken along in a split.
#[test]
fn transactional_ids_survive_a_restart_and_go_along_in_a_split() {
    use crate::replicated::command::{Split, SplitReplica};
    use crate::replicated::transaction::records::TransactionRecord;
    use crate::replicated::transaction::{Status, TransactionValue};

    let mut replica = Replica::new(ShardState::new(Keeps::Transactions));
    replica.adopt(5, 0, 0);
    let value = TransactionValue {
        producer_id: ProducerId(9),
        previous_producer_id: None,
        next_producer_id: None,
        epoch: 2,
        last_epoch: 1,
        timeout_ms: 60_000,
        status: Status::Empty,
        partitions: BTreeMap::new(),
        updated_ms: 5,
        started_ms: -1,
        client_version: 2,
    };
    let record = TransactionRecord { id: "id".into(), value: Some(value.clone()) };
    let (key, bytes) = record.encode();
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(&NewRecord { timestamp: 5, key: Some(&key), value: bytes.as_deref(), headers: &[] });
    let _ = base(replica.append(0, builder.build().unwrap()));
    let shown = |state: &ShardState| {
        let kept = state.partitions[&id(0)].kept.as_ref()?.transactions()?.lock();
        kept.get("id").map(|value| (**value).clone())
    };
    assert_eq!(shown(&replica.machine.state.lock()), Some(value.clone()));
    let stored: Vec<_> = replica.machine.cut().into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    assert_eq!(shown(&restore(Keeps::Transactions, &stored).unwrap()), Some(value.clone()));
    let replicas = vec![SplitReplica { parent: REPLICA, child: ReplicaId(8) }];
    let split = Split { intent: RaftIndex(9), child: 7, creation: Bytes::new(), replicas, partitions: vec![id(0)] };
    let entry = replica.entry(&Command::Split(split), vec![]);
    let members = BTreeSet::from([REPLICA]);
    let child = {
        let mut state = replica.machine.state.lock();
        let _ = state.apply(&entry, Some(&members));
        state.take_split_off(REPLICA).unwrap().1.child
    };
    assert_eq!(shown(&child), Some(value));
}

/// What an open transaction's producer has sent is forgotten with the entries that are lost, in the checkpoint, too.
#[test]
fn a_transaction_that_is_open_when_entries_are_lost_is_restored_as_it_is() {
    let mut world = World::new();
    world.send(0, 1, false);
    world.step(Step::Cut);
    world.replica.machine.state.lock().entries_lost(&[]);
    keep(&mut world.checkpoint, &mut world.replica);
    let restored = restarted(world.checkpoint, &[]);
    let (restored, first) = (restored.machine.state.lock(), world.replica.machine.state.lock());
    assert_eq!(whole(&restored), whole(&first));
    assert_eq!(restored.partitions[&id(0)].last_stable(), Offset(0), "it is open");
}
