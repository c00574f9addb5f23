//! Throttle of the rewriter and of snapshot imports: bytes per second, less while frames wait for the log's writer.
//!
//! May not know: what the bytes are.

use std::time::Duration;

use super::RewriteOptions;
use super::choose::SHORT;

/// Bytes waiting for the log's writer from which the rewriter slows down.
const WAITING_BYTES: u64 = 256 << 10;
/// It then is this many times slower.
const GIVING_WAY: u64 = 4;
/// While space is short it is this many times faster.
const HURRY: u64 = 8;
/// An import is this many times faster than the rewriter: until it is done, records have a copy less than they should.
const RESTORING: u64 = 4;

/// The pause of an import after it has written so many bytes.
pub(crate) fn import_pause(options: &RewriteOptions, bytes: u64, waiting_bytes: u64) -> Duration {
    let options = RewriteOptions { bytes_per_second: options.bytes_per_second.saturating_mul(RESTORING), ..*options };
    pause(&options, bytes, waiting_bytes, 0.0)
}

/// The pause after so many bytes were read and written. `pressure` is 0 while space is ample and 1 when it is used up.
pub(crate) fn pause(options: &RewriteOptions, bytes: u64, waiting_bytes: u64, pressure: f64) -> Duration {
    let mut rate = options.bytes_per_second;
    if pressure > SHORT {
        rate = rate.saturating_mul(HURRY);
    } else if waiting_bytes > WAITING_BYTES {
        rate /= GIVING_WAY;
    }
    let rate = rate.min(options.bytes_per_second_max).max(1);
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let pause = |waiting| import_pause(&options, 1 << 20, waiting).as_millis();
        assert_eq!((pause(0), pause(1 << 20)), (250, 1000));
        let options = RewriteOptions { bytes_per_second_max: 1 << 19, ..options };
        assert_eq!(import_pause(&options, 1 << 20, 0), Duration::from_secs(2));
    }

    #[test]
    fn the_greatest_rate_holds_always() {
        let options = RewriteOptions { bytes_per_second_max: 1 << 19, ..RewriteOptions::default() };
        assert_eq!(pause(&options, 1 << 20, 0, 1.0), Duration::from_secs(2));
    }
}
