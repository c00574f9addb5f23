//! What the rewriter of a directory knows besides the index, and what it has done.
//!
//! May not know: how a job is done.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};

use crate::rewrite::Classes;

/// What the rewriter knows besides the index.
#[derive(Default)]
pub(super) struct Rewriter {
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
    /// Returns when no job is under way; the directory is marked as closing before.
    pub(super) async fn stop(&self) {
        self.stop.notify_one();
        drop(self.working.lock().await);
    }
}
