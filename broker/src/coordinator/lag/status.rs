//! The status of a group in a partition, by the rules of LinkedIn's Burrow over a window of commits. Pure.
//!
//! The rules, in order; the first that holds decides:
//!
//! 1. The lag is 0: OK.
//! 2. STOP: no commit for longer than the window spans (and for a minute at least), and the group was not caught up
//!    within the last minute either.
//! 3. The lag was 0 at one of the commits in the window: OK.
//! 4. REWIND: an offset in the window is lower than the one before it.
//! 5. STALL: the window is complete and all its commits are of one offset.
//! 6. WARN: the window is complete and the lag falls nowhere between two neighbours.
//! 7. OK.
//!
//! May not know: where offsets and lags come from. Differences from Burrow, which docs/lag.md names too: the minute in
//! rule 2 (Burrow calls a group with a single commit stopped at once), and that rules 5 and 6 want a complete window
//! (Burrow's `minimum-complete=1`).

use std::collections::VecDeque;

/// Commits that a complete window holds: Burrow's `intervals`.
pub(crate) const WINDOW_COMMITS: usize = 10;
/// Commits that come faster replace each other: Burrow's `min-distance`, so that a complete window spans most of a
/// minute.
const DISTANCE_MS_MIN: i64 = 5_000;
/// A group that commits often is not stopped before it has been silent for so long.
const SILENCE_MS_MIN: i64 = 60_000;

/// The status of a partition or of a whole group; the numbers are Burrow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// The group keeps up or catches up.
    Ok = 1,
    /// The group commits, and falls behind.
    Warn = 2,
    /// Of a group only: a partition is stopped, stalled or rewound.
    Err = 3,
    /// The group does not commit any more.
    Stop = 4,
    /// The group commits the same offset again and again.
    Stall = 5,
    /// The group has committed a lower offset.
    Rewind = 6,
}

impl Status {
    const ALL: [Self; 6] = [Self::Ok, Self::Warn, Self::Err, Self::Stop, Self::Stall, Self::Rewind];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Err => "ERR",
            Self::Stop => "STOP",
            Self::Stall => "STALL",
            Self::Rewind => "REWIND",
        }
    }

    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.number() == number)
    }

    /// A group is as its worst partition; what is worse than WARN in a partition is ERR for the group.
    pub(crate) fn of_group(partitions: impl Iterator<Item = Self>) -> Self {
        partitions.max().unwrap_or(Self::Ok).min(Self::Err)
    }
}

/// One commit as sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    offset: i64,
    commit_time_ms: i64,
    /// The lag when the commit was first seen.
    lag: i64,
}

/// The last commits of a group in one partition, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Window {
    samples: VecDeque<Sample>,
    /// The newest commit, which may have been left out of `samples` because it came soon after the one before.
    newest_commit_ms: i64,
    /// When the lag was last seen to be 0.
    caught_up_ms: Option<i64>,
}

impl Window {
    /// Records the committed offset and the lag now; only a new commit makes a sample.
    pub(crate) fn observe(&mut self, offset: i64, commit_time_ms: i64, lag: i64, now_ms: i64) {
        if lag == 0 {
            self.caught_up_ms = Some(now_ms);
        }
        let sample = Sample { offset, commit_time_ms, lag };
        let Some(last) = self.samples.back_mut() else {
            self.newest_commit_ms = commit_time_ms;
            self.samples.push_back(sample);
            return;
        };
        if commit_time_ms == self.newest_commit_ms && offset == last.offset {
            return;
        }
        self.newest_commit_ms = commit_time_ms;
        // A rewind counts however soon it comes. What is replaced keeps its time: else a group that commits often would
        // never have a second sample.
        if commit_time_ms - last.commit_time_ms < DISTANCE_MS_MIN && offset >= last.offset {
            (last.offset, last.lag) = (offset, lag);
            return;
        }
        if self.samples.len() == WINDOW_COMMITS {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The number of commits in the window, of [`WINDOW_COMMITS`].
    pub(crate) fn commits(&self) -> usize {
        self.samples.len()
    }

    /// The status by the rules at the head of this file.
    pub(crate) fn status(&self, lag: i64, now_ms: i64) -> Status {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else { return Status::Ok };
        if lag == 0 {
            return Status::Ok;
        }
        let span_ms = (last.commit_time_ms - first.commit_time_ms).max(SILENCE_MS_MIN);
        let was_caught_up = self.caught_up_ms.is_some_and(|at_ms| now_ms - at_ms <= SILENCE_MS_MIN);
        if now_ms - self.newest_commit_ms > span_ms && !was_caught_up {
            return Status::Stop;
        }
        if self.samples.iter().any(|sample| sample.lag == 0) {
            return Status::Ok;
        }
        let pairs = || self.samples.iter().zip(self.samples.iter().skip(1));
        if pairs().any(|(before, after)| after.offset < before.offset) {
            return Status::Rewind;
        }
        if self.samples.len() < WINDOW_COMMITS {
            return Status::Ok;
        }
        if pairs().all(|(before, after)| after.offset == before.offset) {
            return Status::Stall;
        }
        if pairs().all(|(before, after)| after.lag >= before.lag) {
            return Status::Warn;
        }
        Status::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    /// A window of commits, one a minute from 0 on: (offset, lag).
    fn window(commits: &[(i64, i64)]) -> (Window, i64) {
        let (mut window, mut now_ms) = (Window::default(), 0);
        for (offset, lag) in commits {
            window.observe(*offset, now_ms, *lag, now_ms);
            now_ms += MINUTE;
        }
        (window, now_ms - MINUTE)
    }

    fn status(commits: &[(i64, i64)], lag: i64, later_ms: i64) -> Status {
        let (window, now_ms) = window(commits);
        window.status(lag, now_ms + later_ms)
    }

    fn ten(of: impl Fn(i64) -> (i64, i64)) -> Vec<(i64, i64)> {
        (0..10).map(of).collect()
    }

    #[test]
    fn rule_1_without_lag_all_is_well() {
        assert_eq!(Window::default().status(9, 1_000), Status::Ok);
        assert_eq!(status(&ten(|_| (5, 3)), 0, 100 * MINUTE), Status::Ok);
    }

    #[test]
    fn rule_2_a_group_that_commits_no_more_has_stopped() {
        let falling = ten(|n| (n, 20 - n));
        assert_eq!(status(&falling, 11, 9 * MINUTE), Status::Ok);
        assert_eq!(status(&falling, 11, 9 * MINUTE + 1), Status::Stop);
        assert_eq!(status(&[(5, 3)], 3, MINUTE), Status::Ok, "a single commit gets a minute");
        assert_eq!(status(&[(5, 3)], 3, MINUTE + 1), Status::Stop);
    }

    #[test]
    fn rule_2_a_group_that_was_caught_up_and_died_has_stopped() {
        let (mut window, now_ms) = window(&ten(|n| (n, 0)));
        let quiet_ms = now_ms + 100 * MINUTE;
        window.observe(9, now_ms, 0, quiet_ms);
        assert_eq!(window.status(1, quiet_ms + MINUTE), Status::Ok, "nothing was there to commit until a minute ago");
        assert_eq!(window.status(1, quiet_ms + MINUTE + 1), Status::Stop);
    }

    #[test]
    fn rule_3_a_lag_of_0_in_the_window_is_enough() {
        let mut stalled = ten(|_| (5, 3));
        stalled[4].1 = 0;
        assert_eq!(status(&stalled, 3, 0), Status::Ok);
    }

    #[test]
    fn rule_4_going_back_is_a_rewind_at_once() {
        assert_eq!(status(&[(50, 10), (20, 40)], 40, 0), Status::Rewind);
        let (mut window, now_ms) = window(&[(10, 90), (50, 50)]);
        window.observe(20, now_ms + 1, 80, now_ms + 1);
        assert_eq!(window.status(80, now_ms + 2), Status::Rewind, "however soon after a commit");
    }

    #[test]
    fn rule_5_the_same_offset_over_and_over_is_a_stall() {
        assert_eq!(status(&ten(|n| (5, 3 + n)), 12, 0), Status::Stall);
        assert_eq!(status(&ten(|_| (5, 3)), 3, 0), Status::Stall);
        assert_eq!(status(&ten(|n| (5, 3 + n))[..9], 12, 0), Status::Ok, "nine commits say nothing yet");
    }

    #[test]
    fn rule_6_a_group_that_commits_and_never_gains_is_slow() {
        assert_eq!(status(&ten(|n| (n, 3 + n)), 12, 0), Status::Warn);
        assert_eq!(status(&ten(|n| (n, 3)), 3, 0), Status::Warn, "a lag that stays is not falling");
        assert_eq!(status(&ten(|n| (n, if n == 6 { 2 } else { 3 + n })), 12, 0), Status::Ok);
        assert_eq!(status(&ten(|n| (n, 3 + n))[..9], 12, 0), Status::Ok);
    }

    #[test]
    fn the_window_moves_with_commits_and_quick_ones_replace_each_other() {
        let (mut window, now_ms) = window(&ten(|n| (n, 3 + n)));
        for _ in 0..5 {
            window.observe(9, now_ms, 12, now_ms + MINUTE);
        }
        assert_eq!(window.samples.len(), WINDOW_COMMITS, "what was seen is no commit");
        window.observe(30, now_ms + MINUTE, 1, now_ms + MINUTE);
        assert_eq!((window.samples.len(), window.samples[0].offset), (WINDOW_COMMITS, 1));
        let mut quick = Window::default();
        for ms in 0..20_000 {
            quick.observe(ms, ms, 7, ms);
        }
        let offsets: Vec<i64> = quick.samples.iter().map(|sample| sample.offset).collect();
        assert_eq!(offsets, [4_999, 9_999, 14_999, 19_999]);
        assert_eq!((quick.commits(), quick.newest_commit_ms), (4, 19_999));
    }

    #[test]
    fn a_group_is_as_its_worst_partition() {
        use Status::{Err, Ok, Rewind, Stall, Stop, Warn};
        for (partitions, group) in [
            (vec![], Ok),
            (vec![Ok, Ok], Ok),
            (vec![Warn, Ok], Warn),
            (vec![Ok, Stop], Err),
            (vec![Stall], Err),
            (vec![Rewind, Warn], Err),
        ] {
            assert_eq!(Status::of_group(partitions.into_iter()), group);
        }
        assert!(Status::ALL.into_iter().all(|status| Status::of_number(status.number()) == Some(status)));
        assert_eq!((Status::of_number(0), Status::of_number(7)), (None, None));
    }
}
