//! The handle and the appender of a shard against a Raft group that the test controls: packing, refusals, leadership,
//! adoption, long polls.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use ottla_env::rt::Instant;
use ottla_protocol::ids::{Offset, ProducerId};

use super::*;
use crate::config::TopicConfig;
use crate::metadata::{Intent, ShardKind};
use crate::replicated::command::{AdoptedPartition, BatchDecision, LogStartChange, LogStartReason};
use crate::replicated::shard_state::{BatchOutcome, Rejection};
use crate::shard::answer::{self, AnswerReceiver, BatchAnswer, Unanswered};
use crate::shard::append_queue::ENTRY_BYTES_MAX;
use crate::shard::data_waiters::{DataWaiter, Isolation};
use crate::shard::fake::{FakeGroup, FakeMetadata, TOPIC, image_with_topic, partition, settle};
use crate::shard::idempotence_fence::{ProducerBatch, ProducerKey};
use crate::shard::metadata_view::MetadataView;
use crate::shard::tasks::adoption::{Adoption, floor};
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;
use ottla_raft::ProposeError;
use ottla_storage::ids::RaftIndex;
use tokio::sync::Semaphore;

const POOL: ShardKind = ShardKind::Pool { factor: 1, pinned: false };
const NOT_LEADER: AppendError = AppendError::Partition(PartitionError::NotLeaderOrFollower);

fn batch(index: i32, sequence: Option<i32>) -> (QueuedBatch, AnswerReceiver) {
    batch_of(index, sequence, b"v")
}

/// A batch that fills an entry alone.
fn full_batch(index: i32, sequence: Option<i32>) -> (QueuedBatch, AnswerReceiver) {
    batch_of(index, sequence, &vec![7; ENTRY_BYTES_MAX])
}

fn batch_of(index: i32, sequence: Option<i32>, value: &[u8]) -> (QueuedBatch, AnswerReceiver) {
    sent_by(index, sequence.map(|sequence| (7, 0, sequence)), value)
}

/// A batch of a producer: its id, epoch and sequence.
fn sent_by(index: i32, claim: Option<(i64, i16, i32)>, value: &[u8]) -> (QueuedBatch, AnswerReceiver) {
    let (answer, receiver) = answer::channel();
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some((producer, epoch, sequence)) = claim {
        builder = builder.with_producer(producer, epoch, sequence);
    }
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(value), headers: &[] });
    let producer_batch = claim.map(|(producer, epoch, sequence)| {
        let producer = ProducerId(producer);
        let key = ProducerKey { connection: ConnectionId(1), producer, partition: partition(index) };
        ProducerBatch { key, epoch, sequence, arrival: 0 }
    });
    let queued = QueuedBatch {
        partition: partition(index),
        data: builder.build().unwrap(),
        decision: BatchDecision::default(),
        producer_batch,
        deadline: Instant(i64::MAX),
        required_in_sync: 0,
        adopted: false,
        answer,
    };
    (queued, receiver)
}

async fn adopt(shard: &Shard, partitions: i32) {
    let adopted = |index| AdoptedPartition { id: partition(index), intent: RaftIndex(1), epoch_base: 0 };
    shard.command(Command::Adopt((0..partitions).map(adopted).collect())).await.unwrap();
}

fn base(answer: Result<BatchAnswer, Unanswered>) -> i64 {
    match answer.unwrap() {
        Ok(BatchOutcome::Stored { base_offset, .. }) => base_offset.0,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn while_one_entry_is_flushed_the_next_one_fills() {
    let (group, shard) = FakeGroup::leading(POOL);
    adopt(&shard, 2).await;
    group.flushes.forget_permits(Semaphore::MAX_PERMITS);
    let (first, first_answer) = batch(0, None);
    shard.enqueue(first, None);
    settle().await;
    let answers: Vec<_> = (0..6)
        .map(|n| {
            let (queued, answer) = batch(n % 2, None);
            shard.enqueue(queued, None);
            answer
        })
        .collect();
    settle().await;
    group.flushes.add_permits(1);
    assert_eq!(base(first_answer.await), 0);
    group.flushes.add_permits(1);
    let mut offsets = Vec::new();
    for answer in answers {
        offsets.push(base(answer.await));
    }
    assert_eq!(offsets, [1, 0, 2, 1, 3, 2]);
    let sizes: Vec<_> = group.entries().iter().map(|entry| entry.batches.len()).collect();
    assert_eq!(sizes, [0, 1, 6]);
}

/// Throughput is not bound by how long one entry takes.
#[tokio::test]
async fn full_entries_are_proposed_while_others_are_in_flight() {
    let (group, shard) = FakeGroup::leading(POOL);
    adopt(&shard, 1).await;
    group.flushes.forget_permits(Semaphore::MAX_PERMITS);
    let answers: Vec<_> = (0..4)
        .map(|_| {
            let (queued, answer) = full_batch(0, None);
            shard.enqueue(queued, None);
            answer
        })
        .collect();
    settle().await;
    assert_eq!(group.in_flight(), 2, "more would have to show that it does not queue");
    let command = shard.command(Command::ForgetDropped { floor: RaftIndex(0) });
    settle().await;
    assert_eq!(group.in_flight(), 3, "a command waits for nothing");
    group.flushes.add_permits(5);
    command.await.unwrap();
    let mut offsets = Vec::new();
    for answer in answers {
        offsets.push(base(answer.await));
    }
    assert_eq!(offsets, [0, 1, 2, 3]);
}

/// A batch of a known producer in flight, which requires so many copies, and in front of it one that has just been refused.
async fn behind_a_refused_one(required_in_sync: usize) -> (FakeGroup, Arc<Shard>, AnswerReceiver) {
    let (group, shard) = FakeGroup::leading(POOL);
    adopt(&shard, 1).await;
    let (known, known_answer) = batch(0, Some(0));
    shard.enqueue(known, None);
    assert_eq!(base(known_answer.await), 0);
    group.flushes.forget_permits(Semaphore::MAX_PERMITS);
    group.fail_with(Some(ProposeError::Unknown));
    let (first, first_answer) = full_batch(0, Some(1));
    let (second, second_answer) = full_batch(0, Some(2));
    shard.enqueue(first, None);
    shard.enqueue(QueuedBatch { required_in_sync, ..second }, None);
    settle().await;
    assert_eq!(group.in_flight(), 2);
    group.flushes.add_permits(1);
    assert_eq!(first_answer.await.unwrap(), Err(NOT_LEADER));
    (group, shard, second_answer)
}

/// The entry behind a refused one commits, and apply finds a gap in it. Its producer is told what it is told of the refused one: it
/// sends both again.
#[tokio::test]
async fn a_batch_in_flight_behind_a_refused_one_is_refused_like_it() {
    let (group, shard, second_answer) = behind_a_refused_one(0).await;
    group.fail_with(None);
    let (behind, behind_answer) = full_batch(0, Some(3));
    let (other, other_answer) = full_batch(0, None);
    shard.enqueue(behind, None);
    shard.enqueue(other, None);
    settle().await;
    assert_eq!(group.in_flight(), 1, "nothing is proposed before the window is empty");
    group.flushes.add_permits(10);
    assert_eq!(second_answer.await.unwrap(), Err(NOT_LEADER));
    assert_eq!(behind_answer.await.unwrap(), Err(NOT_LEADER));
    assert_eq!(base(other_answer.await), 1);
    let (retry, retry_answer) = batch(0, Some(1));
    let (next, next_answer) = batch(0, Some(2));
    shard.enqueue(retry, None);
    shard.enqueue(next, None);
    assert_eq!((base(retry_answer.await), base(next_answer.await)), (2, 3));
}

/// Apply takes whatever comes first of a producer that it does not know: nothing goes behind that before it is applied.
#[tokio::test]
async fn what_is_behind_the_first_batch_of_a_producer_waits_until_that_is_applied() {
    let (group, shard) = FakeGroup::leading(POOL);
    adopt(&shard, 2).await;
    group.flushes.forget_permits(Semaphore::MAX_PERMITS);
    let (first, first_answer) = full_batch(0, Some(0));
    let (second, second_answer) = full_batch(0, Some(1));
    let (other, other_answer) = full_batch(1, None);
    for queued in [first, second, other] {
        shard.enqueue(queued, None);
    }
    settle().await;
    assert_eq!(group.in_flight(), 2, "the first batch, and that of another partition");
    group.flushes.add_permits(3);
    assert_eq!((base(first_answer.await), base(second_answer.await), base(other_answer.await)), (0, 1, 0));
}

/// Entries in flight when leadership ends are answered at once, though their outcome is not known.
#[tokio::test]
async fn entries_in_flight_are_refused_when_their_term_ends() {
    let (group, shard) = FakeGroup::leading(POOL);
    adopt(&shard, 1).await;
    group.flushes.forget_permits(Semaphore::MAX_PERMITS);
    let (first, first_answer) = full_batch(0, Some(0));
    let (second, second_answer) = full_batch(0, Some(1));
    shard.enqueue(first, None);
    shard.enqueue(second, None);
    settle().await;
    group.set_role(2, false);
    assert_eq!(first_answer.await.unwrap(), Err(NOT_LEADER));
    assert_eq!(second_answer.await.unwrap(), Err(NOT_LEADER));
}

#[tokio::test]
async fn a_failed_entry_refuses_what_waits_behind_it_until_its_retry_comes() {
    let (group, shard) = FakeGroup::leading(POOL);
    adopt(&shard, 1).await;
    group.flushes.forget_permits(Semaphore::MAX_PERMITS);
    group.fail_with(Some(ProposeError::Unknown));
    let (first, first_answer) = batch(0, Some(0));
    shard.enqueue(first, None);
    settle().await;
    let (second, second_answer) = batch(0, Some(1));
    shard.enqueue(second, None);
    group.flushes.add_permits(1);
    assert_eq!(first_answer.await.unwrap(), Err(NOT_LEADER));
    group.fail_with(None);
    group.flushes.add_permits(10);
    assert_eq!(second_answer.await.unwrap(), Err(NOT_LEADER));
    let (retry, retry_answer) = batch(0, Some(0));
    let (next, next_answer) = batch(0, Some(1));
    shard.enqueue(retry, None);
    shard.enqueue(next, None);
    assert_eq!((base(retry_answer.await), base(next_answer.await)), (0, 1));
}

/// Until another replica has taken over, what a leader has proposed is decided, and its callers are told so.
#[tokio::test]
async fn a_leader_that_transfers_leadership_answers_what_is_in_flight() {
    let (group, shard) = FakeGroup::leading(POOL);
    adopt(&shard, 1).await;
    group.flushes.forget_permits(Semaphore::MAX_PERMITS);
    let (first, first_answer) = full_batch(0, Some(0));
    shard.enqueue(first, None);
    settle().await;
    group.hide_leader();
    let (late, late_answer) = full_batch(0, Some(1));
    shard.enqueue(late, None);
    assert_eq!(late_answer.await.unwrap(), Err(NOT_LEADER), "nothing new is taken");
    group.flushes.add_permits(1);
    assert_eq!(base(first_answer.await), 0);
}

/// A shard that leads in term 2; another replica led in term 1, and took the first batch of a producer.
async fn after_a_former_leader() -> (FakeGroup, Arc<Shard>) {
    let (group, shard) = FakeGroup::leading(POOL);
    adopt(&shard, 1).await;
    let (first, first_answer) = batch(0, Some(0));
    shard.enqueue(first, None);
    assert_eq!(base(first_answer.await), 0);
    group.set_role(2, false);
    settle().await;
    group.set_role(2, true);
    let (own, own_answer) = batch(0, None);
    shard.enqueue(own, None);
    assert_eq!(base(own_answer.await), 1);
    (group, shard)
}

/// A batch of another producer.
fn sends_another(shard: &Shard, sequence: i32) -> AnswerReceiver {
    let (queued, answer) = sent_by(0, Some((8, 0, sequence)), b"v");
    shard.enqueue(queued, None);
    answer
}

/// The client has learned of this leader before it knows what became of the batches that it has sent to the former one.
#[tokio::test]
async fn a_gap_that_the_former_leader_may_have_left_is_no_error_yet() {
    let (_group, shard) = after_a_former_leader().await;
    let (ahead, ahead_answer) = batch(0, Some(3));
    let (behind, behind_answer) = batch(0, Some(4));
    shard.enqueue(ahead, None);
    shard.enqueue(behind, None);
    assert_eq!(ahead_answer.await.unwrap(), Err(NOT_LEADER));
    assert_eq!(behind_answer.await.unwrap(), Err(NOT_LEADER));
    let answers: Vec<_> = (1..5)
        .map(|sequence| {
            let (queued, answer) = batch(0, Some(sequence));
            shard.enqueue(queued, None);
            answer
        })
        .collect();
    for (offset, answer) in (2..).zip(answers) {
        assert_eq!(base(answer.await), offset);
    }
    // The producer has appended here: nothing of it is on its way to the former leader any more.
    let (gap, gap_answer) = batch(0, Some(9));
    shard.enqueue(gap, None);
    assert_eq!(gap_answer.await.unwrap(), Ok(BatchOutcome::Rejected(Rejection::OutOfOrder)));
}

/// Apply would take the batch for the first one of its producer, and the producer's real first one, sent later, would be out of
/// order for ever.
#[tokio::test]
async fn a_batch_of_a_producer_whose_first_one_went_to_the_former_leader_waits_for_it() {
    let (group, shard) = after_a_former_leader().await;
    let of_another = |sequence| sends_another(&shard, sequence);
    let proposed = group.entries().len();
    assert_eq!(of_another(1).await.unwrap(), Err(NOT_LEADER));
    assert_eq!(group.entries().len(), proposed, "it is not proposed");
    let (first, second) = (of_another(0), of_another(1));
    assert_eq!((base(first.await), base(second.await)), (2, 3));
}

/// Found by the simulation (seed 122084, 3 nodes): with the former leader's records its epoch is forgotten.
#[tokio::test]
async fn a_former_leader_is_one_though_all_that_it_appended_was_deleted() {
    let (_group, shard) = after_a_former_leader().await;
    let change = LogStartChange { id: partition(0), offset: Offset(1), reason: LogStartReason::DeleteRecords };
    shard.command(Command::SetLogStart(vec![change])).await.unwrap();
    let of_another = |sequence| sends_another(&shard, sequence);
    assert_eq!(of_another(1).await.unwrap(), Err(NOT_LEADER));
    let (first, second) = (of_another(0), of_another(1));
    assert_eq!((base(first.await), base(second.await)), (2, 3));
}

/// A shard that leads and accepts batches again, after it has refused the first batch of a producer.
async fn after_a_refusal() -> (FakeGroup, Arc<Shard>) {
    let (group, shard) = FakeGroup::leading(POOL);
    adopt(&shard, 1).await;
    group.fail_with(Some(ProposeError::Unknown));
    let (first, first_answer) = batch(0, Some(0));
    shard.enqueue(first, None);
    assert_eq!(first_answer.await.unwrap(), Err(NOT_LEADER));
    group.fail_with(None);
    (group, shard)
}

/// Found by the simulation (seed 1094, 3 nodes): the connection of a client outlives that another node led for a while.
#[tokio::test]
async fn a_refused_batch_that_was_taken_on_another_way_holds_nothing_back() {
    let (_group, shard) = after_a_refusal().await;
    let (mut retry, retry_answer) = batch(0, Some(0));
    retry.producer_batch.as_mut().unwrap().key.connection = ConnectionId(2);
    shard.enqueue(retry, None);
    assert_eq!(base(retry_answer.await), 0);
    let (gap, gap_answer) = batch(0, Some(2));
    shard.enqueue(gap, None);
    assert_eq!(gap_answer.await.unwrap(), Err(NOT_LEADER));
    let (next, next_answer) = batch(0, Some(1));
    shard.enqueue(next, None);
    assert_eq!(base(next_answer.await), 1);
}

/// Found by the simulation (seeds 3334 and 3568, 3 nodes): another leader took what was refused here and what followed,
/// the answer to the last batch was lost, and this node led again. It refused that batch for ever.
#[tokio::test]
async fn a_batch_that_was_taken_on_another_way_and_comes_again_is_answered() {
    let (_group, shard) = after_a_refusal().await;
    for sequence in 0..3 {
        let (mut other_connection, answer) = batch(0, Some(sequence));
        other_connection.producer_batch.as_mut().unwrap().key.connection = ConnectionId(2);
        shard.enqueue(other_connection, None);
        assert_eq!(base(answer.await), i64::from(sequence));
    }
    let (again, again_answer) = batch(0, Some(2));
    shard.enqueue(again, None);
    assert_eq!(base(again_answer.await), 2);
    let (next, next_answer) = batch(0, Some(3));
    shard.enqueue(next, None);
    assert_eq!(base(next_answer.await), 3);
}

/// A producer with the same id and a newer epoch has taken over meanwhile: apply says so, and the old one stops.
#[tokio::test]
async fn a_producer_that_was_fenced_is_told_so_behind_a_refusal() {
    let (_group, shard) = after_a_refusal().await;
    let (mut newer, newer_answer) = sent_by(0, Some((7, 1, 0)), b"v");
    newer.producer_batch.as_mut().unwrap().key.connection = ConnectionId(2);
    shard.enqueue(newer, None);
    assert_eq!(base(newer_answer.await), 0);
    let (late, late_answer) = batch(0, Some(1));
    shard.enqueue(late, None);
    assert_eq!(late_answer.await.unwrap(), Ok(BatchOutcome::Rejected(Rejection::Fenced)));
}

#[tokio::test]
async fn nothing_is_taken_without_leadership_and_what_waits_is_answered_when_it_goes() {
    let (group, shard) = FakeGroup::leading(POOL);
    adopt(&shard, 1).await;
    let view = shard.read_view().get(partition(0)).unwrap();
    let (waiter, poll) = DataWaiter::new(1, Isolation::ReadUncommitted);
    assert!(view.register(&waiter));
    // Waits for its adoption, which never comes.
    let (waiting, waiting_answer) = batch(9, None);
    shard.enqueue(waiting, None);
    settle().await;
    group.set_role(2, false);
    assert_eq!(waiting_answer.await.unwrap(), Err(NOT_LEADER));
    poll.await.unwrap();
    let (late, late_answer) = batch(0, None);
    shard.enqueue(late, None);
    assert_eq!(late_answer.await.unwrap(), Err(NOT_LEADER));
    group.set_role(3, true);
    let (again, again_answer) = batch(0, None);
    shard.enqueue(again, None);
    assert_eq!(base(again_answer.await), 0);
    assert_eq!(view.offsets().epochs.newest().unwrap().0, 3);
}

#[tokio::test]
async fn clocks_of_entries_never_fall() {
    let (group, shard) = FakeGroup::leading(POOL);
    adopt(&shard, 1).await;
    for _ in 0..20 {
        let (queued, answer) = batch(0, None);
        shard.enqueue(queued, None);
        let _ = base(answer.await);
    }
    let clocks: Vec<_> = group.entries().iter().map(|entry| entry.clock_ms).collect();
    assert!(clocks.is_sorted() && clocks[0] > 0);
}

#[tokio::test]
async fn intents_are_carried_out_once_wanted_partitions_first_and_reported() {
    let (group, shard) = FakeGroup::leading(POOL);
    let image = image_with_topic(1_500, TopicConfig::default());
    let metadata = FakeMetadata::new(image.clone());
    let mut adoption = Adoption::default();
    shard.request_adoption(partition(1_400));
    adoption.reconcile(&shard, &metadata, &image).await.unwrap();
    let adopted: Vec<Vec<i32>> = group
        .commands()
        .iter()
        .map(|command| match command {
            Command::Adopt(partitions) => partitions.iter().map(|adopted| adopted.id.index).collect(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(adopted.iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 500]);
    assert_eq!(adopted[0][..2], [1_400, 0]);
    assert_eq!(metadata.ended.lock().len(), 1);
    adoption.reconcile(&shard, &metadata, &image).await.unwrap();
    assert_eq!((group.commands().len(), metadata.ended.lock().len()), (2, 1));
    assert_eq!(floor(&shard, &image), None);
}

/// Found by tests/chaos (seed 1501): the base of a partition is minus a term, and the leader of the term before, which was cut off
/// from the other nodes, stopped with a panic.
#[tokio::test]
async fn a_leader_that_is_deposed_and_does_not_know_adopts_nothing() {
    let (group, shard) = FakeGroup::leading(POOL);
    let led_in = i32::try_from(shard.leading().unwrap().0).unwrap();
    let mut image = image_with_topic(3, TopicConfig::default());
    let (key, intent) = image.intents.iter().map(|(key, intent)| (*key, Intent::clone(intent))).next().unwrap();
    let partitions = intent.partitions.iter().map(|(index, _)| (*index, -led_in - 1)).collect();
    image.intents.insert(key, Arc::new(Intent { partitions, ..intent }));
    let metadata = FakeMetadata::new(image.clone());
    let mut adoption = Adoption::default();
    adoption.reconcile(&shard, &metadata, &image).await.unwrap();
    assert_eq!((group.commands().len(), metadata.ended.lock().len()), (0, 0));
    group.set_role(shard.leading().unwrap().0 + 1, true);
    adoption.reconcile(&shard, &metadata, &image).await.unwrap();
    assert_eq!((group.commands().len(), metadata.ended.lock().len()), (1, 1), "elected anew");
}

#[tokio::test]
async fn a_producer_that_waits_for_an_adoption_keeps_its_order() {
    let (_group, shard) = FakeGroup::leading(POOL);
    let image = image_with_topic(3, TopicConfig::default());
    let metadata: Arc<dyn MetadataView> = Arc::new(FakeMetadata::new(image));
    let answers: Vec<_> = (0..3)
        .map(|sequence| {
            let (queued, answer) = batch(2, Some(sequence));
            shard.enqueue(queued, None);
            answer
        })
        .collect();
    rt::spawn(crate::shard::tasks::run(
        shard.clone(),
        metadata,
        crate::shard::LeaderTaskSettings::default(),
        Box::new(|_| None),
    ));
    let mut offsets = Vec::new();
    for answer in answers {
        offsets.push(base(answer.await));
    }
    assert_eq!(offsets, [0, 1, 2]);
    assert_eq!(shard.read_view().get(partition(2)).unwrap().offsets().high_watermark, Offset(3));
    assert_eq!(shard.read_view().all().len(), 3);
    assert_eq!(shard.read_view().all()[0].id.topic, TOPIC);
}

#[tokio::test]
async fn a_stopped_replica_answers_everything() {
    let (group, shard) = FakeGroup::leading(POOL);
    group.fail_with(Some(ProposeError::Stopped("disk".into())));
    let refused = rt::timeout(Duration::from_secs(5), shard.command(Command::ExpireProducers { cutoff_ms: 1 })).await;
    assert_eq!(refused.unwrap(), Err(PartitionError::NotLeaderOrFollower));
}

#[tokio::test]
async fn who_wants_more_copies_than_raft_is_told_of_a_refusal_in_front_of_it_too() {
    let (group, _shard, second_answer) = behind_a_refused_one(3).await;
    group.fail_with(None);
    group.flushes.add_permits(1);
    assert_eq!(second_answer.await.unwrap(), Err(NOT_LEADER));
}

#[tokio::test]
async fn who_wants_more_copies_than_raft_is_answered_when_they_are_there() {
    let (group, shard) = FakeGroup::leading(POOL);
    adopt(&shard, 2).await;
    let wanting = |index, required_in_sync, deadline| {
        let (queued, answer) = batch(index, None);
        shard.enqueue(QueuedBatch { required_in_sync, deadline, ..queued }, None);
        answer
    };
    let (mut patient, mut satisfied) = (wanting(0, 3, Instant(i64::MAX)), wanting(1, 1, Instant(i64::MAX)));
    let hasty = wanting(0, 2, Instant(0));
    settle().await;
    assert_eq!(base(satisfied.try_recv()), 0, "nobody waits for others");
    let refused = Err(AppendError::NotEnoughReplicasAfterAppend);
    assert_eq!(hasty.await, Ok(refused), "appended, but not told so");
    group.in_sync.send_replace(2);
    settle().await;
    assert!(patient.try_recv().is_err());
    let (patient, _) = (wanting(0, 3, Instant(i64::MAX)), group.in_sync.send_replace(3));
    assert!(matches!(patient.await, Ok(Ok(BatchOutcome::Stored { base_offset: Offset(2), .. }))));
}
