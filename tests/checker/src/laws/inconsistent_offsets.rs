//! **inconsistent-offsets**: one partition and offset, two values. Jepsen: "all sends and polls agree on the value for a given key and
//! offset". Sends count where their effects are proved to be visible, polls always. Also invariant I2: an offset is never used again with
//! other content. Retention frees no offset.

use crate::facts::Facts;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    let mut rest = facts.conflicts.as_slice();
    while let Some(&(slot, _)) = rest.first() {
        let here = rest.partition_point(|&(other, _)| other <= slot);
        let (conflicts, after) = rest.split_at(here);
        rest = after;
        findings.add(Law::InconsistentOffsets, false, || {
            let first = facts.value_at(slot);
            let others = conflicts.iter().map(|&(_, value)| &facts.values[value as usize]);
            let all: Vec<_> = std::iter::once(first).chain(others).collect();
            let words: Vec<String> = all.iter().map(|value| value.value.to_string()).collect();
            let operations: Vec<u32> = all.iter().flat_map(|value| [value.writer, value.reader]).collect();
            let (partition, offset) = (first.partition, facts.offset(slot));
            let sentence = format!("partition {partition} has the values {} at offset {offset}", words.join(" and "));
            facts.finding(Law::InconsistentOffsets, partition, &[offset], &operations, sentence)
        });
    }
}
