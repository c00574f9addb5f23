//! Apply: it panics only where it was given what no replica of this release can apply.
//!
//! A panic of apply stops one replica, and the others go on: nobody would notice one that asserts what is not so.

use super::Violation;

const LAW: &str = "apply does not panic";

/// What is in the words of a panic that is expected: an entry of a newer release; the replica that is to be taken over was
/// removed meanwhile.
const EXPECTED: [&str; 2] = ["is it of a newer release?", "is not here"];

/// A replica has stopped for this reason.
pub(crate) fn stopped(node: u32, replica: u64, why: &str) -> Result<(), Violation> {
    if !why.contains("apply panicked") || EXPECTED.iter().any(|expected| why.contains(expected)) {
        return Ok(());
    }
    Err(Violation::new(LAW, None, format!("node {node}, replica {replica}: {why}")))
}
