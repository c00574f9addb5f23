//! The pace at which files are unlinked: a file system that discards what is freed (mount option `discard`) does that under its journal, and
//! syncs of the log wait. 2.7 GB freed at once held producers up for a second.
//!
//! May not know: which files, why they go, or whether space is short: then nothing is paced.

use std::time::Duration;

use ottla_env::rt::Instant;

use super::append_rate::{AppendRate, Schedule, time_of};

/// Bytes freed a second at the least.
const BYTES_PER_SECOND_MIN: u64 = 512 << 20;
/// For each byte that is appended so many are freed, so that what died in a while of much traffic does not stay.
const FREED_PER_APPENDED: u64 = 2;
/// A round of maintenance frees what was due since the last one, but no more than for this time.
const MADE_UP: Duration = Duration::from_millis(500);

/// When the next file may go.
#[derive(Debug, Default)]
pub(crate) struct UnlinkPace {
    appended: AppendRate,
    per_second: u64,
    schedule: Schedule,
}

impl UnlinkPace {
    /// True if a file may go. `appended_bytes`: all that the log was ever appended.
    pub(crate) fn is_due(&mut self, now: Instant, appended_bytes: u64) -> bool {
        let appended_per_second = self.appended.read(now, appended_bytes);
        self.per_second = appended_per_second.saturating_mul(FREED_PER_APPENDED).max(BYTES_PER_SECOND_MIN);
        self.schedule.is_due(now)
    }

    /// A file of so many bytes is gone.
    pub(crate) fn unlinked(&mut self, now: Instant, bytes: u64) {
        let took = time_of(bytes, self.per_second.max(BYTES_PER_SECOND_MIN));
        self.schedule.advance(now, took, MADE_UP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 256 << 20;

    /// Files that go in each of four rounds of so many milliseconds.
    fn rounds(every: u64, appended_per_second: u64) -> Vec<usize> {
        let (mut pace, begin) = (UnlinkPace::default(), Instant(7));
        // The rate of appending is known from the second reading on.
        for second in 0..2 {
            pace.is_due(begin + Duration::from_secs(second), second * appended_per_second);
        }
        let mut round = |number: u64| {
            let at = begin + Duration::from_secs(2) + Duration::from_millis(number * every);
            let mut gone = 0;
            while gone < 100 && pace.is_due(at, 2 * appended_per_second + number * every * appended_per_second / 1000) {
                pace.unlinked(at, SEGMENT);
                gone += 1;
            }
            gone
        };
        (0..4).map(&mut round).collect()
    }

    #[test]
    fn dead_files_go_one_after_the_other() {
        assert_eq!(rounds(500, 0), [1, 1, 1, 1]);
        assert_eq!(rounds(100, 0), [1, 0, 0, 0], "maintenance may be more often");
        assert_eq!(rounds(60_000, 0)[1..], [2, 2, 2], "what was not used is no credit for hours");
    }

    #[test]
    fn it_keeps_up_with_what_is_appended() {
        assert_eq!(rounds(500, 512 << 20)[1..], [2, 2, 2]);
    }
}
