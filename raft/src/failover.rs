//! Failover: electing a new leader before the election timeout, when the old leader's process has died or a majority
//! has not heard from the leader.
//!
//! Suspicion only speeds an election up: a leader that is suspected falsely is outvoted by a majority, or continues to
//! lead. The election bypasses the lease, so reads never rest on the lease. May not know: how it was learned that a
//! node died.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use openraft::raft::TransferLeaderRequest;
use ottla_env::critical::Owner;
use ottla_env::rt;
use ottla_storage::ids::{ReplicaId, Term};

use crate::group::Group;
use crate::handle::GroupHandle;
use crate::host::RaftHost;
use crate::net::{Message, Priority};
use crate::openraft_types::{to_raft_log_id, to_raft_vote};

/// The remaining voters campaign one after another, the first at once: time for one of them to be elected.
const CAMPAIGN_TURN: Duration = Duration::from_millis(150);
/// How long the other voters have to answer with the end of their logs.
const LOG_END_TIMEOUT: Duration = Duration::from_millis(100);
/// For how long the leader of a term that was suspected is not suspected again.
pub(crate) const SUSPICION_INTERVAL: Duration = Duration::from_secs(1);

impl Group {
    /// Takes over leadership from `dead` if that is `confirmed`: campaigns before the leader's lease is over, when it
    /// is this replica's turn and no other replica has won. Meanwhile, and until it is known whether the leader is
    /// dead, the role names no leader: a client that finds no leader retries soon, a client that is sent to a dead node
    /// waits long.
    pub(crate) async fn take_over(
        &self,
        dead: ReplicaId,
        is_dead: &(dyn Fn(ReplicaId) -> bool + Send + Sync),
        confirmed: impl Future<Output = bool>,
    ) {
        let term = self.role().term;
        self.role_tracker.hide_leader(term);
        if confirmed.await {
            self.campaign_in_turn(dead, term, is_dead).await;
            rt::sleep(SUSPICION_INTERVAL).await;
        } else {
            self.clear_suspicion();
        }
        self.role_tracker.show_leader(term);
    }

    async fn campaign_in_turn(&self, dead: ReplicaId, term: Term, is_dead: &(dyn Fn(ReplicaId) -> bool + Send + Sync)) {
        let voters = self.members().voters.into_iter().flatten().filter(|voter| !is_dead(*voter));
        let mut voters: Vec<_> = voters.collect();
        voters.sort_unstable();
        voters.dedup();
        // Rotated by term and dead leader, so that the leaders of many groups are not all on one node afterwards.
        let first = usize::try_from((term.0 + dead.0) % (voters.len().max(1) as u64)).unwrap_or(0);
        voters.rotate_left(first);
        // A learner never campaigns.
        let Some(own) = voters.iter().position(|voter| *voter == self.replica) else { return };
        let turn = self.campaign_position(&voters, own).await;
        rt::sleep(CAMPAIGN_TURN * turn).await;
        let role = self.role();
        if role.stopped || role.term != term || role.leader.is_some() {
            return;
        }
        let (Some(vote), last) = (self.log.vote(), self.log.last_log_id()) else { return };
        let request = TransferLeaderRequest::new(to_raft_vote(vote), self.replica.0, last.map(to_raft_log_id));
        let refused = match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => None,
            Ok(Err(refusal)) => Some(refusal.to_string()),
            Err(stopped) => Some(stopped.to_string()),
        };
        let outcome = refused.map_or_else(|| "this replica campaigns".to_owned(), |why| format!("no campaign: {why}"));
        tracing::info!(replica = self.replica.0, leader = dead.0, "the leader is taken for dead: {outcome}");
    }

    /// How many of these voters campaign before this one, which is at index `own`: those with longer logs, then those
    /// before it in the list. A candidate whose log is shorter than another's is not elected, and would keep the other
    /// from being elected in the same term.
    async fn campaign_position(&self, voters: &[ReplicaId], own: usize) -> u32 {
        let (vote, last_log_id) = (self.log.vote(), self.log.last_log_id());
        let others = voters.iter().enumerate().filter(|(place, _)| *place != own);
        let responses = others.map(|(place, voter)| async move {
            let request = Message::RequestVote { pre_vote: true, vote: vote?, last_log_id, leadership_transfer: true };
            match self.network.call(self.replica, *voter, request, Priority::Normal, LOG_END_TIMEOUT).await {
                Ok(Message::RequestVoteResponse { last_log_id: theirs, .. }) => {
                    Some(theirs > last_log_id || (theirs == last_log_id && place < own))
                }
                _ => None,
            }
        });
        let is_before = join_all(responses).await.into_iter().flatten().filter(|is_before| *is_before).count();
        u32::try_from(is_before).unwrap_or(u32::MAX)
    }
}

impl RaftHost {
    /// True if the process that runs this replica may just have died.
    #[must_use]
    pub fn is_suspected(&self, replica: ReplicaId) -> bool {
        self.0.failure_detector.is_suspected(replica)
    }

    /// The process with the replicas for which `is_dead` holds has died, if that is `confirmed`: groups that one of
    /// them leads elect a new leader at once then, and name no leader before.
    pub fn suspect(
        &self,
        is_dead: impl Fn(ReplicaId) -> bool + Send + Sync + Clone + 'static,
        confirmed: impl Future<Output = bool> + Send + 'static,
    ) {
        let confirmed = confirmed.boxed().shared();
        let suspicion = self.0.failure_detector.begin(Arc::new(is_dead.clone()));
        let (host, known) = (self.downgrade(), confirmed.clone());
        rt::spawn_critical("suspicion", Owner::process(), async move {
            if known.await {
                rt::sleep(SUSPICION_INTERVAL).await;
            }
            if let Some(host) = host.upgrade() {
                host.0.failure_detector.end(suspicion);
            }
        });
        for GroupHandle(group) in self.groups() {
            let leader = group.role().leader.filter(|leader| *leader != group.replica && is_dead(*leader));
            let Some(leader) = leader else { continue };
            if !group.begin_suspicion(SUSPICION_INTERVAL) {
                continue;
            }
            let (is_dead, confirmed) = (is_dead.clone(), confirmed.clone());
            let owner = group.owner();
            let failover = async move { group.take_over(leader, &is_dead, confirmed).await };
            rt::spawn_critical("raft-failover", owner, failover);
        }
    }
}
