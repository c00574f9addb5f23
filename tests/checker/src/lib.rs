//! Checks a history of client operations. No I/O, no clock, no randomness: the same history gives the same report to
//! the byte.
//!
//! The anomalies are those of Jepsen's kafka workload (`jepsen.tests.kafka`, jepsen-io/jepsen, `jepsen/src/jepsen/tests/kafka.clj`), as used in the
//! analyses of Redpanda 21.10.1 and Bufstream 0.1.0; beside them stand the laws that Kafka's clients rely on otherwise. One file
//! a law, in `laws/`; each head cites the definition and says where we are stricter.
//!
//!     events -> history (columns, pairs) -> facts (values, version orders) -> laws -> report
//!
//! **Legal always**: int-send-skip, G0, and cycles that need a write-write edge out of a transaction: Kafka does not isolate
//! writes. **Legal across a rebalance with subscribe**: poll-skip and nonmonotonic-poll. Everything else fails the run.
//!
//! **Linear up to a sort**: `cargo run --release -p ottla-checker --example ten_million`.
//!
//! May not know: I/O. Simulation and live runs pass the histories that they recorded.

pub mod event;
pub mod lines;

mod facts;
mod graph;
mod history;
mod laws;
mod polls;
mod report;
mod tarjan;

pub use history::{BadEvent, EVENTS_MAX, History, IDS_MAX, MICRO_MAX, Recorder};
pub use report::{FINDINGS_MAX, Finding, Law, Neighbour, Report, Verdict};

/// Checks a history against every law.
pub fn check(history: &History) -> Report {
    let facts = facts::Facts::of(history);
    let mut findings = report::Findings::default();
    for law in laws::ALL {
        law(&facts, &mut findings);
    }
    let fetched = history.fetches.iter().any(|fetch| history.op(fetch.op).ok());
    let read_back = fetched || history.reads.iter().any(|row| history.op(row.op).ok());
    findings.into_report(read_back, [history.ops.len(), history.sends.len(), history.reads.len()])
}
