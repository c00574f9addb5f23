//! The membership reconciler: as leader, changes the members of the shard's group step by step to the replicas that the
//! metadata has recorded for it.
//!
//! May not know: why the metadata records these replicas.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_env::rt;
use ottla_raft::{MembershipStep, RaftError};
use ottla_storage::ids::{RaftIndex, ReplicaId};

use crate::metadata::{MetadataImage, ReplicaRecord, membership_reconciler};
use crate::shard::{MetadataView, Shard};

const IDLE: Duration = Duration::from_secs(3_600);

const BEHIND_MERGE: &str = "its log still has a merge, which no new member can carry out";

/// A new member has no replica beside it that it could take over: it begins with a snapshot from behind the last merge.
fn begins_behind_merge(shard: &Shard) -> bool {
    let last = shard.state().lock().last_merge;
    last.intent == RaftIndex(0) || shard.group().begins_behind(last.index)
}

/// The members that a shard is to have on other nodes than this one, if this leader is to make room for a replica beside it, in another
/// data directory; `None` if it is not, or if there are none.
///
/// It hands over to one of those first. Else there would be four voters for a moment, two of them on this node, and its loss would be
/// that of the majority.
fn kept_elsewhere(shard: &Shard, image: &MetadataImage) -> Option<BTreeSet<ReplicaId>> {
    let record = image.shard(shard.creation.shard)?;
    let own = record.leaving.iter().find(|replica| replica.id == shard.replica)?;
    let (here, elsewhere): (Vec<&ReplicaRecord>, Vec<&ReplicaRecord>) =
        record.replicas.iter().partition(|replica| replica.node == own.node);
    let makes_room = !here.is_empty() && !elsewhere.is_empty();
    makes_room.then(|| elsewhere.into_iter().map(|replica| replica.id).collect())
}

/// Makes one step, or none while something else has to come first.
fn step(
    shard: &Shard,
    image: &MetadataImage,
    voters: BTreeSet<ReplicaId>,
) -> BoxFuture<'static, Result<MembershipStep, RaftError>> {
    let members = shard.members();
    if voters.iter().any(|voter| !members.is_voter(*voter)) && !begins_behind_merge(shard) {
        return futures_util::future::ready(Err(RaftError::Refused(BEHIND_MERGE.to_owned()))).boxed();
    }
    let Some(elsewhere) = kept_elsewhere(shard, image) else { return shard.group().advance_membership(voters) };
    let mut successors = elsewhere.iter().filter(|replica| members.is_voter(**replica));
    match successors.find(|replica| shard.group().could_lead(**replica)) {
        Some(successor) => {
            let handed_over = shard.group().transfer_leadership(*successor);
            async move { handed_over.await.map(|()| MembershipStep::Changed) }.boxed()
        }
        None => shard.group().advance_membership(elsewhere.into_iter().chain([shard.replica]).collect()),
    }
}

/// Runs until the replica stops.
pub(crate) async fn run(shard: Arc<Shard>, metadata: Arc<dyn MetadataView>) {
    let mut images = metadata.changes();
    let mut role = shard.role_changes();
    let id = shard.creation.shard;
    while !shard.role().stopped {
        drop(images.borrow_and_update());
        let mut wait = IDLE;
        if shard.leading().is_some() {
            let record = || Some((metadata.image().shard(id)?.clone(), BTreeSet::new()));
            let step = |voters: BTreeSet<_>, _| step(&shard, &metadata.image(), voters);
            let forget = |reached, left| metadata.forget_replicas(id, reached, left);
            wait = membership_reconciler::reconcile(&shard.members(), record, || metadata.read_index(), step, forget)
                .await;
        }
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            changed = images.changed() => if changed.is_err() { return },
            () = rt::sleep(wait) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ottla_env::sim;
    use ottla_protocol::ids::NodeId;
    use uuid::Uuid;

    use super::*;
    use crate::config::TopicConfig;
    use crate::metadata::{ShardKind, ShardRecord};
    use crate::shard::fake::{FakeGroup, NODE, REPLICA, SHARD, image_with_topic};

    const BESIDE: ReplicaId = ReplicaId(20);

    fn on(replicas: &[(ReplicaId, i32)]) -> Vec<ReplicaRecord> {
        let record = |(id, node): &(ReplicaId, i32)| ReplicaRecord {
            id: *id,
            node: if *node == 0 { NODE } else { NodeId(100 + node) },
            directory: Uuid::nil(),
        };
        replicas.iter().map(record).collect()
    }

    fn image(wanted: &[(ReplicaId, i32)], leaving: &[(ReplicaId, i32)]) -> MetadataImage {
        let mut image = image_with_topic(1, TopicConfig::default());
        let record = image.shard(SHARD).unwrap().as_ref().clone();
        let record = ShardRecord { replicas: on(wanted), leaving: on(leaving), ..record };
        image.shards = Arc::new([(SHARD, Arc::new(record))].into_iter().collect());
        image
    }

    /// A step of a leader among these voters.
    async fn stepped(
        group: &FakeGroup,
        shard: &Shard,
        voters: &[ReplicaId],
        image: &MetadataImage,
    ) -> BTreeSet<ReplicaId> {
        *group.voters.lock() = voters.iter().copied().collect();
        step(shard, image, image.shard(SHARD).unwrap().wanted()).await.unwrap();
        group.voters.lock().clone()
    }

    /// Seed 166008 of the simulation: leaders that all were to make room handed over to each other for ever.
    #[test]
    fn a_leader_that_makes_room_on_its_node_hands_over_to_one_that_stays() {
        sim::run(1, || async {
            let (second, third) = (ReplicaId(21), ReplicaId(22));
            // Alone it gets the other one beside it.
            let (group, shard) = FakeGroup::leading(ShardKind::Pool { factor: 1, pinned: false });
            let alone = image(&[(BESIDE, 0)], &[(REPLICA, 0)]);
            assert_eq!(stepped(&group, &shard, &[REPLICA], &alone).await, [BESIDE].into());
            // The others stay, and none of them could lead now: nothing changes but what is to change elsewhere.
            let one = image(&[(BESIDE, 0), (second, 1), (third, 2)], &[(REPLICA, 0)]);
            let before = [REPLICA, second, third];
            assert_eq!(stepped(&group, &shard, &before, &one).await, before.into());
            assert!(shard.leading().is_some());
            // All make room: the others do first, and then one of those is handed over to.
            let (former_second, former_third) = (ReplicaId(5), ReplicaId(6));
            group.transfer_targets.lock().extend([former_second, former_third, second]);
            let all =
                image(&[(BESIDE, 0), (second, 1), (third, 2)], &[(REPLICA, 0), (former_second, 1), (former_third, 2)]);
            let former = [REPLICA, former_second, former_third];
            assert_eq!(stepped(&group, &shard, &former, &all).await, before.into());
            assert!(shard.leading().is_some());
            assert_eq!(stepped(&group, &shard, &before, &all).await, before.into());
            assert_eq!(shard.role().leader, Some(second));
        });
    }
}
