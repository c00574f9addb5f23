//! The one writer: takes what is asked in turn, decides on the current image, has it agreed on, answers.
//!
//! Everything that waits is decided together and becomes one entry (natural batching, as in a shard's appender); the next
//! decisions are made only when that entry is applied, so each is made on an image that contains all before it.
//! A refusal is answered only once this node is known to lead still: by the entry of the same turn, or by a read index.
//! May not know: the wire; where partitions go.

use std::sync::Arc;

use ottla_raft::{GroupHandle, Proposal, ProposeError};
use ottla_storage::entry::Batches;
use ottla_storage::env::mutants::{self, Bug};
use ottla_storage::env::{rt, watch};
use ottla_storage::ids::{RaftIndex, ReplicaId};
use tokio::sync::{mpsc, oneshot};

use super::command::{Command, encode, encoded_size};
use super::decide::{Answer, Ask, Decided, decide};
use super::error::MetadataError;
use super::image::{MetadataImage, ShardId};
use super::machine::{Machine, Outcome};
use crate::config::Config;

/// What waits for the writer at most.
pub(super) const JOBS_MAX: usize = 4_096;
/// A turn ends when its entry has this many bytes. An entry is at most 1 MiB; the last job may be large.
const TURN_BYTES: usize = 256 << 10;
/// How often a decision is made again when another leader's entry came between.
const ATTEMPTS_MAX: u32 = 3;

/// One thing asked.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) ask: Ask,
    /// Decide and answer, change nothing.
    pub(super) validate_only: bool,
    pub(super) answer: oneshot::Sender<Result<Answer, MetadataError>>,
}

type Decision = Result<Answer, MetadataError>;

/// A job whose commands are in the turn's entry.
struct InEntry {
    job: Job,
    answer: Answer,
    commands: usize,
    attempts: u32,
}

/// The writer's task.
pub(super) struct Writer {
    pub(super) group: GroupHandle,
    pub(super) images: watch::Receiver<Arc<MetadataImage>>,
    pub(super) jobs: mpsc::Receiver<Job>,
    /// The node's configuration as started.
    pub(super) base: Arc<Config>,
}

impl Writer {
    /// Runs until nobody can ask any more.
    pub(super) async fn run(mut self) {
        // Nothing of the metadata expires: these stamps only say when, to people who read a log. So no clock is confirmed here,
        // and a wrong one does no harm.
        let mut clock_ms = 0;
        let mut again: Vec<(Job, u32)> = Vec::new();
        loop {
            if again.is_empty() {
                match self.jobs.recv().await {
                    Some(job) => again.push((job, 0)),
                    None => return,
                }
            }
            clock_ms = rt::wall_clock_ms().max(clock_ms);
            again = self.turn(std::mem::take(&mut again), clock_ms).await;
        }
    }

    /// Decides what waits, has it agreed on, answers. Jobs to be decided again come back.
    async fn turn(&mut self, first: Vec<(Job, u32)>, clock_ms: i64) -> Vec<(Job, u32)> {
        // Only such a leader's image holds everything that was committed before.
        let role = *self.group.role().borrow();
        if !role.ready {
            let error = not_controller(&self.images.borrow(), role.leader);
            for (job, _) in first {
                let _ = job.answer.send(Err(error.clone()));
            }
            return Vec::new();
        }
        let image = self.images.borrow().as_ref().clone();
        let decided_on = image.index;
        let index = RaftIndex(decided_on.0 + 1);
        let mut scratch = Machine::scratch(Arc::clone(&self.base), image);
        let mut commands: Vec<Command> = Vec::new();
        let mut in_entry: Vec<InEntry> = Vec::new();
        let mut settled: Vec<(Job, Decision)> = Vec::new();
        let mut bytes = 0;
        let mut waiting = first.into_iter();
        while bytes < TURN_BYTES {
            let next = waiting.next().or_else(|| self.jobs.try_recv().ok().map(|job| (job, 0)));
            let Some((job, attempts)) = next else { break };
            match decide(scratch.image(), &job.ask) {
                Ok(Decided { commands: decided, answer }) if !job.validate_only && !decided.is_empty() => {
                    bytes += decided.iter().map(encoded_size).sum::<usize>();
                    for command in &decided {
                        scratch.apply_command(index, command.clone());
                    }
                    in_entry.push(InEntry { job, answer, commands: decided.len(), attempts });
                    commands.extend(decided);
                }
                Ok(Decided { answer, .. }) => settled.push((job, Ok(answer))),
                Err(error) => settled.push((job, Err(error))),
            }
        }
        let leads = if commands.is_empty() { self.confirm().await } else { Ok(()) };
        let (agreed, mut again) = match leads {
            Ok(()) if !commands.is_empty() => self.agree(decided_on, &commands, in_entry, clock_ms).await,
            leads => (leads, Vec::new()),
        };
        // A leader that was another's follower meanwhile has decided on an old image.
        let same = self.group.role().borrow().term == role.term;
        let agreed = agreed.and(if same { Ok(()) } else { Err(MetadataError::NotController { leader: None }) });
        again.extend(waiting);
        for (job, decision) in settled {
            let _ = job.answer.send(agreed.clone().and(decision));
        }
        again
    }

    async fn confirm(&self) -> Result<(), MetadataError> {
        match self.group.read_index().await {
            Ok(_) => Ok(()),
            Err(error) => Err(from_read_index(&error, &self.images.borrow())),
        }
    }

    /// Proposes the entry and answers the jobs in it.
    async fn agree(
        &self,
        decided_on: RaftIndex,
        commands: &[Command],
        mut jobs: Vec<InEntry>,
        clock_ms: i64,
    ) -> (Result<(), MetadataError>, Vec<(Job, u32)>) {
        if mutants::is_on(Bug::TopicAckedEarly) {
            for entry in jobs.drain(..) {
                let _ = entry.job.answer.send(Ok(entry.answer));
            }
        }
        let proposal = Proposal { payload: encode(decided_on, commands), batches: Batches::default(), clock_ms };
        let proposed = match self.group.propose(proposal).await {
            Ok(proposed) => proposed,
            Err(error) => {
                let error = from_propose(&error, &self.images.borrow());
                for entry in jobs {
                    let _ = entry.job.answer.send(Err(error.clone()));
                }
                return (Err(error), Vec::new());
            }
        };
        let outcomes = proposed.reply.take::<Vec<Outcome>>().unwrap_or_default();
        let mut outcomes = outcomes.as_slice();
        let mut again = Vec::new();
        for mut entry in jobs {
            let (own, rest) = outcomes.split_at(entry.commands.min(outcomes.len()));
            outcomes = rest;
            let refused =
                own.len() < entry.commands || own.iter().any(|outcome| matches!(outcome, Outcome::Refused(_)));
            if refused && entry.attempts < ATTEMPTS_MAX {
                again.push((entry.job, entry.attempts + 1));
                continue;
            }
            if let (Answer::ProducerIds { first, .. }, Some(Outcome::ProducerIds { first: given })) =
                (&mut entry.answer, own.last())
            {
                *first = *given;
            }
            let decision = if refused { Err(MetadataError::NotController { leader: None }) } else { Ok(entry.answer) };
            let _ = entry.job.answer.send(decision);
        }
        (Ok(()), again)
    }
}

/// Another node leads, or none: `leader` is its replica of the metadata group.
pub(super) fn not_controller(image: &MetadataImage, leader: Option<ReplicaId>) -> MetadataError {
    let shard = image.shard(ShardId::METADATA);
    let replica = shard.and_then(|shard| shard.replicas.iter().find(|replica| Some(replica.id) == leader));
    MetadataError::NotController { leader: replica.map(|replica| replica.node) }
}

pub(super) fn from_read_index(error: &ottla_raft::ReadIndexError, image: &MetadataImage) -> MetadataError {
    match error {
        ottla_raft::ReadIndexError::NotLeader { leader } => not_controller(image, *leader),
        ottla_raft::ReadIndexError::Stopped(why) => MetadataError::Stopped(why.to_string()),
    }
}

fn from_propose(error: &ProposeError, image: &MetadataImage) -> MetadataError {
    match error {
        ProposeError::NotLeader { leader } => not_controller(image, *leader),
        ProposeError::Unknown => MetadataError::TimedOut,
        ProposeError::LeaseExpired => MetadataError::NotController { leader: None },
        ProposeError::TooLarge(_) => {
            MetadataError::PolicyViolation("The change is too large for one entry.".to_owned())
        }
        ProposeError::Stopped(why) => MetadataError::Stopped(why.to_string()),
    }
}
