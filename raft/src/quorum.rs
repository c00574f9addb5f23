//! The progress of a group's members as its leader tracks it: the last entry of each, when it responded last and when
//! it was last caught up, which voters are in sync, and which have synced an entry.
//!
//! May not know: where members are located, and what the progress is used for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use ottla_env::rt;
use ottla_storage::ids::{RaftIndex, ReplicaId, Term};

use crate::group::Group;
use crate::handle::GroupHandle;
use crate::in_sync::{FollowerProgress, VoterSets};
use crate::openraft_types::{RaftLogId, from_raft_membership};

/// A member that responded within this is alive: a few heartbeats.
const ALIVE_HEARTBEATS: u32 = 4;

/// The state of a group as its leader knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// The leader's term.
    pub term: Term,
    /// The last entry that is committed.
    pub committed: Option<RaftIndex>,
    /// All members, including the leader.
    pub members: BTreeMap<ReplicaId, MemberProgress>,
}

/// The progress of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberProgress {
    /// True for a voter, false for a learner.
    pub is_voter: bool,
    /// The last entry that it is known to have.
    pub last: Option<RaftIndex>,
    /// When the request was sent to which it responded last.
    pub heard_at: Option<rt::Instant>,
    /// When it was last caught up with the leader, to the second.
    pub caught_up_at: Option<rt::Instant>,
}

impl Group {
    /// The progress of the members, if this replica leads.
    pub(crate) fn quorum_state(&self) -> Option<Quorum> {
        self.observe_followers();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (Some(matched), Some(heard)) = (metrics.replication.as_ref(), metrics.heartbeat.as_ref()) else {
            return None;
        };
        let (now, last) = (rt::now(), metrics.last_log_index);
        let known = |(member, id): (&u64, &Option<RaftLogId>)| {
            let heard = heard.get(member).and_then(|at| at.as_ref().map(|at| at.0));
            (*member, (id.as_ref().map(|id| id.index), heard))
        };
        let mut known: BTreeMap<u64, FollowerProgress> = matched.iter().map(known).collect();
        // The leader's own progress needs no response.
        known.insert(self.replica.0, (last, Some(now)));
        let membership = metrics.membership_config.membership();
        let member = |(member, (last, heard_at)): (&u64, &FollowerProgress)| {
            let progress = MemberProgress {
                is_voter: membership.get_joint_config().iter().any(|config| config.contains(member)),
                last: last.map(RaftIndex),
                heard_at: *heard_at,
                caught_up_at: if *member == self.replica.0 {
                    Some(now)
                } else {
                    self.in_sync_tracker.caught_up_at(ReplicaId(*member))
                },
            };
            (ReplicaId(*member), progress)
        };
        Some(Quorum {
            term: Term(metrics.current_term),
            committed: metrics.local_committed.as_ref().map(|id| RaftIndex(id.index)),
            members: known.iter().map(member).collect(),
        })
    }

    /// True if another voter could lead at once: it lacks few entries and responds.
    pub(crate) fn could_lead(&self, replica: ReplicaId) -> bool {
        let alive = self.options.heartbeat * ALIVE_HEARTBEATS;
        let quorum = self.quorum_state();
        let member = quorum.as_ref().and_then(|quorum| quorum.members.get(&replica));
        let answers = |member: &MemberProgress| member.heard_at.is_some_and(|at| rt::now().since(at) < alive);
        member.is_some_and(|member| member.is_voter && answers(member)) && self.is_caught_up(replica)
    }
}

impl GroupHandle {
    /// The progress of the members; `None` unless this replica leads.
    #[must_use]
    pub fn quorum(&self) -> Option<Quorum> {
        let group = &self.0;
        group.touch();
        if group.role().leader == Some(group.replica) { group.quorum_state() } else { None }
    }

    /// True if this replica leads and `replica` could lead at once: a voter that lacks few entries and responds.
    #[must_use]
    pub fn could_lead(&self, replica: ReplicaId) -> bool {
        self.0.role().leader == Some(self.0.replica) && self.0.could_lead(replica)
    }
}

impl Group {
    /// Records the progress of the followers, if this replica leads.
    pub(crate) fn observe_followers(&self) {
        let role = self.role();
        let metrics = self.raft.data_metrics();
        let (end, members) = {
            let now = metrics.borrow_watched();
            let heard = |id: &u64| now.heartbeat.as_ref()?.get(id)?.as_ref().map(|at| at.0);
            let members = now.replication.as_ref().map(|members| {
                let member = |(id, at): (&u64, &Option<_>)| (ReplicaId(*id), (at.as_ref().map(index_of), heard(id)));
                members.iter().map(member).collect::<BTreeMap<ReplicaId, FollowerProgress>>()
            });
            (now.last_log.as_ref().map_or(0, index_of), members)
        };
        let Some(mut members) = members.filter(|_| role.leader == Some(self.replica) && !role.stopped) else {
            return self.in_sync_tracker.clear();
        };
        members.remove(&self.replica);
        let voters = {
            let server = self.raft.server_metrics();
            let server = server.borrow_watched();
            let changed_at = server.membership_config.log_id().as_ref().map_or(0, index_of);
            VoterSets {
                sets: from_raft_membership(server.membership_config.membership()).voters,
                is_committed: self.applier.applied().map_or(0, |applied| applied.index.0) >= changed_at,
            }
        };
        let own = (self.replica, role.term, end);
        self.in_sync_tracker.observe(own, &members, voters, self.options.in_sync_lag);
    }
}

fn index_of(id: &RaftLogId) -> u64 {
    id.index
}

impl GroupHandle {
    /// The voters that are in sync, including this one; empty if this replica does not lead.
    #[must_use]
    pub fn in_sync(&self) -> Arc<[ReplicaId]> {
        self.0.in_sync_tracker.in_sync()
    }

    /// The number of voters in sync.
    #[must_use]
    pub fn in_sync_count(&self) -> usize {
        self.0.in_sync_tracker.in_sync_count()
    }

    /// Waits until so many voters have synced everything up to `index`; false if this replica leads no longer.
    pub async fn synced_by(&self, index: RaftIndex, voters: usize) -> bool {
        let group = &self.0;
        let mut metrics = group.raft.data_metrics();
        loop {
            let members: BTreeSet<_> = group.members().voters.into_iter().flatten().collect();
            {
                let now = metrics.borrow_and_update();
                let Some(progress) = &now.replication else { return false };
                let has = |(id, at): &(&u64, &Option<_>)| {
                    members.contains(&ReplicaId(**id)) && at.as_ref().map(index_of).is_some_and(|at| at >= index.0)
                };
                if progress.iter().filter(has).count() >= voters {
                    return true;
                }
            }
            if metrics.changed().await.is_err() {
                return false;
            }
        }
    }
}
