//! Carries out the splits of one shard: an entry of its log decides each, and its leader reports it then (design section 8).
//!
//! Apply carries a split out once, and refuses it while the members are others than it names; so proposing it twice does no
//! harm. May not know: how a child becomes a group.

use ottla_env::mutants::{self, Bug};
use ottla_storage::ids::RaftIndex;

use crate::metadata::{MetadataImage, ShardCreation, ShardId, ShardRecord, SplitRecord};
use crate::replicated::command::{Command, Split, SplitReplica};
use crate::replicated::error::PartitionError;
use crate::replicated::shard_state::ApplyReply;
use crate::shard::{MetadataView, Shard};
use ottla_protocol::ids::PartitionId;

/// Carries out the oldest open split of the shard, if all intents before it have ended: what it moves is adopted then.
pub(crate) async fn reconcile(
    shard: &Shard,
    metadata: &dyn MetadataView,
    image: &MetadataImage,
) -> Result<(), PartitionError> {
    let id = shard.creation.shard;
    let splits = image.open_splits().filter(|(_, split)| split.parent == id);
    let Some((child, split)) = splits.min_by_key(|(_, split)| split.intent) else { return Ok(()) };
    if first_intent(image, id).is_some_and(|first| first < split.intent) {
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

/// The oldest open intent of the shard.
fn first_intent(image: &MetadataImage, shard: ShardId) -> Option<RaftIndex> {
    image.intents_of(shard).map(|(key, _)| key.index).next()
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
