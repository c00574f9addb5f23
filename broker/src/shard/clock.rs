//! The shard clock: the time that a leader stamps into its entries, and by which everything expires.
//!
//! Within a term it never falls and advances at most by the leader's monotonic time plus a bounded correction (design
//! section 3): one clock in 2035 must not expire everything. A leader's wall clock is not used until most nodes' clocks
//! agree with it, for a shard's first entry and after any jump; and nothing expires by a time that is ahead of that
//! wall clock. A cluster of one has no other clocks: [`LoneClock`] judges its own by how long it has run evenly. Pure:
//! both clocks and the agreement of the nodes' clocks are arguments.

use std::time::Duration;

use ottla_env::mutants::{self, Bug};
use ottla_env::rt::Instant;

/// Clocks no further apart than this agree; a wall clock further ahead of the shard clock than this has jumped.
pub const JUMP_MS_MIN: i64 = 10 * 60 * 1000;

/// While catching up, a second of monotonic time moves the shard clock by at most 1 + 1/8 seconds.
const CORRECTION_DIVISOR: i64 = 8;

/// A lone node accepts a jump of its own clock once that has run evenly for this part of the jump.
const LONE_PATIENCE_DIVISOR: i64 = 24;

/// Whether the nodes' clocks agree with one wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// Most are near the wall clock.
    Agrees,
    /// Most are not near it. If most agree with each other, their time is given.
    Disagrees {
        /// The time of most clocks, in milliseconds.
        most_say_ms: Option<i64>,
    },
    /// The clocks of too few nodes are known.
    Unknown,
}

/// The clock of one shard, as its leader keeps it.
#[derive(Debug, Clone, Copy)]
pub struct ShardClock {
    clock_ms: i64,
    /// Monotonic time at which `clock_ms` was read, less what was not yet counted.
    at: Instant,
    /// The wall clock is far ahead of `clock_ms`, and is not used.
    jumped: bool,
    /// Most nodes' clocks have agreed with the wall clock, and it has not jumped since.
    confirmed: bool,
}

impl ShardClock {
    /// Starts where the applied entries ended; in a shard without entries at the time of most clocks, or at the wall
    /// clock.
    #[must_use]
    pub fn starting_at(applied_clock_ms: i64, wall_ms: i64, now: Instant, agreement: Agreement) -> Self {
        let first_ms = match agreement {
            Agreement::Disagrees { most_say_ms: Some(most_say_ms) } if !mutants::is_on(Bug::FirstClockBelieved) => {
                most_say_ms
            }
            _ => wall_ms,
        };
        let clock_ms = if applied_clock_ms > 0 { applied_clock_ms } else { first_ms };
        Self { clock_ms, at: now, jumped: false, confirmed: agreement == Agreement::Agrees }
    }

    /// The clock as the operator has set it; the wall clock counts as confirmed with it.
    #[must_use]
    pub fn set_to(clock_ms: i64, now: Instant) -> Self {
        Self { clock_ms, at: now, jumped: false, confirmed: true }
    }

    /// Goes on from a later time that was applied.
    pub fn follow(&mut self, applied_clock_ms: i64, now: Instant) {
        if applied_clock_ms > self.clock_ms {
            (self.clock_ms, self.at) = (applied_clock_ms, now);
        }
    }

    /// The time for the next entry. `agreement` is that of the nodes' clocks with `wall_ms`.
    pub fn advance(&mut self, wall_ms: i64, now: Instant, agreement: impl FnOnce() -> Agreement) -> i64 {
        let elapsed_ms = millis(now.since(self.at));
        let ahead_ms = wall_ms.saturating_sub(self.clock_ms);
        let is_jump = ahead_ms > elapsed_ms.saturating_add(JUMP_MS_MIN);
        if is_jump || !self.confirmed {
            self.confirmed = is_believed(agreement());
        }
        self.jumped = is_jump && !self.confirmed;
        let agreed = is_jump && self.confirmed;
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

    /// The time by which something may expire now, after [`advance`](Self::advance): never one that lies ahead of a
    /// wall clock that most nodes' clocks agree with, and none if the shard clock itself stands far ahead of it.
    pub fn for_expiry(&mut self, wall_ms: i64, agreement: Agreement) -> Option<i64> {
        if mutants::is_on(Bug::FirstClockBelieved) {
            return (!self.jumped).then_some(self.clock_ms);
        }
        let disagrees = matches!(agreement, Agreement::Disagrees { .. }) && !is_believed(agreement);
        self.confirmed &= !disagrees;
        (self.confirmed && self.ahead_ms(wall_ms) <= JUMP_MS_MIN).then(|| self.clock_ms.min(wall_ms))
    }

    /// How far the shard clock stands ahead of the wall clock.
    #[must_use]
    pub fn ahead_ms(&self, wall_ms: i64) -> i64 {
        self.clock_ms.saturating_sub(wall_ms).max(0)
    }

    /// True if the wall clock is far ahead of the shard clock, and is not used.
    #[must_use]
    pub fn has_jumped(&self) -> bool {
        self.jumped
    }
}

fn is_believed(agreement: Agreement) -> bool {
    agreement == Agreement::Agrees || mutants::is_on(Bug::ClockJumpExpires)
}

/// The wall clock of a node that is alone in its cluster, compared with its own past: the time when it was last
/// accepted, carried forward by monotonic time, or the stamps of its shards' entries after a restart.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoneClock {
    /// The wall clock when it was last accepted, and the monotonic time then.
    believed: Option<(i64, Instant)>,
    /// A wall clock that is not accepted yet, as first seen, and since when it runs evenly.
    waiting: Option<(i64, Instant)>,
}

impl LoneClock {
    /// True until an earlier time is known.
    #[must_use]
    pub fn has_no_past(&self) -> bool {
        self.believed.is_none()
    }

    /// Whether `wall_ms` is accepted. `applied_clock_ms` is the time of the last entry that the caller knows. The clock
    /// of a node without any past is accepted: nothing contradicts it. One that has jumped is accepted when it has run
    /// evenly for ten minutes, and after a jump forwards for at least a 24th of the jump: a glitch, or a start before
    /// the time is set, moves nothing.
    pub fn judge(&mut self, wall_ms: i64, now: Instant, applied_clock_ms: i64) -> Agreement {
        let carried_ms = self.believed.map(|(believed_ms, at)| believed_ms.saturating_add(millis(now.since(at))));
        let expected_ms = match carried_ms {
            // The past begins when something is written.
            None if applied_clock_ms <= 0 => return Agreement::Agrees,
            None => applied_clock_ms,
            // The entries of a shard written to later than the first shard that called; not one whose clock is in the
            // future.
            Some(carried_ms) if applied_clock_ms <= wall_ms => carried_ms.max(applied_clock_ms),
            Some(carried_ms) => carried_ms,
        };
        let jump_ms = wall_ms.saturating_sub(expected_ms);
        if jump_ms.saturating_abs() <= JUMP_MS_MIN {
            return self.believe(wall_ms, now);
        }
        self.believed = Some((expected_ms, now));
        let is_even = |(seen_ms, since): &(i64, Instant)| {
            seen_ms.saturating_add(millis(now.since(*since))).abs_diff(wall_ms) <= JUMP_MS_MIN.unsigned_abs()
        };
        let (seen_ms, since) = self.waiting.filter(is_even).unwrap_or((wall_ms, now));
        self.waiting = Some((seen_ms, since));
        let patience_ms = JUMP_MS_MIN.max(jump_ms / LONE_PATIENCE_DIVISOR);
        if millis(now.since(since)) >= patience_ms {
            return self.believe(wall_ms, now);
        }
        // A shard that begins now takes the earlier time: a clock ahead needs an operator, one that is behind catches
        // up.
        Agreement::Disagrees { most_say_ms: Some(expected_ms.min(wall_ms)) }
    }

    /// Accepts this time from now on.
    pub fn believe(&mut self, wall_ms: i64, now: Instant) -> Agreement {
        *self = Self { believed: Some((wall_ms, now)), waiting: None };
        Agreement::Agrees
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
    const DAY_MS: i64 = 86_400_000;
    const IN_2035: i64 = 2_051_222_400_000;
    const IN_2026: i64 = 1_795_000_000_000;
    const FAR: Agreement = Agreement::Disagrees { most_say_ms: None };

    fn after_ms(ms: i64) -> Instant {
        Instant(ms * 1_000_000)
    }

    fn agrees() -> Agreement {
        Agreement::Agrees
    }

    proptest! {
        #[test]
        fn it_never_falls_and_never_outruns_monotonic_time(steps in proptest::collection::vec((0i64..5_000, -1_000_000i64..100_000_000), 1..60)) {
            let mut clock = ShardClock::starting_at(1_000_000, 1_000_000, START, Agreement::Unknown);
            let (mut mono_ms, mut last) = (0, 1_000_000);
            for (elapsed, wall_offset) in steps {
                mono_ms += elapsed;
                let next = clock.advance(1_000_000 + mono_ms + wall_offset, after_ms(mono_ms), || FAR);
                prop_assert!(next >= last);
                prop_assert!(next - 1_000_000 <= mono_ms + mono_ms / 8);
                last = next;
            }
        }

        /// Whatever the clocks do, nothing expires by a time ahead of the wall clock, nor by one that is not confirmed.
        #[test]
        fn expiry_goes_by_no_time_that_is_ahead_or_unconfirmed(
            applied in 0i64..IN_2035,
            steps in proptest::collection::vec((0i64..5_000, -IN_2026..100_000_000_000i64, 0u8..3), 1..60)
        ) {
            let mut clock = ShardClock::starting_at(applied, IN_2026, START, Agreement::Unknown);
            let (mut mono_ms, mut confirmed) = (0, false);
            for (elapsed, wall_offset, say) in steps {
                mono_ms += elapsed;
                let (wall_ms, agreement) = (IN_2026 + mono_ms + wall_offset, [agrees(), FAR, Agreement::Unknown][say as usize]);
                let _ = clock.advance(wall_ms, after_ms(mono_ms), || agreement);
                confirmed = agreement == agrees() || (confirmed && agreement == Agreement::Unknown);
                if let Some(time) = clock.for_expiry(wall_ms, agreement) {
                    prop_assert!(time <= wall_ms && confirmed);
                }
            }
        }
    }

    #[test]
    fn a_jump_moves_nothing_until_a_majority_agrees() {
        let mut clock = ShardClock::starting_at(1_000, 1_000, START, agrees());
        assert_eq!(clock.advance(IN_2035, after_ms(50), || FAR), 1_050);
        assert!(clock.has_jumped());
        assert_eq!(clock.for_expiry(IN_2035, FAR), None);
        assert_eq!(clock.advance(1_060, after_ms(60), agrees), 1_060);
        assert!(!clock.has_jumped());
        assert_eq!(clock.advance(IN_2035, after_ms(70), agrees), IN_2035);
        assert_eq!((clock.has_jumped(), clock.for_expiry(IN_2035, agrees())), (false, Some(IN_2035)));
    }

    #[test]
    fn a_shard_whose_first_clock_was_wrong_expires_nothing_when_it_is_right() {
        let mut clock = ShardClock::starting_at(0, IN_2035, START, Agreement::Unknown);
        assert_eq!(clock.advance(IN_2035, after_ms(10), || Agreement::Unknown), IN_2035);
        assert_eq!(clock.for_expiry(IN_2035, Agreement::Unknown), None, "nobody has confirmed it");
        for ms in 1..100 {
            let wall_ms = IN_2026 + ms * 60_000;
            let _ = clock.advance(wall_ms, after_ms(ms * 60_000), agrees);
            assert_eq!(clock.for_expiry(wall_ms, agrees()), None, "the shard clock is ahead");
            assert!(clock.ahead_ms(wall_ms) > 2_000 * DAY_MS);
        }
        // So it is for the next leader, which begins where the entries ended.
        let mut next = ShardClock::starting_at(IN_2035, IN_2026, START, agrees());
        let _ = next.advance(IN_2026, START, agrees);
        assert_eq!(next.for_expiry(IN_2026, agrees()), None);
        let mut set = ShardClock::set_to(IN_2026, START);
        assert_eq!(set.advance(IN_2026 + 5, after_ms(5), agrees), IN_2026 + 5);
        assert_eq!(set.for_expiry(IN_2026 + 5, agrees()), Some(IN_2026 + 5));
    }

    #[test]
    fn a_first_leader_whose_clock_is_wrong_begins_at_what_most_say() {
        let most = Agreement::Disagrees { most_say_ms: Some(IN_2026) };
        let mut clock = ShardClock::starting_at(0, IN_2035, START, most);
        assert_eq!(clock.advance(IN_2035, after_ms(10), || most), IN_2026 + 10);
        assert_eq!(clock.for_expiry(IN_2035, most), None);
    }

    #[test]
    fn what_was_confirmed_is_believed_until_most_disagree() {
        let mut clock = ShardClock::starting_at(IN_2026, IN_2026, START, agrees());
        let unheard = Agreement::Unknown;
        let _ = clock.advance(IN_2026 + 1_000, after_ms(1_000), || unheard);
        assert_eq!(clock.for_expiry(IN_2026 + 1_000, unheard), Some(IN_2026 + 1_000));
        assert_eq!(clock.for_expiry(IN_2026 + 900, unheard), Some(IN_2026 + 900), "never ahead of the wall clock");
        assert_eq!(clock.for_expiry(IN_2026 + 1_000, FAR), None);
        let _ = clock.advance(IN_2026 + 1_000, after_ms(1_000), || unheard);
        assert_eq!(clock.for_expiry(IN_2026 + 1_000, unheard), None, "to be confirmed again");
    }

    fn is_believed_by(lone: &mut LoneClock, wall_ms: i64, at_ms: i64, applied_ms: i64) -> bool {
        lone.judge(wall_ms, after_ms(at_ms), applied_ms) == agrees()
    }

    #[test]
    fn a_lone_node_whose_clock_jumps_for_a_second_believes_nothing_of_it() {
        let mut lone = LoneClock::default();
        assert!(is_believed_by(&mut lone, IN_2026, 0, 0) && lone.has_no_past());
        assert!(is_believed_by(&mut lone, IN_2026 + 500, 500, IN_2026) && !lone.has_no_past());
        assert!(!is_believed_by(&mut lone, IN_2035, 1_000, IN_2026 + 500));
        assert!(!is_believed_by(&mut lone, IN_2026 + 5 * 3_600_000, 1_500, IN_2026 + 500));
        // Nor a shard that has no entry yet: it begins where the others are.
        let expected = Agreement::Disagrees { most_say_ms: Some(IN_2026 + 1_600) };
        assert_eq!(lone.judge(IN_2035, after_ms(1_600), 0), expected);
        assert!(is_believed_by(&mut lone, IN_2026 + 2_000, 2_000, IN_2026 + 1_000));
    }

    #[test]
    fn a_lone_node_that_was_off_is_believed_when_its_clock_has_run_evenly_for_a_24th_of_the_time() {
        for (off_ms, patience_ms) in [(3 * DAY_MS, 3 * 3_600_000), (3_600_000, JUMP_MS_MIN), (-DAY_MS, JUMP_MS_MIN)] {
            let mut lone = LoneClock::default();
            let mut at = |ms| is_believed_by(&mut lone, IN_2026 + off_ms + ms, ms, IN_2026);
            assert!(!at(0) && !at(60_000) && !at(patience_ms - 1), "off for {off_ms} ms");
            assert!(at(patience_ms + patience_ms / 20), "off for {off_ms} ms");
        }
        assert!(is_believed_by(&mut LoneClock::default(), IN_2026 + 60_000, 0, IN_2026), "a restart");
    }

    #[test]
    fn a_lone_node_waits_anew_when_its_clock_jumps_again() {
        const HOUR_MS: i64 = 3_600_000;
        let mut lone = LoneClock::default();
        let mut at = |jump_ms, ms| is_believed_by(&mut lone, IN_2026 + jump_ms + ms, ms, IN_2026);
        assert!(at(0, 0));
        assert!(!at(DAY_MS, 1) && !at(2 * DAY_MS, HOUR_MS) && !at(2 * DAY_MS, 2 * HOUR_MS));
        assert!(at(2 * DAY_MS, 3 * HOUR_MS + 1));
    }

    #[test]
    fn a_wall_clock_that_falls_back_stops_the_shard_clock_only_while_it_is_behind() {
        let mut clock = ShardClock::starting_at(10_000, 10_000, START, agrees());
        assert_eq!(clock.advance(9_000, after_ms(100), agrees), 10_000);
        assert_eq!(clock.advance(10_050, after_ms(1_200), agrees), 10_050);
    }

    #[test]
    fn a_busy_shard_does_not_lose_parts_of_milliseconds() {
        let mut clock = ShardClock::starting_at(0, 5_000, START, agrees());
        for step in 1..=10_000i64 {
            let _ = clock.advance(5_000 + step / 10, Instant(step * 100_000), agrees);
        }
        assert_eq!(clock.clock_ms, 6_000);
    }
}
