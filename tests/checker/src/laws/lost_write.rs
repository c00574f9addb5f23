//! **lost-write**. Jepsen: "for each key, we take the highest observed offset, and then check that every :ok :send operation with an equal or
//! lower offset was also read by at least one consumer". An info operation counts when one of its values was read.
//!
//! The bound is the greatest of the first slots of all values that were read; a value must have been read if its last slot is not above it.
//! Legal: below the log start (retention), and superseded by a later record of its key in a compacted partition.

use crate::facts::Facts;
use crate::history::NONE;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    // By partition: the first slot of the read value that comes last, and its reader.
    let mut bound: Vec<Option<(u32, u32)>> = vec![None; facts.logs.len()];
    for value in facts.values.iter().filter(|value| value.reader != NONE && value.slots > 0) {
        let bound = &mut bound[value.partition as usize];
        *bound = (*bound).max(Some((value.first, value.reader)));
    }
    for value in facts.values.iter().filter(|value| value.reader == NONE && value.proved && value.slots > 0) {
        let Some((highest, reader)) = bound[value.partition as usize] else { continue };
        if value.last > highest || facts.excused(value) {
            continue;
        }
        findings.add(Law::LostWrite, false, || {
            let (offset, highest) = (facts.offset(value.last), facts.offset(highest));
            let sentence = format!(
                "value {} was written at offset {offset} of partition {} by operation {} and never read, though operation {reader} read offset {highest}",
                value.value, value.partition, value.writer
            );
            facts.finding(Law::LostWrite, value.partition, &[offset, highest], &[value.writer, reader], sentence)
        });
    }
}
