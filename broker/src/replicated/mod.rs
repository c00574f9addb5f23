//! The state that apply changes: commands of entries, what a replica keeps of them, and the decisions of apply.
//!
//!     ShardState -- partitions: epochs, producers, log start, next offset, shard clock
//!     group::GroupStore -- a partition of `__consumer_offsets`: groups and committed offsets
//!     transaction::TransactionStore -- a partition of `__transaction_state`: transactional ids
//!
//! Every replica that applies the same entries holds the same state, so that nothing here reads a clock, a setting, the
//! disk or the network (design section 3). `error` names why a partition refuses. May not know: Raft groups, leaders,
//! requests of clients.

mod apply_data;
pub(crate) mod changes;
pub mod checkpoint_keys;
pub mod command;
mod compact;
pub mod compaction;
pub mod epochs;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod group;
pub mod kept;
mod merge;
pub mod merge_state;
pub mod producer_state;
pub mod shard_state;
mod split;
#[cfg(test)]
mod tests;
pub mod transaction;
pub mod transactions;
