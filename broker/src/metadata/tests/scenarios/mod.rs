//! What the balancer does in the course of hours, simulated: it never does too much, and what it does is enough.
//!
//! Each scenario is a test: a load, what happens to nodes, and laws that hold all the time or in the end (`laws.rs`). The same tests
//! draw the plots of `docs/resizing.md`; without `OTTLA_WRITE_DOCS` they compare them with what is there.

mod laws;
mod load;
mod nodes;
mod plot;
mod world;

use std::time::Duration;

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

fn hours(hours: u64) -> Duration {
    minutes(60 * hours)
}
