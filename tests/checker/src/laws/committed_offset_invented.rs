//! **committed-offset-invented**: what is fetched was committed. An offset that no commit wrote, or only one that failed, was aborted, or had not
//! begun when the fetch ended, is invented (Bufstream 0.1 answered 0 for "unknown").

use std::collections::BTreeMap;

use crate::facts::Facts;
use crate::laws::committed_offset::registers;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    for ((group, partition), register) in registers(facts) {
        let mut first: BTreeMap<u64, u32> = BTreeMap::new();
        for commit in &register.commits {
            let invoked = first.entry(commit.offset).or_insert(commit.invoked);
            *invoked = commit.invoked.min(*invoked);
        }
        for fetch in &register.fetches {
            let Some(offset) = fetch.offset else { continue };
            if first.get(&offset).is_some_and(|&invoked| invoked < fetch.completed) {
                continue;
            }
            findings.add(Law::CommittedOffsetInvented, false, || {
                let sentence = format!(
                    "operation {} fetched offset {offset} of partition {partition} for group {group}, which nobody had committed",
                    fetch.op
                );
                facts.finding(Law::CommittedOffsetInvented, partition, &[offset], &[fetch.op], sentence)
            });
        }
    }
}
