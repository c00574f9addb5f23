//! Appending: checked here, enqueued in call order, answered by apply.
//!
//! Before proposing, only what is malformed, unauthorised or too large is refused, or with a retriable error; every verdict
//! on sequence and epoch comes from apply (design section 3). May not know: how entries are packed.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::ids::ProducerId;
use ottla_storage::env::rt;
use tokio::sync::oneshot;

use super::error::{AppendError, PartitionError};
use super::handle::Partition;
use super::types::{Acks, AppendOptions, Appended, Origin};
use super::validate::{prepare, prepare_internal};
use crate::shard::command::BatchDecision;
use crate::shard::queue::{BatchAnswer, QueuedBatch};
use crate::shard::state::{BatchOutcome, Rejection};
use crate::shard::sticky::{Sender, Sent};

/// A client that names a shorter timeout is answered by apply all the same: Kafka's leader appends without any wait.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// No append waits longer, whatever a client says.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

impl Partition {
    /// Appends a batch. It is checked and enqueued in this call, so calls keep their order; the future only waits.
    pub fn append(
        &self,
        batch: Bytes,
        options: AppendOptions,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send + use<> {
        let timeout = options.timeout.clamp(TIMEOUT_MIN, TIMEOUT_MAX);
        let receiver = self.enqueue(batch, &options, timeout);
        async move {
            let answer = rt::timeout(timeout, receiver).await.map_err(|_| PartitionError::TimedOut)?;
            match answer.unwrap_or(Err(PartitionError::NotLeaderOrFollower.into()))? {
                BatchOutcome::Stored { base_offset, log_append_time_ms, log_start } => {
                    Ok(Appended { base_offset, log_append_time_ms, log_start })
                }
                BatchOutcome::Rejected(rejection) => Err(rejected(rejection)),
            }
        }
    }

    fn enqueue(&self, batch: Bytes, options: &AppendOptions, timeout: Duration) -> oneshot::Receiver<BatchAnswer> {
        let (answer, receiver) = oneshot::channel();
        let (data, refused) = match self.check(batch.clone(), options) {
            Ok(data) => (data, None),
            Err(error) => (batch, Some(error)),
        };
        if refused.is_none() && !self.is_adopted() {
            self.shard.want(self.id);
        }
        let queued = QueuedBatch {
            partition: self.id,
            sent: self.sent(&data, options.origin),
            data,
            decision: BatchDecision {
                coordinator: options.origin == Origin::Coordinator,
                guard: options.guard.clone(),
            },
            deadline: rt::now() + timeout,
            answer,
        };
        self.shard.enqueue(queued, refused);
        receiver
    }

    fn check(&self, batch: Bytes, options: &AppendOptions) -> Result<Bytes, AppendError> {
        if options.origin == Origin::Coordinator {
            return prepare_internal(batch);
        }
        if self.topic.internal {
            return Err(AppendError::InternalTopic);
        }
        if self.shard.leading().is_none() {
            return Err(PartitionError::NotLeaderOrFollower.into());
        }
        if let Some(error) = self.shard.refuses_writes() {
            return Err(error);
        }
        if options.acks == Acks::All && !self.has_enough_replicas() {
            return Err(AppendError::NotEnoughReplicas);
        }
        prepare(batch, &self.topic.config, rt::wall_clock_ms())
    }

    /// `min.insync.replicas` holds if a majority meets it: an entry is applied once a majority has synced it. More than
    /// the majority cannot be promised until followers' progress is known, so it is refused rather than pretended.
    fn has_enough_replicas(&self) -> bool {
        let members = self.shard.members();
        let majority = members.voters.iter().map(|config| config.len() / 2 + 1).min().unwrap_or(0);
        usize::try_from(self.topic.config.min_insync_replicas).unwrap_or(0) <= majority
    }

    /// How an idempotent client numbered its batch.
    fn sent(&self, data: &[u8], origin: Origin) -> Option<Sent> {
        let Origin::Client(connection) = origin else { return None };
        let header = BatchHeader::parse(data).filter(BatchHeader::is_idempotent)?;
        let sender = Sender { connection, producer: ProducerId(header.producer_id), partition: self.id };
        Some(Sent { sender, epoch: header.producer_epoch, sequence: header.base_sequence, arrival: 0 })
    }
}

fn rejected(rejection: Rejection) -> AppendError {
    match rejection {
        Rejection::NotCarried => PartitionError::UnknownTopicOrPartition.into(),
        Rejection::OutOfOrder => AppendError::OutOfOrderSequence,
        Rejection::Fenced => AppendError::InvalidProducerEpoch,
        Rejection::Transactional => AppendError::InvalidTransactionState,
        Rejection::Malformed => AppendError::Corrupt("the header cannot be read".to_owned()),
        Rejection::Group(code) => AppendError::Group(code),
    }
}
