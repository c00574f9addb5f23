//! The way to whoever leads the metadata group: this node decides, or asks the node that does.
//!
//! A question names the leader's term and is acted upon at most once: a repeated one, and one that comes after its term, is
//! not. What an unanswered question did is unknown; only what may be asked twice is asked again. An answer is passed on when
//! this node has applied what the leader had applied. May not know: what is decided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_raft::{GroupHandle, Priority, RaftHost, Role};
use ottla_storage::env::{rt, watch};
use ottla_storage::ids::{RaftIndex, ReplicaId};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::decide::{Answer, Ask};
use super::error::MetadataError;
use super::forward::{Answered, Question, Want};
use super::image::{MetadataImage, ReplicaRecord, ShardId};
use super::quorum::{self, Clock};
use super::requests::MetadataQuorum;
use super::sessions::{Heartbeat, Sessions};
use super::writer::{Job, from_read_index, not_controller};

/// How long a change waits for the group to have a leader.
const LEADER_WAIT: Duration = Duration::from_secs(5);
/// How long a leader has to answer what can be asked again.
const TRY: Duration = Duration::from_secs(1);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Tries of a read index.
const READ_TRIES: u32 = 3;
/// How long what another node asked waits for its entry here.
const SERVED_WAIT: Duration = Duration::from_secs(30);
/// Lives of nodes whose questions a leader remembers.
const SESSIONS_MAX: usize = 256;

/// Numbers of questions that are on their way.
#[derive(Debug, Default)]
struct Asking {
    next: u64,
    waiting: BTreeSet<u64>,
}

/// What the leader of one term has acted upon, by the life of the node that asked.
#[derive(Debug, Default)]
struct Handled {
    term: u64,
    sessions: BTreeMap<u64, (u64, BTreeSet<u64>)>,
    order: std::collections::VecDeque<u64>,
}

impl Handled {
    /// True once for each question of a term, and never for one that nobody waits for any more.
    fn first_time(&mut self, question: &Question) -> bool {
        if question.term != self.term {
            *self = Self { term: question.term, ..Self::default() };
        }
        if !self.sessions.contains_key(&question.session) {
            self.order.push_back(question.session);
            if self.order.len() > SESSIONS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.sessions.remove(&oldest);
            }
        }
        let (floor, numbers) = self.sessions.entry(question.session).or_default();
        *floor = (*floor).max(question.floor);
        *numbers = numbers.split_off(floor);
        question.number >= *floor && numbers.insert(question.number)
    }
}

/// The metadata group as one of its members sees it.
pub(super) struct Peers {
    pub(super) group: GroupHandle,
    pub(super) images: watch::Receiver<Arc<MetadataImage>>,
    host: RaftHost,
    jobs: mpsc::Sender<Job>,
    session: u64,
    asking: Mutex<Asking>,
    handled: Mutex<Handled>,
    /// While this node leads: which nodes have a session.
    pub(super) sessions: Mutex<Sessions>,
    /// Grows when a node that is fenced sends a heartbeat.
    fenced_heard: watch::Sender<u64>,
}

impl Peers {
    /// Answers other nodes from now on.
    pub(super) fn start(
        host: RaftHost,
        group: GroupHandle,
        images: watch::Receiver<Arc<MetadataImage>>,
        jobs: mpsc::Sender<Job>,
    ) -> Arc<Self> {
        let (session, own) = (rt::random_u64(), group.replica());
        let (asking, handled, sessions) = Default::default();
        let (shared, fenced_heard) = (host.clone(), watch::Sender::new(0));
        let peers = Self { group, images, host: shared, jobs, session, asking, handled, sessions, fenced_heard };
        let peers = Arc::new(peers);
        let weak = Arc::downgrade(&peers);
        let service = move |_from: ReplicaId, question: bytes::Bytes| -> BoxFuture<'static, Option<bytes::Bytes>> {
            let peers = weak.upgrade();
            async move { Some(peers?.answer(Question::decode(&question).ok()?).await?.encode()) }.boxed()
        };
        host.serve(own, Arc::new(service));
        peers
    }

    fn role(&self) -> Role {
        *self.group.role().borrow()
    }

    /// Asks the writer of this node.
    pub(super) async fn here(&self, ask: Ask, validate_only: bool, timeout: Duration) -> Result<Answer, MetadataError> {
        let (answer, answered) = oneshot::channel();
        match self.jobs.try_send(Job { ask, validate_only, answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(MetadataError::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(stopped()),
        }
        match rt::timeout(timeout, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(stopped()),
            Err(_) => Err(MetadataError::TimedOut),
        }
    }

    /// What another node is answered; `None`: nothing, since it was acted upon before.
    async fn answer(&self, question: Question) -> Option<Answered> {
        let role = self.role();
        let outcome = if !role.ready || role.term.0 != question.term {
            Err(not_controller(&self.images.borrow(), role.leader))
        } else {
            match question.want {
                Want::ReadIndex => {
                    let outcome = self.read_here().await;
                    let index = *outcome.as_ref().unwrap_or(&RaftIndex(0));
                    return Some(Answered { index, outcome: outcome.map(|_| Answer::Done) });
                }
                Want::Quorum => self.quorum_here().await.map(Answer::Quorum),
                Want::Heartbeat(beat) => {
                    self.hear(beat);
                    Ok(Answer::Done)
                }
                Want::Change { .. } if !self.handled.lock().first_time(&question) => return None,
                Want::Change { ask, validate_only } => self.here(ask, validate_only, SERVED_WAIT).await,
            }
        };
        Some(Answered { index: self.group.applied().map_or(RaftIndex(0), |applied| applied.index), outcome })
    }

    /// Takes a heartbeat, as the leader.
    fn hear(&self, beat: Heartbeat) {
        self.sessions.lock().hear(beat, rt::now());
        if self.images.borrow().is_fenced(beat.node) {
            self.fenced_heard.send_modify(|version| *version += 1);
        }
    }

    /// Changes when a node that is fenced sends a heartbeat to this one.
    pub(super) fn fenced_heard(&self) -> watch::Receiver<u64> {
        self.fenced_heard.subscribe()
    }

    /// Sends a heartbeat to the leader, whichever node that is.
    pub(super) async fn beat(&self, beat: Heartbeat, wait: Duration) -> Result<(), MetadataError> {
        let role = self.role();
        match role.leader {
            _ if role.ready => {
                self.hear(beat);
                Ok(())
            }
            Some(leader) if leader != self.group.replica() => {
                self.forward(leader, role, Want::Heartbeat(beat), wait).await?.map(|_| ())
            }
            leader => Err(not_controller(&self.images.borrow(), leader)),
        }
    }

    /// Has the leader decide, whichever node that is.
    pub(super) async fn change(
        &self,
        ask: Ask,
        validate_only: bool,
        timeout: Duration,
    ) -> Result<Answer, MetadataError> {
        let deadline = rt::now() + timeout;
        let patience = rt::now() + timeout.min(LEADER_WAIT);
        let again = validate_only || ask.may_be_repeated();
        loop {
            let role = self.role();
            let left = deadline.since(rt::now());
            let outcome = match role.leader {
                _ if role.stopped => Err(stopped()),
                _ if role.ready => self.here(ask.clone(), validate_only, left).await,
                Some(leader) if leader != self.group.replica() => {
                    let want = Want::Change { ask: ask.clone(), validate_only };
                    let wait = if again { left.min(TRY) } else { left };
                    self.forward(leader, role, want, wait).await.and_then(|outcome| outcome)
                }
                leader => Err(not_controller(&self.images.borrow(), leader)),
            };
            let until = match &outcome {
                // Nothing was done.
                Err(MetadataError::NotController { .. }) => patience,
                Err(MetadataError::TimedOut) if again => deadline,
                _ => return outcome,
            };
            if rt::now() + PAUSE >= until {
                return outcome;
            }
            rt::sleep(PAUSE).await;
        }
    }

    /// Asks another node; the outer error: what became of it is unknown.
    async fn forward(
        &self,
        leader: ReplicaId,
        role: Role,
        want: Want,
        wait: Duration,
    ) -> Result<Result<Answer, MetadataError>, MetadataError> {
        let deadline = rt::now() + wait;
        let (number, floor) = {
            let mut asking = self.asking.lock();
            asking.next += 1;
            let number = asking.next;
            asking.waiting.insert(number);
            (number, asking.waiting.first().copied().unwrap_or(number))
        };
        let waiting = Waiting { asking: &self.asking, number };
        let question = Question { session: self.session, number, floor, term: role.term.0, want };
        let answer = self.host.request(self.group.replica(), leader, question.encode(), Priority::Normal, wait).await;
        drop(waiting);
        let answered = answer.ok().and_then(|bytes| Answered::decode(&bytes).ok()).ok_or(MetadataError::TimedOut)?;
        // Nobody is told of what this node does not know.
        let applied = rt::timeout_at(deadline, self.group.wait_applied(answered.index)).await;
        match applied {
            Ok(Ok(())) => Ok(answered.outcome),
            Ok(Err(why)) => Err(MetadataError::Stopped(why.to_string())),
            Err(_) => Err(MetadataError::TimedOut),
        }
    }

    pub(super) async fn read_here(&self) -> Result<RaftIndex, MetadataError> {
        match rt::timeout(LEADER_WAIT, self.group.read_index()).await {
            Ok(Ok(index)) => Ok(index),
            Ok(Err(error)) => Err(from_read_index(&error, &self.images.borrow())),
            Err(_) => Err(MetadataError::TimedOut),
        }
    }

    /// What this node knows of the group that it leads.
    async fn quorum_here(&self) -> Result<MetadataQuorum, MetadataError> {
        // Whoever was deposed unawares knows nothing of its followers.
        self.read_here().await?;
        let image = self.images.borrow().clone();
        let record = image.shard(ShardId::METADATA);
        let own = |replica: &&ReplicaRecord| replica.id == self.group.replica();
        let leader = record.and_then(|record| record.members().find(own));
        match (record, leader, self.group.quorum()) {
            (Some(record), Some(leader), Some(quorum)) => {
                Ok(quorum::described(record, &quorum, leader.node, &Clock::now()))
            }
            _ => Err(not_controller(&image, self.role().leader)),
        }
    }

    /// Asks whoever leads for what can be asked again.
    async fn inquire(&self, want: Want) -> Result<Answer, MetadataError> {
        let mut tries = 0;
        loop {
            let role = self.role();
            let outcome = match (role.leader, &want) {
                (Some(leader), _) if leader != self.group.replica() => {
                    self.forward(leader, role, want.clone(), TRY).await.and_then(|outcome| outcome)
                }
                (_, Want::Quorum) => self.quorum_here().await.map(Answer::Quorum),
                _ => self.read_here().await.map(|_| Answer::Done),
            };
            tries += 1;
            match outcome {
                Err(MetadataError::NotController { .. } | MetadataError::TimedOut) if tries < READ_TRIES => {
                    rt::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Returns when everything that was committed before the call is applied here.
    pub(super) async fn read_index(&self) -> Result<(), MetadataError> {
        self.inquire(Want::ReadIndex).await.map(|_| ())
    }

    /// How far the group's members are, as whoever leads knows.
    pub(super) async fn quorum(&self) -> Result<Answer, MetadataError> {
        self.inquire(Want::Quorum).await
    }
}

fn stopped() -> MetadataError {
    MetadataError::Stopped("the node stops".to_owned())
}

/// A question whose answer is waited for, also by whoever gives up.
struct Waiting<'a> {
    asking: &'a Mutex<Asking>,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.asking.lock().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(session: u64, number: u64, floor: u64, term: u64) -> Question {
        Question { session, number, floor, term, want: Want::ReadIndex }
    }

    #[test]
    fn a_question_is_acted_upon_once_in_any_order() {
        let mut handled = Handled::default();
        assert!(handled.first_time(&question(1, 2, 1, 5)));
        assert!(handled.first_time(&question(1, 1, 1, 5)));
        assert!(!handled.first_time(&question(1, 2, 1, 5)));
        assert!(!handled.first_time(&question(1, 1, 1, 5)));
        assert!(handled.first_time(&question(2, 1, 1, 5)), "another life counts anew");
        assert!(handled.first_time(&question(1, 9, 7, 5)));
        assert!(!handled.first_time(&question(1, 3, 3, 5)), "nobody waits for it");
        assert!(handled.first_time(&question(1, 8, 7, 5)));
        assert_eq!(handled.sessions[&1].1.len(), 2, "what is below the floor is forgotten");
    }

    #[test]
    fn lives_that_are_remembered_are_bounded() {
        let mut handled = Handled::default();
        for session in 0..2 * SESSIONS_MAX as u64 {
            assert!(handled.first_time(&question(session, 1, 1, 1)));
        }
        assert_eq!((handled.sessions.len(), handled.order.len()), (SESSIONS_MAX, SESSIONS_MAX));
    }
}
