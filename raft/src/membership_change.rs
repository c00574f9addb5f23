//! Membership changes of a group, one safe step at a time: learner, catch up, joint change, drop (design section 5).
//!
//! Calling again after a failure or under another leader continues from what the log contains. May not know: why
//! members change, and where replicas are located.

use std::collections::BTreeSet;

use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, EmptyNode};
use ottla_storage::ids::ReplicaId;

use crate::error::RaftError;
use crate::group::{Group, REPLICATION_LAG_MAX};
use crate::handle::GroupHandle;
use crate::membership::Membership;

/// The progress of a membership change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembershipStep {
    /// These are the voters of the group, and it has no other members than those wanted.
    Reached,
    /// One step was made.
    Changed,
    /// A new member is not caught up yet.
    CatchingUp(ReplicaId),
}

impl Group {
    /// True if a member lacks at most [`REPLICATION_LAG_MAX`] entries, as far as the leader knows.
    pub(crate) fn is_caught_up(&self, replica: ReplicaId) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let matched =
            metrics.replication.as_ref().and_then(|members| members.get(&replica.0)?.as_ref().map(|id| id.index));
        matched.is_some_and(|matched| matched + REPLICATION_LAG_MAX >= last)
    }

    /// The last entry that every other member is known to have; `None` if that is not known here.
    pub(crate) fn replicated_to_all(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.replication.as_ref()?;
        members.values().map(|id| id.as_ref().map(|id| id.index)).min()?
    }

    /// The voters to change to, all of whom have caught up: those wanted, or, while some of them are late and a voter that
    /// leaves is out of sync, the others and as many of the voters that leave as there are late ones. A new member that is down
    /// does not keep the group from replacing a voter that is lost. The error: a late member, which is waited for.
    fn next_voters(&self, members: &Membership, wanted: BTreeSet<ReplicaId>) -> Result<BTreeSet<ReplicaId>, ReplicaId> {
        let is_late = |replica: &&ReplicaId| !members.is_voter(**replica) && !self.is_caught_up(**replica);
        let late: BTreeSet<_> = wanted.iter().filter(is_late).copied().collect();
        let Some(first_late) = late.first().copied() else { return Ok(wanted) };
        let voters: BTreeSet<_> = members.voters.iter().flatten().copied().collect();
        let in_sync = self.in_sync_tracker.in_sync();
        let (healthy, down): (Vec<_>, Vec<_>) =
            voters.difference(&wanted).copied().partition(|replica| in_sync.contains(replica));
        let stays = healthy.into_iter().take(late.len());
        let next: BTreeSet<_> = wanted.difference(&late).copied().chain(stays).collect();
        if down.is_empty() || next.is_subset(&voters) { Err(first_late) } else { Ok(next) }
    }

    /// `retain`: a voter that is removed becomes a learner.
    async fn change(&self, change: ChangeMembers<u64, EmptyNode>, retain: bool) -> Result<(), RaftError> {
        let changed = self.raft.change_membership(change, retain).await;
        changed.map(drop).map_err(|error| RaftError::Refused(error.to_string()))
    }
}

impl GroupHandle {
    /// Makes one step towards exactly these voters and learners. Only the leader can; the caller retries a refused
    /// step.
    ///
    /// # Errors
    /// `Refused` if this replica does not lead, or another change is in progress.
    pub async fn advance_membership(
        &self,
        voters: &BTreeSet<ReplicaId>,
        learners: &BTreeSet<ReplicaId>,
    ) -> Result<MembershipStep, RaftError> {
        let group = &self.0;
        group.touch();
        let members = group.members();
        let is_at = |wanted: &BTreeSet<ReplicaId>| members.voters.len() == 1 && members.voters[0] == *wanted;
        if is_at(voters) && members.learners == *learners {
            return Ok(MembershipStep::Reached);
        }
        // A leader that is to be removed stays until the others are there, and transfers leadership: openraft does not
        // let it remove itself.
        let with_leader: BTreeSet<_> = voters.iter().copied().chain([group.replica]).collect();
        if !voters.contains(&group.replica) && is_at(&with_leader) {
            let Some(target) = voters.iter().find(|voter| group.is_caught_up(**voter)) else {
                return Err(RaftError::Refused("no other member could lead".to_owned()));
            };
            return self.transfer_leadership(*target).await.map(|()| MembershipStep::Changed);
        }
        let is_member = |replica: &ReplicaId| members.is_voter(*replica) || members.learners.contains(replica);
        if let Some(new) = with_leader.iter().chain(learners).find(|replica| !is_member(replica)) {
            let added = group.raft.add_learner(new.0, EmptyNode::new(), false).await;
            return added.map(|_| MembershipStep::Changed).map_err(|error| RaftError::Refused(error.to_string()));
        }
        let change = if is_at(&with_leader) {
            let unwanted = members.learners.iter().filter(|learner| !learners.contains(learner));
            ChangeMembers::RemoveNodes(unwanted.map(|learner| learner.0).collect())
        } else {
            match group.next_voters(&members, with_leader) {
                Ok(next) => ChangeMembers::ReplaceAllVoters(next.iter().map(|voter| voter.0).collect()),
                Err(late) => return Ok(MembershipStep::CatchingUp(late)),
            }
        };
        group.change(change, !learners.is_empty()).await.map(|()| MembershipStep::Changed)
    }
}
