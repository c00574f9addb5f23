//! The broker: Kafka's semantics over replicated shards.
//!
//! Layers, calls go down only: handlers -> coordinator -> partition -> shard -> replicated, and
//! shard -> (crate raft).
//! - `replicated`: the state that apply changes; pure.
//! - `server`: sockets, below all layers; it calls the handlers through its trait `Dispatch`.
//! - `metadata`: the cluster's metadata; every layer reads its immutable image.
//! - `admin`: the admin HTTP API.
//! - `node`: builds, starts and stops all of it.
//!
//! The administrator's command line is the crate `broker/cli`, which reaches the broker over the wire only.

pub mod admin;
mod checksum;
mod codec;
pub mod config;
pub mod coordinator;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod handlers;
mod levels;
pub mod limits;
pub mod log_levels;
pub mod metadata;
pub mod metrics;
pub mod node;
pub mod partition;
pub mod replicated;
pub mod server;
pub mod shard;
mod shared_map;
