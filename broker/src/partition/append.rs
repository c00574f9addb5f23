//! Append: a batch is checked here, enqueued in call order, and answered by apply.
//!
//! Before a proposal a batch is refused only if it is malformed, unauthorised or too large, or with a retriable error;
//! every verdict on sequence and epoch comes from apply (design section 3). May not know: how entries are packed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use ottla_env::mutants::{self, Bug};
use ottla_env::rt::{self, Instant};
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::ids::ProducerId;
use ottla_storage::log::BATCH_BYTES_MAX;

use super::handle::Partition;
use super::types::{Acks, AppendOptions, Appended, Origin, TransactionPart};
use super::validate::{is_heavy, prepare, prepare_internal};
use crate::replicated::command::BatchDecision;
use crate::replicated::error::{AppendError, PartitionError};
use crate::replicated::producer_state::precedes;
use crate::replicated::shard_state::{BatchOutcome, Rejection};
use crate::shard::ConnectionId;
use crate::shard::answer::{self, AnswerReceiver};
use crate::shard::idempotence_fence::{ProducerBatch, ProducerKey};
use crate::shard::queued::QueuedBatch;

/// The least timeout, so that a client with a shorter one is still answered by apply: Kafka's leader appends without
/// any wait.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// The greatest timeout of an append, whatever the client sets.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// A pending append. It is enqueued already; the future only waits, with a timer once it must.
#[derive(Debug)]
pub struct Appending {
    answer: AnswerReceiver,
    deadline: Instant,
    timer: Option<rt::Sleep>,
}

impl Future for Appending {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let answer = match Pin::new(&mut this.answer).poll(cx) {
            Poll::Ready(answer) => answer.unwrap_or(Err(PartitionError::NotLeaderOrFollower.into())),
            Poll::Pending => {
                let timer = this.timer.get_or_insert_with(|| rt::sleep_until(this.deadline));
                ready!(Pin::new(timer).poll(cx));
                Err(PartitionError::TimedOut.into())
            }
        };
        Poll::Ready(match answer {
            Ok(BatchOutcome::Stored { base_offset, log_append_time_ms, log_start }) => {
                Ok(Appended { base_offset, log_append_time_ms, log_start })
            }
            Ok(BatchOutcome::Rejected(rejection)) => Err(rejected(rejection)),
            Err(error) => Err(error),
        })
    }
}

impl Partition {
    /// Appends a batch. It is checked and enqueued in this call, so calls keep their order; the future only waits.
    pub fn append(&self, batch: Bytes, options: &AppendOptions) -> Appending {
        let deadline = rt::now() + options.timeout.clamp(TIMEOUT_MIN, TIMEOUT_MAX);
        Appending { answer: self.enqueue(batch, options, deadline), deadline, timer: None }
    }

    fn enqueue(&self, batch: Bytes, options: &AppendOptions, deadline: Instant) -> AnswerReceiver {
        let (answer, receiver) = answer::channel();
        let checked = self.check(batch.clone(), options).and_then(|data| self.fits(data, options.origin));
        let (data, refused) = match checked {
            Ok(data) => (data, None),
            Err(error) => (batch, Some(error)),
        };
        let adopted = self.known_adopted || self.is_adopted();
        if refused.is_none() && !adopted {
            self.shard.request_adoption(self.id);
        }
        if refused.is_none() {
            self.count_appended(data.len() as u64);
        }
        let queued = QueuedBatch {
            partition: self.id,
            producer_batch: self.producer_batch(&data, options.origin),
            data,
            decision: BatchDecision {
                coordinator: matches!(options.origin, Origin::Coordinator(_)),
                guard: options.guard.clone(),
                transaction: match options.transaction {
                    Some(TransactionPart::Decides(decision)) => Some(decision),
                    Some(TransactionPart::Continues) | None => None,
                },
            },
            deadline,
            required_in_sync: self.required_in_sync(options.acks),
            adopted,
            answer,
        };
        self.shard.enqueue(queued, refused);
        receiver
    }

    fn check(&self, batch: Bytes, options: &AppendOptions) -> Result<Bytes, AppendError> {
        if let Origin::Coordinator(epoch) = options.origin {
            // One that began in an earlier epoch may not know what others have written since: it has been replaced, or is
            // about to be.
            return match self.leader_epoch() == Some(epoch) {
                true => prepare_internal(batch),
                false => Err(PartitionError::NotLeaderOrFollower.into()),
            };
        }
        if options.origin == Origin::Transaction {
            let leads = self.shard.leading().is_some();
            return if leads { prepare_internal(batch) } else { Err(PartitionError::NotLeaderOrFollower.into()) };
        }
        if self.topic.internal {
            return Err(AppendError::InternalTopic);
        }
        if !self.shard.is_elected() {
            return Err(PartitionError::NotLeaderOrFollower.into());
        }
        if let Some(error) = self.shard.refuses_writes() {
            return Err(error);
        }
        let required_in_sync = self.required_in_sync(options.acks);
        // A leader that has just been elected does not know who is in sync yet; `QueuedBatch::required_in_sync` counts
        // all the same.
        if required_in_sync > 1
            && self.shard.leading().is_some()
            && required_in_sync > self.shard.group().in_sync_count()
        {
            return Err(AppendError::NotEnoughReplicas);
        }
        if mutants::is_on(Bug::EarlySequenceVerdict) && self.shard.state().lock().looks_out_of_order(self.id, &batch) {
            return Err(AppendError::OutOfOrderSequence);
        }
        let (topic, now_ms, transactional) = (&self.topic.config, rt::wall_clock_ms(), options.transaction.is_some());
        if is_heavy(&batch, topic) {
            // Prepared in this call too, so that the order of batches is kept.
            return rt::block_in_place(|| prepare(batch, topic, now_ms, transactional));
        }
        prepare(batch, topic, now_ms, transactional)
    }

    /// Refuses a batch that no entry can hold: if proposed, it would stop its replicas one after the other. A
    /// coordinator's own batches are bounded by what an entry holds alone: for such a batch the log makes a segment
    /// long enough, and its group continues.
    fn fits(&self, data: Bytes, origin: Origin) -> Result<Bytes, AppendError> {
        let bytes_max = match origin {
            Origin::Client(_) => self.shard.batch_bytes_max(),
            Origin::Coordinator(_) | Origin::Transaction => BATCH_BYTES_MAX,
        };
        if data.len() > bytes_max {
            return Err(AppendError::EntryTooLarge { bytes: data.len(), bytes_max });
        }
        Ok(data)
    }

    /// How many voters must have synced a batch before it is acknowledged.
    fn required_in_sync(&self, acks: Acks) -> usize {
        match acks {
            Acks::All => usize::try_from(self.topic.config.min_insync_replicas).unwrap_or(0),
            Acks::None | Acks::Leader => 0,
        }
    }

    /// The producer, epoch and sequence of an idempotent client's batch.
    fn producer_batch(&self, data: &[u8], origin: Origin) -> Option<ProducerBatch> {
        let Origin::Client(connection) = origin else { return None };
        let header = BatchHeader::parse(data).filter(BatchHeader::is_idempotent)?;
        Some(self.batch_of(connection, &header))
    }

    fn batch_of(&self, connection: ConnectionId, header: &BatchHeader) -> ProducerBatch {
        let key = ProducerKey { connection, producer: ProducerId(header.producer_id), partition: self.id };
        ProducerBatch { key, epoch: header.producer_epoch, sequence: header.base_sequence, arrival: 0 }
    }
}

/// An idempotent batch that was refused before its partition was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedBefore {
    producer: ProducerId,
    epoch: i16,
    sequence: i32,
    error: PartitionError,
}

impl RefusedBefore {
    pub(crate) fn new(header: &BatchHeader, error: PartitionError) -> Self {
        let (producer, epoch) = (ProducerId(header.producer_id), header.producer_epoch);
        Self { producer, epoch, sequence: header.base_sequence, error }
    }

    pub(crate) fn producer(&self) -> ProducerId {
        self.producer
    }

    /// Merges another refused batch of the same producer: the others wait for the one that comes first.
    pub(crate) fn and(&mut self, other: Self) {
        let is_older = other.epoch == self.epoch && precedes(other.sequence, self.sequence);
        if other.epoch > self.epoch || is_older {
            *self = other;
        }
    }
}

impl Partition {
    /// Notes an idempotent batch that is refused before it is enqueued: what its producer sends behind it on this connection is refused
    /// too.
    pub(crate) fn note_refused(&self, connection: ConnectionId, header: &BatchHeader, error: &AppendError) {
        self.shard.note_refusal(self.batch_of(connection, header), error);
    }

    /// Notes a batch that was refused on this connection before the partition was found: what its producer sends behind
    /// it is refused too, as if the batch had been refused here.
    pub(crate) fn note_refusal(&self, connection: ConnectionId, batch: RefusedBefore) {
        let RefusedBefore { producer, epoch, sequence, error } = batch;
        let key = ProducerKey { connection, producer, partition: self.id };
        self.shard.note_refusal(ProducerBatch { key, epoch, sequence, arrival: 0 }, &error.into());
    }
}

fn rejected(rejection: Rejection) -> AppendError {
    match rejection {
        Rejection::Sealed => PartitionError::NotLeaderOrFollower.into(),
        Rejection::NotCarried => PartitionError::UnknownTopicOrPartition.into(),
        Rejection::OutOfOrder => AppendError::OutOfOrderSequence,
        Rejection::Fenced => AppendError::InvalidProducerEpoch,
        Rejection::TransactionEnded => AppendError::TransactionEnded,
        Rejection::TransactionOpen | Rejection::TooManyTransactions => AppendError::InvalidTransactionState,
        Rejection::CoordinatorFenced => AppendError::TransactionCoordinatorFenced,
        Rejection::Malformed => AppendError::Corrupt("the header cannot be read".to_owned()),
        Rejection::Group(code) => AppendError::Group(code),
    }
}
