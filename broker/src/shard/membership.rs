//! What a shard's leader does so that its members become those that the metadata wants.
//!
//! May not know: why the metadata wants them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ottla_storage::env::rt;

use super::registry::Registry;
use super::shard::Shard;
use crate::metadata::membership_reconciler;

const IDLE: Duration = Duration::from_secs(3_600);

/// Runs until the replica stops.
pub(crate) async fn run(shard: Arc<Shard>, registry: Arc<dyn Registry>) {
    let mut images = registry.changes();
    let mut role = shard.role_changes();
    let id = shard.creation.shard;
    while !shard.role().stopped {
        drop(images.borrow_and_update());
        let mut wait = IDLE;
        if shard.leading().is_some() {
            let record = || Some((registry.image().shard(id)?.clone(), BTreeSet::new()));
            let step = |voters, _| shard.group().advance_membership(voters);
            let forget = |reached, left| registry.forget_replicas(id, reached, left);
            wait = membership_reconciler::reconcile(&shard.members(), record, || registry.read_index(), step, forget)
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
