//! A child that apply has split off and that is in memory alone: it owns its bytes, and its first state is cut, as a pair
//! with its parent's.
//!
//! May not know: how it becomes durable, and which partitions there are.

use ottla_env::mutants::{self, Bug};
use ottla_storage::checkpoint::StateDelta;
use ottla_storage::data_dir::SplitCut;
use ottla_storage::entry::Vote;
use ottla_storage::ids::{LogId, ReplicaId, Term};
use ottla_storage::log::GroupCreation;

use crate::directory::Directory;
use crate::membership::{Creation, Membership, Seed};
use crate::openraft_types::{StoredMembership, encode_stored_membership, to_raft_log_id, to_raft_membership};
use crate::state_machine::{SplitOff, StateMachine};

/// A child whose first state is in memory alone: [`crate::RaftHost::open_child`] makes it a group.
pub struct SeededChild {
    pub(crate) creation: GroupCreation,
    pub(crate) cut: SplitCut,
    pub(crate) members: Membership,
    pub(crate) state_machine: Box<dyn StateMachine>,
}

impl std::fmt::Debug for SeededChild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SeededChild(replica {} at {})", self.creation.replica, self.cut.child.applied)
    }
}

/// The members of a child, as of the entry that split it off.
pub(crate) fn first_membership(members: &Membership, at: LogId) -> StoredMembership {
    StoredMembership::new(Some(to_raft_log_id(at)), to_raft_membership(members))
}

impl SeededChild {
    /// Takes the bytes for the child, publishes its state, and cuts it. `parent` is cut at the same entry.
    ///
    /// # Panics
    /// When the child's members do not contain it.
    pub(crate) fn seed(directory: &dyn Directory, parent: StateDelta, split_off: SplitOff) -> Self {
        let SplitOff { child, members, shard, partitions, mut state_machine } = split_off;
        let at = parent.applied;
        assert!(members.is_voter(child), "replica {child} is no member of the group that is split off at {at}");
        let moved = directory.move_partitions(parent.replica, child, &partitions);
        state_machine.publish();
        let checksum = state_machine.checksum();
        let membership = encode_stored_membership(&first_membership(&members, at));
        let changes = state_machine.cut();
        let first = StateDelta { replica: child, applied: at, membership, changes, checksum };
        // The same on every replica, and at every replay. No election has been won in it: a leader comes from a later term.
        let voted_for = members.voters.iter().flatten().min().copied().unwrap_or(child);
        let term = if mutants::is_on(Bug::ChildTermBegunAnew) { Term(0) } else { at.term };
        let vote = Vote { term, voted_for, committed: false };
        let seed = Seed { parent: parent.replica, checksum };
        let creation = Creation { members: members.clone(), shard, seed: Some(seed) }.encode();
        let creation = GroupCreation { replica: child, payload: creation, vote: Some(vote), purged: Some(at) };
        Self { creation, cut: SplitCut { parent, child: first, moved }, members, state_machine }
    }

    /// The child's replica here.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.creation.replica
    }

    /// The replica whose state was split.
    #[must_use]
    pub fn parent(&self) -> ReplicaId {
        self.cut.parent.replica
    }
}
