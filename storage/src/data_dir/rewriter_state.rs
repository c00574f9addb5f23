//! What the rewriter of a directory knows besides the index, and what it has done.
//!
//! May not know: how a job is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::peers::Peers;
use crate::env::watch;
use crate::ids::ReplicaId;
use crate::rewrite::damage::Damage;
use crate::rewrite::{Classes, RewriteOptions};

/// What the rewriter knows besides the index.
pub(super) struct Rewriter {
    /// As the directory was opened, but for what was changed since: see `set_rewrite_pace`.
    pub(super) pace: watch::Sender<RewriteOptions>,
    pub(super) classes: RwLock<Option<Classes>>,
    /// Files with a damaged batch that nobody could replace yet: they are no sources of other jobs.
    pub(super) left_alone: Mutex<BTreeSet<u64>>,
    /// What is to be mended; readers note it too.
    pub(super) damage: Arc<Damage>,
    /// Replicas here that nobody reads from any more.
    pub(super) aside: Mutex<BTreeSet<ReplicaId>>,
    /// Who else has the batches of a replica.
    pub(super) peers: Mutex<BTreeMap<ReplicaId, Weak<dyn Peers>>>,
    /// Held during a job.
    pub(super) working: tokio::sync::Mutex<()>,
    /// Ends the pause of a job when the directory is closed.
    pub(super) stop: tokio::sync::Notify,
    pub(super) jobs: AtomicU64,
    pub(super) rewritten_bytes: AtomicU64,
    pub(super) repaired_batches: AtomicU64,
}

impl Rewriter {
    pub(super) fn new(options: RewriteOptions) -> Self {
        Self {
            pace: watch::Sender::new(options),
            classes: RwLock::default(),
            left_alone: Mutex::default(),
            damage: Arc::default(),
            aside: Mutex::default(),
            peers: Mutex::default(),
            working: tokio::sync::Mutex::default(),
            stop: tokio::sync::Notify::new(),
            jobs: AtomicU64::default(),
            rewritten_bytes: AtomicU64::default(),
            repaired_batches: AtomicU64::default(),
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
