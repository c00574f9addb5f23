//! The table of transitions; the coordinator over a log without shards, in virtual time.
#![allow(clippy::unwrap_used)]

mod fake_log;
mod runtime;
mod takeover;
mod transitions;
