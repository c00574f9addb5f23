//! **compaction-latest**: in a compacted partition a full read shows for each key the latest committed record below its end, or nothing if that is
//! a tombstone. An older record in its place means that the latest is lost, or that a deleted key came back.
//!
//! Which older records are still there is compaction's own business.

use std::collections::BTreeMap;

use crate::facts::Facts;
use crate::history::Kind;
use crate::polls;
use crate::report::{Findings, Law};

/// A full read up to an end: the slots between which its partition's latest records lie.
struct Asked {
    to: u32,
    from: u32,
    operation: u32,
}

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    let history = facts.history;
    let mut asked: Vec<Vec<Asked>> = facts.compacted.iter().map(|_| Vec::new()).collect();
    for (operation, op) in (0..).zip(&history.ops).filter(|(_, op)| op.kind == Kind::Read && op.ok()) {
        for end in polls::of(&history.ends, operation) {
            let partition = end.partition;
            if facts.compacted[partition as usize] {
                let from = facts.slot_from(partition, facts.start_at(partition, op.completed));
                let to = facts.slot_from(partition, end.offset);
                asked[partition as usize].push(Asked { to, from, operation });
            }
        }
    }
    for (partition, mut asked) in (0..).zip(asked) {
        // The latest records are those below the end before, and what follows: a partition is gone through once.
        asked.sort_by_key(|one| (one.to, one.operation));
        let (mut latest, mut at) = (BTreeMap::new(), facts.logs[partition as usize].start);
        for one in asked {
            (at..one.to).for_each(|slot| note(facts, slot, &mut latest));
            at = at.max(one.to);
            compare(facts, partition, &one, &latest, findings);
        }
    }
}

/// Notes a committed record as the latest of its key, and whether it is a tombstone.
fn note(facts: &Facts, slot: u32, latest: &mut BTreeMap<u64, (u32, bool)>) {
    let extra = facts.extra_of(facts.slots[slot as usize].value).filter(|_| facts.value_at(slot).proved);
    if let Some((key, tombstone)) = extra.and_then(|extra| Some((extra.key?, extra.tombstone))) {
        latest.insert(key, (slot, tombstone));
    }
}

fn compare(facts: &Facts, partition: u32, asked: &Asked, latest: &BTreeMap<u64, (u32, bool)>, findings: &mut Findings) {
    let (history, number) = (facts.history, asked.operation);
    // By key: the last slot shown.
    let mut shown: BTreeMap<u64, u32> = BTreeMap::new();
    for read in history.op(number).reads().filter(|&read| history.reads[read].partition == partition) {
        let extra = facts.extra_of(facts.read_value[read]);
        if let Some(key) = extra.and_then(|extra| extra.key) {
            let last = shown.entry(key).or_default();
            *last = facts.read_slot[read].max(*last);
        }
    }
    for (&key, &(slot, tombstone)) in latest.iter().filter(|(_, (slot, _))| *slot >= asked.from) {
        let instead = match shown.get(&key) {
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
            facts.finding(Law::CompactionLatest, partition, &[offset], &[number, writer], sentence)
        });
    }
}
