//! Who waits for partitions: once, for bytes ([`DataWaiter`]), or as a standing interest in many of them ([`Watch`]): which
//! have changed since somebody last asked.
//!
//! A fetch session has a watch, so that its requests look at what changed and at nothing else, however many partitions it
//! has. May not know: partitions, sessions, and what is done with a changed partition.
//! Lock order: a cell's waiters, then the watch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ottla_storage::env::mutants::{self, Bug};
use ottla_storage::env::sync::{AtomicI64, Mutex};
use tokio::sync::oneshot;

/// As many new bytes as anybody may wait for: a partition came as a whole.
pub(super) const ANY_BYTES: u64 = i64::MAX.unsigned_abs();

/// Somebody who waits for new bytes in any of several partitions.
#[derive(Debug)]
pub struct DataWaiter {
    pub(super) id: u64,
    missing_bytes: AtomicI64,
    wake: Mutex<Option<oneshot::Sender<()>>>,
}

static NEXT_WAITER: AtomicU64 = AtomicU64::new(1);

impl DataWaiter {
    /// A waiter for `missing_bytes`, and the end on which to wait.
    #[must_use]
    pub fn new(missing_bytes: usize) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let waiter = Self {
            id: NEXT_WAITER.fetch_add(1, Ordering::Relaxed),
            missing_bytes: AtomicI64::new(i64::try_from(missing_bytes).unwrap_or(i64::MAX).max(1)),
            wake: Mutex::new(Some(sender)),
        };
        (Arc::new(waiter), receiver)
    }

    /// Bytes that it still waits for.
    #[cfg(test)]
    pub(super) fn missing_bytes(&self) -> i64 {
        self.missing_bytes.load(Ordering::Relaxed)
    }

    /// Ends the wait.
    pub fn wake(&self) {
        if let Some(sender) = self.wake.lock().take() {
            // Whoever waited may have given up.
            let _ = sender.send(());
        }
    }

    /// Counts new bytes; true if the wait is over.
    pub fn credit(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let satisfied = self.missing_bytes.fetch_sub(bytes, Ordering::AcqRel) <= bytes;
        if satisfied {
            self.wake();
        }
        satisfied
    }
}

/// What has changed in the partitions that are watched.
#[derive(Debug, Default)]
pub struct Watch(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// By the numbers that the watcher gave.
    changed: BTreeSet<u64>,
    /// Bytes that came since the last [`Watch::take_changed`].
    bytes: u64,
    /// A partition went, or its leadership: nobody is to wait.
    urgent: bool,
    waiter: Option<Arc<DataWaiter>>,
}

impl Watch {
    /// The partition `slot` has changed, by `bytes` of new batches; `urgent` if it went.
    pub(super) fn note(&self, slot: u64, bytes: u64, urgent: bool) {
        let mut seen = self.0.lock();
        if mutants::is_on(Bug::SessionMissesChanges) && seen.waiter.is_none() {
            return;
        }
        seen.changed.insert(slot);
        // Several partitions may have come with [`ANY_BYTES`] each, and are no more than that together.
        seen.bytes = seen.bytes.saturating_add(bytes);
        seen.urgent |= urgent;
        let over = seen.waiter.as_ref().is_some_and(|waiter| {
            if urgent {
                waiter.wake();
            }
            urgent || (bytes > 0 && waiter.credit(bytes))
        });
        if over {
            seen.waiter = None;
        }
    }

    /// What has changed since the last call.
    #[must_use]
    pub fn take_changed(&self) -> BTreeSet<u64> {
        let mut seen = self.0.lock();
        seen.bytes = 0;
        seen.urgent = false;
        seen.waiter = None;
        std::mem::take(&mut seen.changed)
    }

    /// Lets `waiter` be told of what changes, and of what has changed since the last [`Self::take_changed`].
    pub fn tell(&self, waiter: &Arc<DataWaiter>) {
        let mut seen = self.0.lock();
        if seen.urgent {
            waiter.wake();
        } else if seen.bytes == 0 || !waiter.credit(seen.bytes) {
            seen.waiter = Some(waiter.clone());
        }
    }
}
