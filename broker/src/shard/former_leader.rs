//! What producers have sent to the former leader, and may send again to this one: the answer to a gap in a producer's
//! sequences.
//!
//! A client that learns of a new leader may send its next batches there before it knows what became of those that are on
//! their way to the former one. OUT_OF_ORDER_SEQUENCE_NUMBER would be Kafka's answer, and costs exactly-once delivery:
//! librdkafka then begins a new producer epoch and sends again, for all its partitions, what may be stored. A retriable
//! error makes it wait for the former leader's answers and retry in order. Each rule here ends: a gap that stays is
//! answered as in Kafka.
//!
//! May not know: connections, how entries are packed.

use std::time::Duration;

use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::PartitionId;

use super::Shard;
use super::idempotence_fence::{ProducerBatch, ProducerKey};
use crate::replicated::error::{AppendError, PartitionError};

/// For so long after its election a leader expects what was sent to its predecessor: `request.timeout.ms` of clients, who
/// have given up waiting for the former leader by then.
const FORMER_LEADER_WAIT: Duration = Duration::from_secs(30);

impl Shard {
    /// True if clients may still wait for answers of the leader before this one.
    pub(super) fn follows_former_leader(&self) -> bool {
        self.led_for().is_some_and(|led_for| led_for < FORMER_LEADER_WAIT)
            && !mutants::is_on(Bug::FormerLeaderForgotten)
    }

    /// True if records of a partition were appended by a leader before this one, of this shard or of the one that it comes from.
    pub(super) fn had_former_leader(&self, partition: PartitionId) -> bool {
        self.state().lock().had_other_leaders(partition)
    }

    /// The error for a batch that apply has found out of order, if it may be in order when it is sent again:
    /// - a batch in front of it was refused here, and is sent again before it;
    /// - its producer has appended nothing here since this replica leads: what is missing was sent to the former leader.
    pub(super) fn out_of_order(&self, batch: &ProducerBatch) -> Option<AppendError> {
        if let Some(error) = self.queue.lock().refusal_before(batch) {
            return Some(error);
        }
        let ProducerKey { partition, producer, .. } = batch.key;
        if !self.follows_former_leader() || self.state().lock().has_appended_in_epoch(partition, producer) {
            return None;
        }
        let error = AppendError::from(PartitionError::NotLeaderOrFollower);
        // What is behind it waits as well.
        self.queue.lock().note_refusal_of(batch, &error);
        Some(error)
    }
}
