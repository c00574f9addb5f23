//! The deadlines of one group. Pure: the time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The kinds of deadlines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The time to rejoin is over.
    Join,
    /// The time to send SyncGroup is over.
    Sync,
    /// A member, or a client that was given an id and should have joined with it, was silent too long.
    Session(Arc<str>),
}

/// At most one deadline for each timer; a later one replaces an earlier one.
#[derive(Debug, Clone, Default)]
pub(super) struct Timers {
    by_timer: BTreeMap<Timer, i64>,
    by_time: BTreeSet<(i64, Timer)>,
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at_ms: i64) {
        if let Some(old) = self.by_timer.insert(timer.clone(), at_ms) {
            self.by_time.remove(&(old, timer.clone()));
        }
        self.by_time.insert((at_ms, timer));
    }

    pub(super) fn cancel(&mut self, timer: &Timer) {
        if let Some(old) = self.by_timer.remove(timer) {
            self.by_time.remove(&(old, timer.clone()));
        }
    }

    /// The next deadline.
    pub(super) fn next_ms(&self) -> Option<i64> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one timer whose deadline has come.
    pub(super) fn take_due(&mut self, now_ms: i64) -> Option<Timer> {
        if self.next_ms()? > now_ms {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.by_timer.remove(&timer);
        Some(timer)
    }

    pub(super) fn clear(&mut self) {
        self.by_timer.clear();
        self.by_time.clear();
    }
}
