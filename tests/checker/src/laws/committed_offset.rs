//! Committed offsets of a group as registers: per group and partition what was committed and what was fetched. Shared by the laws on them.
//!
//! A commit that failed, or whose transaction was aborted, wrote nothing. One with an unknown outcome may take effect at any time after
//! its invocation. A fetch that finds nothing reads the state before all commits.

use std::collections::BTreeMap;

use crate::facts::Facts;
use crate::history::NONE;

#[derive(Debug, Clone, Copy)]
pub(super) struct Commit {
    pub(super) op: u32,
    pub(super) invoked: u32,
    /// `NONE`: unknown.
    pub(super) completed: u32,
    pub(super) offset: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Fetch {
    pub(super) op: u32,
    pub(super) invoked: u32,
    pub(super) completed: u32,
    pub(super) offset: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Register {
    pub(super) commits: Vec<Commit>,
    pub(super) fetches: Vec<Fetch>,
}

pub(super) fn registers(facts: &Facts) -> BTreeMap<(u32, u32), Register> {
    let history = facts.history;
    let mut registers: BTreeMap<(u32, u32), Register> = BTreeMap::new();
    for commit in &history.commits {
        let op = history.op(commit.op);
        if op.failed() {
            continue;
        }
        let completed = if op.ok() { op.completed } else { NONE };
        let offset = commit.of.offset.unwrap_or_default();
        let register = registers.entry((commit.of.group, commit.of.partition)).or_default();
        register.commits.push(Commit { op: commit.op, invoked: op.invoked, completed, offset });
    }
    for fetch in &history.fetches {
        let op = history.op(fetch.op);
        if !op.ok() {
            continue;
        }
        let register = registers.entry((fetch.of.group, fetch.of.partition)).or_default();
        let (invoked, completed, offset) = (op.invoked, op.completed, fetch.of.offset);
        register.fetches.push(Fetch { op: fetch.op, invoked, completed, offset });
    }
    registers
}

/// An offset as one says it.
pub(super) fn said(offset: Option<u64>) -> String {
    offset.map_or("none".to_owned(), |offset| offset.to_string())
}
