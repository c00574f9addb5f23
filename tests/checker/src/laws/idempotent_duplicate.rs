//! **idempotent-duplicate** (design.md, I5): one producer id, epoch and sequence has an offset of a partition at most once, also across failover; a
//! retry is answered with the first offset. KIP-98.
//!
//! Offsets count that were acknowledged under the name, and those at which its value was read, where the value was never sent
//! under another.

use crate::facts::Facts;
use crate::history::{NONE, Outcome};
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    let history = facts.history;
    let mut named: Vec<_> = history
        .extras
        .iter()
        .filter_map(|extra| {
            let row = &history.sends[extra.send as usize];
            extra.producer.filter(|_| written(facts, row.op)).map(|producer| (row.partition, producer, extra.send))
        })
        .collect();
    named.sort_unstable();
    for group in named.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let (partition, producer, _) = group[0];
        let mut slots: Vec<u32> = Vec::new();
        for &(_, _, send) in group {
            slots.push(facts.send_slot[send as usize]);
            let value = &facts.values[facts.send_value[send as usize] as usize];
            let sends = sends_of(facts, value.refs);
            if value.slots > 1 && sends == group.len() {
                slots.extend([value.first, value.last]);
            }
        }
        slots.retain(|&slot| slot != NONE);
        slots.sort_unstable();
        slots.dedup();
        if slots.len() < 2 {
            continue;
        }
        findings.add(Law::IdempotentDuplicate, false, || {
            let offsets: Vec<u64> = slots.iter().map(|&slot| facts.offset(slot)).collect();
            let operations: Vec<u32> = group.iter().map(|&(_, _, send)| history.sends[send as usize].op).collect();
            let sentence = format!(
                "producer {} epoch {} sequence {} has the offsets {offsets:?} of partition {partition}",
                producer.id, producer.epoch, producer.sequence
            );
            facts.finding(Law::IdempotentDuplicate, partition, &offsets, &operations, sentence)
        });
    }
}

/// How often a value was sent and not refused.
fn sends_of(facts: &Facts, refs: (u32, u32)) -> usize {
    let rows = &facts.by_value[refs.0 as usize..refs.1 as usize];
    let sends = rows.iter().filter_map(|&at| facts.history.sends.get(at as usize));
    sends.filter(|row| written(facts, row.op)).count()
}

/// An aborted transaction's records stand in the log too.
fn written(facts: &Facts, op: u32) -> bool {
    facts.history.op(op).outcome != Outcome::Fail
}
