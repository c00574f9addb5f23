//! **committed-offset-falls** (design.md, I4): for one owner, a client in one generation of a group, the committed offset never falls: neither
//! what it commits with success nor what it fetches is below what it had committed or fetched before. Its consumer only moves forward, and
//! no other client may commit for the partition. Another generation may begin lower.

use crate::facts::Facts;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    let history = facts.history;
    let mut known: Vec<_> = history
        .commits
        .iter()
        .chain(&history.fetches)
        .filter(|known| history.op(known.op).ok())
        .filter_map(|known| {
            let owner = (known.of.group, known.of.partition, known.of.generation?, history.op(known.op).client);
            Some((owner, known.op, known.of.offset?))
        })
        .collect();
    known.sort_unstable();
    for owned in known.chunk_by(|a, b| a.0 == b.0) {
        let (mut highest, mut by) = (owned[0].2, owned[0].1);
        for &((group, partition, generation, client), op, offset) in owned {
            if offset >= highest {
                (highest, by) = (offset, op);
                continue;
            }
            findings.add(Law::CommittedOffsetFalls, false, || {
                let sentence = format!(
                    "client {client} of generation {generation} of group {group} has offset {offset} of partition {partition} in operation {op}, after {highest} in operation {by}"
                );
                facts.finding(Law::CommittedOffsetFalls, partition, &[highest, offset], &[op, by], sentence)
            });
        }
    }
}
