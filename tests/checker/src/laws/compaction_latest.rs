//! **compaction-latest**: in a compacted partition a full read shows for each key the latest committed record below its end, or nothing if that is
//! a tombstone. An older record in its place means that the latest is lost, or that a deleted key came back.
//!
//! Which older records are still there is compaction's own business.

use std::collections::BTreeMap;

use crate::facts::Facts;
use crate::history::Kind;
use crate::polls;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    if !facts.compacted.contains(&true) {
        return;
    }
    let history = facts.history;
    let full = history.ops.iter().enumerate().filter(|(_, op)| op.kind == Kind::Read && op.ok());
    for (number, op) in full {
        let compacted = |partition: u32| facts.compacted[partition as usize];
        // By partition and key: the last slot shown.
        let mut shown: BTreeMap<(u32, u64), u32> = BTreeMap::new();
        for read in op.reads().filter(|&read| compacted(history.reads[read].partition)) {
            let extra = facts.extra_of(facts.read_value[read]);
            if let Some(key) = extra.and_then(|extra| extra.key) {
                let last = shown.entry((history.reads[read].partition, key)).or_default();
                *last = facts.read_slot[read].max(*last);
            }
        }
        for end in polls::of(&history.ends, number as u32).iter().filter(|end| compacted(end.partition)) {
            let partition = end.partition;
            let from = facts.slot_from(partition, facts.start_at(partition, op.completed));
            for (key, (slot, tombstone)) in latest(facts, from..facts.slot_from(partition, end.offset)) {
                let instead = match shown.get(&(partition, key)) {
                    None if tombstone => continue,
                    Some(&last) if last >= slot => continue,
                    None => "nothing".to_owned(),
                    Some(&last) => format!("offset {}", facts.offset(last)),
                };
                findings.add(Law::CompactionLatest, false, || {
                    let offset = facts.offset(slot);
                    let what = if tombstone { "tombstone" } else { "record" };
                    let sentence = format!(
                        "operation {number} read {instead} for key {key} of partition {partition}, whose latest {what} is at offset {offset}"
                    );
                    let writer = facts.value_at(slot).writer;
                    facts.finding(Law::CompactionLatest, partition, &[offset], &[number as u32, writer], sentence)
                });
            }
        }
    }
}

/// By key: the last committed record among some slots, and whether it is a tombstone.
fn latest(facts: &Facts, slots: std::ops::Range<u32>) -> BTreeMap<u64, (u32, bool)> {
    let mut latest = BTreeMap::new();
    for slot in slots {
        let extra = facts.extra_of(facts.slots[slot as usize].value).filter(|_| facts.value_at(slot).proved);
        if let Some((key, tombstone)) = extra.and_then(|extra| Some((extra.key?, extra.tombstone))) {
            latest.insert(key, (slot, tombstone));
        }
    }
    latest
}
