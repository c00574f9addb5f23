//! The coordinator of transactions (KIP-98, KIP-360, KIP-890).
//!
//!     transitions     pure: what a request makes of a transactional id
//!     led_partition   one partition of `__transaction_state` that this node leads: transitions, and the markers that follow
//!     sweep           time-outs, and ids that no client uses any more
//!     runtime         `Transactions`, what handlers call
//!     peers           markers to the leaders of partitions, questions of these to coordinators
//!
//! May not know: wire versions, Raft, which node leads what.

mod error;
mod led_partition;
pub mod partitions;
mod patience;
mod peer_requests;
mod peers;
mod runtime;
mod settings;
mod state_log;
mod sweep;
#[cfg(test)]
mod tests;
mod transaction_log;
pub mod transitions;

pub use error::TransactionError;
pub use partitions::Partitions;
pub use peers::{TransactionPeers, marked_producer};
pub use runtime::{Described, Transactions};
pub use settings::TransactionSettings;
pub use state_log::start;
pub use transaction_log::{MarkerOutcome, TransactionLog};
pub use transitions::{Init, Producer, Refusal};
