//! **nonmonotonic-send** (external). Jepsen: "cases where a single process's sends to a given key go backwards relative to the version order".
//!
//! A send that ended well orders those after it; one with an unknown outcome is judged, and orders nothing (it may be carried out late). Stricter than
//! Jepsen: an assign makes no send forgotten, and a client that crashed none that had ended well: an acknowledged record
//! stands before whatever its process sends afterwards. A value that is sent again is judged at its first attempt only.

use std::collections::BTreeMap;

use crate::facts::Facts;
use crate::history::NONE;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    let history = facts.history;
    // By process: the last acknowledged send to each partition.
    let mut last: Vec<BTreeMap<u32, usize>> = vec![BTreeMap::new(); history.processes as usize];
    // By partition: the operation whose first send there was looked at.
    let mut judged = vec![usize::MAX; facts.logs.len()];
    for (number, op) in history.ops.iter().enumerate().filter(|(_, op)| !op.failed()) {
        let last = &mut last[op.process as usize];
        for send in op.sends().filter(|&send| facts.first_attempt(send) && facts.send_slot[send] != NONE) {
            let row = &history.sends[send];
            if std::mem::replace(&mut judged[row.partition as usize], number) == number {
                continue;
            }
            let Some(&before) = last.get(&row.partition) else { continue };
            let (from, to) = (facts.send_slot[before], facts.send_slot[send]);
            if to > from {
                continue;
            }
            findings.add(Law::NonmonotonicSend, false, || {
                let offsets = [facts.offset(from), facts.offset(to)];
                let earlier = &history.sends[before];
                let sentence = format!(
                    "process {} sent value {} to offset {} of partition {}, and later, in operation {number}, value {} to offset {}",
                    op.process, earlier.value, offsets[0], row.partition, row.value, offsets[1]
                );
                let operations = [number as u32, earlier.op];
                facts.finding(Law::NonmonotonicSend, row.partition, &offsets, &operations, sentence)
            });
        }
        if op.ok() {
            for send in op.sends().filter(|&send| facts.send_slot[send] != NONE) {
                let last = last.entry(history.sends[send].partition).or_insert(send);
                if facts.send_slot[send] > facts.send_slot[*last] {
                    *last = send;
                }
            }
        }
    }
}
