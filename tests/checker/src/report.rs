//! The report: laws, findings, the verdict. Every list is in a fixed order, so that two runs over one history agree to
//! the byte.

use std::collections::BTreeMap;

use serde::Serialize;

/// A law that a history can break. The names are Jepsen's where the law is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Law {
    InconsistentOffsets,
    G1a,
    PrecommittedRead,
    LostWrite,
    Unseen,
    Duplicate,
    IntPollSkip,
    PollSkip,
    IntNonmonotonicPoll,
    NonmonotonicPoll,
    IntNonmonotonicSend,
    NonmonotonicSend,
    IntSendSkip,
    G0,
    G0Process,
    G0Realtime,
    G1c,
    G1cProcess,
    G1cRealtime,
    /// A cycle that needs a write-write edge out of a transaction.
    G1cUnisolated,
    /// A value was read that no operation sent there.
    PhantomRead,
    DenseOffsets,
    IdempotentDuplicate,
    ProducerFencing,
    CommittedOffsetFalls,
    CommittedOffsetInvented,
    CommittedOffsetForgotten,
    ZombieCommit,
    CompactionLatest,
    BankSum,
}

impl Law {
    /// Kafka promises nothing here: transactions do not isolate writes, so what was sent interleaves.
    pub fn always_legal(self) -> bool {
        use Law::*;
        matches!(self, IntSendSkip | G0 | G0Process | G0Realtime | G1cUnisolated)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Valid,
    Invalid,
    /// Nothing was read back, so nothing was proved.
    Unknown,
}

/// An operation concerned, and the events (numbered from 0) with which it began and ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Neighbour {
    pub operation: u32,
    pub invoked: u32,
    pub completed: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub law: Law,
    pub partition: Option<u32>,
    pub offsets: Vec<u64>,
    /// The offending operations first, then related ones.
    pub operations: Vec<Neighbour>,
    pub sentence: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub verdict: Verdict,
    /// How often each law was broken; `findings` keeps the first `FINDINGS_MAX` of each.
    pub broken: BTreeMap<Law, u64>,
    pub findings: Vec<Finding>,
    /// The counts of odd but legal findings.
    pub noted: BTreeMap<Law, u64>,
    pub notes: Vec<Finding>,
    pub operations: u64,
    pub records_sent: u64,
    pub records_read: u64,
}

/// Findings of each law that are kept in full.
pub const FINDINGS_MAX: usize = 32;

/// Collects the findings of the laws.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    count: BTreeMap<(bool, Law), u64>,
    kept: Vec<(bool, Finding)>,
}

impl Findings {
    /// Adds a finding; `legal` where only this case of the law is legal. Its text is built only while findings are
    /// kept.
    pub(crate) fn add(&mut self, law: Law, legal: bool, finding: impl FnOnce() -> Finding) {
        let legal = legal || law.always_legal();
        let count = self.count.entry((legal, law)).or_default();
        *count += 1;
        if *count <= FINDINGS_MAX as u64 {
            self.kept.push((legal, finding()));
        }
    }

    pub(crate) fn into_report(mut self, read_back: bool, sizes: [usize; 3]) -> Report {
        self.kept.sort();
        let of = |legal: bool| -> BTreeMap<Law, u64> {
            self.count.iter().filter(|((l, _), _)| *l == legal).map(|((_, law), count)| (*law, *count)).collect()
        };
        let (broken, noted) = (of(false), of(true));
        let (notes, findings): (Vec<_>, Vec<_>) = self.kept.into_iter().partition(|(legal, _)| *legal);
        let verdict = match (broken.is_empty(), read_back) {
            (false, _) => Verdict::Invalid,
            (true, true) => Verdict::Valid,
            (true, false) => Verdict::Unknown,
        };
        Report {
            verdict,
            broken,
            findings: findings.into_iter().map(|(_, finding)| finding).collect(),
            noted,
            notes: notes.into_iter().map(|(_, finding)| finding).collect(),
            operations: sizes[0] as u64,
            records_sent: sizes[1] as u64,
            records_read: sizes[2] as u64,
        }
    }
}
