//! The broker: Kafka's meaning over replicated shards.
//!
//! Floors, calls go down only: server -> handlers -> coordinator -> partition -> shard -> (crate raft).
//! `metadata` is the land registry that everybody reads; `admin` is the window; `node` builds everything. Beside them,
//! `commands` is the command line of an administrator, over `client`: both know the broker only as any client does.

pub mod admin;
pub mod client;
mod codec;
pub mod commands;
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
