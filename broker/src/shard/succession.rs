//! Leadership that goes to the replica that is to have it, from whoever leads.
//!
//! May not know: why it is to go there, and how this node was asked.

use std::time::Duration;

use ottla_storage::env::rt;
use ottla_storage::ids::ReplicaId;

use super::metadata_view::MetadataView;
use super::notices::Election;
use super::shard::Shard;

/// How long whoever is handed the leadership has to take it.
const HAND_OVER_WAIT: Duration = Duration::from_secs(2);

/// Has the preferred replica lead, if the shard is led here.
pub(super) async fn lead_preferred(shard: &Shard, metadata: &dyn MetadataView) -> Election {
    // An old image may prefer another.
    if shard.leading().is_none() || !metadata.read_index().await {
        return Election::NotLeader;
    }
    let image = metadata.image();
    let preferred = image.shard(shard.creation.shard).and_then(|record| image.preferred_leader(record));
    match preferred {
        // Its Raft may be there already, and clients be refused still.
        Some(preferred) if image.is_fenced(preferred.node) => Election::NotAvailable,
        Some(preferred) => hand_over(shard, preferred.id).await,
        None => Election::NotAvailable,
    }
}

/// Hands leadership to `heir`; returns when it leads. A leader that hands over takes nothing meanwhile, so it is handed only to
/// whom could take it at once.
pub(super) async fn hand_over(shard: &Shard, heir: ReplicaId) -> Election {
    if shard.leading().is_none() {
        return Election::NotLeader;
    }
    if heir == shard.replica {
        return Election::NotNeeded;
    }
    if !shard.group().could_lead(heir) {
        return Election::NotAvailable;
    }
    let mut role = shard.role_changes();
    if shard.group().transfer(heir).await.is_err() {
        return Election::NotLeader;
    }
    let leads = role.wait_for(|role| role.stopped || role.leader == Some(heir));
    match rt::timeout(HAND_OVER_WAIT, leads).await {
        Ok(Ok(role)) if role.leader == Some(heir) => Election::Done,
        Ok(_) => Election::NotLeader,
        Err(_) => Election::TimedOut,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ottla_protocol::ids::NodeId;
    use ottla_storage::env::sim;
    use uuid::Uuid;

    use super::*;
    use crate::config::TopicConfig;
    use crate::metadata::{MetadataImage, ReplicaRecord, ShardKind, ShardRecord};
    use crate::shard::fake::{FakeGroup, FakeMetadata, REPLICA, SHARD, image_with_topic};

    const HEIR: ReplicaId = ReplicaId(8);

    /// The shard is to be led by another node's replica.
    pub(in crate::shard) fn preferring_another() -> MetadataImage {
        let mut image = image_with_topic(1, TopicConfig::default());
        let record = image.shard(SHARD).unwrap().as_ref().clone();
        let heir = ReplicaRecord { id: HEIR, node: NodeId(2), directory: Uuid::nil() };
        let replicas = [vec![heir], record.replicas.clone()].concat();
        image.shards = Arc::new([(SHARD, Arc::new(ShardRecord { replicas, ..record }))].into_iter().collect());
        image
    }

    #[test]
    fn the_preferred_replica_leads_once_it_could() {
        sim::run(1, || async {
            let (group, shard) = FakeGroup::leading(ShardKind::Pool { factor: 2, pinned: false });
            let metadata = FakeMetadata::new(image_with_topic(1, TopicConfig::default()));
            assert_eq!(lead_preferred(&shard, &metadata).await, Election::NotNeeded);
            // The leader asks for what is wanted now before it does anything.
            *metadata.unseen.lock() = Some(preferring_another());
            assert_eq!(lead_preferred(&shard, &metadata).await, Election::NotAvailable);
            assert_eq!(shard.role().leader, Some(REPLICA));
            group.heirs.lock().insert(HEIR);
            metadata.alone.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(lead_preferred(&shard, &metadata).await, Election::NotLeader, "the image may be old");
            metadata.alone.store(false, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(lead_preferred(&shard, &metadata).await, Election::Done);
            assert_eq!(shard.role().leader, Some(HEIR));
            assert_eq!(lead_preferred(&shard, &metadata).await, Election::NotLeader);
        });
    }
}
