//! What the operator sets about transactions.

use std::time::Duration;

use crate::config::Config;

/// As long as Kafka's coordinator waits: its `request.timeout.ms`.
const APPEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Bounds and times of the coordinator, from the configuration.
#[derive(Debug, Clone)]
pub struct TransactionSettings {
    /// `transaction.max.timeout.ms`.
    pub timeout_ms_max: i64,
    /// `transactional.id.expiration.ms`.
    pub expiration_ms: i64,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub abort_interval: Duration,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub expiration_interval: Duration,
    /// How long a request waits for its record; the record is written nevertheless.
    pub append_timeout: Duration,
}

impl From<&Config> for TransactionSettings {
    fn from(config: &Config) -> Self {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let transaction = &config.transaction;
        Self {
            timeout_ms_max: signed(transaction.timeout_ms_max),
            expiration_ms: signed(transaction.id_expiration_ms),
            abort_interval: Duration::from_millis(transaction.abort_interval_ms),
            expiration_interval: Duration::from_millis(transaction.expiration_interval_ms),
            append_timeout: APPEND_TIMEOUT,
        }
    }
}
