//! The appender: the one task of a shard that proposes its entries, one after the other.
//!
//! Everything that becomes an entry goes through one queue and this task, so that the shard clock never falls and
//! batches keep their order. While one entry is replicated the next one fills (see `append_queue`). A batch is answered
//! by apply. May not know: topics, sockets.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_raft::{Proposal, ProposeError, Proposed};
use ottla_storage::entry::Batches;
use ottla_storage::ids::{LogId, Term};

use super::append_queue::{PackedEntry, QueuedCommand};
use super::clock::Agreement;
use super::handle::Shard;
use super::idempotence_fence::{ProducerBatch, ProducerKey};
use super::min_isr;
use crate::replicated::command::Command;
use crate::replicated::error::{AppendError, PartitionError};
use crate::replicated::shard_state::ApplyReply;

/// The task wakes at least this often, though nothing happens.
const IDLE: Duration = Duration::from_secs(3600);

/// How long a shard's first stamp waits until the clocks of most nodes are known: a wrong first stamp would stay.
const FIRST_STAMP_WAIT: Duration = Duration::from_secs(3);

/// Between two checks whether they are known.
const CLOCKS_POLL_INTERVAL: Duration = Duration::from_millis(20);

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

    /// Proposes what is queued, one entry after the other. Ends when the replica stops.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut role = self.role.clone();
        let mut adopted = self.machine.read_view.changes();
        let mut led_in = None;
        loop {
            let now_leading = self.leading();
            if now_leading != led_in {
                led_in = now_leading;
                *self.led_since.lock() = now_leading.map(|_| rt::now());
                // Long polls are answered, never dropped, when leadership comes or goes.
                self.machine.read_view.wake_all();
            }
            if self.role().stopped {
                break;
            }
            let wait = match led_in {
                Some(term) => self.propose_next(term).await,
                None if self.is_elected() => Some(IDLE),
                None => {
                    self.queue.lock().refuse_all(&PartitionError::NotLeaderOrFollower);
                    Some(IDLE)
                }
            };
            let Some(wait) = wait else { continue };
            tokio::select! {
                biased;
                changed = role.changed() => if changed.is_err() { break },
                () = self.work.notified() => {}
                _ = adopted.changed() => {}
                () = rt::sleep(wait) => {}
            }
        }
        self.queue.lock().stop();
        self.machine.read_view.wake_all();
    }

    /// Proposes one entry; returns how long to wait if there was nothing to propose.
    async fn propose_next(&self, term: Term) -> Option<Duration> {
        if let Some(pause) = self.wait_for_clocks() {
            return Some(pause);
        }
        let command = self.queue.lock().pop_command();
        if let Some(QueuedCommand { command, answer }) = command {
            let applied = self.propose(term, &command, Batches::default()).await;
            let _ = answer.send(applied.map(|(_, reply)| reply).map_err(|error| self.cause(&error)));
            return None;
        }
        let now = rt::now();
        let adopted = |id| self.machine.read_view.get(id).is_some();
        let seen = |batch: &ProducerBatch| {
            let ProducerKey { producer, partition, .. } = batch.key;
            self.state().lock().has_seen_all_before(partition, producer, batch.epoch, batch.sequence)
        };
        let mut packed = self.queue.lock().pack(now, self.batch_bytes_max(), adopted, seen);
        if packed.batches.is_empty() {
            return Some(packed.next_deadline.map_or(IDLE, |deadline| deadline.since(now)));
        }
        let (command, batches) = packed.take_entry();
        let reply = self.propose(term, &command, batches).await;
        self.answer(packed, reply);
        None
    }

    async fn propose(
        &self,
        term: Term,
        command: &Command,
        batches: Batches,
    ) -> Result<(LogId, ApplyReply), ProposeError> {
        if let Command::SetClock { to_ms } = command {
            // Before it is proposed: whether it commits or not, no later entry bears a stamp of the old clock.
            self.clock.set(term, *to_ms);
        }
        let clock_ms = self.clock.stamp(term, self.applied_clock_ms());
        let proposal = Proposal { payload: command.encode(), batches, clock_ms };
        let mut role = self.role.clone();
        let Proposed { log_id, reply } = tokio::select! {
            biased;
            proposed = self.group.propose(proposal) => proposed?,
            // A proposal of a lost term may never be decided, so its outcome is not awaited: it may still commit, and
            // the client retries.
            _ = role.wait_for(|role| !role.ready || role.term != term) => {
                return Err(ProposeError::NotLeader { leader: None });
            }
        };
        let reply = reply.take::<ApplyReply>();
        reply.map(|reply| (log_id, reply)).ok_or_else(|| ProposeError::Stopped("apply gave no answer".into()))
    }

    fn answer(&self, packed: PackedEntry, reply: Result<(LogId, ApplyReply), ProposeError>) {
        match reply {
            Ok((log_id, ApplyReply::Data(outcomes))) if outcomes.len() == packed.batches.len() => {
                let (synced_min, mut waiting) = (self.synced_at_least(&packed), Vec::new());
                // All answers are set before any waker runs: a connection that wakes finds the answers of its whole
                // burst.
                for (batch, outcome) in packed.batches.into_iter().zip(outcomes) {
                    if batch.required_in_sync > synced_min && !mutants::is_on(Bug::MinIsrNotAwaited) {
                        min_isr::acknowledge_when_replicated(&*self.group, log_id.index, batch, outcome);
                    } else {
                        waiting.extend(batch.answer.set(Ok(outcome)));
                    }
                }
                waiting.into_iter().for_each(Waker::wake);
            }
            Ok((_, other)) => tracing::error!("shard={}: apply answered {other:?} to data", self.creation.shard),
            Err(error) => {
                let cause = AppendError::from(self.cause(&error));
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
