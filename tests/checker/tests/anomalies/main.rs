//! For each anomaly at least twenty histories that must fail, each as that very anomaly, and for each a legal twin without a finding.
//!
//! One file an anomaly. `notation` explains the rows.

#![allow(clippy::unwrap_used)]

mod notation;

mod bank_sum;
mod committed_offset_falls;
mod committed_offset_forgotten;
mod committed_offset_invented;
mod compaction_latest;
mod dense_offsets;
mod duplicate;
mod g0;
mod g0_process;
mod g0_realtime;
mod g1a;
mod g1c;
mod g1c_process;
mod g1c_realtime;
mod g1c_unisolated;
mod idempotent_duplicate;
mod inconsistent_offsets;
mod int_nonmonotonic_poll;
mod int_nonmonotonic_send;
mod int_poll_skip;
mod int_send_skip;
mod lost_write;
mod nonmonotonic_poll;
mod nonmonotonic_send;
mod phantom_read;
mod poll_skip;
mod precommitted_read;
mod producer_fencing;
mod unseen;
mod zombie_commit;

use std::collections::BTreeSet;

use ottla_checker::{Law, Report, Verdict, check};

const ROWS_MIN: usize = 20;

/// Every bad history breaks `law` and, beside it, none but `beside`; every twin breaks nothing.
pub(crate) fn table(law: Law, beside: &[Law], rows: &[&str]) {
    let distinct: BTreeSet<&str> = rows.iter().copied().collect();
    assert!(distinct.len() >= ROWS_MIN, "{law:?} has {} histories", distinct.len());
    let complaints: Vec<String> = rows.iter().flat_map(|row| complaints(law, beside, row)).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn complaints(law: Law, beside: &[Law], row: &str) -> Vec<String> {
    let [bad, twin] = notation::both(row);
    let mut complaints = Vec::new();
    let mut say = |what: &str, text: &str, report: &Report| {
        let words: Vec<&str> = report.findings.iter().chain(&report.notes).map(|f| f.sentence.as_str()).collect();
        complaints.push(format!("{law:?}: {what}: {text}\n    {:?} {:?}\n    {words:?}", report.broken, report.noted));
    };
    let report = check(&notation::history(&bad));
    let found = if law.always_legal() { &report.noted } else { &report.broken };
    if !found.contains_key(&law) {
        say("not found", &bad, &report);
    }
    if report.broken.keys().any(|other| *other != law && !beside.contains(other)) {
        say("something else is found too", &bad, &report);
    }
    let expected = if law.always_legal() { report.verdict } else { Verdict::Invalid };
    if report.verdict != expected || report.verdict == Verdict::Unknown {
        say("the verdict is wrong", &bad, &report);
    }
    let report = check(&notation::history(&twin));
    if !report.broken.is_empty() || (law.always_legal() && report.noted.contains_key(&law)) {
        say("the twin is legal", &twin, &report);
    }
    complaints
}
