//! **int-nonmonotonic-send**. Jepsen: "a transaction sends v1, then v2, but v2 < v1 or v2 < ... v1 in the version order" (or both stand in one
//! place). Judged wherever both places are known, whatever became of the operation; a value that is sent again, at its first attempt only.

use crate::facts::Facts;
use crate::history::NONE;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    pairs(facts, |op, before, after| {
        let (from, to) = (facts.send_slot[before], facts.send_slot[after]);
        if to > from {
            return;
        }
        findings.add(Law::IntNonmonotonicSend, false, || {
            let partition = facts.history.sends[before].partition;
            let offsets = [facts.offset(from), facts.offset(to)];
            let sentence = format!(
                "operation {op} sent value {} to offset {} of partition {partition}, and after it value {} to offset {}",
                facts.history.sends[before].value, offsets[0], facts.history.sends[after].value, offsets[1]
            );
            facts.finding(Law::IntNonmonotonicSend, partition, &offsets, &[op], sentence)
        });
    });
}

/// Shows the pairs of one operation's sends that follow each other in a partition, where both places are known.
pub(super) fn pairs(facts: &Facts, mut see: impl FnMut(u32, usize, usize)) {
    let mut last = vec![usize::MAX; facts.logs.len()];
    for (number, op) in facts.history.ops.iter().enumerate() {
        if op.sends().len() < 2 {
            continue;
        }
        for send in op.sends().filter(|&send| facts.first_attempt(send)) {
            let partition = facts.history.sends[send].partition as usize;
            let before = std::mem::replace(&mut last[partition], send);
            if before != usize::MAX && facts.send_slot[before] != NONE && facts.send_slot[send] != NONE {
                see(number as u32, before, send);
            }
        }
        for send in op.sends() {
            last[facts.history.sends[send].partition as usize] = usize::MAX;
        }
    }
}
