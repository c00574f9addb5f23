//! **unseen**: acknowledged and not polled by any client until the end. Jepsen: "messages which have been successfully acknowledged, but not
//! polled by any client"; its final phase reads until past every highest offset, so at the end there must be none.
//!
//! Legal: below the log start, superseded or deleted in a compacted partition, and, where a log start rose, acknowledged without an offset.

use crate::facts::Facts;
use crate::history::NONE;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    for value in facts.values.iter().filter(|value| value.acknowledged && value.reader == NONE) {
        if facts.excused(value) {
            continue;
        }
        findings.add(Law::Unseen, false, || {
            let offsets: Vec<u64> = if value.slots > 0 { vec![facts.offset(value.last)] } else { Vec::new() };
            let sentence = format!(
                "value {} of partition {} was acknowledged to operation {} and read by nobody until the end",
                value.value, value.partition, value.writer
            );
            facts.finding(Law::Unseen, value.partition, &offsets, &[value.writer], sentence)
        });
    }
}
