//! **G1a**, aborted read. Jepsen: "for any observed value of a key, we check that its writer was either :ok or :info; if the writer :failed,
//! this constitutes an aborted read". Here a transaction that its client aborted has failed too.
//!
//! Stricter than Jepsen: the reader may have failed itself; what a poll returns is never taken back. Legal: a reader at
//! read_uncommitted and a transaction's value.

use crate::facts::Facts;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    for (read, row) in facts.history.reads.iter().enumerate() {
        let value = &facts.values[facts.read_value[read] as usize];
        if !value.failed || (value.transactional && facts.history.op(row.op).uncommitted) {
            continue;
        }
        findings.add(Law::G1a, false, || {
            let sentence = format!(
                "operation {} read value {} at offset {} of partition {}, but operation {} that sent it had failed or was aborted",
                row.op, row.value, row.offset, row.partition, value.writer
            );
            facts.finding(Law::G1a, row.partition, &[row.offset], &[row.op, value.writer], sentence)
        });
    }
}
