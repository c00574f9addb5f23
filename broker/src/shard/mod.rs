//! One Raft group carrying many partitions: commands, apply, appender, manager. Sole caller of a Raft group beside `metadata`.

mod adoption;
mod announce;
pub(crate) mod answer;
mod balance;
mod board;
pub mod clock;
pub mod command;
mod copies;
mod cut_points;
pub mod epochs;
#[cfg(test)]
mod epochs_model_tests;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod group;
mod keys;
pub mod machine;
pub mod manager;
mod membership;
mod notices;
pub mod published;
pub(crate) mod queue;
pub mod registry;
#[allow(clippy::module_inception)]
mod shard;
pub mod state;
pub(crate) mod sticky;
mod succession;
pub mod upkeep;
pub(crate) mod watching;

pub use crate::codec::CodecError;
/// What a shard of `__consumer_offsets` keeps per partition; pure, and known to the floors above by this name.
pub use crate::coordinator::group::GroupStore;
pub use manager::{OpenError, Shards, creation_of};
pub use notices::Election;
pub use registry::Registry;
pub use shard::Shard;
pub use upkeep::Upkeep;
