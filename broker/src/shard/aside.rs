//! Replicas on the disks of this node that do not run, and why: one that cannot be opened stops no other.
//!
//! May not know: how replicas are opened, and what a client is answered.

use std::collections::BTreeMap;

use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;

use crate::metadata::ShardId;

/// A replica that does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Its shard, if that can be read.
    pub shard: Option<ShardId>,
    /// Why, and what is to be done.
    pub why: String,
    /// It takes part no more, and is rebuilt under another id where other replicas hold what it held.
    pub is_lost: bool,
}

/// All of a node.
#[derive(Debug, Default)]
pub(super) struct SetAside(Mutex<BTreeMap<ReplicaId, Aside>>);

impl SetAside {
    pub(super) fn insert(&self, replica: ReplicaId, aside: Aside) {
        self.0.lock().insert(replica, aside);
    }

    pub(super) fn contains(&self, replica: ReplicaId) -> bool {
        self.0.lock().contains_key(&replica)
    }

    /// Those that take part no more.
    pub(super) fn lost(&self) -> Vec<ReplicaId> {
        self.0.lock().iter().filter(|(_, aside)| aside.is_lost).map(|(replica, _)| *replica).collect()
    }

    pub(super) fn is_lost(&self, replica: ReplicaId) -> bool {
        self.0.lock().get(&replica).is_some_and(|aside| aside.is_lost)
    }

    pub(super) fn all(&self) -> Vec<(ReplicaId, Aside)> {
        self.0.lock().iter().map(|(replica, aside)| (*replica, aside.clone())).collect()
    }
}
