//! **dense-offsets** (design.md, I2): offsets have no holes. Raft's own entries consume none; only the markers of transactions do.
//!
//! - In a partition without transactions and compaction each record that a reader takes stands one offset after the one before it, and the
//!   first of a log at its start (0, or what retention made of it). A missing offset with a known record is a skip, any other
//!   is a hole.
//! - In a partition with transactions the holes of the whole log are counted: not more than transactions that may have written there (a
//!   marker each) and records that failed or are in doubt.
//!
//! Jepsen does "not require contiguity in offsets, because transactions add invisible messages"; this law is our own.

use crate::facts::Facts;
use crate::history::{Kind, NONE};
use crate::polls::{self, From, Step, To};
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    polls::walk(facts, |step| {
        let partition = step.partition as usize;
        if facts.compacted[partition] || facts.transactional[partition] || step.rebalanced {
            return;
        }
        let Some((from, to)) = hole(facts, &step) else { return };
        findings.add(Law::DenseOffsets, false, || {
            let sentence = format!(
                "operation {} found nothing between offsets {from} and {to} of partition {}, and nobody wrote anything else there",
                step.op, step.partition
            );
            let operations: Vec<u32> = std::iter::once(step.op).chain(step.origin(facts)).collect();
            facts.finding(Law::DenseOffsets, step.partition, &[from, to], &operations, sentence)
        });
    });
    count_markers(facts, findings);
}

/// The offsets between which there are fewer slots than offsets.
fn hole(facts: &Facts, step: &Step) -> Option<(u64, u64)> {
    let start = facts.start_at(step.partition, facts.history.op(step.op).completed);
    let from = match step.from {
        From::Within(row) | From::Across(row) => facts.history.reads[row as usize].offset + 1,
        From::Beginning => 0,
    };
    let to = match step.to {
        To::Row(row) => facts.history.reads[row as usize].offset,
        To::End(offset) => offset,
    };
    let from = from.max(start);
    if to <= from {
        return None;
    }
    let slots = facts.slot_from(step.partition, to) - facts.slot_from(step.partition, from);
    (to - from > u64::from(slots)).then_some((from, to))
}

fn count_markers(facts: &Facts, findings: &mut Findings) {
    let mut allowed = vec![0u64; facts.logs.len()];
    // Per partition the last transaction counted, so that each counts once.
    let mut counted = vec![NONE; facts.logs.len()];
    for (send, row) in facts.history.sends.iter().enumerate() {
        let partition = row.partition as usize;
        let op = facts.history.op(row.op);
        if op.kind == Kind::Txn && std::mem::replace(&mut counted[partition], row.op) != row.op {
            allowed[partition] += 1;
        }
        let transactional = op.kind == Kind::Txn;
        if facts.send_slot[send] == NONE && (transactional || !op.failed()) {
            allowed[partition] += 1;
        }
    }
    for (partition, log) in facts.logs.iter().enumerate() {
        let number = partition as u32;
        if !facts.transactional[partition] || facts.compacted[partition] {
            continue;
        }
        let first = facts.slot_from(number, facts.start_at_end(number)).max(log.start);
        if first >= log.end {
            continue;
        }
        let (from, to) = (facts.offset(first), facts.offset(log.end - 1));
        let holes = to - from + 1 - u64::from(log.end - first);
        if holes <= allowed[partition] {
            continue;
        }
        findings.add(Law::DenseOffsets, false, || {
            let sentence = format!(
                "partition {partition} has {holes} empty offsets from {from} to {to}, and markers and unfinished writes make at most {}",
                allowed[partition]
            );
            facts.finding(Law::DenseOffsets, number, &[from, to], &[], sentence)
        });
    }
}
