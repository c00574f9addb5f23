//! Leadership transfer: this node, as a shard's leader, hands leadership to another replica.
//!
//! May not know: why that replica is to lead, and whether the request came from this node or another.

use std::time::Duration;

use ottla_env::rt;
use ottla_storage::ids::ReplicaId;

use crate::shard::Shard;
use crate::shard::metadata_view::MetadataView;
use crate::shard::rpc::ElectionOutcome;

/// How long the target of a transfer has to become leader.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);

/// Transfers leadership to the preferred replica, if this node leads the shard.
pub(in crate::shard) async fn elect_preferred(shard: &Shard, metadata: &dyn MetadataView) -> ElectionOutcome {
    // An old image may have another preferred replica.
    if shard.leading().is_none() || !metadata.read_index().await {
        return ElectionOutcome::NotLeader;
    }
    let image = metadata.image();
    let preferred = image.shard(shard.creation.shard).and_then(|record| image.preferred_leader(record));
    match preferred {
        // A fenced node's Raft may run already while it still refuses clients.
        Some(preferred) if image.is_fenced(preferred.node) => ElectionOutcome::NotAvailable,
        Some(preferred) => transfer_leadership(shard, preferred.id).await,
        None => ElectionOutcome::NotAvailable,
    }
}

/// Transfers leadership to `target`; returns when it leads. During a transfer the leader accepts no proposals, so it
/// transfers only to a voter that has caught up and can be reached.
pub(in crate::shard) async fn transfer_leadership(shard: &Shard, target: ReplicaId) -> ElectionOutcome {
    if shard.leading().is_none() {
        return ElectionOutcome::NotLeader;
    }
    if target == shard.replica {
        return ElectionOutcome::NotNeeded;
    }
    if !shard.group().could_lead(target) {
        return ElectionOutcome::NotAvailable;
    }
    let mut role = shard.role_changes();
    if shard.group().transfer_leadership(target).await.is_err() {
        return ElectionOutcome::NotLeader;
    }
    let leads = role.wait_for(|role| role.stopped || role.leader == Some(target));
    match rt::timeout(TRANSFER_TIMEOUT, leads).await {
        Ok(Ok(role)) if role.leader == Some(target) => ElectionOutcome::Done,
        Ok(_) => ElectionOutcome::NotLeader,
        Err(_) => ElectionOutcome::TimedOut,
    }
}

#[cfg(test)]
pub(in crate::shard) mod tests {
    use std::sync::Arc;

    use ottla_env::sim;
    use ottla_protocol::ids::NodeId;
    use uuid::Uuid;

    use super::*;
    use crate::config::TopicConfig;
    use crate::metadata::{MetadataImage, ReplicaRecord, ShardKind, ShardRecord};
    use crate::shard::fake::{FakeGroup, FakeMetadata, REPLICA, SHARD, image_with_topic};

    pub(in crate::shard) const TARGET: ReplicaId = ReplicaId(8);

    /// An image in which another node's replica is preferred.
    pub(in crate::shard) fn image_preferring_another_node() -> MetadataImage {
        let mut image = image_with_topic(1, TopicConfig::default());
        let record = image.shard(SHARD).unwrap().as_ref().clone();
        let target = ReplicaRecord { id: TARGET, node: NodeId(2), directory: Uuid::nil() };
        let replicas = [vec![target], record.replicas.clone()].concat();
        image.shards = Arc::new([(SHARD, Arc::new(ShardRecord { replicas, ..record }))].into_iter().collect());
        image
    }

    #[test]
    fn the_preferred_replica_leads_once_it_could() {
        sim::run(1, || async {
            let (group, shard) = FakeGroup::leading(ShardKind::Pool { factor: 2, pinned: false });
            let metadata = FakeMetadata::new(image_with_topic(1, TopicConfig::default()));
            assert_eq!(elect_preferred(&shard, &metadata).await, ElectionOutcome::NotNeeded);
            // The leader makes sure that its image is current before it does anything.
            *metadata.unseen.lock() = Some(image_preferring_another_node());
            assert_eq!(elect_preferred(&shard, &metadata).await, ElectionOutcome::NotAvailable);
            assert_eq!(shard.role().leader, Some(REPLICA));
            group.transfer_targets.lock().insert(TARGET);
            metadata.unconfirmed.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(elect_preferred(&shard, &metadata).await, ElectionOutcome::NotLeader, "the image may be old");
            metadata.unconfirmed.store(false, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(elect_preferred(&shard, &metadata).await, ElectionOutcome::Done);
            assert_eq!(shard.role().leader, Some(TARGET));
            assert_eq!(elect_preferred(&shard, &metadata).await, ElectionOutcome::NotLeader);
        });
    }
}
