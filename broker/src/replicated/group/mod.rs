//! What a partition of `__consumer_offsets` keeps: its records in Kafka's formats, the guards by which apply judges
//! them, and the store of groups and committed offsets.
//!
//! Pure. May not know: the coordinator's protocols, who proposes.

pub mod batch;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod guard;
pub(crate) mod pending_offsets;
pub mod records;
pub mod schema;
pub mod store;
#[cfg(test)]
mod tests;

pub use guard::Guard;
pub use schema::Malformed;
pub use store::{GroupChange, GroupStore};

/// Name of the topic that holds the groups' records.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
