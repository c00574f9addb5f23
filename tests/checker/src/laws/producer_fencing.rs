//! **producer-fencing** (KIP-98, KIP-360, KIP-890): once a newer epoch of a producer id has been served, an older one's sends must not succeed.
//!
//! - By the log: within a partition the epochs of a producer id never fall from slot to slot.
//! - By the clock: a send that was acknowledged may not have begun after a send of a newer epoch to the same partition was
//!   acknowledged. For a transaction a newer epoch anywhere, or its InitProducerId, is enough: the coordinator fences it.

use std::collections::BTreeMap;

use crate::facts::Facts;
use crate::history::{Kind, NO_OFFSET, NONE};
use crate::laws::served::Served;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    if facts.history.extras.iter().any(|extra| extra.producer.is_some()) {
        by_the_log(facts, findings);
        by_the_clock(facts, findings);
    }
}

fn by_the_log(facts: &Facts, findings: &mut Findings) {
    let history = facts.history;
    let mut stand: Vec<(u32, u32)> = history
        .extras
        .iter()
        .filter(|extra| extra.producer.is_some() && facts.send_slot[extra.send as usize] != NONE)
        .map(|extra| (facts.send_slot[extra.send as usize], extra.send))
        .collect();
    stand.sort_unstable();
    let mut newest: BTreeMap<(u32, u64), (u32, u32)> = BTreeMap::new();
    for (slot, send) in stand {
        let Some(producer) = history.extra(send as usize).and_then(|extra| extra.producer) else { continue };
        let row = &history.sends[send as usize];
        let newest = newest.entry((row.partition, producer.id)).or_insert((producer.epoch, row.op));
        if producer.epoch >= newest.0 {
            *newest = (producer.epoch, row.op);
            continue;
        }
        findings.add(Law::ProducerFencing, false, || {
            let offset = facts.offset(slot);
            let sentence = format!(
                "offset {offset} of partition {} is of producer {} epoch {}, behind a record of its epoch {}",
                row.partition, producer.id, producer.epoch, newest.0
            );
            facts.finding(Law::ProducerFencing, row.partition, &[offset], &[row.op, newest.1], sentence)
        });
    }
}

fn by_the_clock(facts: &Facts, findings: &mut Findings) {
    let history = facts.history;
    let mut in_partition: BTreeMap<(u64, u32), Served> = BTreeMap::new();
    let mut anywhere: BTreeMap<u64, Served> = BTreeMap::new();
    for &(number, id, epoch) in history.producers.iter().filter(|(op, _, _)| history.op(*op).ok()) {
        anywhere.entry(id).or_default().push(history.op(number).completed, epoch, number);
    }
    for extra in &history.extras {
        let row = &history.sends[extra.send as usize];
        let op = history.op(row.op);
        let Some(producer) = extra.producer.filter(|_| op.ok()) else { continue };
        in_partition.entry((producer.id, row.partition)).or_default().push(op.completed, producer.epoch, row.op);
        if op.kind == Kind::Txn {
            anywhere.entry(producer.id).or_default().push(op.completed, producer.epoch, row.op);
        }
    }
    in_partition.values_mut().chain(anywhere.values_mut()).for_each(Served::order);
    for extra in &history.extras {
        let row = &history.sends[extra.send as usize];
        let op = history.op(row.op);
        let Some(producer) = extra.producer.filter(|_| op.ok()) else { continue };
        let here = in_partition.get(&(producer.id, row.partition));
        let there = anywhere.get(&producer.id).filter(|_| op.kind == Kind::Txn);
        let newest = [here, there].into_iter().flatten().filter_map(|served| served.before(op.invoked)).max();
        let Some((epoch, by)) = newest.filter(|&(epoch, _)| epoch > producer.epoch) else { continue };
        findings.add(Law::ProducerFencing, false, || {
            let sentence = format!(
                "operation {} of producer {} epoch {} succeeded, though operation {by} had served its epoch {epoch} before it began",
                row.op, producer.id, producer.epoch
            );
            let offsets: Vec<u64> = Some(row.offset).into_iter().filter(|&offset| offset != NO_OFFSET).collect();
            facts.finding(Law::ProducerFencing, row.partition, &offsets, &[row.op, by], sentence)
        });
    }
}
