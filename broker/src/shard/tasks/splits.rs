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
    use ottla_storage::ids::ReplicaId;

    use super::*;
    use crate::config::TopicConfig;
    use crate::metadata::{IntentKey, ShardId, ShardKind, SplitReplica};
    use crate::replicated::command::{AdoptedPartition, BatchDecision};
    use crate::replicated::error::AppendError;
    use crate::shard::answer;
    use crate::shard::append_queue::QueuedBatch;
    use crate::shard::fake::{FakeGroup, FakeMetadata, REPLICA, SHARD, TOPIC, image_with_topic, partition};

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

    async fn adopted() -> (FakeGroup, Arc<Shard>) {
        let (group, shard) = FakeGroup::leading(POOL);
        let adopted = |index| AdoptedPartition { id: partition(index), intent: RaftIndex(1), epoch_base: 0 };
        shard.command(Command::Adopt((0..2).map(adopted).collect())).await.unwrap();
        (group, shard)
    }

    fn splits_of(group: &FakeGroup) -> usize {
        group.commands().iter().filter(|command| matches!(command, Command::Split(_))).count()
    }

    #[tokio::test]
    async fn a_split_is_proposed_once_and_reported_until_it_is_recorded() {
        let (group, shard) = adopted().await;
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
        let (group, shard) = adopted().await;
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
        let (group, shard) = adopted().await;
        let image = splitting(ReplicaId(REPLICA.0 + 1));
        let metadata = FakeMetadata::new(image.clone());
        for tries in 1..3 {
            assert!(reconcile(&shard, &metadata, &image).await.is_err());
            assert_eq!((splits_of(&group), metadata.ended_splits.lock().len()), (tries, 0));
        }
    }

    /// It would wait for its deadline, as if it were to be adopted.
    #[tokio::test]
    async fn what_arrives_for_a_partition_that_has_moved_is_refused_at_once() {
        let (_, shard) = adopted().await;
        let image = splitting(REPLICA);
        reconcile(&shard, &FakeMetadata::new(image.clone()), &image).await.unwrap();
        let (answer, receiver) = answer::channel();
        let batch = QueuedBatch {
            partition: partition(1),
            data: bytes::Bytes::from_static(b"a batch"),
            decision: BatchDecision::default(),
            producer_batch: None,
            // Else it is refused as one that was never adopted.
            deadline: Instant(0),
            required_in_sync: 0,
            adopted: false,
            answer,
        };
        shard.enqueue(batch, None);
        let refused = AppendError::Partition(PartitionError::NotLeaderOrFollower);
        assert_eq!(receiver.await.unwrap(), Err(refused));
    }
}
