//! When a sweep is due, by which clock it judges, and how far it has come.
//!
//! The clock is the partition's, which never falls and is not believed when it jumps: one clock in 2035 must not expire
//! everything, nor what is committed after it was put right.
//! May not know: the owner and its groups.

use std::sync::Arc;

use uuid::Uuid;

use super::settings::OwnerSettings;
use crate::coordinator::group::classic::Now;
use crate::coordinator::group::expiry::Terms;

/// After leadership came, and after a topic was deleted, the offsets of deleted topics are looked for; nothing expires.
const SOON_MS: i64 = 1_000;

#[derive(Debug)]
pub(super) struct Sweep {
    /// When expiry is next due, and when a look for deleted topics is.
    expiry_ms: i64,
    soon_ms: i64,
    /// A question about topics is under way.
    asking: bool,
    running: Option<Running>,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) terms: Terms,
    /// The last group that was looked at.
    pub(super) cursor: Option<Arc<str>>,
}

fn after(monotonic_ms: i64, ms: i64) -> i64 {
    monotonic_ms.saturating_add(ms.max(SOON_MS))
}

impl Sweep {
    pub(super) fn new(monotonic_ms: i64, interval_ms: i64) -> Self {
        let (expiry_ms, soon_ms) = (after(monotonic_ms, interval_ms), after(monotonic_ms, SOON_MS));
        Self { expiry_ms, soon_ms, asking: false, running: None }
    }

    pub(super) fn next_ms(&self) -> i64 {
        if self.asking || self.running.is_some() { i64::MAX } else { self.expiry_ms.min(self.soon_ms) }
    }

    pub(super) fn hasten(&mut self, monotonic_ms: i64) {
        self.soon_ms = self.soon_ms.min(after(monotonic_ms, SOON_MS));
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The topics that are gone are asked for; the sweep begins with the answer.
    pub(super) fn ask(&mut self) {
        self.soon_ms = i64::MAX;
        self.asking = true;
    }

    /// What is under way, to go on with; it is over unless it is put back with [`Sweep::go_on`].
    pub(super) fn step(&mut self) -> Option<Running> {
        self.running.take()
    }

    pub(super) fn go_on(&mut self, running: Running) {
        self.running = Some(running);
    }

    /// `expiry_ms` is the time by which something may expire, if there is one.
    pub(super) fn begin(
        &mut self,
        now: Now,
        gone: Vec<(Arc<str>, Uuid)>,
        settings: OwnerSettings,
        expiry_ms: Option<i64>,
    ) {
        self.asking = false;
        let expires = self.expiry_ms <= now.monotonic_ms;
        if expires {
            self.expiry_ms = after(now.monotonic_ms, settings.sweep_interval_ms);
        }
        let terms = Terms {
            now_ms: expiry_ms.unwrap_or(now.wall_ms),
            retention_ms: (expires && expiry_ms.is_some()).then_some(settings.retention_ms),
            gone: gone.into_iter().collect(),
        };
        self.running = Some(Running { terms, cursor: None });
    }
}
