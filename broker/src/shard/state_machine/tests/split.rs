//! A state that is split: together parent and child hold what the parent held, nothing twice, and each goes on as if it
//! had always been alone.

use ottla_model::{Random, lives};
use ottla_protocol::ids::ProducerId;

use super::*;
use crate::replicated::command::{Split, SplitReplica};
use crate::replicated::shard_state::SplitOff;

const PARTITIONS: i32 = 6;
const INTENT: RaftIndex = RaftIndex(100);
const CHILD: u64 = 9;

fn command(partitions: Vec<PartitionId>) -> Command {
    let replicas = vec![SplitReplica { parent: ReplicaId(1), child: ReplicaId(2) }];
    Command::Split(Split { intent: INTENT, child: CHILD, replicas, partitions })
}

/// Splits a replica's state; the child goes on behind the same entry.
pub(super) fn split(parent: &mut Replica, partitions: Vec<PartitionId>) -> Option<Replica> {
    let reply = parent.run(&command(partitions), vec![]).1;
    let mut split_off = std::mem::take(&mut parent.machine.state.lock().split_off);
    let SplitOff { at, child, .. } = split_off.pop()?;
    assert!(split_off.is_empty());
    assert_eq!(reply, ApplyReply::Changed(child.partitions.len()));
    assert_eq!((at.index.0 + 1, child.last), (parent.next.index.0, Some(at)));
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

fn restored(checkpoint: &BTreeMap<Bytes, Bytes>) -> ShardState {
    restore(false, &checkpoint.clone().into_iter().collect::<Vec<_>>()).unwrap()
}

#[test]
fn together_they_hold_what_the_parent_held_also_in_their_checkpoints() {
    lives(20_000, 80, |random, steps| {
        let mut parent = Replica::new(ShardState::new(false));
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
        let Some(mut child) = split(&mut parent, chosen.clone()) else {
            assert!(going.is_empty());
            return;
        };
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
        assert!(parent.machine.state.lock().split_off.is_empty());
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
}

/// The child serves the bytes from now on.
#[test]
fn what_moves_is_not_freed() {
    let told = Arc::new(Told::default());
    let mut parent = Replica::new(ShardState::new(false));
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
        let mut parent = Replica::new(ShardState::new(false));
        parent.adopt(1, 0, 0);
        let split = Split { intent: INTENT, child, replicas: Vec::new(), partitions: vec![id(0)] };
        let _ = parent.run(&Command::Split(split), vec![]);
        parent.machine.state.lock().split_off[0].child.checksum()
    });
    assert_ne!(sums[0], sums[1]);
}

/// The metadata has decided something else about it since.
#[test]
fn a_partition_with_a_newer_intent_stays() {
    let mut parent = Replica::new(ShardState::new(false));
    (0..2).for_each(|index| drop(parent.adopt(1, index, 0)));
    parent.adopt(150, 0, 0);
    let child = split(&mut parent, vec![id(0), id(1)]).unwrap();
    assert_eq!(child.machine.state.lock().partitions.keys().collect::<Vec<_>>(), [&id(1)]);
    assert!(parent.offsets(0).is_some());
}

/// Intents that were decided before the split, and reach the parent late, change nothing there.
#[test]
fn an_older_intent_does_not_bring_a_partition_back_and_a_newer_one_does() {
    let mut parent = Replica::new(ShardState::new(false));
    (0..2).for_each(|index| drop(parent.adopt(1, index, 0)));
    assert!(split(&mut parent, vec![id(1)]).is_some());
    assert_eq!(parent.adopt(99, 1, 0), ApplyReply::Changed(0));
    assert_eq!(parent.adopt(101, 1, 0), ApplyReply::Changed(1));
}
