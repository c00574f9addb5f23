//! I1: an acknowledged batch is on stable storage on a majority, and every later leader has it at the same offset. I3:
//! records that a consumer read stay.

use std::collections::BTreeMap;

use super::Violation;
use crate::oracle::Known;

const LAW: &str = "I1 acknowledged is durable";
const NOT_SENT: &str = "I3 only what was sent and committed is read";

/// All records of a partition that one replica has after the faults.
pub(crate) fn holds_all(
    index: i32,
    who: &str,
    known: &Known,
    held: &BTreeMap<i64, u64>,
    log_start: i64,
) -> Result<(), Violation> {
    for (offset, value) in known.values.range(log_start..) {
        match held.get(offset) {
            Some(found) if found == value => {}
            found => {
                let told = if known.acknowledged.contains(offset) { "acknowledged" } else { "given to a consumer" };
                let found = found.map_or("nothing".to_owned(), |value| format!("{value:x}"));
                return Err(Violation::new(
                    LAW,
                    index,
                    format!("{value:x} at offset {offset} was {told}; {who} holds {found}"),
                ));
            }
        }
    }
    only_true(index, who, known, held)
}

/// A replica's records were sent by clients, and agree with those that clients observed.
pub(crate) fn only_true(index: i32, who: &str, known: &Known, held: &BTreeMap<i64, u64>) -> Result<(), Violation> {
    for (offset, value) in held {
        if !known.sent.contains(value) {
            let what = format!("{who} holds {value:x} at {offset}, which nobody sent");
            return Err(Violation::new(NOT_SENT, index, what));
        }
        if let Some(told) = known.values.get(offset).filter(|told| *told != value) {
            let what = format!("{told:x} at offset {offset} was told; {who} holds {value:x}");
            return Err(Violation::new(LAW, index, what));
        }
    }
    Ok(())
}
