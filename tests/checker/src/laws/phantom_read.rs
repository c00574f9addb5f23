//! **phantom-read**: a value was read that no operation sent to that partition: invented, damaged, or another partition's. Jepsen stops with
//! `:no-writer-of-value` there; here it is a finding.

use crate::facts::Facts;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    for (read, row) in facts.history.reads.iter().enumerate() {
        if facts.values[facts.read_value[read] as usize].sent {
            continue;
        }
        findings.add(Law::PhantomRead, false, || {
            let sentence = format!(
                "operation {} read value {} at offset {} of partition {}, which nobody sent there",
                row.op, row.value, row.offset, row.partition
            );
            facts.finding(Law::PhantomRead, row.partition, &[row.offset], &[row.op], sentence)
        });
    }
}
