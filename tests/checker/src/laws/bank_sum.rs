//! **bank-sum**: transfers are transactions whose records add up to nothing, so a reader of everything at read_committed finds the sum of what was
//! paid in. Jepsen's bank workload, as sends of amounts.
//!
//! For a full read the sum of the amounts that it shows must be that of the committed records below its ends. A transaction counts only
//! where the read covers it whole: Kafka writes markers to each partition by itself, so between partitions a transaction may be half visible for a
//! while. Not judged: reads at read_uncommitted, compacted partitions.

use std::collections::BTreeMap;

use crate::facts::Facts;
use crate::history::{Kind, NONE, Op};
use crate::polls;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    let history = facts.history;
    if !history.extras.iter().any(|extra| extra.amount.is_some()) {
        return;
    }
    let judged = |op: &Op| op.kind == Kind::Read && op.ok() && !op.uncommitted;
    for (number, op) in history.ops.iter().enumerate().filter(|(_, op)| judged(op)) {
        let mut read = Covered { facts, ranges: BTreeMap::new(), whole: BTreeMap::new() };
        for end in polls::of(&history.ends, number as u32) {
            if !facts.compacted[end.partition as usize] {
                let start = facts.start_at(end.partition, op.completed);
                read.ranges.insert(end.partition, (start, end.offset));
            }
        }
        let expected = read.committed();
        let shown: i64 = op.reads().map(|row| read.amount(facts.read_slot[row], facts.read_value[row])).sum();
        if shown == expected {
            continue;
        }
        findings.add(Law::BankSum, false, || {
            let partitions: Vec<u32> = read.ranges.keys().copied().collect();
            let sentence = format!(
                "operation {number} read accounts that sum up to {shown} instead of {expected} in partitions {partitions:?}"
            );
            let partition = partitions.first().copied().unwrap_or_default();
            facts.finding(Law::BankSum, partition, &[], &[number as u32], sentence)
        });
    }
}

/// What one read covers: from the log start to its ends.
struct Covered<'a> {
    facts: &'a Facts<'a>,
    ranges: BTreeMap<u32, (u64, u64)>,
    /// By transaction: all its records are covered.
    whole: BTreeMap<u32, bool>,
}

impl Covered<'_> {
    fn committed(&mut self) -> i64 {
        let facts = self.facts;
        let ranges: Vec<(u32, (u64, u64))> =
            self.ranges.iter().map(|(&partition, &range)| (partition, range)).collect();
        let mut sum = 0;
        for (partition, (from, to)) in ranges {
            for slot in facts.slot_from(partition, from)..facts.slot_from(partition, to) {
                // A value that stands there more often than it was sent was paid once.
                let value = facts.value_at(slot);
                let copy = value.slots > value.attempts && slot != value.first;
                if value.proved && !copy {
                    sum += self.amount(slot, facts.slots[slot as usize].value);
                }
            }
        }
        sum
    }

    /// The amount of a record, if the read covers it and the transaction around it.
    fn amount(&mut self, slot: u32, value: u32) -> i64 {
        let facts = self.facts;
        let Some(amount) = facts.extra_of(value).and_then(|extra| extra.amount) else { return 0 };
        let writer = facts.values[value as usize].writer;
        if self.covers(slot) && self.covers_transaction(writer) { amount } else { 0 }
    }

    fn covers(&self, slot: u32) -> bool {
        if slot == NONE {
            return false;
        }
        let slot = &self.facts.slots[slot as usize];
        let range = self.ranges.get(&slot.partition);
        range.is_some_and(|&(from, to)| (from..to).contains(&slot.offset))
    }

    fn covers_transaction(&mut self, writer: u32) -> bool {
        let facts = self.facts;
        let op = facts.history.op(writer);
        if op.kind != Kind::Txn || op.failed() {
            return true;
        }
        if let Some(&whole) = self.whole.get(&writer) {
            return whole;
        }
        let whole = op.sends().all(|send| self.covers(facts.send_slot[send]));
        self.whole.insert(writer, whole);
        whole
    }
}
