//! What a partition of `__transaction_state` keeps: transactional ids, in Kafka's records.
//!
//! Pure. May not know: what a transition may be, who proposes, which partitions get markers.

pub mod records;
pub mod store;
#[cfg(test)]
mod tests;

pub use records::{Status, TransactionRecord, TransactionValue};
pub use store::TransactionStore;
