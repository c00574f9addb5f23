//! I12: no client is told that an offset is out of range when it is not.

use super::Violation;

const LAW: &str = "I12 out of range only when it is";

/// The consumer asked for an offset at or below an end that somebody was told of.
pub(crate) fn refused(index: i32, asked: i64, known_end: i64) -> Violation {
    Violation::new(LAW, index, format!("OFFSET_OUT_OF_RANGE for {asked}, the end is known to be {known_end} or beyond"))
}
