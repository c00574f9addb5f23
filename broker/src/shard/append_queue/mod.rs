//! The append queue: batches and commands that wait for a shard's next entry, and how that entry is packed. Pure: the
//! time is an argument, the entry to propose the result.
//!
//! Natural batching: while one entry is being flushed the next one fills; everything that waits goes into ONE entry of
//! at most 1 MiB, or one batch. Bounded in bytes. Batches of one partition never overtake each other; those that are not ready,
//! of a partition that is not adopted yet for example, keep their place without holding up other partitions.

use std::collections::{BTreeSet, VecDeque};

use ottla_env::mutants::{self, Bug};
use ottla_env::rt::Instant;
use ottla_protocol::ids::PartitionId;
use ottla_storage::entry::{Batches, EntryBatch};

use super::handover::{Destination, Handover, Successor};
use super::idempotence_fence::{ConnectionId, IdempotenceFence, ProducerBatch};
use super::queued::{QueuedBatch, QueuedCommand};
use crate::replicated::command::{BATCHES_PER_ENTRY_MAX, Command};
use crate::replicated::error::{AppendError, PartitionError};

/// An entry holds at most this many bytes of batches, or one batch.
pub(crate) const ENTRY_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of batches that may wait for one shard.
pub(crate) const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

const _: () = assert!(ENTRY_BYTES_MAX <= QUEUE_BYTES_MAX);

/// The batches and commands that wait for a shard's next entry.
#[derive(Debug, Default)]
pub(crate) struct AppendQueue {
    batches: VecDeque<QueuedBatch>,
    commands: VecDeque<QueuedCommand>,
    bytes: usize,
    arrivals: u64,
    fence: IdempotenceFence,
    stopped: bool,
    /// The appender proposes nothing before an entry is full, or it wakes by itself.
    awaits_full_entry: bool,
    /// Of the last split that was proposed here.
    handover: Option<Handover>,
}

/// Whether a batch goes into the next entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// It stays in the queue, and so does what is behind it of its partition.
    Held,
    /// It is refused unless a batch of its producer goes into the entry before it: what it follows was sent elsewhere.
    Preceded,
    /// It is refused: another shard carries the partition.
    Moved,
}

/// The batches of one entry, grouped by partition.
#[derive(Debug, Default)]
pub(crate) struct PackedEntry {
    pub(crate) batches: Vec<QueuedBatch>,
    /// Earliest deadline of a batch that is held.
    pub(crate) next_deadline: Option<Instant>,
}

impl PackedEntry {
    /// Takes the entry's batches and their decisions; the channels of their callers stay.
    pub(crate) fn take_entry(&mut self) -> (Command, Batches) {
        let decisions = self.batches.iter_mut().map(|batch| std::mem::take(&mut batch.decision)).collect();
        let to_entry =
            |batch: &mut QueuedBatch| EntryBatch { partition: batch.partition, data: std::mem::take(&mut batch.data) };
        (Command::Data(decisions), self.batches.iter_mut().map(to_entry).collect())
    }

    /// True if a batch of the same producer for the same partition, by whatever connection, is in the entry.
    fn has_predecessor_of(&self, batch: &QueuedBatch) -> bool {
        let Some(ProducerBatch { key, .. }) = batch.producer_batch else { return false };
        let earlier = self.batches.iter().filter_map(|earlier| earlier.producer_batch);
        earlier.map(|earlier| earlier.key).any(|of| (of.producer, of.partition) == (key.producer, key.partition))
    }

    /// Groups by partition; the order within a partition is kept. Each batch is moved once, in whatever order they
    /// came.
    fn group(&mut self) {
        if self.batches.is_sorted_by_key(|batch| batch.partition) {
            return;
        }
        let mut order: Vec<(PartitionId, usize)> =
            self.batches.iter().enumerate().map(|(place, batch)| (batch.partition, place)).collect();
        order.sort_unstable();
        let mut batches: Vec<_> = std::mem::take(&mut self.batches).into_iter().map(Some).collect();
        self.batches = order.into_iter().filter_map(|(_, place)| batches.get_mut(place)?.take()).collect();
    }
}

impl AppendQueue {
    /// Adds a batch behind all others, or to the shard to which its partition was handed over; refuses it if the queue is full.
    pub(crate) fn push(&mut self, mut batch: QueuedBatch) {
        if let Some(Destination::Child(child)) = self.destination_of(batch.partition) {
            return self.pass_on(batch, &*child);
        }
        self.number(batch.producer_batch.as_mut());
        if self.stopped {
            return self.refuse(batch, PartitionError::NotLeaderOrFollower.into());
        }
        // One batch always fits, however large.
        if self.bytes > 0 && self.bytes + batch.data.len() > QUEUE_BYTES_MAX {
            return self.refuse(batch, AppendError::Overloaded);
        }
        self.bytes += batch.data.len();
        self.batches.push_back(batch);
    }

    fn destination_of(&self, partition: PartitionId) -> Option<Destination> {
        self.handover.as_ref()?.destination_of(partition)
    }

    /// Batches of these partitions are held from now on: a split that takes them out of the shard is proposed.
    pub(crate) fn hold(&mut self, handover: Handover) {
        self.handover = Some(handover);
    }

    /// The split is not carried out, or not known to be.
    pub(crate) fn end_handover(&mut self) {
        self.handover = None;
    }

    /// The shard has taken these partitions over, which may have been split off it before.
    pub(crate) fn take_back(&mut self, carried: &BTreeSet<PartitionId>) {
        if let Some(handover) = &mut self.handover {
            handover.take_back(carried);
        }
    }

    /// Gives the child what waits for it, in order, and from now on whatever arrives for it.
    pub(crate) fn hand_over(&mut self, handover: Handover) {
        self.handover = Some(handover);
        for batch in std::mem::take(&mut self.batches) {
            match self.destination_of(batch.partition) {
                Some(Destination::Child(child)) => {
                    self.bytes -= batch.data.len();
                    self.pass_on(batch, &*child);
                }
                _ => self.batches.push_back(batch),
            }
        }
    }

    /// A coordinator's own batch is refused: its successor begins with what the child has applied when it is elected, and what
    /// came behind that would be missing there.
    fn pass_on(&mut self, batch: QueuedBatch, child: &dyn Successor) {
        if batch.decision.coordinator {
            return self.refuse(batch, PartitionError::NotLeaderOrFollower.into());
        }
        child.enqueue(QueuedBatch { adopted: false, ..batch });
    }

    /// Refuses a batch that is not queued.
    pub(crate) fn refuse_unqueued(&mut self, mut batch: QueuedBatch, error: AppendError) {
        self.number(batch.producer_batch.as_mut());
        self.refuse(batch, error);
    }

    /// Remembers the refusal of a batch that never reached the queue.
    pub(crate) fn note_refusal(&mut self, mut producer_batch: ProducerBatch, error: &AppendError) {
        self.number(Some(&mut producer_batch));
        self.fence.refuse(&producer_batch, error);
    }

    fn number(&mut self, producer_batch: Option<&mut ProducerBatch>) {
        self.arrivals += 1;
        if let Some(producer_batch) = producer_batch {
            producer_batch.arrival = self.arrivals;
        }
    }

    /// Answers a batch with an error; a retriable one is remembered by the fence.
    pub(crate) fn refuse(&mut self, batch: QueuedBatch, error: AppendError) {
        if let Some(producer_batch) = &batch.producer_batch {
            self.fence.refuse(producer_batch, &error);
        }
        batch.finish(Err(error));
    }

    /// Adds a command; commands go before batches.
    pub(crate) fn push_command(&mut self, command: QueuedCommand) {
        if self.stopped {
            let _ = command.answer.send(Err(PartitionError::NotLeaderOrFollower));
        } else {
            self.commands.push_back(command);
        }
    }

    pub(crate) fn pop_command(&mut self) -> Option<QueuedCommand> {
        self.commands.pop_front()
    }

    /// Bytes of the queued batches.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// True if what waits fills an entry.
    pub(crate) fn fills_entry(&self) -> bool {
        self.bytes >= ENTRY_BYTES_MAX || self.batches.len() >= BATCHES_PER_ENTRY_MAX
    }

    /// The appender proposes nothing more until what waits fills an entry, or it wakes by itself: waking it for each batch would
    /// cost more than the batch.
    pub(crate) fn await_full_entry(&mut self) {
        self.awaits_full_entry = true;
    }

    /// True if the appender is to be woken for a batch that was pushed.
    pub(crate) fn wakes_appender(&self) -> bool {
        !self.awaits_full_entry || self.fills_entry()
    }

    /// Remembers that a batch was refused after it was proposed.
    pub(crate) fn note_refusal_of(&mut self, producer_batch: &ProducerBatch, error: &AppendError) {
        self.fence.refuse(producer_batch, error);
    }

    /// The error of a refused batch that this one is behind, of the same producer and connection.
    pub(crate) fn refusal_before(&mut self, batch: &ProducerBatch) -> Option<AppendError> {
        self.fence.admit(batch, |_| false).err()
    }

    /// Takes the next entry's batches: up to `bytes_max`, or one batch. Batches that are held stay, until their deadline, and so
    /// does what is behind them of their partition; a batch is not held back by a refusal if apply has `seen_all_before` it
    /// of its producer.
    pub(crate) fn pack(
        &mut self,
        now: Instant,
        bytes_max: usize,
        readiness: impl Fn(&QueuedBatch) -> Readiness,
        seen_all_before: impl Fn(&ProducerBatch) -> bool,
    ) -> PackedEntry {
        self.awaits_full_entry = false;
        let mut packed = PackedEntry::default();
        let (mut held, mut held_partitions) = (Vec::new(), BTreeSet::new());
        let mut entry_bytes = 0;
        while let Some(next) = self.batches.front() {
            let full = entry_bytes + next.data.len() > bytes_max.min(ENTRY_BYTES_MAX)
                || packed.batches.len() == BATCHES_PER_ENTRY_MAX;
            if full && !packed.batches.is_empty() {
                break;
            }
            let Some(batch) = self.batches.pop_front() else { break };
            self.bytes -= batch.data.len();
            if let Some(producer_batch) = &batch.producer_batch
                && let Err(error) = self.fence.admit(producer_batch, &seen_all_before)
            {
                batch.finish(Err(error));
                continue;
            }
            let held_until = match self.destination_of(batch.partition) {
                Some(Destination::HeldUntil(until)) => Some(until.min(batch.deadline)),
                Some(Destination::Child(_)) | None => None,
            };
            let readiness = match held_until.is_some() || held_partitions.contains(&batch.partition) {
                true => Readiness::Held,
                false => readiness(&batch),
            };
            let is_refused = match readiness {
                Readiness::Preceded => !packed.has_predecessor_of(&batch),
                Readiness::Moved => true,
                Readiness::Ready | Readiness::Held => false,
            };
            if is_refused {
                self.refuse(batch, PartitionError::NotLeaderOrFollower.into());
                continue;
            }
            if readiness == Readiness::Held {
                let deadline = held_until.unwrap_or(batch.deadline);
                if deadline <= now {
                    self.refuse(batch, PartitionError::LeaderNotAvailable.into());
                    continue;
                }
                packed.next_deadline = Some(packed.next_deadline.map_or(deadline, |next| next.min(deadline)));
                held_partitions.insert(batch.partition);
                held.push(batch);
                continue;
            }
            entry_bytes += batch.data.len();
            packed.batches.push(batch);
        }
        for batch in held.into_iter().rev() {
            self.bytes += batch.data.len();
            self.batches.push_front(batch);
        }
        packed.group();
        if mutants::is_on(Bug::BatchesSwapped)
            && let Some(at) = packed.batches.windows(2).position(|pair| pair[0].partition == pair[1].partition)
        {
            packed.batches.swap(at, at + 1);
        }
        packed
    }

    /// Refuses everything that is queued: this node does not lead any more.
    pub(crate) fn refuse_all(&mut self, error: &PartitionError) {
        (self.bytes, self.awaits_full_entry, self.handover) = (0, false, None);
        for batch in std::mem::take(&mut self.batches) {
            self.refuse(batch, error.clone().into());
        }
        for command in std::mem::take(&mut self.commands) {
            let _ = command.answer.send(Err(error.clone()));
        }
    }

    /// Refuses everything from now on.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        self.refuse_all(&PartitionError::NotLeaderOrFollower);
    }

    /// Drops the refusals of a connection that is closed, and refuses what is queued behind them: it would find a gap,
    /// and the producer sends its retries on another connection.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        if !self.fence.has_refusals_of(connection) {
            return;
        }
        for batch in std::mem::take(&mut self.batches) {
            let of_it = batch.producer_batch.filter(|producer_batch| producer_batch.key.connection == connection);
            match of_it.and_then(|producer_batch| self.fence.admit(&producer_batch, |_| false).err()) {
                Some(error) => {
                    self.bytes -= batch.data.len();
                    batch.finish(Err(error));
                }
                None => self.batches.push_back(batch),
            }
        }
        self.fence.close(connection);
    }
}

#[cfg(test)]
mod tests;
