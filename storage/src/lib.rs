//! Bytes on disk: one append-only log per data directory, shared by the replicas of all shards on it,
//! with its indexes, its checkpoint and its recovery.
//!
//! May not know: what an entry means. It orders frames per replica and never interprets them.
//!
//! Its folders, lowest first; each may call those below it, and `tests/tests/tidy.rs` tests that:
//!
//! - `ids`, `entry`: the words that all others use
//! - `page_cache`: mappings, and which of their pages are in memory
//! - `log`: the one log, its writer and its recovery
//! - `space`: what each file holds that is still needed
//! - `index`: where the batches of a partition lie
//! - `read`: plans and streams of batches
//! - `compact`: which records compaction keeps
//! - `runs`: files of live batches
//! - `rewrite`: which live batches are copied into runs, and when
//! - `checkpoint`: the replicas' states, and the runs that count
//! - `data_dir`: all of it, as one directory

pub mod checkpoint;
pub mod compact;
pub mod data_dir;
pub mod entry;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod index;
pub mod log;
pub(crate) mod page_cache;
pub mod read;
pub mod rewrite;
pub(crate) mod runs;
pub mod space;
