//! The coordinator of transactions (KIP-98, KIP-360, KIP-890).
//!
//!     transitions   pure: what a request makes of a transactional id
//!
//! May not know: wire versions, Raft, which node leads what.

#[cfg(test)]
mod tests;
pub mod transitions;

pub use transitions::{Refusal, TransactionError};
