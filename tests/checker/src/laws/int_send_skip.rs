//! **int-send-skip**. Jepsen: inside one operation a pair of sends to the same partition "skips over some indexes of the log". Always legal:
//! "transaction writes interleave constantly in the Kafka transaction model". It is noted.

use crate::facts::Facts;
use crate::laws::int_nonmonotonic_send::pairs;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    pairs(facts, |op, before, after| {
        let (from, to) = (facts.send_slot[before], facts.send_slot[after]);
        if to <= from + 1 {
            return;
        }
        findings.add(Law::IntSendSkip, true, || {
            let partition = facts.history.sends[before].partition;
            let offsets = [facts.offset(from), facts.offset(to)];
            let sentence = format!(
                "between two sends of operation {op} to partition {partition}, at offsets {} and {}, others wrote {} records",
                offsets[0],
                offsets[1],
                to - from - 1
            );
            facts.finding(Law::IntSendSkip, partition, &offsets, &[op], sentence)
        });
    });
}
