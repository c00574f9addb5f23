//! A leader that says nothing any more, although its process may live: a follower that has heard nothing for a second asks the
//! others, and when a majority has not heard of the leader either, takes over without waiting for the lease.
//!
//! One who hears its leader never agrees, so a follower that is cut off from its leader alone disturbs nobody: its term does
//! not grow, and the leader stays. A leader that no majority answers serves nobody until one does: clients that still reach it
//! look for another. It also holds its peace, but for a moment now and then: where what it sends arrives and the answers do
//! not, its followers would hear it, stay its followers, and have nobody who serves.
//!
//! May not know: why somebody is silent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, ready};
use openraft::Instant;
use openraft::async_runtime::WatchReceiver;
use ottla_storage::entry::Vote;
use ottla_storage::env::rt;
use ottla_storage::ids::{LogId, ReplicaId};

use crate::group::Group;
use crate::net::{Message, Priority};

/// Who has said nothing for so long, four heartbeats, is doubted.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// Between two rounds of asking the others.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the others have to answer.
const ANSWER_WAIT: Duration = Duration::from_millis(300);

/// A leader that no majority has answered for so long serves nobody.
const UNANSWERED_MAX: Duration = Duration::from_secs(2);
/// How often a leader looks whether it is answered.
const LOOK: Duration = Duration::from_millis(250);
/// One that is not says nothing for so long, which is enough to be doubted and replaced; then it tries whether it is answered.
const PEACE: Duration = Duration::from_secs(2);
/// How long it tries.
const TRIAL: Duration = Duration::from_secs(1);

/// True if a leader that has been unanswered for so long holds its peace.
fn holds_peace(silent: Duration) -> bool {
    let Some(past) = silent.checked_sub(UNANSWERED_MAX) else { return false };
    past.as_millis() % (PEACE + TRIAL).as_millis() < PEACE.as_millis()
}

impl Group {
    /// Notes whether a majority has answered this leader lately. One that was given up serves again when all that it has logged
    /// is applied: whoever gave his entries up reads the state that they make, not the one before.
    fn look_at_quorum(&self) {
        let metrics = self.raft.data_metrics();
        // Not known before the first answer: until then nothing of its term is committed, and it does not serve anyhow.
        let silent = metrics.borrow_watched().last_quorum_acked.as_ref().map(|at| at.elapsed());
        let is_answered = silent.is_none_or(|silent| silent < UNANSWERED_MAX);
        let is_alone = self.members().is_sole_voter(self.replica);
        if silent.is_some_and(holds_peace) && !is_alone {
            self.progress.mute(self.role().term);
        } else {
            self.progress.speak();
        }
        let is_settled = !self.progress.is_unanswered() || self.applier.applied() >= self.log.last_log_id();
        self.progress.is_answered((is_answered && is_settled) || is_alone);
    }

    /// The leader that this replica follows, if it has a vote.
    fn followed(&self) -> Option<ReplicaId> {
        let leader = self.role().leader.filter(|leader| *leader != self.replica)?;
        self.members().is_voter(self.replica).then_some(leader)
    }

    /// Takes over from a leader that has fallen silent, and watches whether anybody answers this one, until the replica stops.
    pub(crate) async fn watch_silence(self: Arc<Self>) {
        let mut role = self.progress.role();
        loop {
            let wait = match self.followed() {
                None if self.progress.leads() => {
                    self.look_at_quorum();
                    LOOK
                }
                None => LOOK,
                Some(leader) => match SILENCE_MAX.checked_sub(self.silence()) {
                    Some(left) if left > Duration::ZERO => left,
                    _ => {
                        if self.is_doubted_by_a_majority(leader).await && self.suspects(SILENCE_MAX) {
                            tracing::info!(replica = self.replica.0, leader = leader.0, "the leader is silent");
                            self.succeed(leader, &|replica| replica == leader, ready(true)).await;
                        }
                        PAUSE
                    }
                },
            };
            let stopped = async { role.wait_for(|role| role.stopped).await.is_ok() };
            tokio::select! {
                biased;
                _ = stopped => return,
                () = rt::sleep(wait) => {}
            }
        }
    }

    async fn is_doubted_by_a_majority(&self, leader: ReplicaId) -> bool {
        let (Some(vote), last_log_id) = (self.log.vote(), self.log.last_log_id()) else { return false };
        let configs = self.members().voters;
        let others: BTreeSet<_> = configs.iter().flatten().copied().filter(|voter| *voter != self.replica).collect();
        let asked = others.into_iter().filter(|voter| *voter != leader).map(|voter| async move {
            let question = Message::RequestVote { pre_vote: true, vote, last_log_id, leadership_transfer: true };
            let answer = self.network.call(self.replica, voter, question, Priority::Normal, ANSWER_WAIT).await;
            matches!(answer, Ok(Message::RequestVoteResponse { granted: true, .. })).then_some(voter)
        });
        let mut doubting: BTreeSet<_> = join_all(asked).await.into_iter().flatten().collect();
        doubting.insert(self.replica);
        configs.iter().all(|config| config.intersection(&doubting).count() > config.len() / 2)
    }

    /// Another follower asks whether this one has not heard of the leader either, and could vote for it.
    pub(crate) fn doubts_too(&self, vote: Vote, last_log_id: Option<LogId>) -> Message {
        let (own, own_last) = (self.log.vote(), self.log.last_log_id());
        let silent = self.followed().is_some() && self.silence() >= SILENCE_MAX;
        let same = own.is_some_and(|own| (own.term, own.voted_for) == (vote.term, vote.voted_for));
        let granted = silent && same && last_log_id >= own_last;
        Message::RequestVoteResponse { vote: own.unwrap_or(vote), last_log_id: own_last, granted }
    }
}
