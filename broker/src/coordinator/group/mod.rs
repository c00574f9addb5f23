//! Consumer groups: membership (the classic protocol) and committed offsets.
//!
//!     Groups (handle) -> one PartitionCoordinator task per led partition -> classic::Group::step (pure)
//!                                                  |  appends records with a guard
//!                                                  v
//!     Partitions -> log -> apply on every replica -> GroupStore (pure)
//!
//! The store is authoritative; the state machines of the coordinator only run ahead of it. An answer that depends on a
//! record is given once that record is applied; when leadership goes, everything parked is answered NOT_COORDINATOR and
//! the machines are dropped; when it comes, they are rebuilt from the store.

pub mod classic;
pub mod coordinator_log;
pub mod error;
pub mod expiry;
mod offsets_log;
mod partition_coordinator;
pub mod runtime;
#[cfg(test)]
mod tests;

use ottla_env::rt;

pub use crate::replicated::group::OFFSETS_TOPIC;
pub use coordinator_log::CoordinatorLog;
pub use error::GroupError;
pub use offsets_log::OffsetsLog;
pub use partition_coordinator::{Commit, CommitTransaction, DeletedTopic, Described, Listed, NewOffset};
pub use runtime::{GroupSettings, Groups};

/// A new, unique member id: the client's name for itself, and 128 random bits.
#[must_use]
pub fn new_member_id(prefix: &str) -> String {
    let bits = (u128::from(rt::random_u64()) << 64) | u128::from(rt::random_u64());
    let id = uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid();
    format!("{prefix}-{id}")
}
