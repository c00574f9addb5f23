//! The children of splits that a crash has left on this node with a creation and without a state.
//!
//! May not know: how they get one.

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_raft::Creation;
use ottla_storage::data_dir::RecoveredReplica;
use ottla_storage::ids::{LogId, ReplicaId};

/// A child that has a creation on the disk and no state.
pub(super) struct WithoutState {
    pub(super) parent: Option<ReplicaId>,
    pub(super) split: LogId,
    pub(super) creation: Bytes,
}

/// All of them, at the start.
pub(super) struct Unseeded(pub(super) BTreeMap<ReplicaId, WithoutState>);

impl Unseeded {
    pub(super) fn among<'a>(recovered: impl Iterator<Item = &'a RecoveredReplica>) -> Self {
        let child = |replica: &RecoveredReplica| {
            let seed = Creation::decode(replica.creation.clone()).and_then(|creation| creation.seed);
            let parent = seed.map(|seed| seed.parent);
            let child = WithoutState { parent, split: replica.unseeded?, creation: replica.creation.clone() };
            Some((replica.id, child))
        };
        Self(recovered.filter_map(child).collect())
    }

    /// The last entry of a replica that has split one of them off.
    pub(super) fn splits_at(&self, parent: ReplicaId) -> Option<LogId> {
        self.0.values().filter(|child| child.parent == Some(parent)).map(|child| child.split).max()
    }
}
