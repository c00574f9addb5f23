//! One live group and its pending records: its state machine runs ahead of its records, its answers do not.
//!
//! Invariant: an answer given after a record leaves only once that record, and all before it, are applied.

use std::collections::VecDeque;

use ottla_env::mutants::{self, Bug};

use crate::coordinator::group::classic::{Answer, Group, RequestId};

/// A membership record that is not applied yet, and the answers that wait for it.
#[derive(Debug)]
struct Pending {
    sequence: u64,
    applied: bool,
    answers: Vec<(RequestId, Answer)>,
}

/// A live group.
#[derive(Debug)]
pub(super) struct LiveGroup {
    pub(super) machine: Group,
    pending: VecDeque<Pending>,
    /// When the state machine is next to be ticked, as entered in the coordinator's deadlines.
    pub(super) deadline_ms: Option<i64>,
    /// A record could not be written: the state machine is dropped once no record is pending.
    pub(super) failed: bool,
}

impl LiveGroup {
    pub(super) fn new(machine: Group) -> Self {
        Self { machine, pending: VecDeque::new(), deadline_ms: None, failed: false }
    }

    /// From here on answers wait for this record.
    pub(super) fn begin(&mut self, sequence: u64) {
        self.pending.push_back(Pending { sequence, applied: false, answers: Vec::new() });
    }

    /// Holds the answer back while a record is pending, else returns it to be sent.
    pub(super) fn hold(&mut self, request: RequestId, answer: Answer) -> Option<Answer> {
        match self.pending.back_mut() {
            Some(last) if !mutants::is_on(Bug::MembershipAnsweredEarly) => {
                last.answers.push((request, answer));
                None
            }
            _ => Some(answer),
        }
    }

    /// A record is applied: returns the answers that may be sent now.
    pub(super) fn applied(&mut self, sequence: u64) -> Vec<(RequestId, Answer)> {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.sequence == sequence) {
            pending.applied = true;
        }
        let mut free = Vec::new();
        while self.pending.front().is_some_and(|first| first.applied) {
            free.extend(self.pending.pop_front().into_iter().flat_map(|first| first.answers));
        }
        free
    }

    /// A record will not be applied: returns the requests whose answers depended on it. Other pending records are still
    /// awaited.
    pub(super) fn fail(&mut self, sequence: u64) -> Vec<RequestId> {
        self.failed = true;
        let mut held = Vec::new();
        for pending in &mut self.pending {
            held.extend(pending.answers.drain(..).map(|(request, _)| request));
            pending.applied |= pending.sequence == sequence;
        }
        while self.pending.front().is_some_and(|first| first.applied) {
            self.pending.pop_front();
        }
        held
    }

    /// True while a record is pending.
    pub(super) fn is_writing(&self) -> bool {
        !self.pending.is_empty()
    }
}
