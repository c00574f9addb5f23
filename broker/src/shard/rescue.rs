//! The state machine of a replica that goes on without what it lost, as the tools of an operator run it while the node is down.
//!
//! May not know: why, and whether it is done or only looked at.

use std::sync::Arc;

use ottla_protocol::ids::PartitionId;
use ottla_raft::StateMachine;
use ottla_storage::data_dir::{DataDir, RecoveredReplica};

use super::command::AdoptedPartition;
use super::handle::keeps_groups;
use super::manager::{OpenError, creation_of};
use super::state_machine::{DirectoryStorage, ShardStateMachine, restore};
use crate::metadata::{MetadataImage, ShardId};

/// The machine over what the checkpoint holds of a replica.
///
/// # Errors
/// When what it recorded, or its checkpoint, cannot be read.
pub fn rescue_machine(
    directory: &Arc<DataDir>,
    recovered: &RecoveredReplica,
    image: &MetadataImage,
) -> Result<Box<dyn StateMachine>, OpenError> {
    let (creation, replica) = (creation_of(recovered)?, recovered.id);
    let state = restore(keeps_groups(creation.kind), &recovered.state)
        .map_err(|source| OpenError::Checkpoint { replica, source })?;
    let storage = Arc::new(DirectoryStorage { directory: directory.clone(), replica });
    Ok(Box::new(ShardStateMachine::new(state, storage).with_placed(placed(image, creation.shard))))
}

/// The partitions that the metadata places in a shard.
fn placed(image: &MetadataImage, shard: ShardId) -> Vec<AdoptedPartition> {
    let mut placed = Vec::new();
    for topic in image.topics.values() {
        for (index, route) in (0..).zip(topic.partitions.iter()).filter(|(_, route)| route.shard == shard) {
            let id = PartitionId { topic: topic.id, index };
            placed.push(AdoptedPartition { id, intent: route.intent, epoch_base: route.epoch_base });
        }
    }
    placed
}
