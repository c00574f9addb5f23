//! The membership reconciler: as leader, changes the members of the shard's group step by step to the replicas that the
//! metadata has recorded for it.
//!
//! May not know: why the metadata records these replicas.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use ottla_env::rt;
use ottla_raft::RaftError;
use ottla_storage::ids::{RaftIndex, ReplicaId};

use crate::metadata::membership_reconciler;
use crate::shard::{MetadataView, Shard};

const IDLE: Duration = Duration::from_secs(3_600);

const BEHIND_MERGE: &str = "its log still has a merge, which no new member can carry out";

/// A new member has no replica beside it that it could take over: it begins with a snapshot from behind the last merge.
fn begins_behind_merge(shard: &Shard) -> bool {
    let last = shard.state().lock().last_merge;
    last.intent == RaftIndex(0) || shard.group().begins_behind(last.index)
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
            let step = |voters: BTreeSet<_>, _| {
                let is_new = |voter: &ReplicaId| !shard.members().is_voter(*voter);
                match voters.iter().any(is_new) && !begins_behind_merge(&shard) {
                    true => futures_util::future::ready(Err(RaftError::Refused(BEHIND_MERGE.to_owned()))).boxed(),
                    false => shard.group().advance_membership(voters),
                }
            };
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
