//! The schedule of offset expiration: when a round is due, by which clock it judges, and how far it has come.
//!
//! The clock is the partition's, which never falls and is not believed when it jumps: one clock in 2035 must not expire
//! everything, nor what is committed after it was put right.
//! May not know: the coordinator and its groups.

use std::sync::Arc;

use uuid::Uuid;

use super::settings::CoordinatorSettings;
use crate::coordinator::group::classic::Now;
use crate::coordinator::group::expiry::Terms;

/// This long after leadership began, and after a topic was deleted, the offsets of deleted topics are removed; nothing
/// expires then.
const TOPIC_CHECK_DELAY_MS: i64 = 1_000;

#[derive(Debug)]
pub(super) struct ExpirationSchedule {
    /// When expiration is next due, and when the next check for deleted topics.
    expiry_ms: i64,
    topic_check_ms: i64,
    /// The metadata is being read for deleted topics.
    checking_topics: bool,
    running: Option<Running>,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) terms: Terms,
    /// The last group that was looked at.
    pub(super) cursor: Option<Arc<str>>,
}

fn after(monotonic_ms: i64, ms: i64) -> i64 {
    monotonic_ms.saturating_add(ms.max(TOPIC_CHECK_DELAY_MS))
}

impl ExpirationSchedule {
    pub(super) fn new(monotonic_ms: i64, interval_ms: i64) -> Self {
        let (expiry_ms, topic_check_ms) = (after(monotonic_ms, interval_ms), after(monotonic_ms, TOPIC_CHECK_DELAY_MS));
        Self { expiry_ms, topic_check_ms, checking_topics: false, running: None }
    }

    pub(super) fn next_ms(&self) -> i64 {
        if self.checking_topics || self.running.is_some() { i64::MAX } else { self.expiry_ms.min(self.topic_check_ms) }
    }

    pub(super) fn schedule_topic_check(&mut self, monotonic_ms: i64) {
        self.topic_check_ms = self.topic_check_ms.min(after(monotonic_ms, TOPIC_CHECK_DELAY_MS));
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The check for deleted topics has begun; the round begins with its result.
    pub(super) fn begin_topic_check(&mut self) {
        self.topic_check_ms = i64::MAX;
        self.checking_topics = true;
    }

    /// Takes the round that is under way; the round is over unless it is put back with [`ExpirationSchedule::resume`].
    pub(super) fn step(&mut self) -> Option<Running> {
        self.running.take()
    }

    pub(super) fn resume(&mut self, running: Running) {
        self.running = Some(running);
    }

    /// `expiry_ms` is the time by which something may expire, if there is one.
    pub(super) fn begin(
        &mut self,
        now: Now,
        gone: Vec<(Arc<str>, Uuid)>,
        settings: CoordinatorSettings,
        expiry_ms: Option<i64>,
    ) {
        self.checking_topics = false;
        let expires = self.expiry_ms <= now.monotonic_ms;
        if expires {
            self.expiry_ms = after(now.monotonic_ms, settings.expiration_interval_ms);
        }
        let terms = Terms {
            now_ms: expiry_ms.unwrap_or(now.wall_ms),
            retention_ms: (expires && expiry_ms.is_some()).then_some(settings.retention_ms),
            gone: gone.into_iter().collect(),
        };
        self.running = Some(Running { terms, cursor: None });
    }
}
