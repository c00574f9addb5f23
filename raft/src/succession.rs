//! Leadership that changes hands before its time is over: handed over before a node stops and when the leader's disk hangs,
//! taken over when the process of a leader is known to have died, or when a majority has not heard of it.
//!
//! Suspicion only speeds an election up: whoever is suspected falsely is outvoted by a majority, or leads on. It bypasses the
//! lease, so reads never rest on that. May not know: how anybody learned that a node died.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use openraft::raft::TransferLeaderRequest;
use ottla_storage::env::critical::Owner;
use ottla_storage::env::rt;
use ottla_storage::ids::{ReplicaId, Term};

use crate::error::RaftError;
use crate::group::Group;
use crate::handle::GroupHandle;
use crate::host::RaftHost;
use crate::net::{Message, Priority};
use crate::types::{to_raft_log_id, to_raft_vote};

/// The replicas that are left campaign one after another, the first at once: time for one to be elected.
const TURN: Duration = Duration::from_millis(150);
/// How long the others have to say how long their logs are.
const LOG_WAIT: Duration = Duration::from_millis(100);
/// How long a group that was suspected is left alone.
const PATIENCE: Duration = Duration::from_secs(1);

/// A leader hands over when its disk has taken nothing for so long although entries wait.
const WRITE_MAX: Duration = Duration::from_secs(2);

impl Group {
    /// True if nothing was synced for too long although something waits to be.
    fn is_stuck(&self) -> bool {
        let (last, synced, now) = (self.log.last_log_id(), self.log.last_synced(), rt::now());
        let mut unsynced = self.unsynced.lock();
        if last <= synced {
            *unsynced = None;
            return false;
        }
        let since = unsynced.filter(|(at, _)| *at == synced).map_or(now, |(_, since)| since);
        *unsynced = Some((synced, since));
        now.since(since) >= WRITE_MAX
    }

    /// Hands leadership over if this replica's disk hangs: others may have a majority that syncs.
    pub(crate) fn hand_over_if_stuck(self: &Arc<Self>) {
        let leads = self.role().leader == Some(self.replica);
        if self.is_stuck() && leads && self.suspects(PATIENCE) {
            tracing::warn!(replica = self.replica.0, "the disk takes nothing: leadership is handed over");
            let group = GroupHandle(self.clone());
            rt::spawn_critical("raft-hand-over", self.owner(), async move { group.hand_over(PATIENCE).await });
        }
    }

    /// Campaigns although the leader's lease is not over, when it is this replica's turn and nobody else has won. Meanwhile,
    /// and until it is known that the leader is dead, nobody is sent to it: clients ask again soon where there is none, and
    /// wait long for one that is dead.
    pub(crate) async fn succeed(
        &self,
        dead: ReplicaId,
        is_dead: &(dyn Fn(ReplicaId) -> bool + Send + Sync),
        confirmed: impl Future<Output = bool>,
    ) {
        let term = self.role().term;
        self.progress.suspect(term);
        if confirmed.await {
            self.campaign(dead, term, is_dead).await;
            rt::sleep(PATIENCE).await;
        } else {
            self.trusts();
        }
        self.progress.clear(term);
    }

    async fn campaign(&self, dead: ReplicaId, term: Term, is_dead: &(dyn Fn(ReplicaId) -> bool + Send + Sync)) {
        let voters = self.members().voters.into_iter().flatten().filter(|voter| !is_dead(*voter));
        let mut voters: Vec<_> = voters.collect();
        voters.sort_unstable();
        voters.dedup();
        // By turns, so that the leaders of many groups are not all on one node afterwards.
        let first = usize::try_from((term.0 + dead.0) % (voters.len().max(1) as u64)).unwrap_or(0);
        voters.rotate_left(first);
        // Who only learns never campaigns.
        let Some(own) = voters.iter().position(|voter| *voter == self.replica) else { return };
        let turn = self.turn(&voters, own).await;
        rt::sleep(TURN * turn).await;
        let role = self.role();
        if role.stopped || role.term != term || role.leader.is_some() {
            return;
        }
        let (Some(vote), last) = (self.log.vote(), self.log.last_log_id()) else { return };
        let request = TransferLeaderRequest::new(to_raft_vote(vote), self.replica.0, last.map(to_raft_log_id));
        let campaign = self.raft.handle_transfer_leader(request).await;
        tracing::info!(replica = self.replica.0, leader = dead.0, "the leader is taken for dead: {campaign:?}");
    }

    /// How many of these voters campaign before this one, which stands at place `own`: those with more entries, then those before
    /// it in the list. Whoever lacks what another one has is not elected, and would keep that one from being elected in the same term.
    async fn turn(&self, voters: &[ReplicaId], own: usize) -> u32 {
        let (vote, last_log_id) = (self.log.vote(), self.log.last_log_id());
        let asked = voters.iter().enumerate().filter(|(place, _)| *place != own).map(|(place, voter)| async move {
            let question = Message::RequestVote { pre_vote: true, vote: vote?, last_log_id, leadership_transfer: true };
            match self.network.call(self.replica, *voter, question, Priority::Normal, LOG_WAIT).await {
                Ok(Message::RequestVoteResponse { last_log_id: theirs, .. }) => {
                    Some(theirs > last_log_id || (theirs == last_log_id && place < own))
                }
                _ => None,
            }
        });
        let is_before = join_all(asked).await.into_iter().flatten().filter(|is_before| *is_before).count();
        u32::try_from(is_before).unwrap_or(u32::MAX)
    }
}

impl GroupHandle {
    /// Hands leadership to `to`, another voter; the role tells when it is done. Meanwhile nobody is sent here: what comes now is
    /// refused, and who is told once more that this replica leads asks again much later.
    pub async fn transfer(&self, to: ReplicaId) -> Result<(), RaftError> {
        let group = &self.0;
        // openraft would wait for ever for a leader that hands over to itself.
        if to == group.replica || !self.membership().is_voter(to) {
            return Err(RaftError::Refused(format!("replica {to} is not another voter of this group")));
        }
        group.touch();
        let term = group.role().term;
        group.progress.suspect(term);
        let handed_over = group.raft.trigger().transfer_leader(to.0).await;
        let progress = group.progress.clone();
        rt::spawn_critical("raft-transfer", group.owner(), async move {
            rt::sleep(PATIENCE).await;
            progress.clear(term);
        });
        handed_over.map_err(|e| group.stopped(&e.to_string()))
    }

    /// Hands leadership to another voter, if this replica leads and there is one who has caught up; returns when somebody
    /// else leads, or after `patience`.
    async fn hand_over(&self, patience: Duration) {
        let group = &self.0;
        if group.role().leader != Some(group.replica) {
            return;
        }
        let voters = group.members().voters.into_iter().flatten();
        let mut heirs: Vec<_> = voters.filter(|voter| *voter != group.replica && group.is_caught_up(*voter)).collect();
        heirs.sort_unstable();
        heirs.dedup();
        if heirs.is_empty() {
            return;
        }
        let first = usize::try_from(group.role().term.0 % heirs.len() as u64).unwrap_or(0);
        heirs.rotate_left(first);
        let mut role = self.role();
        for heir in &heirs {
            if self.transfer(*heir).await.is_err() {
                return;
            }
            let gone = role.wait_for(|role| role.stopped || role.leader.is_some_and(|leader| leader != group.replica));
            if rt::timeout(patience / u32::try_from(heirs.len()).unwrap_or(1), gone).await.is_ok() {
                return;
            }
        }
    }
}

impl RaftHost {
    /// True if whoever is there may just have died.
    #[must_use]
    pub fn is_suspected(&self, replica: ReplicaId) -> bool {
        self.0.suspicions.cover(replica)
    }

    /// Hands over what is led here to whoever has caught up, before the node stops.
    pub async fn hand_over(&self, patience: Duration) {
        let groups = self.groups();
        join_all(groups.iter().map(|group| group.hand_over(patience))).await;
    }

    /// The process with these replicas has died, if that is `confirmed`: groups that one of them leads elect at once then, and
    /// send nobody there before.
    pub fn suspect(
        &self,
        is_dead: impl Fn(ReplicaId) -> bool + Send + Sync + Clone + 'static,
        confirmed: impl Future<Output = bool> + Send + 'static,
    ) {
        let confirmed = confirmed.boxed().shared();
        let number = self.0.suspicions.begin(Arc::new(is_dead.clone()));
        let (host, known) = (self.downgrade(), confirmed.clone());
        rt::spawn_critical("suspicion", Owner::process(), async move {
            if known.await {
                rt::sleep(PATIENCE).await;
            }
            if let Some(host) = host.upgrade() {
                host.0.suspicions.end(number);
            }
        });
        for GroupHandle(group) in self.groups() {
            let leader = group.role().leader.filter(|leader| *leader != group.replica && is_dead(*leader));
            let Some(leader) = leader else { continue };
            if !group.suspects(PATIENCE) {
                continue;
            }
            let (is_dead, confirmed) = (is_dead.clone(), confirmed.clone());
            let owner = group.owner();
            rt::spawn_critical(
                "raft-succession",
                owner,
                async move { group.succeed(leader, &is_dead, confirmed).await },
            );
        }
    }
}
