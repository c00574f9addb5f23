//! How fast a log is appended to, how long bytes take at a rate, and when what is paced goes on.
//!
//! May not know: what is paced by it.

use std::time::Duration;

use ottla_env::rt::Instant;

/// The rate is taken over no less than this.
const MEASURED: Duration = Duration::from_secs(1);

/// What so many bytes take at so many a second.
pub(crate) fn time_of(bytes: u64, per_second: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// When what was done until now would be done at its pace.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    due: Option<Instant>,
}

impl Schedule {
    /// True if the next step may begin.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    /// A step was made that takes so long at its pace; returns when the next one is due. Of time in which nothing was done no more than
    /// `made_up` is made up for.
    pub(crate) fn advance(&mut self, now: Instant, takes: Duration, made_up: Duration) -> Instant {
        let due = self.due.map_or(now, |due| due.max(now - made_up)) + takes;
        self.due = Some(due);
        due
    }
}

/// A counter of bytes, read from time to time.
#[derive(Debug, Default)]
pub(crate) struct AppendRate {
    last: Option<(Instant, u64)>,
    per_second: u64,
}

impl AppendRate {
    /// Bytes a second since the last reading that is old enough; `bytes`: all that were appended until now.
    pub(crate) fn read(&mut self, now: Instant, bytes: u64) -> u64 {
        let Some((at, before)) = self.last else {
            self.last = Some((now, bytes));
            return self.per_second;
        };
        let passed = now.since(at);
        if passed >= MEASURED {
            let nanos = u128::from(bytes.saturating_sub(before)) * 1_000_000_000 / passed.as_nanos();
            self.per_second = u64::try_from(nanos).unwrap_or(u64::MAX);
            self.last = Some((now, bytes));
        }
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_appending_is_that_of_the_last_second() {
        let (mut rate, begin) = (AppendRate::default(), Instant(5));
        let mut read = |millis, bytes| rate.read(begin + Duration::from_millis(millis), bytes);
        assert_eq!((read(0, 700), read(500, 900)), (0, 0), "nothing is known yet");
        assert_eq!((read(2000, 2700), read(2900, 9_999)), (1000, 1000));
        assert_eq!((read(3000, 2700), read(4000, 2800)), (0, 100));
    }
}
