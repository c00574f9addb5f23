//! The controller task, the only writer of the metadata: takes requests from a queue, decides them on the current
//! image, proposes the commands, responds.
//!
//! - All queued requests are decided together and become one entry (natural batching, as in a shard's appender).
//! - The next decisions are made only when that entry is applied, so each is made on an image that contains all before
//!   it.
//! - A refusal is sent only once this node has confirmed that it still leads: by the entry of the same batch, or by a
//!   read index.
//!
//! May not know: the wire; where partitions go.

use std::sync::Arc;

use ottla_env::mutants::{self, Bug};
use ottla_env::{rt, watch};
use ottla_raft::{GroupHandle, Proposal, ProposeError};
use ottla_storage::entry::Batches;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use tokio::sync::{mpsc, oneshot};

use super::command::{Command, encode, encoded_size};
use super::decide::{ControllerRequest, ControllerResponse, ControllerResult, decide};
use super::error::MetadataError;
use super::first_epochs::{self, ShardTerms};
use super::image::{MetadataImage, ShardId};
use super::state_machine::{MetadataStateMachine, Outcome};
use crate::config::Config;

/// The most requests that wait in the queue.
pub(super) const QUEUED_REQUESTS_MAX: usize = 4_096;
/// A batch ends when its entry has this many bytes. An entry is at most 1 MiB; the last request may be large.
const BATCH_BYTES: usize = 256 << 10;
/// How often a request is decided again when another leader's entry came between.
const ATTEMPTS_MAX: u32 = 3;

/// A request in the queue.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    pub(super) request: ControllerRequest,
    /// Decide and respond, change nothing.
    pub(super) validate_only: bool,
    pub(super) reply: oneshot::Sender<Result<ControllerResponse, MetadataError>>,
}

type Reply = Result<ControllerResponse, MetadataError>;

/// A request whose commands are in the batch's entry.
struct ProposedRequest {
    queued: QueuedRequest,
    response: ControllerResponse,
    commands: usize,
    attempts: u32,
}

/// The controller task.
pub(super) struct Controller {
    pub(super) group: GroupHandle,
    pub(super) images: watch::Receiver<Arc<MetadataImage>>,
    pub(super) queue: mpsc::Receiver<QueuedRequest>,
    /// The node's configuration as started.
    pub(super) base: Arc<Config>,
    pub(super) terms: ShardTerms,
}

impl Controller {
    /// Runs until the queue has no sender any more.
    pub(super) async fn run(mut self) {
        // Nothing in the metadata expires by these timestamps: they serve only people who read a log. So no clock is
        // confirmed here, and a wrong one does no harm.
        let mut clock_ms = 0;
        let mut retried: Vec<(QueuedRequest, u32)> = Vec::new();
        loop {
            if retried.is_empty() {
                match self.queue.recv().await {
                    Some(queued) => retried.push((queued, 0)),
                    None => return,
                }
            }
            clock_ms = rt::wall_clock_ms().max(clock_ms);
            retried = self.run_batch(std::mem::take(&mut retried), clock_ms).await;
        }
    }

    /// Decides the queued requests, proposes their commands, responds. Returns the requests that are to be decided
    /// again.
    async fn run_batch(&mut self, first: Vec<(QueuedRequest, u32)>, clock_ms: i64) -> Vec<(QueuedRequest, u32)> {
        // Only the image of a ready leader holds everything that was committed before.
        let role = *self.group.role().borrow();
        if !role.ready {
            let error = not_controller(&self.images.borrow(), role.leader);
            for (queued, _) in first {
                let _ = queued.reply.send(Err(error.clone()));
            }
            return Vec::new();
        }
        let image = self.images.borrow().as_ref().clone();
        let decided_on = image.index;
        let index = RaftIndex(decided_on.0 + 1);
        let mut scratch = MetadataStateMachine::scratch(Arc::clone(&self.base), image);
        let mut commands: Vec<Command> = Vec::new();
        let mut in_batch: Vec<ProposedRequest> = Vec::new();
        let mut settled: Vec<(QueuedRequest, Reply)> = Vec::new();
        let mut bytes = 0;
        let mut waiting = first.into_iter();
        while bytes < BATCH_BYTES {
            let next = waiting.next().or_else(|| self.queue.try_recv().ok().map(|queued| (queued, 0)));
            let Some((queued, attempts)) = next else { break };
            match decide(scratch.image(), &queued.request) {
                Ok(ControllerResult { commands: mut decided, response })
                    if !queued.validate_only && !decided.is_empty() =>
                {
                    let bases = first_epochs::bases(scratch.image().level, &decided, |shard| self.terms.of(shard));
                    decided.extend(bases);
                    bytes += decided.iter().map(encoded_size).sum::<usize>();
                    for command in &decided {
                        scratch.apply_command(index, command.clone());
                    }
                    in_batch.push(ProposedRequest { queued, response, commands: decided.len(), attempts });
                    commands.extend(decided);
                }
                Ok(ControllerResult { response, .. }) => settled.push((queued, Ok(response))),
                Err(error) => settled.push((queued, Err(error))),
            }
        }
        let leads = if commands.is_empty() { self.confirm_leadership().await } else { Ok(()) };
        let (proposed, mut retried) = match leads {
            Ok(()) if !commands.is_empty() => self.propose(decided_on, &commands, in_batch, clock_ms).await,
            leads => (leads, Vec::new()),
        };
        // A leader that was a follower in between has decided on an old image.
        let same = self.group.role().borrow().term == role.term;
        let proposed = proposed.and(if same { Ok(()) } else { Err(MetadataError::NotController { leader: None }) });
        retried.extend(waiting);
        for (queued, reply) in settled {
            let _ = queued.reply.send(proposed.clone().and(reply));
        }
        retried
    }

    async fn confirm_leadership(&self) -> Result<(), MetadataError> {
        match self.group.read_index().await {
            Ok(_) => Ok(()),
            Err(error) => Err(from_read_index(&error, &self.images.borrow())),
        }
    }

    /// Proposes the entry and responds to the requests in it.
    async fn propose(
        &self,
        decided_on: RaftIndex,
        commands: &[Command],
        mut requests: Vec<ProposedRequest>,
        clock_ms: i64,
    ) -> (Result<(), MetadataError>, Vec<(QueuedRequest, u32)>) {
        if mutants::is_on(Bug::TopicAckedEarly) {
            for request in requests.drain(..) {
                let _ = request.queued.reply.send(Ok(request.response));
            }
        }
        let proposal = Proposal { payload: encode(decided_on, commands), batches: Batches::default(), clock_ms };
        let proposed = match self.group.propose(proposal).await {
            Ok(proposed) => proposed,
            Err(error) => {
                let error = from_propose(&error, &self.images.borrow());
                for request in requests {
                    let _ = request.queued.reply.send(Err(error.clone()));
                }
                return (Err(error), Vec::new());
            }
        };
        let outcomes = proposed.reply.take::<Vec<Outcome>>().unwrap_or_default();
        let mut outcomes = outcomes.as_slice();
        let mut retried = Vec::new();
        for mut request in requests {
            let (own, rest) = outcomes.split_at(request.commands.min(outcomes.len()));
            outcomes = rest;
            let refused =
                own.len() < request.commands || own.iter().any(|outcome| matches!(outcome, Outcome::Refused(_)));
            if refused && request.attempts < ATTEMPTS_MAX {
                retried.push((request.queued, request.attempts + 1));
                continue;
            }
            if let (ControllerResponse::ProducerIds { first, .. }, Some(Outcome::ProducerIds { first: given })) =
                (&mut request.response, own.last())
            {
                *first = *given;
            }
            let reply = if refused { Err(MetadataError::NotController { leader: None }) } else { Ok(request.response) };
            let _ = request.queued.reply.send(reply);
        }
        (Ok(()), retried)
    }
}

/// The error of a node that does not lead: `leader` is the leader's replica of the metadata group, if there is one.
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
