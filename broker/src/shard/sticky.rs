//! Refusals that stick: after a retriable refusal, later batches of that producer and partition on the same connection are
//! refused likewise until the refused one, a new epoch or a lower sequence comes, or the connection closes (design section
//! 3), and with it whatever of it still waits here. Otherwise a batch behind a refused one would reach apply first, and a
//! client's retry would find a gap. It also ends when apply has seen everything in front of a batch: the refused one was
//! sent to another leader, and this node may lead again while the connection lives on. A batch that apply has seen itself is
//! answered by apply too: another leader may have taken it and its answer been lost.
//!
//! Pure. Arrival numbers tell what was sent before a refusal from what was sent after it: a batch that already waited
//! when a later one was refused neither is refused nor ends the refusal.

use std::collections::BTreeMap;

use ottla_protocol::ids::{PartitionId, ProducerId};
use ottla_storage::env::mutants::{self, Bug};
use uuid::Uuid;

use crate::partition::{AppendError, ConnectionId};

/// Refusals remembered per shard; beyond it the oldest connections' are forgotten.
const REFUSALS_MAX: usize = 65_536;

/// Whose batches are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sender {
    pub(crate) connection: ConnectionId,
    pub(crate) producer: ProducerId,
    pub(crate) partition: PartitionId,
}

/// A batch as its sender numbered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) sender: Sender,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    /// Grows with every batch that reaches the shard.
    pub(crate) arrival: u64,
}

#[derive(Debug)]
struct Refusal {
    epoch: i16,
    sequence: i32,
    /// Only batches that arrived after this are concerned.
    arrival: u64,
    error: AppendError,
}

/// The refusals of one shard.
#[derive(Debug, Default)]
pub(crate) struct Refusals(BTreeMap<Sender, Refusal>);

/// `a` comes before `b`; sequences wrap.
pub(crate) fn precedes(a: i32, b: i32) -> bool {
    let ahead = b.wrapping_sub(a) & i32::MAX;
    ahead != 0 && ahead < 1 << 30
}

impl Refusals {
    /// Remembers that a batch was refused; only retriable refusals stick.
    pub(crate) fn refuse(&mut self, sent: &Sent, error: &AppendError) {
        if !error.is_retriable() {
            return;
        }
        match self.0.get_mut(&sent.sender) {
            Some(known) if known.epoch > sent.epoch => return,
            Some(known) if known.epoch == sent.epoch => {
                // The first batch that is missing is what everything after it waits for.
                if precedes(sent.sequence, known.sequence) {
                    known.sequence = sent.sequence;
                    known.error = error.clone();
                }
                known.arrival = known.arrival.min(sent.arrival);
            }
            _ => {
                let Sent { epoch, sequence, arrival, .. } = *sent;
                self.0.insert(sent.sender, Refusal { epoch, sequence, arrival, error: error.clone() });
            }
        }
        if self.0.len() > REFUSALS_MAX {
            self.0.pop_first();
        }
    }

    /// Says whether a batch must be refused behind an earlier one; ends the refusal if this is what it waits for, or if apply
    /// has `seen_all_before` the batch of its producer.
    pub(crate) fn admit(
        &mut self,
        sent: &Sent,
        seen_all_before: impl FnOnce(&Sent) -> bool,
    ) -> Result<(), AppendError> {
        let Some(refusal) = self.0.get(&sent.sender) else { return Ok(()) };
        if mutants::is_on(Bug::RefusalsForgotten) {
            return Ok(());
        }
        if sent.arrival <= refusal.arrival {
            return Ok(());
        }
        let behind = sent.epoch == refusal.epoch && precedes(refusal.sequence, sent.sequence);
        if behind && !seen_all_before(sent) {
            return Err(refusal.error.clone());
        }
        if sent.epoch >= refusal.epoch {
            self.0.remove(&sent.sender);
        }
        Ok(())
    }

    /// True if something was refused on this connection.
    pub(crate) fn concern(&self, connection: ConnectionId) -> bool {
        let first = Sender {
            connection,
            producer: ProducerId(i64::MIN),
            partition: PartitionId { topic: Uuid::nil(), index: i32::MIN },
        };
        self.0.range(first..).next().is_some_and(|(sender, _)| sender.connection == connection)
    }

    /// Forgets what was refused on a connection that is closed.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        self.0.retain(|sender, _| sender.connection != connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::PartitionError;

    const GONE: AppendError = AppendError::Partition(PartitionError::NotLeaderOrFollower);

    fn sent(connection: u64, sequence: i32, arrival: u64) -> Sent {
        let partition = PartitionId { topic: Uuid::from_u128(1), index: 0 };
        let sender = Sender { connection: ConnectionId(connection), producer: ProducerId(7), partition };
        Sent { sender, epoch: 0, sequence, arrival }
    }

    fn nothing(_: &Sent) -> bool {
        false
    }

    #[test]
    fn what_follows_a_refused_batch_is_refused_until_its_retry_comes() {
        let mut refusals = Refusals::default();
        refusals.refuse(&sent(1, 5, 10), &GONE);
        assert_eq!(refusals.admit(&sent(1, 6, 11), nothing), Err(GONE));
        assert_eq!(refusals.admit(&sent(1, 7, 12), nothing), Err(GONE));
        assert_eq!(refusals.admit(&sent(2, 6, 13), nothing), Ok(()));
        assert_eq!(refusals.admit(&sent(1, 5, 14), nothing), Ok(()));
        assert_eq!(refusals.admit(&sent(1, 6, 15), nothing), Ok(()));
    }

    #[test]
    fn a_batch_that_waited_before_the_refusal_neither_is_refused_nor_ends_it() {
        let mut refusals = Refusals::default();
        refusals.refuse(&sent(1, 5, 10), &GONE);
        assert_eq!(refusals.admit(&sent(1, 4, 9), nothing), Ok(()));
        assert_eq!(refusals.admit(&sent(1, 6, 11), nothing), Err(GONE));
    }

    #[test]
    fn when_an_earlier_batch_fails_too_everything_waits_for_that_one() {
        let mut refusals = Refusals::default();
        refusals.refuse(&sent(1, 6, 11), &GONE);
        refusals.refuse(&sent(1, 4, 9), &GONE);
        assert_eq!(refusals.admit(&sent(1, 5, 10), nothing), Err(GONE));
        assert_eq!(refusals.admit(&sent(1, 6, 12), nothing), Err(GONE));
        assert_eq!(refusals.admit(&sent(1, 4, 13), nothing), Ok(()));
        assert_eq!(refusals.admit(&sent(1, 5, 14), nothing), Ok(()));
    }

    #[test]
    fn a_new_epoch_a_lower_sequence_or_the_end_of_the_connection_ends_it() {
        let mut refusals = Refusals::default();
        refusals.refuse(&sent(1, 5, 10), &GONE);
        assert_eq!(refusals.admit(&Sent { epoch: 1, ..sent(1, 9, 11) }, nothing), Ok(()));
        assert_eq!(refusals.admit(&sent(1, 6, 12), nothing), Ok(()));
        refusals.refuse(&sent(1, 5, 13), &GONE);
        assert_eq!(refusals.admit(&sent(1, 3, 14), nothing), Ok(()));
        refusals.refuse(&sent(1, 5, 15), &GONE);
        refusals.close(ConnectionId(1));
        assert_eq!(refusals.admit(&sent(1, 6, 16), nothing), Ok(()));
    }

    #[test]
    fn a_batch_that_continues_what_apply_has_seen_ends_it() {
        let mut refusals = Refusals::default();
        refusals.refuse(&sent(1, 5, 10), &GONE);
        // Another leader took 5 to 7, then this node led again.
        let continues = |sent: &Sent| sent.sequence == 8;
        assert_eq!(refusals.admit(&sent(1, 9, 11), continues), Err(GONE));
        assert_eq!(refusals.admit(&sent(1, 8, 12), continues), Ok(()));
        assert_eq!(refusals.admit(&sent(1, 9, 13), continues), Ok(()));
    }

    #[test]
    fn a_final_refusal_does_not_stick_and_sequences_wrap() {
        let mut refusals = Refusals::default();
        refusals.refuse(&sent(1, 5, 10), &AppendError::MessageTooLarge);
        assert_eq!(refusals.admit(&sent(1, 6, 11), nothing), Ok(()));
        refusals.refuse(&sent(1, i32::MAX, 12), &GONE);
        assert_eq!(refusals.admit(&sent(1, 0, 13), nothing), Err(GONE));
    }
}
