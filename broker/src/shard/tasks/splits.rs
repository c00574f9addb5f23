//! Carries out the splits of one shard: an entry of its log decides each, and its leader reports it then (design section 8).
//!
//! Apply carries a split out once, and refuses it while the members are others than it names; so proposing it twice does no
//! harm. May not know: how a child becomes a group.

use ottla_env::mutants::{self, Bug};
use ottla_storage::ids::RaftIndex;

use crate::metadata::{MetadataImage, ShardCreation, ShardRecord, SplitRecord};
use crate::replicated::command::{Command, Split, SplitReplica};
use crate::replicated::error::PartitionError;
use crate::replicated::shard_state::ApplyReply;
use crate::shard::{MetadataView, Shard};
use ottla_protocol::ids::PartitionId;

/// Carries out the open split of the shard, if all intents before it have ended: what it moves is adopted then.
pub(crate) async fn reconcile(
    shard: &Shard,
    metadata: &dyn MetadataView,
    image: &MetadataImage,
) -> Result<(), PartitionError> {
    let id = shard.creation.shard;
    let Some((child, split)) = image.open_split_of(id) else { return Ok(()) };
    if image.first_intent_of(id).is_some_and(|first| first < split.intent) {
        return Ok(());
    }
    let is_applied = shard.state().lock().last_split >= split.intent && !mutants::is_on(Bug::SplitTwice);
    if mutants::is_on(Bug::SplitReportedEarly) {
        metadata.end_split(child.id, RaftIndex(0)).await;
    }
    if !is_applied && shard.command(Command::Split(command(child, split))).await? == ApplyReply::OtherMembers {
        tracing::warn!("shard={id}: not split, for its members are changing; tried again");
        return Err(PartitionError::LeaderNotAvailable);
    }
    // A leader has applied an entry of its term.
    let at = shard.state().lock().last.map_or(RaftIndex(0), |last| last.index);
    if metadata.end_split(child.id, at).await { Ok(()) } else { Err(PartitionError::LeaderNotAvailable) }
}

fn command(child: &ShardRecord, split: &SplitRecord) -> Split {
    let replica = |of: &crate::metadata::SplitReplica| SplitReplica { parent: of.parent, child: of.child };
    let of_topic = |(topic, indexes): &(uuid::Uuid, Vec<i32>)| {
        let topic = *topic;
        indexes.iter().map(move |index| PartitionId { topic, index: *index }).collect::<Vec<_>>()
    };
    Split {
        intent: split.intent,
        child: child.id.0,
        creation: ShardCreation::from(child).encode(),
        replicas: split.replicas.iter().map(replica).collect(),
        partitions: split.partitions.iter().flat_map(of_topic).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use ottla_env::rt::Instant;
    use ottla_protocol::batch::{BatchBuilder, NewRecord};
    use ottla_protocol::compression::Codec;
    use ottla_raft::Proposal;
    use ottla_storage::entry::Batches;
    use ottla_storage::ids::{ReplicaId, Term};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::config::TopicConfig;
    use crate::metadata::{IntentKey, ShardId, ShardKind, SplitReplica};
    use crate::replicated::command::{AdoptedPartition, BatchDecision};
    use crate::replicated::error::AppendError;
    use crate::replicated::shard_state::BatchOutcome;
    use crate::shard::answer::{self, AnswerReceiver, BatchAnswer};
    use crate::shard::fake::{FakeGroup, FakeMetadata, REPLICA, SHARD, TOPIC, image_with_topic, partition, settle};
    use crate::shard::group::Group;
    use crate::shard::queued::QueuedBatch;

    const POOL: ShardKind = ShardKind::Pool { factor: 1, pinned: false };
    const CHILD: ShardId = ShardId(90);
    const INTENT: RaftIndex = RaftIndex(50);

    /// The topic's two partitions are adopted; partition 1 is to move to the child.
    fn splitting(members: ReplicaId) -> MetadataImage {
        let mut image = image_with_topic(2, TopicConfig::default());
        image.intents = Default::default();
        let replicas = vec![SplitReplica { parent: members, child: ReplicaId(70) }];
        let partitions = vec![(TOPIC, vec![1])];
        let split = SplitRecord { parent: SHARD, intent: INTENT, replicas, done: None, partitions };
        let parent = image.shard(SHARD).unwrap().as_ref().clone();
        let child = ShardRecord { id: CHILD, founders: Vec::new(), split: Some(split), ..parent };
        Arc::make_mut(&mut image.shards).insert(CHILD, Arc::new(child));
        image
    }

    fn splits_of(group: &FakeGroup) -> usize {
        group.commands().iter().filter(|command| matches!(command, Command::Split(_))).count()
    }

    #[tokio::test]
    async fn a_split_is_proposed_once_and_reported_until_it_is_recorded() {
        let (group, shard) = FakeGroup::leading_with(POOL, 2).await;
        let metadata = FakeMetadata::new(splitting(REPLICA));
        let image = splitting(REPLICA);
        for reports in 1..4 {
            reconcile(&shard, &metadata, &image).await.unwrap();
            assert_eq!((splits_of(&group), metadata.ended_splits.lock().len()), (1, reports));
        }
        let (child, at) = metadata.ended_splits.lock()[0];
        assert_eq!((child, at), (CHILD, shard.state().lock().last.unwrap().index));
        assert!(shard.read_view().get(partition(1)).is_none() && shard.read_view().get(partition(0)).is_some());
    }

    /// What it names may not be adopted before.
    #[tokio::test]
    async fn a_split_waits_for_older_intents() {
        let (group, shard) = FakeGroup::leading_with(POOL, 2).await;
        let metadata = FakeMetadata::new(splitting(REPLICA));
        let mut image = splitting(REPLICA);
        let intents = image_with_topic(2, TopicConfig::default()).intents;
        let (key, intent) = intents.iter().next().unwrap();
        for (index, proposed) in [(INTENT.0 - 1, 0), (INTENT.0 + 1, 1)] {
            image.intents = Default::default();
            image.intents.insert(IntentKey { index: RaftIndex(index), ..*key }, intent.clone());
            reconcile(&shard, &metadata, &image).await.unwrap();
            assert_eq!((splits_of(&group), metadata.ended_splits.lock().len()), (proposed, proposed));
        }
    }

    #[tokio::test]
    async fn a_split_for_other_members_is_not_reported_and_tried_again() {
        let (group, shard) = FakeGroup::leading_with(POOL, 2).await;
        let image = splitting(ReplicaId(REPLICA.0 + 1));
        let metadata = FakeMetadata::new(image.clone());
        for tries in 1..3 {
            assert!(reconcile(&shard, &metadata, &image).await.is_err());
            assert_eq!((splits_of(&group), metadata.ended_splits.lock().len()), (tries, 0));
        }
    }

    fn batch_of(index: i32) -> (QueuedBatch, AnswerReceiver) {
        let (answer, receiver) = answer::channel();
        let mut data = BatchBuilder::new(Codec::None);
        data.push(&NewRecord { timestamp: 1, key: None, value: Some(b"v"), headers: &[] });
        let batch = QueuedBatch {
            partition: partition(index),
            data: data.build().unwrap(),
            decision: BatchDecision::default(),
            producer_batch: None,
            deadline: Instant(i64::MAX),
            required_in_sync: 0,
            adopted: true,
            answer,
        };
        (batch, receiver)
    }

    fn split_of(image: &MetadataImage) -> Command {
        let (child, split) = image.open_split_of(SHARD).unwrap();
        Command::Split(command(child, split))
    }

    /// A batch that is known to be adopted, and is sent while the split is decided.
    async fn sent_during(split: MetadataImage) -> (FakeGroup, Arc<Shard>, AnswerReceiver) {
        let (group, parent) = FakeGroup::leading_with(POOL, 2).await;
        group.flushes.forget_permits(Semaphore::MAX_PERMITS);
        let decided = parent.command(split_of(&split));
        settle().await;
        let (batch, waiting) = batch_of(1);
        parent.enqueue(batch, None);
        settle().await;
        assert_eq!(group.in_flight(), 1, "apply would refuse what is in the log behind the split");
        group.flushes.add_permits(Semaphore::MAX_PERMITS);
        decided.await.unwrap();
        settle().await;
        (group, parent, waiting)
    }

    /// The child, while it has no leader yet.
    async fn child_of(parent: &Shard) -> (FakeGroup, Arc<Shard>) {
        let (group, child) = FakeGroup::leading(POOL);
        let moved = AdoptedPartition { id: partition(1), intent: INTENT, epoch_base: 0 };
        child.command(Command::Adopt(vec![moved])).await.unwrap();
        group.hide_leader();
        child.take_over_from(parent);
        settle().await;
        (group, child)
    }

    fn stored(answer: BatchAnswer) -> i64 {
        match answer.unwrap() {
            BatchOutcome::Stored { base_offset, .. } => base_offset.0,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_sent_while_its_partition_moves_is_stored_by_the_child_in_order() {
        let (group, parent, mut first) = sent_during(splitting(REPLICA)).await;
        let (child_group, child) = child_of(&parent).await;
        let (batch, second) = batch_of(1);
        parent.enqueue(batch, None);
        let (batch, third) = batch_of(1);
        child.enqueue(batch, None);
        settle().await;
        assert!(first.try_recv().is_err(), "it waits for the election");
        child_group.set_role(2, true);
        let mut offsets = Vec::new();
        for answer in [second, third] {
            offsets.push(stored(answer.await.unwrap()));
        }
        assert_eq!(offsets, [1, 2]);
        assert!(group.entries().iter().all(|entry| entry.batches.is_empty()));
    }

    /// Clients that know the epoch of before the split are served, as long as no other node has led.
    #[tokio::test]
    async fn the_node_that_led_the_parent_has_led_its_child_all_along() {
        let (_, parent, _) = sent_during(splitting(REPLICA)).await;
        let (group, child) = child_of(&parent).await;
        assert_eq!((parent.led_from(), child.led_from()), (Some(Term(1)), None));
        group.set_role(2, true);
        settle().await;
        assert_eq!(child.led_from(), Some(Term(1)));
        let (grandchild_group, grandchild) = child_of(&child).await;
        grandchild_group.set_role(3, true);
        settle().await;
        assert_eq!(grandchild.led_from(), Some(Term(1)));
        for term in [3, 4] {
            group.set_role(term, term == 4);
            settle().await;
        }
        assert_eq!(child.led_from(), Some(Term(4)), "another one has led meanwhile");
        // Another one was faster, and has appended something.
        let (group, child) = child_of(&parent).await;
        group.set_role(2, false);
        for _ in 0..2 {
            let payload = Command::ForgetDropped { floor: RaftIndex(0) }.encode();
            let entry = Proposal { payload, batches: Batches::default(), clock_ms: 1 };
            group.submit(entry).await.unwrap().await.unwrap();
        }
        group.set_role(3, true);
        settle().await;
        assert_eq!(child.led_from(), Some(Term(3)));
    }

    #[tokio::test]
    async fn whoever_waits_for_the_election_is_told_that_another_node_leads() {
        let (_, parent, first) = sent_during(splitting(REPLICA)).await;
        let (child_group, _child) = child_of(&parent).await;
        child_group.set_role(2, false);
        assert_eq!(first.await.unwrap(), Err(AppendError::Partition(PartitionError::NotLeaderOrFollower)));
    }

    #[tokio::test]
    async fn a_split_that_is_not_carried_out_holds_nothing_back() {
        let (_, _parent, first) = sent_during(splitting(ReplicaId(REPLICA.0 + 1))).await;
        assert_eq!(stored(first.await.unwrap()), 0);
    }
}
