//! Waiting for what is being written of a transactional id: a client that is told CONCURRENT_TRANSACTIONS pauses for longer than
//! the record of a request or the markers of a transaction take.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ottla_env::rt::{self, Instant};
use tokio::sync::futures::OwnedNotified;

use super::error::TransactionError;
use super::led_partition::LedPartition;

/// Longer than markers take where all leaders are there. Kafka's leaders ask for 100 ms (KAFKA-18575).
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The attempts of one request.
pub(super) struct Patience {
    partition: Arc<LedPartition>,
    id: Arc<str>,
    deadline: Instant,
    attempts: usize,
    /// Resolves with the end of the next record after the attempt has begun.
    written: Option<Pin<Box<OwnedNotified>>>,
}

impl Patience {
    pub(super) fn new(partition: Arc<LedPartition>, id: Arc<str>) -> Self {
        Self { partition, id, deadline: rt::now() + WAIT_MAX, attempts: 0, written: None }
    }

    /// An attempt begins: from the second on the end of the next record is awaited from here on.
    pub(super) fn attempt(&mut self) {
        if self.attempts > 0 {
            self.written = Some(Box::pin(self.partition.next_record(&self.id).notified_owned()));
        }
        self.attempts += 1;
    }

    /// True if the attempt is worth another one: something of the id was being written, and has been by now.
    pub(super) async fn again<T>(&mut self, outcome: &Result<T, TransactionError>) -> bool {
        if !matches!(outcome, Err(TransactionError::ConcurrentTransactions)) {
            return false;
        }
        match self.written.take() {
            None => true,
            Some(written) => rt::timeout_at(self.deadline, written).await.is_ok(),
        }
    }
}
