//! The last events of a run, printed with a broken law.
//!
//! May not know: what an event means.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

/// Events that are kept.
const EVENTS_MAX: usize = 4_000;
/// Events that are printed.
const EVENTS_PRINTED: usize = 60;

/// Faults, starts and stops of nodes that are kept and printed besides.
const FAULTS_MAX: usize = 400;

type Event = (Duration, Option<i32>, String);

#[derive(Debug, Default)]
pub(crate) struct Trace {
    events: VecDeque<Event>,
    /// Faults, starts and stops of nodes.
    faults: VecDeque<Event>,
}

impl Trace {
    pub(crate) fn add(&mut self, at: Duration, partition: Option<i32>, line: String) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back((at, partition, line));
    }

    /// Adds a fault, start or stop of a node: it is printed however many events follow.
    pub(crate) fn add_fault(&mut self, at: Duration, line: String) {
        if self.faults.len() == FAULTS_MAX {
            self.faults.pop_front();
        }
        self.faults.push_back((at, None, line));
    }

    /// The faults, and the last events that concern all partitions or this one.
    pub(crate) fn of(&self, partition: Option<i32>) -> String {
        // For a law about the whole cluster, events of single partitions are left out.
        let concerns = |of: &Option<i32>| of.is_none() || *of == partition;
        let last: Vec<_> = self.events.iter().filter(|(_, of, _)| concerns(of)).collect();
        let last = &last[last.len().saturating_sub(EVENTS_PRINTED)..];
        let mut printed: Vec<&Event> = self.faults.iter().chain(last.iter().copied()).collect();
        printed.sort_by_key(|(at, _, _)| *at);
        let mut text = String::new();
        for (at, of, line) in printed {
            let of = of.map_or(String::new(), |index| format!("partition {index}: "));
            let _ = writeln!(text, "  {:>10.6} s  {of}{line}", at.as_secs_f64());
        }
        text
    }
}
