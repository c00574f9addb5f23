//! The state machine of a replica that goes on without the entries it lost, for `ottla unsafe-recover` while the node
//! is down.
//!
//! May not know: why entries are lost, and whether the recovery is carried out or only shown.

use std::sync::Arc;

use ottla_protocol::ids::PartitionId;
use ottla_raft::StateMachine;
use ottla_storage::data_dir::{DataDir, RecoveredReplica};

use super::handle::keeps;
use super::manager::{OpenError, creation_of};
use super::state_machine::{DirectoryStorage, ShardStateMachine, restore};
use crate::metadata::{MetadataImage, ShardId};
use crate::replicated::command::AdoptedPartition;

/// The state machine over what the checkpoint holds of a replica.
///
/// # Errors
/// When the replica's creation record or its checkpoint cannot be read.
pub fn recovery_state_machine(
    directory: &Arc<DataDir>,
    recovered: &RecoveredReplica,
    image: &MetadataImage,
) -> Result<Box<dyn StateMachine>, OpenError> {
    let (creation, replica) = (creation_of(recovered)?, recovered.id);
    let state =
        restore(keeps(creation.kind), &recovered.state).map_err(|source| OpenError::Checkpoint { replica, source })?;
    let storage = Arc::new(DirectoryStorage { directory: directory.clone(), replica });
    let machine = ShardStateMachine::new(state, replica, storage, Arc::default());
    Ok(Box::new(machine.with_placed(placed(image, creation.shard))))
}

/// The partitions that the metadata places in a shard.
fn placed(image: &MetadataImage, shard: ShardId) -> Vec<AdoptedPartition> {
    let mut placed = Vec::new();
    for topic in image.topics.values() {
        for (index, route) in topic.routed_to(shard) {
            let id = PartitionId { topic: topic.id, index };
            placed.push(AdoptedPartition { id, intent: route.intent, epoch_base: route.epoch_base });
        }
    }
    placed
}
