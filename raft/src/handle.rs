//! The handle of one replica: propose, read index, role.
//!
//! May not know: what a proposal means.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{
    ClientWriteError, ForwardReason, ForwardToLeader, LinearizableReadError, RaftError as RaftCallError,
};
use openraft::raft::ClientWriteResult;
use ottla_env::critical::Owner;
use ottla_env::mutants::{self, Bug};
use ottla_env::{rt, watch};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId};
use ottla_storage::log::ENTRY_BYTES_MAX;
use tokio::sync::oneshot;

use crate::error::{ProposeError, RaftError, ReadIndexError};
use crate::group::Group;
use crate::membership::Membership;
use crate::openraft_types::{TypeConfig, from_raft_log_id};
use crate::proposal::{Proposal, ProposalResponder};
use crate::resize::Resize;
use crate::role::Role;
use crate::state_machine::{AbsorbedReplica, Reply};

/// An applied proposal.
#[derive(Debug)]
pub struct Proposed {
    /// Its position in the group's log.
    pub log_id: LogId,
    /// The reply of apply.
    pub reply: Reply,
}

/// A submitted proposal; await [`Pending::applied`].
pub struct Pending {
    result: oneshot::Receiver<ClientWriteResult<TypeConfig>>,
    group: Arc<Group>,
    /// Of the seeded bug alone: what is proposed again when the outcome is not known soon.
    repeated: Option<Proposal>,
}

impl Pending {
    /// Waits until the entry is applied here.
    pub async fn applied(mut self) -> Result<Proposed, ProposeError> {
        if let Some(proposal) = self.repeated.take() {
            let again = GroupHandle(self.group.clone());
            return match rt::timeout(Duration::from_millis(200), self.decided()).await {
                Ok(outcome) => outcome,
                Err(_) => again.submit(proposal).await?.decided().await,
            };
        }
        self.decided().await
    }

    async fn decided(self) -> Result<Proposed, ProposeError> {
        match self.result.await {
            Ok(Ok(written)) => Ok(Proposed { log_id: from_raft_log_id(&written.log_id), reply: written.data }),
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(not_proposed(&forward)),
            Ok(Err(_)) => Err(ProposeError::Unknown),
            // openraft's core task ended before it handled the proposal.
            Err(_) => Err(match self.group.failure() {
                Some(reason) => ProposeError::Stopped(reason),
                None => ProposeError::Unknown,
            }),
        }
    }
}

fn not_proposed(forward: &ForwardToLeader<TypeConfig>) -> ProposeError {
    match forward.reason {
        ForwardReason::LeaseExpired => ProposeError::LeaseExpired,
        _ => ProposeError::NotLeader { leader: forward.leader_id.map(ReplicaId) },
    }
}

/// How often a proposal is repeated after its group was woken.
const WAKE_ATTEMPTS: usize = 3;

/// Handle of one replica of one group; cheap to clone.
#[derive(Clone)]
pub struct GroupHandle(pub(crate) Arc<Group>);

impl GroupHandle {
    /// The owner of tasks that the replica depends on: a panic of one of them stops it for good.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.0.owner()
    }

    /// The id of this replica.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.0.replica
    }

    /// Proposes an entry and waits until it is applied here. Wakes a hibernating group.
    pub async fn propose(&self, proposal: Proposal) -> Result<Proposed, ProposeError> {
        for _ in 0..WAKE_ATTEMPTS {
            // `Bytes` are shared, not copied.
            match self.submit(proposal.clone()).await?.applied().await {
                Err(ProposeError::LeaseExpired) => {}
                outcome => return outcome,
            }
            self.read_index().await.map_err(|e| match e {
                ReadIndexError::NotLeader { leader } => ProposeError::NotLeader { leader },
                ReadIndexError::Stopped(reason) => ProposeError::Stopped(reason),
            })?;
        }
        Err(ProposeError::NotLeader { leader: None })
    }

    /// Proposes an entry and returns as soon as its position among this handle's proposals is fixed: entries of one
    /// caller that submits one after the other keep that order. Waits until the bytes in flight are below the limit.
    pub async fn submit(&self, proposal: Proposal) -> Result<Pending, ProposeError> {
        let group = &self.0;
        // In the log store this would be a failed append, which stops the replica, and the next leader's after it.
        if proposal.entry_bytes() > ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge(proposal.entry_bytes()));
        }
        group.touch();
        let stopped = |otherwise: &str| ProposeError::Stopped(group.failure().unwrap_or_else(|| otherwise.into()));
        // A proposal above the limit is in flight alone.
        let bytes = proposal.bytes().clamp(1, group.options.in_flight_bytes_max);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let in_flight = group.in_flight.clone().acquire_many_owned(permits).await.map_err(|_| stopped("stopped"))?;
        let repeated = mutants::is_on(Bug::UnknownProposalRepeated).then(|| proposal.clone());
        let (answer, result) = ProposalResponder::holding(in_flight);
        group.raft.client_write_ff(proposal, Some(answer)).await.map_err(|e| stopped(&e.to_string()))?;
        Ok(Pending { result, group: group.clone(), repeated })
    }

    /// Confirms with a majority that this replica still leads, and waits until everything committed before the call is
    /// applied here. Returns the read index.
    pub async fn read_index(&self) -> Result<RaftIndex, ReadIndexError> {
        let group = &self.0;
        group.touch();
        let stopped = |otherwise: &str| ReadIndexError::Stopped(group.failure().unwrap_or_else(|| otherwise.into()));
        if mutants::is_on(Bug::StaleLeaderServes) {
            return Ok(group.applier.applied().map_or(RaftIndex(0), |id| id.index));
        }
        // Never a lease read: a failover does not wait for the lease.
        let linearizer = group.raft.get_read_linearizer(ReadPolicy::ReadIndex).await.map_err(|e| match e {
            RaftCallError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
                ReadIndexError::NotLeader { leader: forward.leader_id.map(ReplicaId) }
            }
            RaftCallError::APIError(LinearizableReadError::QuorumNotEnough(_)) => {
                ReadIndexError::NotLeader { leader: None }
            }
            RaftCallError::Fatal(e) => stopped(&e.to_string()),
        })?;
        let index = RaftIndex(linearizer.read_log_id().index());
        self.wait_applied(index).await.map_err(ReadIndexError::Stopped)?;
        Ok(index)
    }

    /// Waits until everything up to `index` is applied here; the reason if the replica stops before.
    pub async fn wait_applied(&self, index: RaftIndex) -> Result<(), Arc<str>> {
        let group = &self.0;
        let reached = |applied: &Option<LogId>| applied.is_some_and(|id| id.index >= index);
        if reached(&group.applier.applied()) {
            return Ok(());
        }
        let (mut applied, mut role) = (group.applier.watch_applied(), group.role_tracker.role());
        tokio::select! {
            biased;
            _ = applied.wait_for(reached) => Ok(()),
            _ = role.wait_for(|role| role.stopped) => Err(group.failure().unwrap_or_else(|| "stopped".into())),
        }
    }

    /// The role, and its changes.
    #[must_use]
    pub fn role(&self) -> watch::Receiver<Role> {
        self.0.role_tracker.role()
    }

    /// Starts an election at once.
    pub async fn campaign(&self) -> Result<(), RaftError> {
        self.0.touch();
        self.0.campaign(false).await
    }

    /// For how long this group has had no leader, as far as is known here; `None` while it has one.
    #[must_use]
    pub fn leaderless_for(&self) -> Option<Duration> {
        self.0.role_tracker.leaderless_for()
    }

    /// True if this replica follows a leader and received a message of it within this time: it is hardly behind.
    #[must_use]
    pub fn has_leader_contact_within(&self, time: Duration) -> bool {
        self.0.has_leader_contact_within(time)
    }

    /// The membership as last seen.
    #[must_use]
    pub fn membership(&self) -> Membership {
        self.0.members()
    }

    /// The last entry applied here.
    #[must_use]
    pub fn applied(&self) -> Option<LogId> {
        self.0.applier.applied()
    }

    /// The last entry applied here, and its changes.
    #[must_use]
    pub fn watch_applied(&self) -> watch::Receiver<Option<LogId>> {
        self.0.applier.watch_applied()
    }

    /// Puts this replica's writes first in every commit, up to a quarter of it: for metadata and coordinators.
    pub fn set_priority(&self, first: bool) {
        self.0.applier.set_priority(first);
    }

    /// The next split or merge that apply has decided here, in order; `None` once the replica has stopped and none is left.
    pub async fn next_resize(&self) -> Option<Resize> {
        let (applier, mut role) = (&self.0.applier, self.0.role_tracker.role());
        let mut stopped = false;
        loop {
            let resize = applier.take_resize();
            if resize.is_some() || stopped {
                return resize;
            }
            tokio::select! {
                biased;
                () = applier.resized() => {}
                _ = role.wait_for(|role| role.stopped) => stopped = true,
            }
        }
    }

    /// The caller waits until all splits and merges that this replica applied are durable; for ever, if the disk fails.
    pub async fn resizes_ended(&self) {
        self.0.applier.resizes_ended().await;
    }

    /// True if all splits and merges that were applied here are durable.
    #[must_use]
    pub fn has_no_open_resize(&self) -> bool {
        self.0.applier.has_no_open_resize()
    }

    /// True if the log here begins behind an entry; if not, it is purged up to there as soon as a checkpoint contains it: members
    /// that lack it get a snapshot then.
    #[must_use]
    pub fn begins_behind(&self, index: RaftIndex) -> bool {
        let begins_behind = self.0.log.purged().is_some_and(|purged| purged.index >= index);
        if !begins_behind {
            self.0.damage.note_committed(index);
        }
        begins_behind
    }

    /// This replica, for another one here that takes over its state.
    #[must_use]
    pub fn to_absorb(&self) -> Arc<dyn AbsorbedReplica> {
        self.0.applier.clone()
    }

    /// Why the replica stopped, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<str>> {
        self.0.failure()
    }

    /// Stops this replica; its state stays on disk.
    pub async fn shutdown(&self) {
        self.0.shutdown().await;
    }
}
