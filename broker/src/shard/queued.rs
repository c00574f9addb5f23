//! What waits for a shard's next entry: batches and commands, each with the channel of the caller that waits for it.
//!
//! May not know: in which order they are proposed.

use bytes::Bytes;
use ottla_env::rt::Instant;
use ottla_protocol::ids::PartitionId;
use tokio::sync::oneshot;

use super::answer::{AnswerSender, BatchAnswer};
use super::idempotence_fence::ProducerBatch;
use crate::replicated::command::{BatchDecision, Command};
use crate::replicated::error::PartitionError;
use crate::replicated::shard_state::ApplyReply;

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
