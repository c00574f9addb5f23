//! **committed-offset-forgotten** (design.md, I9): an acknowledged commit is never forgotten, and the register never goes back to what was
//! overwritten.
//!
//! A fetch that returned y is wrong if every commit of y had ended before something else was known to be there: an acknowledged commit of
//! another offset, or another fetch's answer, that began after those commits and ended before this fetch began. "Nothing committed" stands for a commit before all.

use std::collections::BTreeMap;

use crate::facts::Facts;
use crate::history::NONE;
use crate::laws::committed_offset::{Register, registers, said};
use crate::report::{Findings, Law};

/// Something other than y was there: since when at least, what, and the operation that shows it.
type Witness = (u32, Option<u64>, u32);

/// The latest witness, and the latest that shows another offset than the first.
#[derive(Debug, Clone, Copy, Default)]
struct Latest {
    best: Option<Witness>,
    other: Option<Witness>,
}

impl Latest {
    fn with(self, witness: Witness) -> Self {
        match self.best {
            Some(best) if best.1 == witness.1 => Latest { best: Some(best.max(witness)), ..self },
            Some(best) if witness > best => Latest { best: Some(witness), other: Some(best) },
            Some(best) => Latest { best: Some(best), other: self.other.max(Some(witness)) },
            None => Latest { best: Some(witness), other: None },
        }
    }
    fn not(self, offset: Option<u64>) -> Option<Witness> {
        if self.best.is_some_and(|best| best.1 == offset) { self.other } else { self.best }
    }
}

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    for ((group, partition), register) in registers(facts) {
        let witnesses = witnesses(&register);
        let commits = by_offset(&register);
        for fetch in &register.fetches {
            let ended = match fetch.offset {
                None => 0,
                Some(offset) => {
                    // Invented offsets have no commit and are another law's.
                    let list = commits.get(&offset).map_or(&[][..], Vec::as_slice);
                    let until = list.partition_point(|&(invoked, _)| invoked < fetch.completed);
                    let Some(&(_, ended)) = list[..until].last() else { continue };
                    ended
                }
            };
            let until = witnesses.partition_point(|(completed, _)| *completed < fetch.invoked);
            let Some(latest) = witnesses[..until].last() else { continue };
            let Some((since, other, by)) = latest.1.not(fetch.offset) else { continue };
            if ended == NONE || (fetch.offset.is_some() && ended >= since) {
                continue;
            }
            findings.add(Law::CommittedOffsetForgotten, false, || {
                let sentence = format!(
                    "operation {} fetched {} for group {group} and partition {partition}, though operation {by} had put or seen {} there before",
                    fetch.op,
                    said(fetch.offset),
                    said(other)
                );
                let offsets: Vec<u64> = [fetch.offset, other].into_iter().flatten().collect();
                facts.finding(Law::CommittedOffsetForgotten, partition, &offsets, &[fetch.op, by], sentence)
            });
        }
    }
}

/// Ordered by completion, each with the latest so far.
fn witnesses(register: &Register) -> Vec<(u32, Latest)> {
    let commits = register.commits.iter().filter(|commit| commit.completed != NONE);
    let commits = commits.map(|commit| (commit.completed, (commit.invoked, Some(commit.offset), commit.op)));
    let fetches = register.fetches.iter().filter(|fetch| fetch.offset.is_some());
    let fetches = fetches.map(|fetch| (fetch.completed, (fetch.invoked, fetch.offset, fetch.op)));
    let mut all: Vec<(u32, Witness)> = commits.chain(fetches).collect();
    all.sort_unstable();
    let mut latest = Latest::default();
    let so_far = |(completed, witness)| {
        latest = latest.with(witness);
        (completed, latest)
    };
    all.into_iter().map(so_far).collect()
}

/// By offset: commits ordered by their beginning, each with the latest end so far.
fn by_offset(register: &Register) -> BTreeMap<u64, Vec<(u32, u32)>> {
    let mut commits: BTreeMap<u64, Vec<(u32, u32)>> = BTreeMap::new();
    for commit in &register.commits {
        commits.entry(commit.offset).or_default().push((commit.invoked, commit.completed));
    }
    for list in commits.values_mut() {
        list.sort_unstable();
        let mut latest = 0;
        for (_, completed) in list {
            latest = latest.max(*completed);
            *completed = latest;
        }
    }
    commits
}
