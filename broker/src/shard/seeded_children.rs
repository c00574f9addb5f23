//! The children that splits have made on this node and that do not run yet: from apply of the split until the child is
//! opened. Meanwhile the reconciler neither creates them, nor removes them or their parents.
//!
//! May not know: how a child becomes durable.

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;

use super::state_machine_view::StateMachineView;

/// A child in memory.
#[derive(Clone)]
pub(crate) struct SeededShard {
    pub(crate) parent: ReplicaId,
    /// What its shard stores about itself.
    pub(crate) creation: Bytes,
    pub(crate) view: StateMachineView,
}

/// All of them, by their replicas.
#[derive(Default)]
pub(crate) struct SeededChildren(Mutex<BTreeMap<ReplicaId, SeededShard>>);

impl SeededChildren {
    pub(crate) fn insert(&self, child: ReplicaId, seeded: SeededShard) {
        self.0.lock().insert(child, seeded);
    }

    pub(crate) fn get(&self, child: ReplicaId) -> Option<SeededShard> {
        self.0.lock().get(&child).cloned()
    }

    /// Forgets a child that runs now.
    pub(crate) fn remove(&self, child: ReplicaId) {
        self.0.lock().remove(&child);
    }

    /// True if the replica is such a child.
    pub(crate) fn contains(&self, replica: ReplicaId) -> bool {
        self.0.lock().contains_key(&replica)
    }

    /// True if the replica is such a child or the parent of one.
    pub(crate) fn involves(&self, replica: ReplicaId) -> bool {
        self.0.lock().iter().any(|(child, seeded)| [*child, seeded.parent].contains(&replica))
    }
}
