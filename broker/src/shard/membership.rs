//! What a shard's leader does so that its members become those that the metadata wants.
//!
//! May not know: why the metadata wants them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ottla_storage::env::rt;

use super::metadata_view::MetadataView;
use super::shard::Shard;
use crate::metadata::members;

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
            let step = |voters, _| shard.group().step_towards(voters);
            let forget = |reached, left| metadata.forget_replicas(id, reached, left);
            wait = members::look(&shard.members(), record, || metadata.read_index(), step, forget).await;
        }
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            changed = images.changed() => if changed.is_err() { return },
            () = rt::sleep(wait) => {}
        }
    }
}
