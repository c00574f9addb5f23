//! CheckQuorum: a leader that no majority acknowledges stops serving until one does, so that clients that still reach
//! it look for another leader.
//!
//! Before it stops it asks its followers whether they follow it: openraft answers a heartbeat when all that was sent before
//! is durable, and the disks of a majority may be slow.
//!
//! A leader that has stopped serving also suspends its heartbeats, for 2 of every 3 seconds: where its messages arrive and the responses do not, its
//! followers would otherwise hear it, remain its followers, and have no leader that serves. May not know: why responses
//! are missing.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::Instant;
use openraft::async_runtime::WatchReceiver;
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_storage::ids::ReplicaId;

use crate::group::Group;
use crate::net::{Message, Priority};
use crate::options::{ELECTION_MAX, HEARTBEAT};

/// A leader that no majority has acknowledged for so long asks its followers whether they follow it: their disks may be slow.
const ASK_AFTER: Duration = Duration::from_secs(1);
/// A leader that no majority has acknowledged for so long stops serving.
const QUORUM_SILENCE_MAX: Duration = Duration::from_secs(2);
/// Such a leader sends nothing for so long, which is enough to be suspected and replaced; then it tries whether it is
/// acknowledged.
pub(crate) const SUSPEND_TIME: Duration = Duration::from_secs(2);
/// How long the other voters have to answer a pre-vote.
pub(crate) const PRE_VOTE_TIMEOUT: Duration = Duration::from_millis(480);
/// How long it tries.
const TRIAL_TIME: Duration = Duration::from_secs(1);

// Followers elect another leader before one that is only slow gives up; a trial sends more than one heartbeat.
const _: () = assert!(QUORUM_SILENCE_MAX.as_millis() > ELECTION_MAX.as_millis());
// The followers have answered, or have not, before the leader stops serving.
const _: () = assert!(QUORUM_SILENCE_MAX.as_millis() > ASK_AFTER.as_millis() + 2 * PRE_VOTE_TIMEOUT.as_millis());
const _: () = assert!(TRIAL_TIME.as_millis() >= 2 * HEARTBEAT.as_millis());

/// True if a leader that has been unacknowledged for so long sends no heartbeats.
fn suspends_heartbeats(silent: Duration) -> bool {
    let Some(past) = silent.checked_sub(QUORUM_SILENCE_MAX) else { return false };
    past.as_millis() % (SUSPEND_TIME + TRIAL_TIME).as_millis() < SUSPEND_TIME.as_millis()
}

impl Group {
    /// Notes whether a majority has acknowledged this leader lately. A leader that had lost its quorum serves again
    /// when all that it has logged is applied: a client that gave up waiting for its entries reads the state that they
    /// make, not the one before.
    pub(crate) async fn check_quorum(&self) {
        let asks = !mutants::is_on(Bug::StalledLeaderSilent);
        if self.unacknowledged().is_some_and(|silent| asks && silent >= ASK_AFTER) {
            let asked_at = rt::now();
            if self.majority_follows().await {
                self.role_tracker.note_followed(asked_at);
            }
        }
        let silent = self.unacknowledged().map(|silent| silent.min(self.role_tracker.not_followed()));
        let is_acknowledged = silent.is_none_or(|silent| silent < QUORUM_SILENCE_MAX);
        let is_alone = self.members().is_sole_voter(self.replica);
        if silent.is_some_and(suspends_heartbeats) && !is_alone {
            self.role_tracker.suspend_heartbeats(self.role().term);
        } else {
            self.role_tracker.resume_heartbeats();
        }
        let is_settled = !self.role_tracker.has_lost_quorum() || self.applier.applied() >= self.log.last_log_id();
        self.role_tracker.set_has_quorum((is_acknowledged && is_settled) || is_alone);
    }

    /// For how long no majority has acknowledged this leader. Not known before the first response: until then nothing of
    /// its term is committed, and it does not serve anyhow.
    fn unacknowledged(&self) -> Option<Duration> {
        self.raft.data_metrics().borrow_watched().last_quorum_acked.as_ref().map(|at| at.elapsed())
    }

    /// True if a majority refuses this leader's own pre-vote, since it follows it in its term. Other than a heartbeat, which
    /// is answered when all that was sent before is durable, this waits for no disk.
    async fn majority_follows(&self) -> bool {
        let own = self.log.vote().map(|vote| (vote.term, vote.voted_for));
        let follows = |response: &Message| match response {
            Message::RequestVoteResponse { vote, granted: false, .. } => own == Some((vote.term, vote.voted_for)),
            _ => false,
        };
        self.majority_answers(&|_| true, &follows).await
    }

    /// Sends a pre-vote to the other voters of which `is_asked` holds; true if those whose answers count are a majority
    /// together with this replica.
    pub(crate) async fn majority_answers(
        &self,
        is_asked: &(dyn Fn(ReplicaId) -> bool + Sync),
        counts: &(dyn Fn(&Message) -> bool + Sync),
    ) -> bool {
        let (Some(vote), last_log_id) = (self.log.vote(), self.log.last_log_id()) else { return false };
        let configs = self.members().voters;
        let others: BTreeSet<_> = configs.iter().flatten().copied().filter(|voter| *voter != self.replica).collect();
        let answers = others.into_iter().filter(|voter| is_asked(*voter)).map(|voter| async move {
            let request = Message::RequestVote { pre_vote: true, vote, last_log_id, leadership_transfer: true };
            let response = self.network.call(self.replica, voter, request, Priority::Normal, PRE_VOTE_TIMEOUT).await;
            response.is_ok_and(|response| counts(&response)).then_some(voter)
        });
        let (mut answers, mut counted) = (answers.collect::<FuturesUnordered<_>>(), BTreeSet::from([self.replica]));
        let is_majority = |counted: &BTreeSet<ReplicaId>| {
            configs.iter().all(|config| config.intersection(counted).count() > config.len() / 2)
        };
        // One that does not answer is not waited for.
        while !is_majority(&counted) {
            match answers.next().await {
                Some(voter) => counted.extend(voter),
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_are_suspended_and_tried_in_turn_as_long_as_nobody_acknowledges_them() {
        let after = |millis: u64| suspends_heartbeats(QUORUM_SILENCE_MAX + Duration::from_millis(millis));
        assert!(!suspends_heartbeats(QUORUM_SILENCE_MAX - Duration::from_millis(1)));
        let (suspended, cycle) = (SUSPEND_TIME, SUSPEND_TIME + TRIAL_TIME);
        for turn in 0..3_u64 {
            let begin = turn * u64::try_from(cycle.as_millis()).unwrap_or(0);
            let end = begin + u64::try_from(suspended.as_millis()).unwrap_or(0);
            assert!(after(begin) && after(end - 1) && !after(end), "turn {turn}");
        }
    }
}
