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
mod partition_coordinator;
mod partition_writer;
pub mod runtime;
#[cfg(test)]
mod tests;

use ottla_env::rt;

pub use crate::replicated::group::OFFSETS_TOPIC;
pub use coordinator_log::{CoordinatorLog, PartitionClock};
pub use error::GroupError;
pub use partition_coordinator::{Commit, DeletedTopic, Described, Listed, NewOffset};
pub use partition_writer::PartitionWriter;
pub use runtime::{GroupSettings, Groups};

/// The partition of `__consumer_offsets` that keeps a group: Java's hash of the id, made positive, modulo the count.
#[must_use]
pub fn partition_for(group_id: &str, partition_count: i32) -> i32 {
    let hash = group_id.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's `Utils.abs` clears nothing but turns MIN_VALUE into 0.
    let positive = hash.checked_abs().unwrap_or(0);
    positive % partition_count.max(1)
}

/// A new, unique member id: the client's name for itself, and 128 random bits.
#[must_use]
pub fn new_member_id(prefix: &str) -> String {
    let bits = (u128::from(rt::random_u64()) << 64) | u128::from(rt::random_u64());
    let id = uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid();
    format!("{prefix}-{id}")
}

#[cfg(test)]
mod hash_tests {
    use super::*;

    #[test]
    fn a_group_lies_where_java_would_put_it() {
        // "my-group".hashCode() and friends, as computed by a JVM.
        assert_eq!(partition_for("", 50), 0);
        assert_eq!(partition_for("a", 50), 97 % 50);
        assert_eq!(partition_for("ab", 50), (97 * 31 + 98) % 50);
        // Its hash is i32::MIN.
        assert_eq!(partition_for("polygenelubricants", 50), 0);
    }
}
