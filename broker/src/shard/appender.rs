//! The appender: the one task of a shard that proposes its entries, one behind the other, several in flight.
//!
//! Everything that becomes an entry goes through one queue and this task, so that the shard clock never falls and
//! batches keep their order. While entries are replicated the next one fills (see `append_queue`, `proposal_window`). Entries are
//! answered in order: a batch by apply, or with a retriable error that holds for what is behind it of its producer too. May
//! not know: topics, sockets.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_raft::{Proposal, ProposeError, Proposed, Role};
use ottla_storage::entry::Batches;
use ottla_storage::ids::{LogId, Term};
use tokio::sync::oneshot;

use super::append_queue::{PackedEntry, Readiness};
use super::clock::Agreement;
use super::handle::Shard;
use super::handover::Handover;
use super::idempotence_fence::{ProducerBatch, ProducerKey};
use super::min_isr;
use super::proposal_window::{InFlight, Outcome, ProposalWindow};
use super::queued::{QueuedBatch, QueuedCommand};
use crate::replicated::command::Command;
use crate::replicated::error::{AppendError, PartitionError};
use crate::replicated::shard_state::{ApplyReply, BatchOutcome, Rejection};

/// Who waits for an entry.
enum Caller {
    Batches(PackedEntry),
    Command { answer: oneshot::Sender<Result<ApplyReply, PartitionError>>, handover: HandoverOf },
}

/// What a command means for batches that are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HandoverOf {
    /// Nothing.
    Others,
    /// It is a split or a Seal: they are held until it is decided, and then for the successor.
    Decided,
    /// It is an Unseal: there is no successor.
    Ended,
}

type Window = ProposalWindow<Caller>;

/// Nothing is waited for but what wakes the task.
const IDLE: Duration = Duration::MAX;

/// How long a shard's first stamp waits until the clocks of most nodes are known: a wrong first stamp would stay.
const FIRST_STAMP_WAIT: Duration = Duration::from_secs(3);

/// Between two checks whether they are known.
const CLOCKS_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// True if what was proposed in `term` is decided here: its leader leads, or is about to transfer leadership and proposes
/// nothing any more.
fn decides(role: &Role, term: Term) -> bool {
    role.ready && role.term == term
}

impl Shard {
    /// How long to wait before the shard's very first stamp, since the clocks of most nodes are not known yet; none if
    /// the stamp need not wait.
    fn wait_for_clocks(&self) -> Option<Duration> {
        if self.applied_clock_ms() > 0 || self.clock_agreement() != Agreement::Unknown {
            return None;
        }
        let led_for = self.led_for().unwrap_or_default();
        (led_for < FIRST_STAMP_WAIT).then_some(CLOCKS_POLL_INTERVAL)
    }

    /// Proposes what is queued, and answers what is applied. Ends when the replica stops.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut role = self.role.clone();
        let mut adopted = self.machine.read_view.changes();
        let mut led_in = None;
        let mut window = ProposalWindow::new();
        loop {
            let now_leading = self.leading();
            if now_leading != led_in {
                led_in = now_leading;
                *self.led_since.lock() = now_leading.map(|_| rt::now());
                if let Some(term) = now_leading {
                    self.note_leading(term);
                }
                // Long polls are answered, never dropped, when leadership comes or goes.
                self.machine.read_view.wake_all();
            }
            if !decides(&self.role(), window.term()) {
                self.refuse_all(&mut window);
            }
            if self.role().stopped {
                break;
            }
            let wait = match led_in {
                Some(term) => self.fill(term, &mut window).await,
                None if self.is_elected() => self.awaits_election().unwrap_or(IDLE),
                None => {
                    self.queue.lock().refuse_all(&PartitionError::NotLeaderOrFollower);
                    IDLE
                }
            };
            tokio::select! {
                biased;
                changed = role.changed() => if changed.is_err() { break },
                (entry, outcome) = poll_fn(|cx| window.poll_decided(cx)) => self.decided(&mut window, entry, outcome).await,
                () = self.work.notified() => {}
                _ = adopted.changed() => {}
                () = async { rt::sleep(wait).await }, if wait < IDLE => {}
            }
        }
        self.refuse_all(&mut window);
        self.queue.lock().stop();
        self.machine.read_view.wake_all();
    }

    /// Answers all entries in flight: those of a lost term, or of a replica that has stopped, may never be decided, so their
    /// outcomes are not awaited. They may still commit, and clients retry.
    fn refuse_all(&self, window: &mut Window) {
        let error = match self.role().stopped {
            true => ProposeError::Stopped("the replica has stopped".into()),
            false => ProposeError::NotLeader { leader: None },
        };
        window.take_all().for_each(|entry| self.refuse(entry.caller, &error));
    }

    /// Proposes what waits, as far as the window allows; returns how long to wait at most until more may be proposed.
    async fn fill(&self, term: Term, window: &mut Window) -> Duration {
        if let Some(pause) = self.wait_for_clocks() {
            return pause;
        }
        while window.is_open() {
            let command = self.queue.lock().pop_command();
            if let Some(QueuedCommand { command, answer }) = command {
                let hold = |begun| {
                    self.queue.lock().hold(begun);
                    HandoverOf::Decided
                };
                let handover = match &command {
                    Command::Split(split) => hold(Handover::proposed(&split.partitions, rt::now())),
                    Command::Seal(_) => hold(Handover::sealed(rt::now())),
                    Command::Unseal { .. } => HandoverOf::Ended,
                    _ => HandoverOf::Others,
                };
                let caller = Caller::Command { answer, handover };
                self.propose(term, window, &command, Batches::default(), caller).await;
                continue;
            }
            if !window.has_room() {
                break;
            }
            let now = rt::now();
            if let Some(pause) = window.pause(now) {
                let mut queue = self.queue.lock();
                if !queue.fills_entry() {
                    queue.await_full_entry();
                    return pause;
                }
            }
            let has_entries_before = !window.is_empty();
            let follows_leader = self.follows_former_leader();
            let readiness = |batch: &QueuedBatch| {
                if !batch.adopted && self.machine.read_view.get(batch.partition).is_none() {
                    let is_dropped = self.state().lock().dropped.contains_key(&batch.partition);
                    return if is_dropped { Readiness::Moved } else { Readiness::Held };
                }
                if !(has_entries_before || follows_leader) || !self.needs_history(batch) {
                    Readiness::Ready
                } else if has_entries_before {
                    Readiness::Held
                } else if self.had_former_leader(batch.partition) {
                    Readiness::Preceded
                } else {
                    Readiness::Ready
                }
            };
            let seen = |batch: &ProducerBatch| {
                let ProducerKey { producer, partition, .. } = batch.key;
                self.state().lock().has_seen_all_before(partition, producer, batch.epoch, batch.sequence)
            };
            let mut packed = self.queue.lock().pack(now, self.batch_bytes_max(), readiness, seen);
            if packed.batches.is_empty() {
                return packed.next_deadline.map_or(IDLE, |deadline| deadline.since(now));
            }
            let (command, batches) = packed.take_entry();
            self.propose(term, window, &command, batches, Caller::Batches(packed)).await;
        }
        IDLE
    }

    /// True if apply would take a batch for the first one of its producer, whatever is in front of it. If what is in front of it were
    /// refused, the gap would not be found: it has to be applied first. Where apply knows the producer, it finds the gap.
    fn needs_history(&self, batch: &QueuedBatch) -> bool {
        let Some(ProducerBatch { key, sequence, .. }) = batch.producer_batch else { return false };
        sequence != 0 && !self.state().lock().knows_producer(key.partition, key.producer)
    }

    async fn propose(&self, term: Term, window: &mut Window, command: &Command, batches: Batches, caller: Caller) {
        if let Command::SetClock { to_ms } = command {
            // Before it is proposed: whether it commits or not, no later entry bears a stamp of the old clock.
            self.clock.set(term, *to_ms, self.applied_clock());
        }
        let clock_ms = self.clock.stamp(term, self.applied_clock());
        let proposal = Proposal { payload: command.encode(), batches, clock_ms };
        // Only an entry that nothing is in front of may have to wake its group.
        let repeated = window.is_empty().then(|| proposal.clone());
        self.submit(term, window, proposal, repeated, caller).await;
    }

    async fn submit(
        &self,
        term: Term,
        window: &mut Window,
        proposal: Proposal,
        repeated: Option<Proposal>,
        caller: Caller,
    ) {
        let (bytes, proposed_at) = (proposal.bytes(), rt::now());
        let submitted = self.while_leading(term, self.group.submit(proposal)).await;
        match submitted.unwrap_or(Err(ProposeError::NotLeader { leader: None })) {
            Ok(applied) => window.push(term, InFlight { caller, proposal: repeated, bytes, proposed_at, applied }),
            Err(error) => self.refuse(caller, &error),
        }
    }

    /// Waits for `future` as long as this replica leads in `term`.
    async fn while_leading<T>(&self, term: Term, future: impl Future<Output = T>) -> Option<T> {
        let mut role = self.role.clone();
        tokio::select! {
            biased;
            done = future => Some(done),
            _ = role.wait_for(|role| !decides(role, term)) => None,
        }
    }

    /// Answers the callers of an entry whose outcome is known.
    async fn decided(&self, window: &mut Window, entry: InFlight<Caller>, outcome: Outcome) {
        let InFlight { caller, proposal, proposed_at, bytes, .. } = entry;
        match (outcome, proposal) {
            (Ok(Proposed { log_id, reply }), _) => {
                window.note_applied(bytes, proposed_at, rt::now());
                match reply.take::<ApplyReply>() {
                    Some(reply) => self.answer(caller, log_id, reply),
                    None => self.refuse(caller, &ProposeError::Stopped("apply gave no answer".into())),
                }
            }
            // The group slept. The entry was not logged, and nothing was proposed behind it: it is proposed once more.
            (Err(ProposeError::LeaseExpired), Some(proposal)) if window.is_empty() => {
                match self.while_leading(window.term(), self.group.read_index()).await {
                    Some(Ok(_)) => self.submit(window.term(), window, proposal, None, caller).await,
                    Some(Err(_)) | None => self.refuse(caller, &ProposeError::LeaseExpired),
                }
            }
            (Err(error), _) => self.refuse(caller, &error),
        }
    }

    fn answer(&self, caller: Caller, log_id: LogId, reply: ApplyReply) {
        match (caller, reply) {
            (Caller::Command { answer, handover }, reply) => {
                let is_carried_out = matches!(reply, ApplyReply::Changed(1..));
                if handover == HandoverOf::Ended || handover == HandoverOf::Decided && !is_carried_out {
                    self.queue.lock().end_handover();
                    self.work.notify_one();
                }
                let _gone = answer.send(Ok(reply));
            }
            (Caller::Batches(packed), ApplyReply::Data(outcomes)) if outcomes.len() == packed.batches.len() => {
                self.answer_batches(packed, log_id, outcomes);
            }
            (Caller::Batches(_), other) => {
                tracing::error!("shard={}: apply answered {other:?} to data", self.creation.shard);
            }
        }
    }

    fn answer_batches(&self, packed: PackedEntry, log_id: LogId, outcomes: Vec<BatchOutcome>) {
        let (synced_min, mut waiting) = (self.synced_at_least(&packed), Vec::new());
        // All answers are set before any waker runs: a connection that wakes finds the answers of its whole burst.
        for (batch, outcome) in packed.batches.into_iter().zip(outcomes) {
            let is_stored = matches!(outcome, BatchOutcome::Stored { .. });
            if is_stored && batch.required_in_sync > synced_min && !mutants::is_on(Bug::MinIsrNotAwaited) {
                min_isr::acknowledge_when_replicated(&*self.group, log_id.index, batch, outcome);
                continue;
            }
            let refused = match (&outcome, &batch.producer_batch) {
                (BatchOutcome::Rejected(Rejection::OutOfOrder), Some(producer_batch)) => {
                    self.out_of_order(producer_batch)
                }
                _ => None,
            };
            waiting.extend(batch.answer.set(refused.map_or(Ok(outcome), Err)));
        }
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Answers the callers of an entry that has failed, or whose outcome is not known.
    fn refuse(&self, caller: Caller, error: &ProposeError) {
        match caller {
            Caller::Command { answer, handover } => {
                if handover == HandoverOf::Decided {
                    self.queue.lock().end_handover();
                }
                let _gone = answer.send(Err(self.cause(error)));
            }
            Caller::Batches(packed) => {
                let cause = AppendError::from(self.cause(error));
                let mut queue = self.queue.lock();
                packed.batches.into_iter().for_each(|batch| queue.refuse(batch, cause.clone()));
            }
        }
    }

    /// How many voters, at least, have synced what is applied here; computed only if a batch requires more than one.
    fn synced_at_least(&self, packed: &PackedEntry) -> usize {
        match packed.batches.iter().any(|batch| batch.required_in_sync > 1) {
            true => self.members().majority(),
            false => 1,
        }
    }

    /// The error with which the caller of a failed proposal is answered.
    fn cause(&self, error: &ProposeError) -> PartitionError {
        tracing::debug!("shard={} replica={}: {error}", self.creation.shard, self.replica);
        let poisoned = self.directory.as_ref().is_some_and(|directory| directory.poisoned().is_some());
        match error {
            ProposeError::Stopped(_) if poisoned => PartitionError::Storage,
            ProposeError::TooLarge(_) => PartitionError::PolicyViolation("the command is too large for one entry"),
            ProposeError::Stopped(_)
            | ProposeError::NotLeader { .. }
            | ProposeError::LeaseExpired
            | ProposeError::Unknown => PartitionError::NotLeaderOrFollower,
        }
    }
}
