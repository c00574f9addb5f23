//! State shared by the log's handles and its writer.
//!
//! Lock order: a replica's state, then the queue. The cache's items before a replica's state. Callbacks are called with
//! no lock held.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::cache::Cache;
use super::commit::{pack, unpack};
use super::histogram::{COMMIT_BYTES_BOUNDS, Histogram, SYNC_NANOS_BOUNDS};
use super::prepare::Preparation;
use super::queue::{Queue, Queued, closed};
use super::replica::Replica;
use super::segments::Segments;
use super::types::{LogFailure, LogOptions};
use crate::ids::{LogPosition, ReplicaId};
use ottla_env::disk::Disk;

/// Counters of the writer, read by the metrics.
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) sync_nanos: AtomicU64,
    pub(crate) relocated_bytes: AtomicU64,
    pub(crate) sync_times: Histogram,
    pub(crate) commit_sizes: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            commits: AtomicU64::default(),
            frames: AtomicU64::default(),
            bytes: AtomicU64::default(),
            sync_nanos: AtomicU64::default(),
            relocated_bytes: AtomicU64::default(),
            sync_times: Histogram::new(&SYNC_NANOS_BOUNDS),
            commit_sizes: Histogram::new(&COMMIT_BYTES_BOUNDS),
        }
    }
}

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: LogOptions,
    pub(crate) queue: Queue,
    pub(crate) segments: Segments,
    pub(crate) preparation: Arc<Preparation>,
    pub(crate) replicas: Mutex<BTreeMap<ReplicaId, Arc<Replica>>>,
    pub(crate) cache: Cache,
    pub(crate) counters: Counters,
    /// The position from which this process read the log.
    pub(crate) recovered_from: LogPosition,
    durable_upto: AtomicU64,
    resume_from: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        options: LogOptions,
        preparation: Preparation,
        [recovered_from, resume_from, durable_upto]: [LogPosition; 3],
    ) -> Self {
        Self {
            disk,
            dir,
            queue: Queue::default(),
            segments: Segments::default(),
            preparation: Arc::new(preparation),
            replicas: Mutex::default(),
            cache: Cache::new(options.cache_bytes_max),
            counters: Counters::default(),
            recovered_from,
            durable_upto: AtomicU64::new(pack(durable_upto)),
            resume_from: AtomicU64::new(pack(resume_from)),
            options,
        }
    }

    pub(crate) fn durable_upto(&self) -> LogPosition {
        unpack(self.durable_upto.load(Ordering::Acquire))
    }

    pub(crate) fn set_durable_upto(&self, position: LogPosition) {
        let before = self.durable_upto.swap(pack(position), Ordering::AcqRel);
        assert!(before <= pack(position), "the log was durable up to {:?}, now {position:?}", unpack(before));
    }

    /// Of what lies before this place, more than `bytes` of the log were written since.
    pub(crate) fn place_behind(&self, bytes: u64) -> LogPosition {
        let end = self.durable_upto();
        let mut later = 0;
        for segment in self.segments.list().iter().rev() {
            let used = if segment.sequence == end.segment { end.byte } else { segment.used_bytes };
            let from_start = later + u64::from(used);
            if from_start > bytes {
                let byte = u32::try_from(from_start - bytes).unwrap_or(u32::MAX);
                return LogPosition { segment: segment.sequence, byte };
            }
            later = from_start;
        }
        LogPosition { segment: 0, byte: 0 }
    }

    /// First byte of the last durable commit. Recovery can begin to read there: which frames came before it is known
    /// from that commit's header.
    pub(crate) fn resume_from(&self) -> LogPosition {
        unpack(self.resume_from.load(Ordering::Acquire))
    }

    pub(crate) fn set_resume_from(&self, position: LogPosition) {
        self.resume_from.store(pack(position), Ordering::Release);
    }

    /// Stops the log for good: all waiting and later callers receive the failure.
    pub(crate) fn fail(&self, failure: &LogFailure, in_hand: Vec<Queued>) {
        tracing::error!(dir = %self.dir.display(), %failure.message, "log stopped for good: {} failed", failure.operation);
        let waiting = self.queue.fail(failure.clone());
        if let Some(tell) = &self.options.on_failure {
            tell(failure);
        }
        for queued in in_hand.into_iter().chain(waiting) {
            queued.done.report(Err(failure));
        }
        self.preparation.finish();
    }
}

impl Shared {
    /// Ends the writer because the log is closed.
    pub(crate) fn end(&self) {
        let failure = closed();
        for queued in self.queue.fail(failure.clone()) {
            queued.done.report(Err(&failure));
        }
        self.preparation.finish();
    }
}
