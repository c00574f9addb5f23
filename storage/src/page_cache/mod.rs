//! The page cache: mappings of files, whether their pages are in memory, and read errors that a mapping meets.
//!
//! May not know: what the files contain.

mod fault;
pub(crate) mod mapped;
pub(crate) mod residency;
