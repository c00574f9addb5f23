//! A state that is split: together parent and child hold what the parent held, nothing twice, and each goes on as if it
//! had always been alone.

use ottla_model::{Random, lives};
use ottla_protocol::ids::ProducerId;

use super::*;
use crate::replicated::command::{Split, SplitReplica};

const PARTITIONS: i32 = 6;
const INTENT: RaftIndex = RaftIndex(100);
const CHILD: u64 = 9;
const CHILD_REPLICA: ReplicaId = ReplicaId(2);

fn command(partitions: Vec<PartitionId>) -> Command {
    of_intent(INTENT, REPLICA, partitions)
}

/// A split by this intent of the group of this one member.
fn of_intent(intent: RaftIndex, parent: ReplicaId, partitions: Vec<PartitionId>) -> Command {
    let replicas = vec![SplitReplica { parent, child: CHILD_REPLICA }];
    let creation = Bytes::from_static(b"child");
    Command::Split(Split { intent, child: CHILD, creation, replicas, partitions })
}

/// Splits a replica's state; the child goes on behind the same entry.
pub(super) fn split(parent: &mut Replica, partitions: Vec<PartitionId>) -> Option<Replica> {
    let (at, reply) = (parent.next, parent.run(&command(partitions), vec![]).1);
    let seeded = parent.machine.siblings.children.get(CHILD_REPLICA)?;
    parent.machine.siblings.children.remove(CHILD_REPLICA);
    let child = std::mem::take(&mut *seeded.view.state.lock());
    assert_eq!(reply, ApplyReply::Changed(child.partitions.len()));
    assert_eq!((seeded.parent, &seeded.creation[..], child.last), (REPLICA, &b"child"[..], Some(at)));
    let mut child = Replica::new(child);
    child.next = parent.next;
    Some(child)
}

/// One step of clients: a producer's next batch or a retry, a log start, another term.
fn step(random: &mut Random, replica: &mut Replica, sent: &mut BTreeMap<(i32, i64), i32>) {
    let index = i32::try_from(random.below(6)).unwrap();
    match random.below(12) {
        0 => replica.next.term.0 += 1,
        1 => {
            let _ = replica.log_start(index, random.between(0, 40));
        }
        2 => {
            let _ = replica.append(index, batch(2, None));
        }
        _ => {
            let producer = random.between(1, 4);
            let next = sent.entry((index, producer)).or_default();
            let _ = replica.append(index, batch(2, Some((producer, 0, *next))));
            *next += 2;
        }
    }
}

/// Keys and values of some partitions, without the intents, which a split changes.
fn held(state: &ShardState, of: impl Fn(&PartitionId) -> bool) -> BTreeMap<Bytes, Bytes> {
    let mut held = BTreeMap::new();
    for (id, partition) in state.partitions.iter().filter(|(id, _)| of(id)) {
        let value = PartitionValue { intent: RaftIndex(0), ..partition_value(partition) };
        held.insert(Key::Partition(*id).encode(), value.encode());
        held.insert(Key::Epochs(*id).encode(), checkpoint_keys::encode_epochs(&partition.epochs));
        for (producer, history) in partition.producers.iter() {
            held.insert(Key::Producer(*id, producer).encode(), checkpoint_keys::encode_producer(history));
        }
    }
    held
}

pub(super) fn restored(checkpoint: &BTreeMap<Bytes, Bytes>) -> ShardState {
    restore(Keeps::Records, &checkpoint.clone().into_iter().collect::<Vec<_>>()).unwrap()
}

#[test]
fn together_they_hold_what_the_parent_held_also_in_their_checkpoints() {
    lives(20_000, 80, |random, steps| {
        let mut parent = Replica::new(ShardState::new(Keeps::Records));
        (0..PARTITIONS).for_each(|index| drop(parent.adopt(1 + u64::from(index.unsigned_abs()), index, 3)));
        let (mut sent, mut checkpoint) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..steps {
            step(random, &mut parent, &mut sent);
            if random.once_in(20) {
                keep(&mut checkpoint, &mut parent);
            }
        }
        // One is dropped before, and one that never was here is named.
        parent.drop_partition(50, 5);
        let _ = parent.run(&Command::ForgetDropped { floor: RaftIndex(60) }, vec![]);
        let chosen: Vec<_> = (0..PARTITIONS + 1).filter(|_| random.once_in(2)).map(id).collect();
        let moves = |id: &PartitionId| chosen.contains(id);
        let before = held(&parent.machine.state.lock(), |_| true);
        let going = held(&parent.machine.state.lock(), moves);
        let staying = held(&parent.machine.state.lock(), |id| !moves(id));
        let before_sum = parent.machine.checksum();
        let mut child = split(&mut parent, chosen.clone()).unwrap();
        assert_eq!(held(&child.machine.state.lock(), |_| true), going);
        assert_eq!(held(&parent.machine.state.lock(), |_| true), staying);
        assert_eq!(before.len(), going.len() + staying.len());
        assert!(![before_sum, parent.machine.checksum()].contains(&child.machine.checksum()));

        let of_shard = |replica: &Replica| ShardValue { checksum: 0, ..shard_value(&replica.machine.state.lock()) };
        assert_eq!(of_shard(&child), of_shard(&parent));
        for replica in [&parent, &child] {
            let state = replica.machine.state.lock();
            assert_eq!(restored(&whole(&state)).producers_by_order, state.producers_by_order);
        }

        let mut child_checkpoint = BTreeMap::new();
        keep(&mut checkpoint, &mut parent);
        keep(&mut child_checkpoint, &mut child);
        assert_eq!(digest(&restored(&checkpoint)), digest(&parent.machine.state.lock()));
        assert_eq!(digest(&restored(&child_checkpoint)), digest(&child.machine.state.lock()));
        goes_on(&mut parent, &mut child, &sent, moves);
        assert_eq!(parent.run(&command(chosen), vec![]).1, ApplyReply::Changed(0), "applied once");
        assert!(parent.machine.siblings.children.get(CHILD_REPLICA).is_none());
    });
}

/// Every producer's last batch is known where its partition is, and its next one follows; elsewhere it is not carried.
fn goes_on(
    parent: &mut Replica,
    child: &mut Replica,
    sent: &BTreeMap<(i32, i64), i32>,
    moved: impl Fn(&PartitionId) -> bool,
) {
    for ((index, producer), next) in sent.iter().filter(|((index, _), _)| *index != 5) {
        let (owner, other) = if moved(&id(*index)) { (&mut *child, &mut *parent) } else { (&mut *parent, &mut *child) };
        let known = owner.machine.state.lock().partitions[&id(*index)].producers.get(ProducerId(*producer)).cloned();
        let last = known.unwrap().batches.last().copied().unwrap();
        let end = owner.offsets(*index).unwrap().high_watermark;
        assert_eq!(base(owner.append(*index, batch(2, Some((*producer, 0, last.first_sequence))))), last.base_offset.0);
        assert_eq!(base(owner.append(*index, batch(1, Some((*producer, 0, *next))))), end.0);
        let refused = other.append(*index, batch(1, Some((*producer, 0, *next))));
        assert_eq!(refused, BatchOutcome::Rejected(Rejection::NotCarried));
        assert!(other.offsets(*index).is_none());
    }
}

/// Frees what it is told, by the name of the call.
#[derive(Default)]
struct Told(Mutex<Vec<(PartitionId, &'static str)>>);

impl LocalStorage for Told {
    fn set_log_start(&self, id: PartitionId, _: Offset) {
        self.0.lock().push((id, "log start"));
    }
    fn drop_partition(&self, id: PartitionId) {
        self.0.lock().push((id, "dropped"));
    }
    fn of_replica(&self, _: ReplicaId) -> Arc<dyn LocalStorage> {
        Arc::new(Self::default())
    }
}

/// The child serves the bytes from now on.
#[test]
fn what_moves_is_not_freed() {
    let told = Arc::new(Told::default());
    let mut parent = Replica::new(ShardState::new(Keeps::Records));
    parent.machine.storage = told.clone();
    (0..3).for_each(|index| drop(parent.adopt(1, index, 0)));
    told.0.lock().clear();
    assert!(split(&mut parent, vec![id(1)]).is_some());
    assert_eq!(*told.0.lock(), []);
    parent.drop_partition(7, 0);
    assert_eq!(*told.0.lock(), [(id(0), "dropped")]);
}

/// No sum of one shard is taken for that of another.
#[test]
fn children_of_one_state_have_different_checksums() {
    let sums = [CHILD, CHILD + 1].map(|child| {
        let mut parent = Replica::new(ShardState::new(Keeps::Records));
        parent.adopt(1, 0, 0);
        let Command::Split(split) = command(vec![id(0)]) else { unreachable!() };
        let _ = parent.run(&Command::Split(Split { child, ..split }), vec![]);
        let seeded = parent.machine.siblings.children.get(CHILD_REPLICA).unwrap();
        seeded.view.state.lock().checksum()
    });
    assert_ne!(sums[0], sums[1]);
}

/// The metadata has decided something else about it since.
#[test]
fn a_partition_with_a_newer_intent_stays() {
    let mut parent = Replica::new(ShardState::new(Keeps::Records));
    (0..2).for_each(|index| drop(parent.adopt(1, index, 0)));
    parent.adopt(150, 0, 0);
    let child = split(&mut parent, vec![id(0), id(1)]).unwrap();
    assert_eq!(child.machine.state.lock().partitions.keys().collect::<Vec<_>>(), [&id(1)]);
    assert!(parent.offsets(0).is_some());
}

/// Intents that were decided before the split, and reach the parent late, change nothing there.
#[test]
fn an_older_intent_does_not_bring_a_partition_back_and_a_newer_one_does() {
    let mut parent = Replica::new(ShardState::new(Keeps::Records));
    (0..2).for_each(|index| drop(parent.adopt(1, index, 0)));
    assert!(split(&mut parent, vec![id(1)]).is_some());
    assert_eq!(parent.adopt(99, 1, 0), ApplyReply::Changed(0));
    assert_eq!(parent.adopt(101, 1, 0), ApplyReply::Changed(1));
}

/// The map of replicas is that of the members at the entry, or some node would have a state and no child.
#[test]
fn a_split_for_other_members_changes_nothing_and_may_come_again() {
    let mut parent = Replica::new(ShardState::new(Keeps::Records));
    parent.adopt(1, 0, 0);
    let before = digest(&parent.machine.state.lock());
    let refused = parent.run(&of_intent(INTENT, ReplicaId(7), vec![id(0)]), vec![]).1;
    assert_eq!(refused, ApplyReply::OtherMembers);
    assert!(parent.offsets(0).is_some() && parent.machine.siblings.children.get(CHILD_REPLICA).is_none());
    assert_ne!(digest(&parent.machine.state.lock()), before, "the entry counts");
    assert!(split(&mut parent, vec![id(0)]).is_some());
}

/// One that was taken into the group later applies the entry, too, and has no replica of the child.
#[test]
fn a_replica_that_is_not_named_drops_what_moves() {
    let told = Arc::new(Told::default());
    let mut parent = Replica::new(ShardState::new(Keeps::Records));
    (parent.machine.storage, parent.machine.replica) = (told.clone(), ReplicaId(5));
    (0..2).for_each(|index| drop(parent.adopt(1, index, 0)));
    told.0.lock().clear();
    assert_eq!(parent.run(&command(vec![id(1)]), vec![]).1, ApplyReply::Changed(1));
    assert_eq!(*told.0.lock(), [(id(1), "dropped")]);
    assert!(parent.machine.siblings.children.get(CHILD_REPLICA).is_none());
}

/// The metadata waits for the group of a child that it has recorded.
#[test]
fn a_split_of_what_is_gone_makes_a_child_that_carries_nothing() {
    let mut parent = Replica::new(ShardState::new(Keeps::Records));
    parent.adopt(1, 0, 0);
    parent.drop_partition(INTENT.0 + 1, 0);
    let child = split(&mut parent, vec![id(0)]).unwrap();
    assert!(child.machine.state.lock().partitions.is_empty());
}
