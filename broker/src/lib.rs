//! The broker: Kafka's meaning over replicated shards.
//!
//! Floors, calls go down only: server -> handlers -> coordinator -> partition -> shard -> (crate raft).
//! `metadata` is the land registry that everybody reads; `admin` is the window; `node` builds everything.

pub mod admin;
mod codec;
pub mod config;
pub mod coordinator;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod handlers;
pub mod limits;
pub mod metadata;
pub mod metrics;
pub mod node;
pub mod partition;
pub mod server;
pub mod shard;
