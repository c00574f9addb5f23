//! **int-poll-skip**. Jepsen: inside one transaction or poll, "a pair of poll values which read the same key and skip over some part of the log
//! which we know should exist". Partitions that were rebalanced within the operation are left out, as there.
//!
//! A full read counts as one operation that stands at the log start before its first record and at its end after the last. Passed over
//! lawfully: what is deleted by retention, superseded under compaction, aborted, or not proved to be committed.

use crate::facts::Facts;
use crate::polls::{self, From, Step, To};
use crate::report::{Finding, Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    polls::walk(facts, |step| {
        if !step.internal(facts) || step.rebalanced {
            return;
        }
        let (from, to) = step.between(facts);
        if facts.must_see(from, to) > 0 {
            findings.add(Law::IntPollSkip, false, || skipped(facts, Law::IntPollSkip, &step));
        }
    });
}

/// Says what was passed over; shared with poll-skip.
pub(super) fn skipped(facts: &Facts, law: Law, step: &Step) -> Finding {
    let (from, to) = step.between(facts);
    let missed: Vec<u32> = (from..to).filter(|&slot| facts.must_see(slot, slot + 1) > 0).collect();
    let offsets: Vec<u64> = missed.iter().take(4).map(|&slot| facts.offset(slot)).collect();
    let before = match step.from {
        From::Within(row) | From::Across(row) => format!("offset {}", facts.history.reads[row as usize].offset),
        From::Beginning => "the beginning".to_owned(),
    };
    let after = match step.to {
        To::Row(row) => format!("offset {}", facts.history.reads[row as usize].offset),
        To::End(offset) => format!("the end at {offset}"),
    };
    let sentence = format!(
        "operation {} went from {before} to {after} of partition {} and passed over {} records, the first at offset {} (value {})",
        step.op,
        step.partition,
        missed.len(),
        offsets[0],
        facts.value_at(missed[0]).value
    );
    let mut operations = vec![step.op];
    operations.extend(step.origin(facts));
    facts.finding(law, step.partition, &offsets, &operations, sentence)
}
