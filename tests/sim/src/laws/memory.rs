//! Memory: a process that has ended, killed or in order, leaves nothing in memory.
//!
//! Whatever keeps a node's data directory keeps all of the node: a closure that holds a service which holds the
//! closure's owner. One process starts one node, but a simulation starts thousands.

use super::Violation;

const LAW: &str = "a process that has ended is freed";

/// So many of all processes still have their data directory in memory.
pub(crate) fn kept(kept: usize, all: usize) -> Violation {
    Violation::new(LAW, None, format!("{kept} of {all} processes still have their data directory in memory"))
}
