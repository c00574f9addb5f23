//! Reconciles the members of a Raft group with the replicas that the metadata records for its shard. Runs on the
//! group's leader.
//!
//! The metadata records the intended replicas. Raft changes its members one safe step at a time. Once the group has
//! exactly the intended members, the leader reports the replicas that left, and the metadata forgets them. May not
//! know: why a shard is to have other replicas.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ottla_env::{rt, watch};
use ottla_raft::{GroupHandle, Membership, MembershipStep, RaftError};
use ottla_storage::ids::ReplicaId;

use super::handle::{Inner, MetadataHandle};
use super::image::{MetadataImage, NodeRecord, ShardId, ShardRecord};

/// Between two steps, and before a refused one is retried.
const STEP_INTERVAL: Duration = Duration::from_millis(50);
/// Timeout of one step.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two transfers of leadership by a leader whose node is drained.
const TRANSFER_INTERVAL: Duration = Duration::from_secs(2);
/// The wait where nothing is to be done.
const IDLE: Duration = Duration::from_secs(3_600);

/// The shard with the replicas that its group is to have, and those of them that are learners.
pub(crate) type IntendedMembers = (Arc<ShardRecord>, BTreeSet<ReplicaId>);

fn voters((record, observers): &IntendedMembers) -> BTreeSet<ReplicaId> {
    record.wanted().difference(observers).copied().collect()
}

/// True if the group has exactly the intended members.
fn is_reached(intended: &IntendedMembers, members: &Membership) -> bool {
    members.voters.len() == 1 && members.voters[0] == voters(intended) && members.learners == intended.1
}

/// Makes at most one step for a shard that this node leads; returns the time until the next call. `step` makes one
/// membership change towards voters and learners, `forget` reports that the intended members are reached and which
/// replicas have left, `current` waits until the image is current.
pub(crate) async fn reconcile<Step, Forget, Read>(
    members: &Membership,
    intended: impl Fn() -> Option<IntendedMembers>,
    current: impl FnOnce() -> Read,
    step: impl FnOnce(BTreeSet<ReplicaId>, BTreeSet<ReplicaId>) -> Step,
    forget: impl FnOnce(Vec<ReplicaId>, Vec<ReplicaId>) -> Forget,
) -> Duration
where
    Step: Future<Output = Result<MembershipStep, RaftError>>,
    Forget: Future<Output = bool>,
    Read: Future<Output = bool>,
{
    let is_done = |intended: &IntendedMembers| is_reached(intended, members) && !intended.0.is_moving();
    let Some(known) = intended() else { return IDLE };
    if is_done(&known) {
        return IDLE;
    }
    // An old image may contain members that have left since.
    if !current().await {
        return STEP_INTERVAL;
    }
    let Some(intended) = intended() else { return IDLE };
    if is_done(&intended) {
        return IDLE;
    }
    let record = &intended.0;
    if is_reached(&intended, members) {
        let left = record.leaving.iter().map(|replica| replica.id).collect();
        forget(record.wanted().into_iter().collect(), left).await;
    } else if let Ok(Err(error)) = rt::timeout(STEP_TIMEOUT, step(voters(&intended), intended.1.clone())).await {
        tracing::debug!("shard={}: no step towards its replicas: {error}", record.id);
    }
    STEP_INTERVAL
}

/// The node of a replica of the metadata group, if it is registered.
fn node_of(image: &MetadataImage, replica: ReplicaId) -> Option<&NodeRecord> {
    let record = image.shard(ShardId::METADATA)?;
    let found = record.replicas.iter().find(|known| known.id == replica)?;
    image.nodes.get(&found.node)
}

/// Transfers the leadership of the metadata group if this node is drained and another voter could lead; true if it is
/// drained.
async fn transfer_leadership(image: &MetadataImage, group: &GroupHandle) -> bool {
    let takes = |replica: ReplicaId| node_of(image, replica).map(NodeRecord::takes_replicas);
    if takes(group.replica()) != Some(false) {
        return false;
    }
    let mut voters = group.membership().voters.into_iter().flatten();
    let target = voters.find(|voter| takes(*voter) == Some(true) && group.could_lead(*voter));
    if let Some(target) = target
        && let Err(error) = group.transfer_leadership(target).await
    {
        tracing::debug!("the metadata group is not handed over: {error}");
    }
    true
}

/// Reconciles the members of the metadata group itself, whenever this node leads it.
pub(super) async fn run(metadata: Weak<Inner>, group: GroupHandle, mut images: watch::Receiver<Arc<MetadataImage>>) {
    let mut role = group.role();
    loop {
        let now = *role.borrow_and_update();
        drop(images.borrow_and_update());
        if now.stopped {
            return;
        }
        let mut wait = IDLE;
        if now.ready {
            let Some(metadata) = MetadataHandle::upgrade(&metadata) else { return };
            let current = || async { metadata.read_index().await.is_ok() };
            let step = |voters, learners| {
                let group = group.clone();
                async move { group.advance_membership(&voters, &learners).await }
            };
            let forget = |reached, left| {
                let metadata = metadata.clone();
                async move { metadata.forget_replicas(ShardId::METADATA, reached, left).await.is_ok() }
            };
            let intended = || {
                let image = metadata.image();
                Some((image.shard(ShardId::METADATA)?.clone(), image.observers()))
            };
            wait = reconcile(&group.membership(), intended, current, step, forget).await;
            if wait == IDLE && transfer_leadership(&metadata.image(), &group).await {
                wait = TRANSFER_INTERVAL;
            }
        }
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            changed = images.changed() => if changed.is_err() { return },
            () = rt::sleep(wait) => {}
        }
    }
}
