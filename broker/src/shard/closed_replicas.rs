//! Closed replicas: those on the disks of this node that do not run, and why. A replica that cannot be opened stops no
//! other.
//!
//! May not know: how replicas are opened, and what a client is answered.

use std::collections::BTreeMap;

use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;

use crate::metadata::ShardId;

/// A replica that does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedReplica {
    /// Its shard, if that can be read.
    pub shard: Option<ShardId>,
    /// Why it does not run, and what is to be done.
    pub why: String,
    /// It is lost: it takes part no more, and is rebuilt under another id where other replicas hold what it held.
    pub is_lost: bool,
}

/// All closed replicas of a node.
#[derive(Debug, Default)]
pub(super) struct ClosedReplicas(Mutex<BTreeMap<ReplicaId, ClosedReplica>>);

impl ClosedReplicas {
    pub(super) fn insert(&self, replica: ReplicaId, closed: ClosedReplica) {
        self.0.lock().insert(replica, closed);
    }

    /// Forgets all but these.
    pub(super) fn retain(&self, is_kept: impl Fn(&ReplicaId) -> bool) {
        self.0.lock().retain(|replica, _| is_kept(replica));
    }

    pub(super) fn contains(&self, replica: ReplicaId) -> bool {
        self.0.lock().contains_key(&replica)
    }

    /// Those that are lost.
    pub(super) fn lost(&self) -> Vec<ReplicaId> {
        self.0.lock().iter().filter(|(_, closed)| closed.is_lost).map(|(replica, _)| *replica).collect()
    }

    pub(super) fn is_lost(&self, replica: ReplicaId) -> bool {
        self.0.lock().get(&replica).is_some_and(|closed| closed.is_lost)
    }

    pub(super) fn all(&self) -> Vec<(ReplicaId, ClosedReplica)> {
        self.0.lock().iter().map(|(replica, closed)| (*replica, closed.clone())).collect()
    }
}
