//! I5: one producer id, epoch and sequence has offsets at most once, and what a producer sends keeps its order.

use std::collections::BTreeMap;

use super::Violation;
use crate::oracle::Known;
use crate::workload::{is_idempotent, producer_of};

const LAW: &str = "I5 once and in order";

/// No client sends a value twice but as a retry of an idempotent producer.
pub(crate) fn one_offset_a_value(index: i32, known: &Known, offset: i64, value: u64) -> Result<(), Violation> {
    match known.offsets.get(&value) {
        Some(before) if *before != offset => {
            Err(Violation::new(LAW, index, format!("{value:x} was told to be at {before}, now it is at {offset}")))
        }
        _ => Ok(()),
    }
}

/// All records of a partition that one replica has.
pub(crate) fn in_order(index: i32, who: &str, held: &BTreeMap<i64, u64>) -> Result<(), Violation> {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    // A plain producer's request that got no answer may be appended behind its next one.
    for (offset, value) in held.iter().filter(|(_, value)| is_idempotent(**value)) {
        if let Some(before) = last.insert(producer_of(*value), *value)
            && before >= *value
        {
            return Err(Violation::new(
                LAW,
                index,
                format!("{who}: offset {offset} holds {value:x} behind {before:x}"),
            ));
        }
    }
    Ok(())
}

/// A refusal that only lost or wrong producer state explains.
pub(crate) fn refused(index: i32, sequence: i32, error: &str) -> Violation {
    Violation::new(LAW, index, format!("an idempotent producer with one batch in flight, sequence {sequence}: {error}"))
}
