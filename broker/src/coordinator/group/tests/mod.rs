//! The coordinator as handlers see it, over a journal without shards, in virtual time.
#![allow(clippy::unwrap_used)]

mod fake_journal;
mod groups;
mod liveness;
mod offsets;
mod takeover;
