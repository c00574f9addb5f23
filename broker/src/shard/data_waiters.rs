//! Waiting for partitions to change (Kafka's fetch purgatory): a [`DataWaiter`] is one request that waits for bytes; a
//! [`ChangeFeed`] collects which of its partitions have changed since they were last taken.
//!
//! A fetch session has a feed, so that its requests read the partitions that changed and no others, however many it
//! has. May not know: partitions, sessions, and what is done with a changed partition. Lock order: a view's waiters,
//! then the feed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ottla_env::mutants::{self, Bug};
use ottla_env::sync::{AtomicI64, Mutex};
use tokio::sync::oneshot;

/// More new bytes than any request waits for: a partition came as a whole.
pub(super) const ANY_BYTES: u64 = i64::MAX.unsigned_abs();

/// Which records a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
}

/// By how many bytes a partition has grown for its readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Growth {
    /// Below the high watermark.
    pub appended: u64,
    /// Below the last stable offset.
    pub stable: u64,
}

impl Growth {
    /// The same for all readers.
    #[must_use]
    pub fn of(bytes: u64) -> Self {
        Self { appended: bytes, stable: bytes }
    }

    fn seen_by(self, isolation: Isolation) -> u64 {
        match isolation {
            Isolation::ReadUncommitted => self.appended,
            Isolation::ReadCommitted => self.stable,
        }
    }
}

/// A request that waits for new bytes in any of several partitions.
#[derive(Debug)]
pub struct DataWaiter {
    pub(super) id: u64,
    isolation: Isolation,
    missing_bytes: AtomicI64,
    wake: Mutex<Option<oneshot::Sender<()>>>,
}

static NEXT_WAITER: AtomicU64 = AtomicU64::new(1);

impl DataWaiter {
    /// A waiter for `missing_bytes`, and the receiver on which to wait.
    #[must_use]
    pub fn new(missing_bytes: usize, isolation: Isolation) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let waiter = Self {
            id: NEXT_WAITER.fetch_add(1, Ordering::Relaxed),
            isolation,
            missing_bytes: AtomicI64::new(i64::try_from(missing_bytes).unwrap_or(i64::MAX).max(1)),
            wake: Mutex::new(Some(sender)),
        };
        (Arc::new(waiter), receiver)
    }

    /// Bytes for which the request still waits.
    #[cfg(test)]
    pub(super) fn missing_bytes(&self) -> i64 {
        self.missing_bytes.load(Ordering::Relaxed)
    }

    /// Ends the wait.
    pub fn wake(&self) {
        if let Some(sender) = self.wake.lock().take() {
            // The request may have given up.
            let _ = sender.send(());
        }
    }

    /// Counts new bytes, as far as the request may see them; true if the wait is over.
    pub fn credit(&self, growth: Growth) -> bool {
        let bytes = i64::try_from(growth.seen_by(self.isolation)).unwrap_or(i64::MAX);
        let satisfied = bytes > 0 && self.missing_bytes.fetch_sub(bytes, Ordering::AcqRel) <= bytes;
        if satisfied {
            self.wake();
        }
        satisfied
    }
}

/// The changes of the partitions to which the feed is subscribed.
#[derive(Debug, Default)]
pub struct ChangeFeed(Mutex<FeedState>);

#[derive(Debug, Default)]
struct FeedState {
    /// By the slot numbers of the subscriptions.
    changed: BTreeSet<u64>,
    /// What came since the last [`ChangeFeed::take_changed`].
    grown: Growth,
    /// A partition is gone, or its leadership: no request is to wait.
    urgent: bool,
    waiter: Option<Arc<DataWaiter>>,
}

impl ChangeFeed {
    /// The partition of `slot` has changed and grown; `urgent` if it or its leadership is gone.
    pub(super) fn record(&self, slot: u64, growth: Growth, urgent: bool) {
        let mut state = self.0.lock();
        if mutants::is_on(Bug::SessionMissesChanges) && state.waiter.is_none() {
            return;
        }
        state.changed.insert(slot);
        // Several partitions may have come with [`ANY_BYTES`] each: the sum must not overflow.
        state.grown.appended = state.grown.appended.saturating_add(growth.appended);
        state.grown.stable = state.grown.stable.saturating_add(growth.stable);
        state.urgent |= urgent;
        let over = state.waiter.as_ref().is_some_and(|waiter| {
            if urgent {
                waiter.wake();
            }
            urgent || waiter.credit(growth)
        });
        if over {
            state.waiter = None;
        }
    }

    /// What has changed since the last call.
    #[must_use]
    pub fn take_changed(&self) -> BTreeSet<u64> {
        let mut state = self.0.lock();
        state.grown = Growth::default();
        state.urgent = false;
        state.waiter = None;
        std::mem::take(&mut state.changed)
    }

    /// Credits `waiter` with what changes, and with what has changed since the last [`Self::take_changed`].
    pub fn attach(&self, waiter: &Arc<DataWaiter>) {
        let mut state = self.0.lock();
        if state.urgent {
            waiter.wake();
        } else if !waiter.credit(state.grown) {
            state.waiter = Some(waiter.clone());
        }
    }
}
