//! The queue by itself: packing, order, refusals, handover.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Weak};

use bytes::Bytes;
use ottla_protocol::ids::ProducerId;
use parking_lot::Mutex;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::replicated::command::BatchDecision;
use crate::shard::answer::{self, AnswerReceiver};
use crate::shard::handover::HANDOVER_WAIT;
use crate::shard::idempotence_fence::ProducerKey;

fn ready(_: &QueuedBatch) -> Readiness {
    Readiness::Ready
}

fn ready_if(condition: bool) -> Readiness {
    if condition { Readiness::Ready } else { Readiness::Held }
}

fn id(index: i32) -> PartitionId {
    PartitionId { topic: Uuid::from_u128(1), index }
}

fn batch(index: i32, bytes: usize, sequence: Option<i32>) -> (QueuedBatch, AnswerReceiver) {
    let (answer, receiver) = answer::channel();
    let producer_batch = sequence.map(|sequence| {
        let key = ProducerKey { connection: ConnectionId(1), producer: ProducerId(1), partition: id(index) };
        ProducerBatch { key, epoch: 0, sequence, arrival: 0 }
    });
    let data = Bytes::from(vec![0; bytes]);
    let decision = BatchDecision::default();
    (
        QueuedBatch {
            partition: id(index),
            data,
            decision,
            producer_batch,
            deadline: Instant(100),
            required_in_sync: 0,
            adopted: false,
            answer,
        },
        receiver,
    )
}

#[test]
fn everything_that_waits_goes_into_one_entry_up_to_a_mebibyte() {
    let mut queue = AppendQueue::default();
    for _ in 0..3 {
        queue.push(batch(0, 400_000, None).0);
    }
    assert_eq!(queue.pack(Instant(0), usize::MAX, ready, |_| false).batches.len(), 2);
    assert_eq!(queue.pack(Instant(0), usize::MAX, ready, |_| false).batches.len(), 1);
    assert_eq!(queue.bytes(), 0);
}

#[test]
fn an_entry_is_no_larger_than_what_a_segment_holds() {
    let mut queue = AppendQueue::default();
    (0..5).for_each(|_| queue.push(batch(0, 300_000, None).0));
    let mut counts = std::iter::from_fn(|| Some(queue.pack(Instant(0), 900_000, ready, |_| false).batches.len()));
    assert_eq!(counts.by_ref().take(3).collect::<Vec<_>>(), [3, 2, 0]);
}

#[test]
fn an_appender_that_awaits_a_full_entry_is_not_woken_for_less() {
    let mut queue = AppendQueue::default();
    queue.push(batch(0, 10, None).0);
    assert!(queue.wakes_appender());
    queue.await_full_entry();
    queue.push(batch(0, 10, None).0);
    assert!(!queue.wakes_appender());
    queue.push(batch(0, ENTRY_BYTES_MAX, None).0);
    assert!(queue.wakes_appender());
    let _ = queue.pack(Instant(0), usize::MAX, ready, |_| false);
    assert!(queue.wakes_appender(), "it has packed, and awaits any batch");
    queue.await_full_entry();
    queue.refuse_all(&PartitionError::NotLeaderOrFollower);
    assert!(queue.wakes_appender(), "nothing is in flight any more that would wake it");
}

#[test]
fn a_batch_above_the_limit_goes_alone() {
    let mut queue = AppendQueue::default();
    queue.push(batch(0, 10, None).0);
    queue.push(batch(0, 3 * ENTRY_BYTES_MAX, None).0);
    queue.push(batch(0, 10, None).0);
    let sizes: Vec<_> =
        (0..3).map(|_| queue.pack(Instant(0), usize::MAX, ready, |_| false).batches[0].data.len()).collect();
    assert_eq!(sizes, [10, 3 * ENTRY_BYTES_MAX, 10]);
}

#[test]
fn too_many_bytes_are_refused_and_what_follows_of_that_producer_too() {
    let mut queue = AppendQueue::default();
    queue.push(batch(0, QUEUE_BYTES_MAX, None).0);
    let (refused, mut answer) = batch(1, 1, Some(5));
    queue.push(refused);
    assert_eq!(answer.try_recv().unwrap(), Err(AppendError::Overloaded));
    let _ = queue.pack(Instant(0), usize::MAX, ready, |_| false);
    let (next, mut answer) = batch(1, 1, Some(6));
    queue.push(next);
    assert!(queue.pack(Instant(0), usize::MAX, ready, |_| false).batches.is_empty());
    assert_eq!(answer.try_recv().unwrap(), Err(AppendError::Overloaded));
    queue.push(batch(1, 1, Some(5)).0);
    queue.push(batch(1, 1, Some(6)).0);
    assert_eq!(queue.pack(Instant(0), usize::MAX, ready, |_| false).batches.len(), 2);
}

#[test]
fn what_waits_behind_a_refusal_does_not_outlive_its_connection() {
    let mut queue = AppendQueue::default();
    queue.push(batch(1, 1, Some(5)).0);
    let mut packed = queue.pack(Instant(0), usize::MAX, ready, |_| false);
    let (behind, mut answer) = batch(1, 1, Some(6));
    queue.push(behind);
    queue.push(batch(2, 1, Some(6)).0);
    queue.refuse(packed.batches.remove(0), PartitionError::TimedOut.into());
    queue.close(ConnectionId(1));
    assert_eq!(answer.try_recv().unwrap(), Err(PartitionError::TimedOut.into()));
    let left = queue.pack(Instant(0), usize::MAX, ready, |_| false).batches;
    assert_eq!(left.iter().map(|batch| batch.partition).collect::<Vec<_>>(), [id(2)]);
    assert_eq!(queue.bytes(), 0);
}

#[test]
fn batches_of_a_partition_that_is_not_adopted_wait_in_order_and_hold_up_nobody() {
    let mut queue = AppendQueue::default();
    let (late, mut answer) = batch(1, 1, None);
    queue.push(late);
    queue.push(batch(0, 2, None).0);
    queue.push(batch(1, 3, None).0);
    let packed = queue.pack(Instant(0), usize::MAX, |batch| ready_if(batch.partition == id(0)), |_| false);
    assert_eq!(packed.batches.iter().map(|b| b.data.len()).collect::<Vec<_>>(), [2]);
    assert_eq!(packed.next_deadline, Some(Instant(100)));
    assert_eq!(queue.bytes(), 4);
    let packed = queue.pack(Instant(0), usize::MAX, ready, |_| false);
    assert_eq!(packed.batches.iter().map(|b| b.data.len()).collect::<Vec<_>>(), [1, 3]);
    assert!(answer.try_recv().is_err());
}

#[test]
fn whoever_waits_too_long_for_an_adoption_is_told() {
    let mut queue = AppendQueue::default();
    let (late, mut answer) = batch(1, 1, None);
    queue.push(late);
    assert!(queue.pack(Instant(100), usize::MAX, |_| Readiness::Held, |_| false).batches.is_empty());
    assert_eq!(answer.try_recv().unwrap(), Err(PartitionError::LeaderNotAvailable.into()));
}

/// What a child was given.
#[derive(Debug, Default)]
struct Child(Mutex<Vec<QueuedBatch>>);

impl Successor for Child {
    fn enqueue(&self, batch: QueuedBatch) {
        self.0.lock().push(batch);
    }
}

fn sizes<'a>(batches: impl IntoIterator<Item = &'a QueuedBatch>) -> Vec<usize> {
    batches.into_iter().map(|batch| batch.data.len()).collect()
}

#[test]
fn what_waits_for_partitions_that_move_goes_to_the_child_in_order_and_holds_up_nobody() {
    let mut queue = AppendQueue::default();
    queue.push(batch(1, 1, None).0);
    queue.hold(Handover::proposed(&[id(1)], Instant(0)));
    queue.push(batch(0, 2, None).0);
    let (adopted, mut answer) = batch(1, 3, None);
    queue.push(QueuedBatch { adopted: true, ..adopted });
    assert_eq!(sizes(&queue.pack(Instant(0), usize::MAX, ready, |_| false).batches), [2]);
    assert!(queue.pack(Instant(0), usize::MAX, ready, |_| false).batches.is_empty());

    let child = Arc::new(Child::default());
    let successor: Weak<Child> = Arc::downgrade(&child);
    queue.hand_over(Handover::to(successor, [id(1)].into()));
    assert_eq!((sizes(child.0.lock().iter()), queue.bytes()), (vec![1, 3], 0));
    assert!(child.0.lock().iter().all(|batch| !batch.adopted), "the child has not been asked");
    queue.push(batch(1, 4, None).0);
    queue.push(batch(0, 5, None).0);
    assert_eq!(sizes(child.0.lock().iter()), [1, 3, 4]);
    assert_eq!(sizes(&queue.pack(Instant(0), usize::MAX, ready, |_| false).batches), [5]);
    assert!(answer.try_recv().is_err());

    // It is gone: apply judges.
    drop(child);
    queue.push(batch(1, 6, None).0);
    assert_eq!(sizes(&queue.pack(Instant(0), usize::MAX, ready, |_| false).batches), [6]);
}

/// The child of an earlier split has come home: what is sent to it comes here, and would go in a circle.
#[test]
fn what_a_shard_takes_over_again_stays_there() {
    let mut queue = AppendQueue::default();
    let child = Arc::new(Child::default());
    let successor: Weak<Child> = Arc::downgrade(&child);
    queue.hand_over(Handover::to(successor, [id(1), id(2)].into()));
    queue.take_back(&[id(1)].into());
    [(1, 1), (2, 2)].into_iter().for_each(|(index, bytes)| queue.push(batch(index, bytes, None).0));
    assert_eq!(sizes(child.0.lock().iter()), [2]);
    assert_eq!(sizes(&queue.pack(Instant(0), usize::MAX, ready, |_| false).batches), [1]);
}

/// Whatever it carries, for all of it is to go.
#[test]
fn a_shard_that_is_sealed_holds_everything_and_gives_what_it_carried() {
    let mut queue = AppendQueue::default();
    queue.push(batch(1, 1, None).0);
    queue.hold(Handover::sealed(Instant(0)));
    queue.push(batch(2, 2, None).0);
    assert!(queue.pack(Instant(0), usize::MAX, ready, |_| false).batches.is_empty());
    let survivor = Arc::new(Child::default());
    let successor: Weak<Child> = Arc::downgrade(&survivor);
    queue.hand_over(Handover::to(successor, [id(1), id(2)].into()));
    queue.push(batch(1, 3, None).0);
    assert_eq!(sizes(survivor.0.lock().iter()), [1, 2, 3]);
}

#[test]
fn a_coordinators_batch_is_not_handed_over() {
    let mut queue = AppendQueue::default();
    queue.hold(Handover::proposed(&[id(1)], Instant(0)));
    let of_coordinator = || {
        let (queued, answer) = batch(1, 1, None);
        (QueuedBatch { decision: BatchDecision { coordinator: true, ..BatchDecision::default() }, ..queued }, answer)
    };
    let ((first, mut waits), (later, mut comes_later)) = (of_coordinator(), of_coordinator());
    queue.push(first);
    let child = Arc::new(Child::default());
    let successor: Weak<Child> = Arc::downgrade(&child);
    queue.hand_over(Handover::to(successor, [id(1)].into()));
    queue.push(later);
    for answer in [&mut waits, &mut comes_later] {
        assert_eq!(answer.try_recv().unwrap(), Err(PartitionError::NotLeaderOrFollower.into()));
    }
    assert!(child.0.lock().is_empty() && queue.bytes() == 0);
}

#[test]
fn what_waits_for_a_split_that_is_not_carried_out_goes_on() {
    let mut queue = AppendQueue::default();
    queue.hold(Handover::proposed(&[id(1)], Instant(0)));
    queue.push(batch(1, 1, None).0);
    let held = queue.pack(Instant(0), usize::MAX, ready, |_| false);
    assert_eq!((held.batches.len(), held.next_deadline), (0, Some(Instant(100))), "the caller's own is earlier");
    queue.end_handover();
    assert_eq!(sizes(&queue.pack(Instant(0), usize::MAX, ready, |_| false).batches), [1]);
}

#[test]
fn whoever_waits_too_long_for_a_split_is_told() {
    let mut queue = AppendQueue::default();
    queue.hold(Handover::proposed(&[id(1)], Instant(0)));
    let (patient, mut answer) = batch(1, 1, None);
    queue.push(QueuedBatch { deadline: Instant(0) + 2 * HANDOVER_WAIT, ..patient });
    let waits_until = queue.pack(Instant(0), usize::MAX, ready, |_| false).next_deadline;
    assert_eq!(waits_until, Some(Instant(0) + HANDOVER_WAIT));
    assert!(queue.pack(Instant(0) + HANDOVER_WAIT, usize::MAX, ready, |_| false).batches.is_empty());
    assert_eq!(answer.try_recv().unwrap(), Err(PartitionError::LeaderNotAvailable.into()));
    // Another one leads: what it has split off is not known here.
    queue.push(batch(1, 1, None).0);
    queue.refuse_all(&PartitionError::NotLeaderOrFollower);
    queue.push(batch(1, 2, None).0);
    assert_eq!(sizes(&queue.pack(Instant(0), usize::MAX, ready, |_| false).batches), [2]);
}

proptest! {
    /// Whatever comes in whatever order: entries keep each partition's order, stay within the limit, lose nothing.
    #[test]
    fn entries_keep_the_order_of_each_partition(sizes in proptest::collection::vec((0..4i32, 1usize..700_000), 1..40), adopted_from in 0usize..40) {
        let mut queue = AppendQueue::default();
        let mut expected: Vec<Vec<usize>> = vec![Vec::new(); 4];
        for (index, bytes) in &sizes {
            queue.push(batch(*index, *bytes, None).0);
            expected[usize::try_from(*index).unwrap()].push(*bytes);
        }
        let mut got: Vec<Vec<usize>> = vec![Vec::new(); 4];
        let mut round = 0;
        while queue.bytes() > 0 {
            let packed = queue.pack(Instant(0), usize::MAX, |batch| ready_if(batch.partition != id(3) || round >= adopted_from), |_| false);
            round += 1;
            let total: usize = packed.batches.iter().map(|b| b.data.len()).sum();
            prop_assert!(total <= ENTRY_BYTES_MAX || packed.batches.len() == 1);
            prop_assert!(packed.batches.is_sorted_by_key(|b| b.partition));
            for packed in packed.batches {
                got[usize::try_from(packed.partition.index).unwrap()].push(packed.data.len());
            }
        }
        prop_assert_eq!(got, expected);
    }
}
