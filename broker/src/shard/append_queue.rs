//! The append queue: batches and commands that wait for a shard's next entry, and how that entry is packed. Pure: the
//! time is an argument, the entry to propose the result.
//!
//! Natural batching: while one entry is being flushed the next one fills; everything that waits goes into ONE entry of
//! at most 1 MiB, or one batch. Bounded in bytes. Batches of one partition never overtake each other; those that are not ready,
//! of a partition that is not adopted yet for example, keep their place without holding up other partitions.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use ottla_env::mutants::{self, Bug};
use ottla_env::rt::Instant;
use ottla_protocol::ids::PartitionId;
use ottla_storage::entry::{Batches, EntryBatch};
use tokio::sync::oneshot;

use super::answer::{AnswerSender, BatchAnswer};
use super::idempotence_fence::{ConnectionId, IdempotenceFence, ProducerBatch};
use crate::replicated::command::{BATCHES_PER_ENTRY_MAX, BatchDecision, Command};
use crate::replicated::error::{AppendError, PartitionError};
use crate::replicated::shard_state::ApplyReply;

/// An entry holds at most this many bytes of batches, or one batch.
pub(crate) const ENTRY_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of batches that may wait for one shard.
pub(crate) const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

const _: () = assert!(ENTRY_BYTES_MAX <= QUEUE_BYTES_MAX);

/// A batch on its way to the shard.
#[derive(Debug)]
pub(crate) struct QueuedBatch {
    pub(crate) partition: PartitionId,
    pub(crate) data: Bytes,
    pub(crate) decision: BatchDecision,
    /// Idempotent batches of clients only; the arrival number is given by [`AppendQueue::push`].
    pub(crate) producer_batch: Option<ProducerBatch>,
    /// When the caller stops waiting.
    pub(crate) deadline: Instant,
    /// How many voters must have synced the batch before it is acknowledged, if that is more than Raft needs.
    pub(crate) required_in_sync: usize,
    /// The caller has seen that the shard carries the partition; apply judges in any case.
    pub(crate) adopted: bool,
    pub(crate) answer: AnswerSender,
}

impl QueuedBatch {
    /// Answers the caller, which may have gone.
    pub(crate) fn finish(self, answer: BatchAnswer) {
        self.answer.send(answer);
    }
}

/// A command other than data, and the channel of the caller that waits for it.
#[derive(Debug)]
pub(crate) struct QueuedCommand {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Result<ApplyReply, PartitionError>>,
}

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
    /// Earliest deadline of a batch that waits for an adoption.
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
    /// Adds a batch behind all others; refuses it if the queue is full.
    pub(crate) fn push(&mut self, mut batch: QueuedBatch) {
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
            let readiness = match held_partitions.contains(&batch.partition) {
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
                if batch.deadline <= now {
                    self.refuse(batch, PartitionError::LeaderNotAvailable.into());
                    continue;
                }
                packed.next_deadline = Some(packed.next_deadline.map_or(batch.deadline, |d| d.min(batch.deadline)));
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
        (self.bytes, self.awaits_full_entry) = (0, false);
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::shard::answer::{self, AnswerReceiver};
    use crate::shard::idempotence_fence::ProducerKey;
    use ottla_protocol::ids::ProducerId;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn ready(_: &QueuedBatch) -> Readiness {
        Readiness::Ready
    }

    fn ready_if(condition: bool) -> Readiness {
        if condition { Readiness::Ready } else { Readiness::Held }
    }

    fn id(index: i32) -> PartitionId {
        PartitionId { topic: Uuid::from_u128(1), index }
    }

    fn batch(index: i32, bytes: usize, sequence: Option<i32>) -> (QueuedBatch, AnswerReceiver) {
        let (answer, receiver) = answer::channel();
        let producer_batch = sequence.map(|sequence| {
            let key = ProducerKey { connection: ConnectionId(1), producer: ProducerId(1), partition: id(index) };
            ProducerBatch { key, epoch: 0, sequence, arrival: 0 }
        });
        let data = Bytes::from(vec![0; bytes]);
        let decision = BatchDecision::default();
        (
            QueuedBatch {
                partition: id(index),
                data,
                decision,
                producer_batch,
                deadline: Instant(100),
                required_in_sync: 0,
                adopted: false,
                answer,
            },
            receiver,
        )
    }

    #[test]
    fn everything_that_waits_goes_into_one_entry_up_to_a_mebibyte() {
        let mut queue = AppendQueue::default();
        for _ in 0..3 {
            queue.push(batch(0, 400_000, None).0);
        }
        assert_eq!(queue.pack(Instant(0), usize::MAX, ready, |_| false).batches.len(), 2);
        assert_eq!(queue.pack(Instant(0), usize::MAX, ready, |_| false).batches.len(), 1);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn an_entry_is_no_larger_than_what_a_segment_holds() {
        let mut queue = AppendQueue::default();
        (0..5).for_each(|_| queue.push(batch(0, 300_000, None).0));
        let mut counts = std::iter::from_fn(|| Some(queue.pack(Instant(0), 900_000, ready, |_| false).batches.len()));
        assert_eq!(counts.by_ref().take(3).collect::<Vec<_>>(), [3, 2, 0]);
    }

    #[test]
    fn an_appender_that_awaits_a_full_entry_is_not_woken_for_less() {
        let mut queue = AppendQueue::default();
        queue.push(batch(0, 10, None).0);
        assert!(queue.wakes_appender());
        queue.await_full_entry();
        queue.push(batch(0, 10, None).0);
        assert!(!queue.wakes_appender());
        queue.push(batch(0, ENTRY_BYTES_MAX, None).0);
        assert!(queue.wakes_appender());
        let _ = queue.pack(Instant(0), usize::MAX, ready, |_| false);
        assert!(queue.wakes_appender(), "it has packed, and awaits any batch");
        queue.await_full_entry();
        queue.refuse_all(&PartitionError::NotLeaderOrFollower);
        assert!(queue.wakes_appender(), "nothing is in flight any more that would wake it");
    }

    #[test]
    fn a_batch_above_the_limit_goes_alone() {
        let mut queue = AppendQueue::default();
        queue.push(batch(0, 10, None).0);
        queue.push(batch(0, 3 * ENTRY_BYTES_MAX, None).0);
        queue.push(batch(0, 10, None).0);
        let sizes: Vec<_> =
            (0..3).map(|_| queue.pack(Instant(0), usize::MAX, ready, |_| false).batches[0].data.len()).collect();
        assert_eq!(sizes, [10, 3 * ENTRY_BYTES_MAX, 10]);
    }

    #[test]
    fn too_many_bytes_are_refused_and_what_follows_of_that_producer_too() {
        let mut queue = AppendQueue::default();
        queue.push(batch(0, QUEUE_BYTES_MAX, None).0);
        let (refused, mut answer) = batch(1, 1, Some(5));
        queue.push(refused);
        assert_eq!(answer.try_recv().unwrap(), Err(AppendError::Overloaded));
        let _ = queue.pack(Instant(0), usize::MAX, ready, |_| false);
        let (next, mut answer) = batch(1, 1, Some(6));
        queue.push(next);
        assert!(queue.pack(Instant(0), usize::MAX, ready, |_| false).batches.is_empty());
        assert_eq!(answer.try_recv().unwrap(), Err(AppendError::Overloaded));
        queue.push(batch(1, 1, Some(5)).0);
        queue.push(batch(1, 1, Some(6)).0);
        assert_eq!(queue.pack(Instant(0), usize::MAX, ready, |_| false).batches.len(), 2);
    }

    #[test]
    fn what_waits_behind_a_refusal_does_not_outlive_its_connection() {
        let mut queue = AppendQueue::default();
        queue.push(batch(1, 1, Some(5)).0);
        let mut packed = queue.pack(Instant(0), usize::MAX, ready, |_| false);
        let (behind, mut answer) = batch(1, 1, Some(6));
        queue.push(behind);
        queue.push(batch(2, 1, Some(6)).0);
        queue.refuse(packed.batches.remove(0), PartitionError::TimedOut.into());
        queue.close(ConnectionId(1));
        assert_eq!(answer.try_recv().unwrap(), Err(PartitionError::TimedOut.into()));
        let left = queue.pack(Instant(0), usize::MAX, ready, |_| false).batches;
        assert_eq!(left.iter().map(|batch| batch.partition).collect::<Vec<_>>(), [id(2)]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn batches_of_a_partition_that_is_not_adopted_wait_in_order_and_hold_up_nobody() {
        let mut queue = AppendQueue::default();
        let (late, mut answer) = batch(1, 1, None);
        queue.push(late);
        queue.push(batch(0, 2, None).0);
        queue.push(batch(1, 3, None).0);
        let packed = queue.pack(Instant(0), usize::MAX, |batch| ready_if(batch.partition == id(0)), |_| false);
        assert_eq!(packed.batches.iter().map(|b| b.data.len()).collect::<Vec<_>>(), [2]);
        assert_eq!(packed.next_deadline, Some(Instant(100)));
        assert_eq!(queue.bytes(), 4);
        let packed = queue.pack(Instant(0), usize::MAX, ready, |_| false);
        assert_eq!(packed.batches.iter().map(|b| b.data.len()).collect::<Vec<_>>(), [1, 3]);
        assert!(answer.try_recv().is_err());
    }

    #[test]
    fn whoever_waits_too_long_for_an_adoption_is_told() {
        let mut queue = AppendQueue::default();
        let (late, mut answer) = batch(1, 1, None);
        queue.push(late);
        assert!(queue.pack(Instant(100), usize::MAX, |_| Readiness::Held, |_| false).batches.is_empty());
        assert_eq!(answer.try_recv().unwrap(), Err(PartitionError::LeaderNotAvailable.into()));
    }

    proptest! {
        /// Whatever comes in whatever order: entries keep each partition's order, stay within the limit, lose nothing.
        #[test]
        fn entries_keep_the_order_of_each_partition(sizes in proptest::collection::vec((0..4i32, 1usize..700_000), 1..40), adopted_from in 0usize..40) {
            let mut queue = AppendQueue::default();
            let mut expected: Vec<Vec<usize>> = vec![Vec::new(); 4];
            for (index, bytes) in &sizes {
                queue.push(batch(*index, *bytes, None).0);
                expected[usize::try_from(*index).unwrap()].push(*bytes);
            }
            let mut got: Vec<Vec<usize>> = vec![Vec::new(); 4];
            let mut round = 0;
            while queue.bytes() > 0 {
                let packed = queue.pack(Instant(0), usize::MAX, |batch| ready_if(batch.partition != id(3) || round >= adopted_from), |_| false);
                round += 1;
                let total: usize = packed.batches.iter().map(|b| b.data.len()).sum();
                prop_assert!(total <= ENTRY_BYTES_MAX || packed.batches.len() == 1);
                prop_assert!(packed.batches.is_sorted_by_key(|b| b.partition));
                for packed in packed.batches {
                    got[usize::try_from(packed.partition.index).unwrap()].push(packed.data.len());
                }
            }
            prop_assert_eq!(got, expected);
        }
    }
}
