//! **duplicate**. Jepsen: "a single value appears at more than one offset in a key". A client that sends a value again by itself, without an
//! answer, may make as many copies as it made attempts that did not fail; a retry under the same producer sequence is the
//! same attempt.

use crate::facts::Facts;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    for value in facts.values.iter().filter(|value| value.slots > value.attempts.max(1)) {
        findings.add(Law::Duplicate, false, || {
            let offsets = [facts.offset(value.first), facts.offset(value.last)];
            let sentence = format!(
                "value {} of partition {} stands at {} offsets, from {} to {}, after {} attempts to write it",
                value.value, value.partition, value.slots, offsets[0], offsets[1], value.attempts
            );
            facts.finding(Law::Duplicate, value.partition, &offsets, &[value.writer, value.reader], sentence)
        });
    }
}
