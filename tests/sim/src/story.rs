//! The last events of a run, for whoever has to understand a broken law.
//!
//! May not know: what an event means.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

/// Events that are remembered.
const EVENTS: usize = 4_000;
/// Events that are told.
const TOLD: usize = 60;

#[derive(Debug, Default)]
pub(crate) struct Story(VecDeque<(Duration, Option<i32>, String)>);

impl Story {
    pub(crate) fn add(&mut self, at: Duration, partition: Option<i32>, line: String) {
        if self.0.len() == EVENTS {
            self.0.pop_front();
        }
        self.0.push_back((at, partition, line));
    }

    /// The last events that concern everybody or this partition.
    pub(crate) fn of(&self, partition: Option<i32>) -> String {
        // A law about everybody is not told by what happened to each partition.
        let concerns = |of: &Option<i32>| of.is_none() || *of == partition;
        let told: Vec<_> = self.0.iter().filter(|(_, of, _)| concerns(of)).collect();
        let mut text = String::new();
        for (at, of, line) in &told[told.len().saturating_sub(TOLD)..] {
            let of = of.map_or(String::new(), |index| format!("partition {index}: "));
            let _ = writeln!(text, "  {:>10.6} s  {of}{line}", at.as_secs_f64());
        }
        text
    }
}
