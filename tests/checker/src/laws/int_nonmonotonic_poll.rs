//! **int-nonmonotonic-poll**. Jepsen: inside one operation, "a pair of poll values which contradict the log order, or repeat the same value".
//! Partitions that were rebalanced within the operation are left out, as there.

use crate::facts::Facts;
use crate::polls::{self, From, Step, To};
use crate::report::{Finding, Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    polls::walk(facts, |step| {
        if step.internal(facts) && !step.rebalanced && backwards(facts, &step).is_some() {
            findings.add(Law::IntNonmonotonicPoll, false, || went_back(facts, Law::IntNonmonotonicPoll, &step));
        }
    });
}

/// Offsets before and after, where the later is not the greater. Shared with nonmonotonic-poll.
pub(super) fn backwards(facts: &Facts, step: &Step) -> Option<(u64, u64)> {
    let (From::Within(before) | From::Across(before), To::Row(after)) = (step.from, step.to) else { return None };
    let reads = &facts.history.reads;
    let (before, after) = (reads[before as usize].offset, reads[after as usize].offset);
    (after <= before).then_some((before, after))
}

pub(super) fn went_back(facts: &Facts, law: Law, step: &Step) -> Finding {
    let (before, after) = backwards(facts, step).unwrap_or_default();
    let sentence = format!(
        "operation {} read offset {after} of partition {} after its reader had read offset {before}",
        step.op, step.partition
    );
    let mut operations = vec![step.op];
    operations.extend(step.origin(facts));
    facts.finding(law, step.partition, &[before, after], &operations, sentence)
}
