//! The leader clock: the shard clock while this replica leads, the term for which it runs, and what is logged about it.
//!
//! A new term begins where the applied entries ended, and a leader has applied all earlier ones. Within a term the
//! appender stamps entries in the order in which it proposes them. So no entry behind a `SetClock` was stamped before
//! it, and apply may take the greater of its clock and an entry's and still never undo what an operator has set. May
//! not know: Raft, what expires.

use std::sync::Arc;

use ottla_env::rt;
use ottla_storage::ids::{RaftIndex, Term};
use parking_lot::Mutex;

use super::clock::{Agreement, JUMP_MS_MIN, ShardClock};

/// Compares a wall clock with those of the cluster's nodes.
pub(crate) trait ClockWitness: Send + Sync {
    /// Whether the nodes' clocks agree with this wall clock. `applied_clock_ms` is the time of the calling shard's last
    /// entry.
    fn judge(&self, wall_ms: i64, now: rt::Instant, applied_clock_ms: i64) -> Agreement;
    /// Accepts this wall clock: the operator has confirmed it.
    fn believe(&self, wall_ms: i64, now: rt::Instant);
}

/// The shard's time at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardTime {
    /// What an entry is stamped with, in milliseconds.
    pub now_ms: i64,
    /// The time by which something may expire; none while no time is confirmed.
    pub for_expiry_ms: Option<i64>,
    /// How far the shard clock is ahead of this node's wall clock.
    pub ahead_ms: i64,
}

/// The clock of what is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct AppliedClock {
    /// The shard clock of the last entry, in milliseconds; 0 if there is none.
    pub(super) ms: i64,
    /// The entry by which the shard took over another one last.
    pub(super) merge: RaftIndex,
}

/// Why nothing expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alarm {
    /// The wall clock is far ahead, and is not used.
    Jumped,
    /// The shard clock itself is far in the future.
    Ahead,
}

#[derive(Default)]
struct Running {
    clock: Option<(Term, ShardClock)>,
    /// The last term in which an entry was stamped, or the clock set.
    stamped_in: Option<Term>,
    /// The last merge that the clock has followed.
    merge: RaftIndex,
    alarm: Option<Alarm>,
}

/// The shard clock as its leader keeps it.
pub(super) struct LeaderClock {
    /// The shard and its replica, for log lines.
    name: String,
    /// The shard's id, for the command that log lines recommend.
    shard: u64,
    witness: Arc<dyn ClockWitness>,
    running: Mutex<Running>,
}

impl LeaderClock {
    pub(super) fn new(shard: u64, replica: u64, witness: Arc<dyn ClockWitness>) -> Self {
        Self { name: format!("shard={shard} replica={replica}"), shard, witness, running: Mutex::default() }
    }

    /// Whether the nodes' clocks agree with this node's.
    pub(super) fn agreement(&self, applied_ms: i64) -> Agreement {
        self.witness.judge(rt::wall_clock_ms(), rt::now(), applied_ms)
    }

    /// The stamp of the next entry of `term`.
    pub(super) fn stamp(&self, term: Term, applied: AppliedClock) -> i64 {
        let mut running = self.running.lock();
        let (_, clock_ms) = self.advance(&mut running, term, applied, rt::wall_clock_ms(), rt::now());
        running.stamped_in = Some(term);
        clock_ms
    }

    /// Sets the clock for an operator: entries that `term` proposes from now on are stamped from there.
    pub(super) fn set(&self, term: Term, to_ms: i64, applied: AppliedClock) {
        let (wall_ms, now) = (rt::wall_clock_ms(), rt::now());
        self.witness.believe(wall_ms, now);
        let mut running = self.running.lock();
        (running.clock, running.stamped_in) = (Some((term, ShardClock::set_to(to_ms, now))), Some(term));
        running.merge = applied.merge;
    }

    /// The time now.
    pub(super) fn time(&self, term: Term, applied: AppliedClock) -> ShardTime {
        let (wall_ms, now) = (rt::wall_clock_ms(), rt::now());
        let agreement = self.witness.judge(wall_ms, now, applied.ms);
        let mut running = self.running.lock();
        let (mut clock, now_ms) = self.advance(&mut running, term, applied, wall_ms, now);
        let for_expiry_ms = clock.for_expiry(wall_ms, agreement);
        running.clock = Some((term, clock));
        ShardTime { now_ms, for_expiry_ms, ahead_ms: clock.ahead_ms(wall_ms) }
    }

    fn advance(
        &self,
        running: &mut Running,
        term: Term,
        applied: AppliedClock,
        wall_ms: i64,
        now: rt::Instant,
    ) -> (ShardClock, i64) {
        let agreement = || self.witness.judge(wall_ms, now, applied.ms);
        // Reading the time of a shard without entries does not fix the stamp of its first entry.
        let has_begun = applied.ms > 0 || running.stamped_in == Some(term);
        let kept = running.clock.filter(|(of, _)| *of == term && has_begun).map(|(_, clock)| clock);
        let mut clock = kept.unwrap_or_else(|| ShardClock::starting_at(applied.ms, wall_ms, now, agreement()));
        if running.merge < applied.merge {
            // The shard that was taken over may have had a later time. Else the next leader begins there, and what was stamped
            // meanwhile expires early (seed 131211).
            clock.follow(applied.ms, now);
            running.merge = applied.merge;
        }
        let clock_ms = clock.advance(wall_ms, now, agreement);
        running.clock = Some((term, clock));
        let alarm = if clock.has_jumped() {
            Some(Alarm::Jumped)
        } else {
            (clock.ahead_ms(wall_ms) > JUMP_MS_MIN).then_some(Alarm::Ahead)
        };
        if alarm != running.alarm {
            self.log(alarm, clock_ms, wall_ms);
        }
        running.alarm = alarm;
        (clock, clock_ms)
    }

    fn log(&self, alarm: Option<Alarm>, clock_ms: i64, wall_ms: i64) {
        let (name, shard) = (&self.name, self.shard);
        match alarm {
            Some(Alarm::Jumped) => tracing::error!(
                "{name}: this node's clock says {wall_ms} ms, the shard's {clock_ms} ms; nothing expires until most nodes' \
                 clocks agree. Check this node's clock; if it is right: ottla shard set-clock {shard}"
            ),
            Some(Alarm::Ahead) => tracing::error!(
                "{name}: the shard's clock is {} s ahead of this node's; nothing expires meanwhile. Check this node's clock; if \
                 it is right, the shard's was set by a wrong one: ottla shard set-clock {shard}",
                (clock_ms - wall_ms) / 1_000
            ),
            None => tracing::info!("{name}: the shard's clock and this node's agree again"),
        }
    }
}

#[cfg(test)]
mod tests;
