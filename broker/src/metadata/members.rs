//! From the replicas that a shard is to have to the members that its group has: what the leader does about the difference.
//!
//! The metadata says what is wanted; Raft changes its members one safe step at a time; when they are there, and nobody else,
//! those that left are reported and forgotten. May not know: why a shard is to have other replicas.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ottla_raft::{GroupHandle, Members, MembersStep, RaftError};
use ottla_storage::env::{rt, watch};
use ottla_storage::ids::ReplicaId;

use super::handle::{Inner, Metadata};
use super::image::{MetadataImage, NodeRecord, ShardId, ShardRecord};

/// Between two steps, and before a refused one is tried again.
const STEP_PAUSE: Duration = Duration::from_millis(50);
/// How long one step has.
const STEP_WAIT: Duration = Duration::from_secs(10);
/// Before a leader whose node is being emptied hands over once more.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(2);
/// Where nothing is to be done.
const IDLE: Duration = Duration::from_secs(3_600);

/// The replicas that a group is to have, and those of them that only learn.
pub(crate) type Wanted = (Arc<ShardRecord>, BTreeSet<ReplicaId>);

fn voters((record, observers): &Wanted) -> BTreeSet<ReplicaId> {
    record.wanted().difference(observers).copied().collect()
}

/// True if the group has all that it is to have, and nobody else.
fn is_reached(wanted: &Wanted, members: &Members) -> bool {
    members.voters.len() == 1 && members.voters[0] == voters(wanted) && members.learners == wanted.1
}

/// One look at a shard that is led here; answers when to look again. `step` makes one step towards voters and learners,
/// `forget` reports that it is reached and who has left, `current` makes the image current.
pub(crate) async fn look<Step, Forget, Read>(
    members: &Members,
    wanted: impl Fn() -> Option<Wanted>,
    current: impl FnOnce() -> Read,
    step: impl FnOnce(BTreeSet<ReplicaId>, BTreeSet<ReplicaId>) -> Step,
    forget: impl FnOnce(Vec<ReplicaId>, Vec<ReplicaId>) -> Forget,
) -> Duration
where
    Step: Future<Output = Result<MembersStep, RaftError>>,
    Forget: Future<Output = bool>,
    Read: Future<Output = bool>,
{
    let is_done = |wanted: &Wanted| is_reached(wanted, members) && !wanted.0.is_moving();
    let Some(known) = wanted() else { return IDLE };
    if is_done(&known) {
        return IDLE;
    }
    // An old image wants members that have gone since.
    if !current().await {
        return STEP_PAUSE;
    }
    let Some(wanted) = wanted() else { return IDLE };
    if is_done(&wanted) {
        return IDLE;
    }
    let record = &wanted.0;
    if is_reached(&wanted, members) {
        let left = record.leaving.iter().map(|replica| replica.id).collect();
        forget(record.wanted().into_iter().collect(), left).await;
    } else if let Ok(Err(error)) = rt::timeout(STEP_WAIT, step(voters(&wanted), wanted.1.clone())).await {
        tracing::debug!("shard={}: no step towards its replicas: {error}", record.id);
    }
    STEP_PAUSE
}

/// The node of a replica of the metadata group, if it is known.
fn node_of(image: &MetadataImage, replica: ReplicaId) -> Option<&NodeRecord> {
    let record = image.shard(ShardId::METADATA)?;
    let found = record.replicas.iter().find(|known| known.id == replica)?;
    image.nodes.get(&found.node)
}

/// Hands the metadata group over, if the leader's node is being emptied and another could lead; true if it is.
async fn hand_over(image: &MetadataImage, group: &GroupHandle) -> bool {
    let takes = |replica: ReplicaId| node_of(image, replica).map(NodeRecord::takes_replicas);
    if takes(group.replica()) != Some(false) {
        return false;
    }
    let mut voters = group.membership().voters.into_iter().flatten();
    let heir = voters.find(|voter| takes(*voter) == Some(true) && group.could_lead(*voter));
    if let Some(heir) = heir
        && let Err(error) = group.transfer(heir).await
    {
        tracing::debug!("the metadata group is not handed over: {error}");
    }
    true
}

/// Keeps the metadata group's own members as they are to be, wherever it is led.
pub(super) async fn keep(metadata: Weak<Inner>, group: GroupHandle, mut images: watch::Receiver<Arc<MetadataImage>>) {
    let mut role = group.role();
    loop {
        let now = *role.borrow_and_update();
        drop(images.borrow_and_update());
        if now.stopped {
            return;
        }
        let mut wait = IDLE;
        if now.ready {
            let Some(metadata) = Metadata::upgrade(&metadata) else { return };
            let current = || async { metadata.read_index().await.is_ok() };
            let step = |voters, learners| {
                let group = group.clone();
                async move { group.step_towards(&voters, &learners).await }
            };
            let forget = |reached, left| {
                let metadata = metadata.clone();
                async move { metadata.forget_replicas(ShardId::METADATA, reached, left).await.is_ok() }
            };
            let wanted = || {
                let image = metadata.image();
                Some((image.shard(ShardId::METADATA)?.clone(), image.observers()))
            };
            wait = look(&group.membership(), wanted, current, step, forget).await;
            if wait == IDLE && hand_over(&metadata.image(), &group).await {
                wait = HAND_OVER_PAUSE;
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
