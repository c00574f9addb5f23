//! What the rewriter of a directory knows besides the index, and what it has done.
//!
//! May not know: how a job is done.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::env::watch;
use crate::rewrite::{Classes, RewriteOptions};

/// What the rewriter knows besides the index.
pub(super) struct Rewriter {
    /// As the directory was opened, but for what was changed since: see `set_rewrite_pace`.
    pub(super) pace: watch::Sender<RewriteOptions>,
    pub(super) classes: RwLock<Option<Classes>>,
    /// Files with a damaged batch: they stay as they are.
    pub(super) left_alone: Mutex<BTreeSet<u64>>,
    /// Held during a job.
    pub(super) working: tokio::sync::Mutex<()>,
    /// Ends the pause of a job when the directory is closed.
    pub(super) stop: tokio::sync::Notify,
    pub(super) jobs: AtomicU64,
    pub(super) rewritten_bytes: AtomicU64,
    pub(super) damaged_sources: AtomicU64,
}

impl Rewriter {
    pub(super) fn new(options: RewriteOptions) -> Self {
        Self {
            pace: watch::Sender::new(options),
            classes: RwLock::default(),
            left_alone: Mutex::default(),
            working: tokio::sync::Mutex::default(),
            stop: tokio::sync::Notify::new(),
            jobs: AtomicU64::default(),
            rewritten_bytes: AtomicU64::default(),
            damaged_sources: AtomicU64::default(),
        }
    }

    pub(super) fn set_pace(&self, bytes_per_second_max: u64, interval: Duration) {
        self.pace.send_if_modified(|known| {
            let wanted = RewriteOptions { bytes_per_second_max, interval, ..*known };
            std::mem::replace(known, wanted) != wanted
        });
    }

    /// Returns when no job is under way; the directory is marked as closing before.
    pub(super) async fn stop(&self) {
        self.stop.notify_one();
        drop(self.working.lock().await);
    }
}
