//! Liveness of the leader as its followers see it: a follower that has heard nothing for a second sends pre-votes, and
//! when a majority has not heard from the leader either, takes over without waiting for the lease.
//!
//! The leader's process may be alive. A replica that hears the leader never grants such a pre-vote, so a follower that
//! is cut off from the leader alone disturbs nothing: its term does not grow, and the leader stays. The leader's side
//! is `check_quorum`. May not know: why the leader is silent.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::ready;
use ottla_storage::entry::Vote;
use ottla_storage::ids::{LogId, ReplicaId};

use crate::check_quorum::{PRE_VOTE_TIMEOUT, SUSPEND_TIME};
use crate::group::Group;
use crate::net::Message;
use crate::options::{ELECTION_MAX, HEARTBEAT};
use crate::role::stops_within;

/// A leader that has sent nothing for so long, four heartbeats, is suspected.
const LEADER_SILENCE_MAX: Duration = Duration::from_secs(1);
/// Between two rounds of pre-votes.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// How often a leader checks its quorum, and a replica without a leader whether it has one.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

// A silent leader is replaced before its lease ends, and a leader that suspends its heartbeats long enough to be.
const _: () = assert!(LEADER_SILENCE_MAX.as_millis() == 4 * HEARTBEAT.as_millis());
const _: () = assert!(LEADER_SILENCE_MAX.as_millis() + PRE_VOTE_TIMEOUT.as_millis() < ELECTION_MAX.as_millis());
const _: () = assert!(SUSPEND_TIME.as_millis() > LEADER_SILENCE_MAX.as_millis() + PRE_VOTE_TIMEOUT.as_millis());

impl Group {
    /// The leader that this replica follows, if this replica is a voter.
    fn followed_leader(&self) -> Option<ReplicaId> {
        let leader = self.role().leader.filter(|leader| *leader != self.replica)?;
        self.members().is_voter(self.replica).then_some(leader)
    }

    /// Until the replica stops: as a follower takes over from a leader that has fallen silent, as the leader checks its
    /// quorum.
    pub(crate) async fn watch_liveness(self: Arc<Self>) {
        let mut role = self.role_tracker.role();
        loop {
            let wait = match self.followed_leader() {
                None if self.role_tracker.leads() => {
                    self.check_quorum().await;
                    CHECK_INTERVAL
                }
                None => CHECK_INTERVAL,
                Some(leader) => match LEADER_SILENCE_MAX.checked_sub(self.leader_silence()) {
                    Some(left) if left > Duration::ZERO => left,
                    _ => {
                        if self.majority_suspects(leader).await && self.begin_suspicion(LEADER_SILENCE_MAX) {
                            tracing::info!(replica = self.replica.0, leader = leader.0, "the leader is silent");
                            self.take_over(leader, &|replica| replica == leader, ready(true)).await;
                        }
                        ROUND_PAUSE
                    }
                },
            };
            if stops_within(&mut role, wait).await {
                return;
            }
        }
    }

    async fn majority_suspects(&self, leader: ReplicaId) -> bool {
        let grants = |response: &Message| matches!(response, Message::RequestVoteResponse { granted: true, .. });
        self.majority_answers(&|voter| voter != leader, &grants).await
    }

    /// Answers the pre-vote of a follower that suspects the leader, or of the leader itself: granted if this replica has not
    /// heard from the leader either, and could vote for the sender.
    pub(crate) fn pre_vote_for_failed_leader(
        &self,
        from: ReplicaId,
        vote: Vote,
        last_log_id: Option<LogId>,
    ) -> Message {
        let (own, own_last) = (self.log.vote(), self.log.last_log_id());
        // A replica that suspects the leader already names none.
        let follows = self.followed_leader().is_some() || from == vote.voted_for;
        let silent = follows && self.leader_silence() >= LEADER_SILENCE_MAX;
        let same = own.is_some_and(|own| (own.term, own.voted_for) == (vote.term, vote.voted_for));
        let granted = silent && same && last_log_id >= own_last;
        Message::RequestVoteResponse { vote: own.unwrap_or(vote), last_log_id: own_last, granted }
    }
}
