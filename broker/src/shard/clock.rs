//! The shard clock: the wall clock that a leader writes into its entries, and by which everything expires.
//!
//! It never falls and advances at most by the leader's monotonic time plus a bounded correction (design section 3): one
//! clock in 2035 must not expire everything. A larger jump stops expiry until a majority of the nodes' clocks agree
//! with it. Pure: it is told both clocks and what the majority says.

use std::time::Duration;

use ottla_storage::env::mutants::{self, Bug};
use ottla_storage::env::rt::Instant;

/// The wall clock may run ahead of the shard clock by this much before it counts as a jump.
pub const JUMP_MS_MIN: i64 = 10 * 60 * 1000;

/// While catching up, a second of monotonic time moves the shard clock by at most 1 + 1/8 seconds.
const CORRECTION_DIVISOR: i64 = 8;

/// The clock of one shard, as its leader keeps it.
#[derive(Debug, Clone, Copy)]
pub struct ShardClock {
    clock_ms: i64,
    /// Monotonic time at which `clock_ms` was read, less what was not yet counted.
    at: Instant,
    jumped: bool,
}

impl ShardClock {
    /// Starts where the applied entries ended; a shard without entries starts at the wall clock.
    #[must_use]
    pub fn starting_at(applied_clock_ms: i64, wall_ms: i64, now: Instant) -> Self {
        let clock_ms = if applied_clock_ms > 0 { applied_clock_ms } else { wall_ms };
        Self { clock_ms, at: now, jumped: false }
    }

    /// The time for the next entry. `majority_agrees` says whether most nodes' clocks are near `wall_ms`.
    pub fn advance(&mut self, wall_ms: i64, now: Instant, majority_agrees: impl FnOnce() -> bool) -> i64 {
        let elapsed_ms = millis(now.since(self.at));
        let ahead_ms = wall_ms.saturating_sub(self.clock_ms);
        let believed = || mutants::is_on(Bug::ClockJumpExpires) || majority_agrees();
        self.jumped = ahead_ms > elapsed_ms.saturating_add(JUMP_MS_MIN) && !believed();
        let agreed = !self.jumped && ahead_ms > elapsed_ms.saturating_add(JUMP_MS_MIN);
        let step_ms = if agreed {
            ahead_ms
        } else if self.jumped {
            elapsed_ms
        } else {
            ahead_ms.clamp(0, elapsed_ms + elapsed_ms / CORRECTION_DIVISOR)
        };
        if elapsed_ms > 0 || agreed {
            // Keep the part of a millisecond that was not counted, else a busy shard's clock stands still.
            let counted = Duration::from_millis(u64::try_from(elapsed_ms).unwrap_or(0));
            self.at = self.at + counted;
        }
        self.clock_ms = self.clock_ms.saturating_add(step_ms);
        self.clock_ms
    }

    /// The wall clock has jumped and nobody confirmed it: nothing may expire.
    #[must_use]
    pub fn has_jumped(&self) -> bool {
        self.jumped
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Instant = Instant(0);

    fn after_ms(ms: i64) -> Instant {
        Instant(ms * 1_000_000)
    }

    proptest! {
        #[test]
        fn it_never_falls_and_never_outruns_monotonic_time(steps in proptest::collection::vec((0i64..5_000, -1_000_000i64..100_000_000), 1..60)) {
            let mut clock = ShardClock::starting_at(1_000_000, 1_000_000, START);
            let (mut mono_ms, mut last) = (0, 1_000_000);
            for (elapsed, wall_offset) in steps {
                mono_ms += elapsed;
                let next = clock.advance(1_000_000 + mono_ms + wall_offset, after_ms(mono_ms), || false);
                prop_assert!(next >= last);
                prop_assert!(next - 1_000_000 <= mono_ms + mono_ms / 8);
                last = next;
            }
        }
    }

    #[test]
    fn a_jump_moves_nothing_until_a_majority_agrees() {
        let mut clock = ShardClock::starting_at(1_000, 1_000, START);
        let in_2035 = 2_051_222_400_000;
        assert_eq!(clock.advance(in_2035, after_ms(50), || false), 1_050);
        assert!(clock.has_jumped());
        assert_eq!(clock.advance(1_060, after_ms(60), || false), 1_060);
        assert!(!clock.has_jumped());
        assert_eq!(clock.advance(in_2035, after_ms(70), || true), in_2035);
        assert!(!clock.has_jumped());
    }

    #[test]
    fn a_wall_clock_that_falls_back_stops_the_shard_clock_only_while_it_is_behind() {
        let mut clock = ShardClock::starting_at(10_000, 10_000, START);
        assert_eq!(clock.advance(9_000, after_ms(100), || true), 10_000);
        assert_eq!(clock.advance(10_050, after_ms(1_200), || true), 10_050);
    }

    #[test]
    fn a_busy_shard_does_not_lose_parts_of_milliseconds() {
        let mut clock = ShardClock::starting_at(0, 5_000, START);
        for step in 1..=10_000i64 {
            let _ = clock.advance(5_000 + step / 10, Instant(step * 100_000), || true);
        }
        assert_eq!(clock.clock_ms, 6_000);
    }
}
