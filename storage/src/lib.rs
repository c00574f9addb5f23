//! Bytes on disk: one append-only log per data directory, shared by the replicas of all shards on it,
//! with its indexes, its checkpoint and its recovery.
//!
//! May not know: what an entry means. It orders frames per replica and never interprets them.

pub mod checkpoint;
pub mod data_dir;
pub mod entry;
pub mod env;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod index;
pub mod log;
pub mod read;
pub mod rewrite;
pub(crate) mod runs;
pub mod space;
