//! Throttle of the rewriter, of compaction's passes and of snapshot imports: bytes per second, less while frames wait for the log's
//! writer. A pass is never slower than what is appended: else a load that lasts would grow the disk without end.
//!
//! May not know: what the bytes are.

use std::time::Duration;

use ottla_env::rt::Instant;

use super::RewriteOptions;
use super::choose::SHORT;
use crate::space::append_rate::{AppendRate, Schedule, time_of};

/// Bytes waiting for the log's writer from which the rewriter slows down.
const WAITING_BYTES: u64 = 256 << 10;
/// It then is this many times slower.
const GIVING_WAY: u64 = 4;
/// While space is short it is this many times faster.
const HURRY: u64 = 8;
/// An import is this many times faster than the rewriter: until it is done, records have a copy less than they should.
const RESTORING: u64 = 4;
/// A pass whose keys fit one map reads what is new twice, three times if there are transactions, and what is old once: where half is new, three
/// or four bytes for each that is appended. Twice as many cost producers more than they gain (docs/ledger.md, 30 November).
const PASS_BYTES: u64 = 4;

/// A pass that is ahead of its pace goes on until it is this much ahead: a timer is no more exact, and a pause at each step would be longer than
/// the step.
const AHEAD: Duration = Duration::from_millis(5);
/// Of the time that a pass lost, working or waiting for a thread, it makes up this much.
const MADE_UP: Duration = Duration::from_millis(50);

/// Slower than that the sender would take the import for dead.
const IMPORT_RATE_MIN: u64 = 64 << 10;

/// The pause of an import after it has written so many bytes. `is_move`: from another directory of the node.
pub(crate) fn import_pause(options: &RewriteOptions, is_move: bool, bytes: u64, waiting_bytes: u64) -> Duration {
    let max = if is_move { options.move_bytes_per_second_max } else { options.import_bytes_per_second_max };
    let limited = time_of(bytes, max.max(IMPORT_RATE_MIN));
    if options.bytes_per_second == 0 {
        return limited;
    }
    let options = RewriteOptions { bytes_per_second: options.bytes_per_second.saturating_mul(RESTORING), ..*options };
    pause(&options, bytes, waiting_bytes, 0.0).max(limited)
}

/// The pause after so many bytes were read and written. `pressure` is 0 while space is ample and 1 when it is used up.
pub(crate) fn pause(options: &RewriteOptions, bytes: u64, waiting_bytes: u64, pressure: f64) -> Duration {
    time_of(bytes, rate(options, waiting_bytes, pressure).min(options.bytes_per_second_max))
}

/// What a pass may take for so many bytes: no longer than `pause`, and short enough to keep up with so many bytes appended a second. Where the
/// rewriter is switched off the upper limit alone holds: a topic is compacted anyway.
fn pass_time(
    options: &RewriteOptions,
    bytes: u64,
    waiting_bytes: u64,
    pressure: f64,
    appended_per_second: u64,
) -> Duration {
    let rate = match options.bytes_per_second {
        0 => u64::MAX,
        _ => rate(options, waiting_bytes, pressure).max(appended_per_second.saturating_mul(PASS_BYTES)),
    };
    time_of(bytes, rate.min(options.bytes_per_second_max))
}

fn rate(options: &RewriteOptions, waiting_bytes: u64, pressure: f64) -> u64 {
    let mut rate = options.bytes_per_second;
    if pressure > SHORT {
        rate = rate.saturating_mul(HURRY);
    } else if waiting_bytes > WAITING_BYTES {
        rate /= GIVING_WAY;
    }
    rate
}

/// The pace of passes: when the bytes that were read until now may have been read.
#[derive(Debug, Default)]
pub(crate) struct PassPace {
    appended: AppendRate,
    schedule: Schedule,
}

impl PassPace {
    /// The pause after a pass has read so many bytes. `appended_bytes`: all that the log was ever appended.
    pub(crate) fn pause(
        &mut self,
        now: Instant,
        options: &RewriteOptions,
        bytes: u64,
        appended_bytes: u64,
        waiting_bytes: u64,
        pressure: f64,
    ) -> Duration {
        let appended_per_second = self.appended.read(now, appended_bytes);
        let time = pass_time(options, bytes, waiting_bytes, pressure, appended_per_second);
        let due = self.schedule.advance(now, time, MADE_UP);
        Some(due.since(now)).filter(|ahead| *ahead >= AHEAD).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_keeps_up_with_what_is_appended() {
        let options = RewriteOptions { bytes_per_second: 1 << 20, ..RewriteOptions::default() };
        let pause = |appended| pass_time(&options, 1 << 20, 1 << 20, 0.0, appended).as_millis();
        assert_eq!((pause(0), pause(1 << 15), pause(1 << 18), pause(1 << 20)), (4000, 4000, 1000, 250));
        let options = RewriteOptions { bytes_per_second_max: 1 << 19, ..options };
        assert_eq!(pass_time(&options, 1 << 20, 0, 0.0, 1 << 20), Duration::from_secs(2), "the greatest rate holds");
        let off = RewriteOptions { bytes_per_second: 0, ..RewriteOptions::default() };
        assert_eq!(pass_time(&off, 1 << 20, 1 << 20, 0.0, 0), Duration::ZERO, "nothing holds it up for ever");
    }

    #[test]
    fn a_pass_pauses_where_it_is_ahead_and_makes_up_for_what_it_lost() {
        let options = RewriteOptions { bytes_per_second: 1 << 20, ..RewriteOptions::default() };
        let mut pace = PassPace::default();
        // A KiB takes a millisecond.
        let mut pause = |at: i64, bytes| pace.pause(Instant(at * 1_000_000), &options, bytes, 0, 0, 0.0).as_millis();
        assert_eq!((pause(1_000, 4 << 10), pause(1_000, 4 << 10)), (0, 7), "a pause that is not worth a timer waits");
        assert_eq!((pause(1_007, 64 << 10), pause(1_200, 64 << 10)), (63, 12), "50 ms of 130 are made up");
        assert_eq!(pause(9_000, 64 << 10), 12, "and no more after hours");
    }

    #[test]
    fn live_traffic_slows_it_down_unless_space_is_short() {
        let options = RewriteOptions { bytes_per_second: 1 << 20, ..RewriteOptions::default() };
        let pause = |waiting, pressure| pause(&options, 1 << 20, waiting, pressure).as_millis();
        assert_eq!((pause(0, 0.0), pause(1 << 20, 0.0)), (1000, 4000));
        assert_eq!((pause(0, 0.95), pause(1 << 20, 0.95)), (125, 125));
    }

    #[test]
    fn an_import_goes_faster_and_gives_way_too() {
        let options = RewriteOptions { bytes_per_second: 1 << 20, ..RewriteOptions::default() };
        let pause = |waiting| import_pause(&options, false, 1 << 20, waiting).as_millis();
        assert_eq!((pause(0), pause(1 << 20)), (250, 1000));
        let options = RewriteOptions { bytes_per_second_max: 1 << 19, ..options };
        assert_eq!(import_pause(&options, false, 1 << 20, 0), Duration::from_secs(2));
    }

    #[test]
    fn an_import_has_a_limit_of_its_own_also_where_nothing_is_rewritten() {
        let pause = |bytes_per_second, limit| {
            let other = RewriteOptions { bytes_per_second, ..RewriteOptions::default() };
            let of_imports = RewriteOptions { import_bytes_per_second_max: limit, ..other };
            let of_moves = RewriteOptions { move_bytes_per_second_max: limit, ..other };
            let [import, moved] =
                [(of_imports, false), (of_moves, true)].map(|(o, is_move)| import_pause(&o, is_move, 1 << 20, 0));
            let others = import_pause(&of_imports, true, 1 << 20, 0);
            assert_eq!((moved, others), (import, import_pause(&other, false, 1 << 20, 0)), "each has its limit");
            import
        };
        assert_eq!(
            (pause(1 << 20, 1 << 21), pause(1 << 20, 1 << 30)),
            (Duration::from_millis(500), Duration::from_millis(250))
        );
        assert_eq!((pause(0, 1 << 21), pause(0, u64::MAX)), (Duration::from_millis(500), Duration::ZERO));
        assert_eq!(pause(0, 1), Duration::from_secs(16), "slower than that it would be taken for dead");
    }

    #[test]
    fn the_greatest_rate_holds_always() {
        let options = RewriteOptions { bytes_per_second_max: 1 << 19, ..RewriteOptions::default() };
        assert_eq!(pause(&options, 1 << 20, 0, 1.0), Duration::from_secs(2));
    }
}
