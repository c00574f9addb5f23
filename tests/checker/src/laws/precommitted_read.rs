//! **precommitted-read**: a transaction polled what it had sent itself. Jepsen: "illegal in Kafka, which assumes that consumers (running at
//! read committed) never observe uncommitted records". It counts whatever became of the transaction. Legal at read_uncommitted.

use crate::facts::Facts;
use crate::history::Kind;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    for (number, op) in facts.history.ops.iter().enumerate() {
        if op.kind != Kind::Txn || op.uncommitted || op.sends().is_empty() {
            continue;
        }
        let sent = &facts.send_value[op.sends()];
        for read in op.reads().filter(|read| sent.contains(&facts.read_value[*read])) {
            let row = &facts.history.reads[read];
            findings.add(Law::PrecommittedRead, false, || {
                let sentence = format!(
                    "transaction {number} polled value {} at offset {} of partition {} before it committed it",
                    row.value, row.offset, row.partition
                );
                facts.finding(Law::PrecommittedRead, row.partition, &[row.offset], &[number as u32], sentence)
            });
        }
    }
}
