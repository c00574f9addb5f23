//! The data directory as a whole, on the simulated disk, with a small state machine in the place of a shard.

#![allow(clippy::unwrap_used)]

mod at_rest;
mod compact;
mod compact_day;
mod compact_import;
mod compact_then_rewrite;
mod crash;
mod directory;
mod empty;
mod gaps;
mod import;
mod merge;
mod panics;
mod real;
mod relocate;
mod repair;
mod rewrite;
mod rewrite_faults;
mod rewrite_histories;
mod split;
mod toy;
mod unlink;
mod walk;
