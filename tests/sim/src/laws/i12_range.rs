//! I12: no client gets OFFSET_OUT_OF_RANGE for an offset that is not out of range.

use super::Violation;

const LAW: &str = "I12 out of range only when it is";

/// A consumer fetched from an offset at or below an observed end.
pub(crate) fn refused(index: i32, asked: i64, known_end: i64) -> Violation {
    Violation::new(LAW, index, format!("OFFSET_OUT_OF_RANGE for {asked}, the end is known to be {known_end} or beyond"))
}
