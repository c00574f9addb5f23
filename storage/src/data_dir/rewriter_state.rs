//! State and counters of a directory's rewriter.
//!
//! May not know: how a job is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::peers::Peers;
use crate::ids::ReplicaId;
use crate::read::damage::Damage;
use crate::rewrite::throttle::PassPace;
use crate::rewrite::{Classes, DirectoryMoves, RewriteOptions};
use ottla_env::watch;

/// The rewriter's state.
pub(super) struct Rewriter {
    /// Options of the directory, as changed since by `set_rewrite_pace`.
    pub(super) pace: watch::Sender<RewriteOptions>,
    pub(super) classes: RwLock<Option<Classes>>,
    pub(super) directory_moves: RwLock<Option<DirectoryMoves>>,
    /// Files with a damaged batch that no replica has returned yet: they are no sources of other jobs.
    pub(super) left_alone: Mutex<BTreeSet<u64>>,
    /// Damage to be repaired; readers record it, too.
    pub(super) damage: Arc<Damage>,
    /// Replicas here that have no readers any more.
    pub(super) aside: Mutex<BTreeSet<ReplicaId>>,
    /// The other replicas of a replica's shard.
    pub(super) peers: Mutex<BTreeMap<ReplicaId, Weak<dyn Peers>>>,
    /// Of passes of compaction.
    pub(super) pass_pace: Mutex<PassPace>,
    /// Held during a job.
    pub(super) working: tokio::sync::Mutex<()>,
    /// Ends the pause of a job when the directory is closed.
    pub(super) stop: tokio::sync::Notify,
    pub(super) jobs: AtomicU64,
    pub(super) rewritten_bytes: AtomicU64,
    pub(super) repaired_batches: AtomicU64,
    pub(super) passes: AtomicU64,
    pub(super) compacted_bytes: AtomicU64,
}

impl Rewriter {
    pub(super) fn new(options: RewriteOptions) -> Self {
        Self {
            pace: watch::Sender::new(options),
            classes: RwLock::default(),
            directory_moves: RwLock::default(),
            left_alone: Mutex::default(),
            damage: Arc::default(),
            aside: Mutex::default(),
            peers: Mutex::default(),
            pass_pace: Mutex::default(),
            working: tokio::sync::Mutex::default(),
            stop: tokio::sync::Notify::new(),
            jobs: AtomicU64::default(),
            rewritten_bytes: AtomicU64::default(),
            repaired_batches: AtomicU64::default(),
            passes: AtomicU64::default(),
            compacted_bytes: AtomicU64::default(),
        }
    }

    pub(super) fn set_pace(&self, pace: &RewriteOptions) {
        self.pace.send_if_modified(|known| {
            let wanted = RewriteOptions {
                bytes_per_second_max: pace.bytes_per_second_max,
                import_bytes_per_second_max: pace.import_bytes_per_second_max,
                move_bytes_per_second_max: pace.move_bytes_per_second_max,
                interval: pace.interval,
                ..*known
            };
            std::mem::replace(known, wanted) != wanted
        });
    }

    /// Returns when no job is running; the directory is marked as closing before.
    pub(super) async fn stop(&self) {
        self.stop.notify_one();
        drop(self.working.lock().await);
    }
}
