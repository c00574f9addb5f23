//! The membership reconciler: as leader, changes the members of the shard's group step by step to the replicas that the
//! metadata has recorded for it.
//!
//! May not know: why the metadata records these replicas.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ottla_env::rt;

use crate::metadata::membership_reconciler;
use crate::shard::{MetadataView, Shard};

const IDLE: Duration = Duration::from_secs(3_600);

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
            let step = |voters, _| shard.group().advance_membership(voters);
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
