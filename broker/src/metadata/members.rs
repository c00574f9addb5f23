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

use super::controller::{Inner, Metadata};
use super::image::{MetadataImage, ShardId, ShardRecord};

/// Between two steps, and before a refused one is tried again.
const STEP_PAUSE: Duration = Duration::from_millis(50);
/// How long one step has.
const STEP_WAIT: Duration = Duration::from_secs(10);
/// Where nothing is to be done.
const IDLE: Duration = Duration::from_secs(3_600);

/// Replicas that are no members any more although they are recorded as leaving, once the group has all that it is to have.
fn left(record: &ShardRecord, members: &Members) -> Option<Vec<ReplicaId>> {
    let reached = members.voters.len() == 1 && members.voters[0] == record.wanted() && members.learners.is_empty();
    reached.then(|| record.leaving.iter().map(|replica| replica.id).collect())
}

/// One look at a shard that is led here; answers when to look again. `step` makes one step towards the voters, `forget`
/// reports those that left, `current` makes the image current.
pub(crate) async fn look<Step, Forget, Read>(
    members: &Members,
    record: impl Fn() -> Option<Arc<ShardRecord>>,
    current: impl FnOnce() -> Read,
    step: impl FnOnce(BTreeSet<ReplicaId>) -> Step,
    forget: impl FnOnce(Vec<ReplicaId>, Vec<ReplicaId>) -> Forget,
) -> Duration
where
    Step: Future<Output = Result<MembersStep, RaftError>>,
    Forget: Future<Output = bool>,
    Read: Future<Output = bool>,
{
    let Some(known) = record() else { return IDLE };
    if left(&known, members).is_some() && !known.is_moving() {
        return IDLE;
    }
    // An old image wants members that have gone since.
    if !current().await {
        return STEP_PAUSE;
    }
    let Some(record) = record() else { return IDLE };
    match left(&record, members) {
        Some(_) if !record.is_moving() => IDLE,
        Some(left) => {
            forget(record.wanted().into_iter().collect(), left).await;
            STEP_PAUSE
        }
        None => {
            if let Ok(Err(error)) = rt::timeout(STEP_WAIT, step(record.wanted())).await {
                tracing::debug!("shard={}: no step towards its replicas: {error}", record.id);
            }
            STEP_PAUSE
        }
    }
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
            let step = |voters| {
                let group = group.clone();
                async move { group.step_towards(&voters).await }
            };
            let forget = |reached, left| {
                let metadata = metadata.clone();
                async move { metadata.forget_replicas(ShardId::METADATA, reached, left).await.is_ok() }
            };
            let record = || metadata.image().shard(ShardId::METADATA).cloned();
            wait = look(&group.membership(), record, current, step, forget).await;
        }
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            changed = images.changed() => if changed.is_err() { return },
            () = rt::sleep(wait) => {}
        }
    }
}
