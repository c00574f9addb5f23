//! The monotonic and the wall clock at one moment: converts the times of one to those of the other.
//!
//! May not know: what happened at a time.

use std::time::Duration;

use ottla_env::rt;

/// See the head of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) now: rt::Instant,
    /// Milliseconds since 1970.
    pub(super) wall_ms: i64,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self { now: rt::now(), wall_ms: rt::wall_clock_ms() }
    }

    /// The wall clock's time of `at`.
    pub(super) fn wall_ms_of(&self, at: rt::Instant) -> i64 {
        let ago = i64::try_from(self.now.since(at).as_millis()).unwrap_or(i64::MAX);
        self.wall_ms.saturating_sub(ago)
    }

    /// When the wall clock showed `wall_ms`; now, if it has not shown that yet: it was another node's.
    pub(super) fn instant_of(&self, wall_ms: i64) -> rt::Instant {
        let ago = u64::try_from(self.wall_ms.saturating_sub(wall_ms)).unwrap_or(0);
        self.now - Duration::from_millis(ago)
    }
}
