//! The idempotence fence: after a retriable refusal of a batch, later batches of that producer and partition on the
//! same connection are refused too (design section 3). Otherwise a batch behind a refused one would reach apply first,
//! and the client's retry would find a gap.
//!
//! A refusal ends when
//! - the refused batch, a batch of a new epoch or one with a lower sequence comes;
//! - the connection closes; what is queued of it behind the refusal is refused then;
//! - apply has seen everything in front of a batch: the refused batch was sent to another leader, and this node leads
//!   again while the connection is still open. A batch that apply itself has seen is answered by apply too: another
//!   leader may have taken it, and the response was lost.
//!
//! Pure. Arrival numbers distinguish batches sent before a refusal from those sent after it: a batch that was queued
//! already when a later one was refused neither is refused nor ends the refusal.

use std::collections::BTreeMap;

use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::{PartitionId, ProducerId};
use uuid::Uuid;

use crate::replicated::error::AppendError;
use crate::replicated::producer_state::precedes;

/// IdempotenceFence remembered per shard; beyond it the oldest connections' are forgotten.
const REFUSALS_MAX: usize = 65_536;

/// One connection of this process; never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The batches to which a refusal applies: those of one producer for one partition on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProducerKey {
    pub(crate) connection: ConnectionId,
    pub(crate) producer: ProducerId,
    pub(crate) partition: PartitionId,
}

/// An idempotent batch as its producer numbered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerBatch {
    pub(crate) key: ProducerKey,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    /// Grows with every batch that reaches the shard.
    pub(crate) arrival: u64,
}

#[derive(Debug)]
struct Refusal {
    epoch: i16,
    sequence: i32,
    /// The refusal applies only to batches that arrived after this.
    arrival: u64,
    error: AppendError,
}

/// The refusals of one shard.
#[derive(Debug, Default)]
pub(crate) struct IdempotenceFence(BTreeMap<ProducerKey, Refusal>);

impl IdempotenceFence {
    /// Remembers that a batch was refused; only retriable refusals are remembered.
    pub(crate) fn refuse(&mut self, batch: &ProducerBatch, error: &AppendError) {
        if !error.is_retriable() {
            return;
        }
        match self.0.get_mut(&batch.key) {
            Some(known) if known.epoch > batch.epoch => return,
            Some(known) if known.epoch == batch.epoch => {
                // Everything after the first missing batch waits for that one.
                if precedes(batch.sequence, known.sequence) {
                    known.sequence = batch.sequence;
                    known.error = error.clone();
                }
                known.arrival = known.arrival.min(batch.arrival);
            }
            _ => {
                let ProducerBatch { epoch, sequence, arrival, .. } = *batch;
                self.0.insert(batch.key, Refusal { epoch, sequence, arrival, error: error.clone() });
            }
        }
        if self.0.len() > REFUSALS_MAX {
            self.0.pop_first();
        }
    }

    /// Whether a batch may pass, or must be refused behind an earlier one. Ends the refusal if this is the batch that
    /// it waits for, or if apply has `seen_all_before` the batch of its producer.
    pub(crate) fn admit(
        &mut self,
        batch: &ProducerBatch,
        seen_all_before: impl FnOnce(&ProducerBatch) -> bool,
    ) -> Result<(), AppendError> {
        let Some(refusal) = self.0.get(&batch.key) else { return Ok(()) };
        if mutants::is_on(Bug::RefusalsForgotten) {
            return Ok(());
        }
        if batch.arrival <= refusal.arrival {
            return Ok(());
        }
        let behind = batch.epoch == refusal.epoch && precedes(refusal.sequence, batch.sequence);
        if behind && !seen_all_before(batch) {
            return Err(refusal.error.clone());
        }
        if batch.epoch >= refusal.epoch {
            self.0.remove(&batch.key);
        }
        Ok(())
    }

    /// True if a refusal of this connection is remembered.
    pub(crate) fn has_refusals_of(&self, connection: ConnectionId) -> bool {
        let first = ProducerKey {
            connection,
            producer: ProducerId(i64::MIN),
            partition: PartitionId { topic: Uuid::nil(), index: i32::MIN },
        };
        self.0.range(first..).next().is_some_and(|(key, _)| key.connection == connection)
    }

    /// Drops the refusals of a connection that is closed.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        self.0.retain(|key, _| key.connection != connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicated::error::PartitionError;

    const GONE: AppendError = AppendError::Partition(PartitionError::NotLeaderOrFollower);

    fn batch(connection: u64, sequence: i32, arrival: u64) -> ProducerBatch {
        let partition = PartitionId { topic: Uuid::from_u128(1), index: 0 };
        let key = ProducerKey { connection: ConnectionId(connection), producer: ProducerId(7), partition };
        ProducerBatch { key, epoch: 0, sequence, arrival }
    }

    fn nothing(_: &ProducerBatch) -> bool {
        false
    }

    #[test]
    fn what_follows_a_refused_batch_is_refused_until_its_retry_comes() {
        let mut fence = IdempotenceFence::default();
        fence.refuse(&batch(1, 5, 10), &GONE);
        assert_eq!(fence.admit(&batch(1, 6, 11), nothing), Err(GONE));
        assert_eq!(fence.admit(&batch(1, 7, 12), nothing), Err(GONE));
        assert_eq!(fence.admit(&batch(2, 6, 13), nothing), Ok(()));
        assert_eq!(fence.admit(&batch(1, 5, 14), nothing), Ok(()));
        assert_eq!(fence.admit(&batch(1, 6, 15), nothing), Ok(()));
    }

    #[test]
    fn a_batch_that_waited_before_the_refusal_neither_is_refused_nor_ends_it() {
        let mut fence = IdempotenceFence::default();
        fence.refuse(&batch(1, 5, 10), &GONE);
        assert_eq!(fence.admit(&batch(1, 4, 9), nothing), Ok(()));
        assert_eq!(fence.admit(&batch(1, 6, 11), nothing), Err(GONE));
    }

    #[test]
    fn when_an_earlier_batch_fails_too_everything_waits_for_that_one() {
        let mut fence = IdempotenceFence::default();
        fence.refuse(&batch(1, 6, 11), &GONE);
        fence.refuse(&batch(1, 4, 9), &GONE);
        assert_eq!(fence.admit(&batch(1, 5, 10), nothing), Err(GONE));
        assert_eq!(fence.admit(&batch(1, 6, 12), nothing), Err(GONE));
        assert_eq!(fence.admit(&batch(1, 4, 13), nothing), Ok(()));
        assert_eq!(fence.admit(&batch(1, 5, 14), nothing), Ok(()));
    }

    #[test]
    fn a_new_epoch_a_lower_sequence_or_the_end_of_the_connection_ends_it() {
        let mut fence = IdempotenceFence::default();
        fence.refuse(&batch(1, 5, 10), &GONE);
        assert_eq!(fence.admit(&ProducerBatch { epoch: 1, ..batch(1, 9, 11) }, nothing), Ok(()));
        assert_eq!(fence.admit(&batch(1, 6, 12), nothing), Ok(()));
        fence.refuse(&batch(1, 5, 13), &GONE);
        assert_eq!(fence.admit(&batch(1, 3, 14), nothing), Ok(()));
        fence.refuse(&batch(1, 5, 15), &GONE);
        fence.close(ConnectionId(1));
        assert_eq!(fence.admit(&batch(1, 6, 16), nothing), Ok(()));
    }

    #[test]
    fn a_batch_that_continues_what_apply_has_seen_ends_it() {
        let mut fence = IdempotenceFence::default();
        fence.refuse(&batch(1, 5, 10), &GONE);
        // Another leader took 5 to 7, then this node led again.
        let continues = |batch: &ProducerBatch| batch.sequence == 8;
        assert_eq!(fence.admit(&batch(1, 9, 11), continues), Err(GONE));
        assert_eq!(fence.admit(&batch(1, 8, 12), continues), Ok(()));
        assert_eq!(fence.admit(&batch(1, 9, 13), continues), Ok(()));
    }

    #[test]
    fn a_final_refusal_does_not_stick_and_sequences_wrap() {
        let mut fence = IdempotenceFence::default();
        fence.refuse(&batch(1, 5, 10), &AppendError::MessageTooLarge);
        assert_eq!(fence.admit(&batch(1, 6, 11), nothing), Ok(()));
        fence.refuse(&batch(1, i32::MAX, 12), &GONE);
        assert_eq!(fence.admit(&batch(1, 0, 13), nothing), Err(GONE));
    }
}
