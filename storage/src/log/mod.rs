//! The one log of a data directory: an append-only sequence of segments shared by the replicas of all shards.
//!
//! Invariant (I8): what recovery yields after any crash is, for each replica, a prefix of what was written that contains
//! everything synced. May not know: what an entry means.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::ids::{LogId, LogPosition, ReplicaId};
use ottla_env::critical::Owner;
use ottla_env::disk::Disk;
use ottla_env::rt;

mod cache;
mod commit;
mod correct;
mod doublewrite;
mod frame;
mod frame_body;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod group_commit;
mod histogram;
mod log_summary;
mod prepare;
mod prepared_mark;
mod queue;
mod reader;
mod recovery;
mod relocate;
mod replay;
mod replica;
mod replica_log;
mod scan;
mod segment_header;
mod segments;
mod shared;
#[cfg(test)]
mod tests;
pub mod types;
mod writer;

pub(crate) use frame::EntryLayout;
pub use histogram::{BUCKETS, COMMIT_BYTES_BOUNDS, SYNC_NANOS_BOUNDS};
pub use log_summary::LogSummary;
use queue::{Done, Queued, closed};
use replica::Replica;
pub use replica_log::ReplicaLog;
use scan::{SegmentFile, Walk};
pub use segments::{Segment, segment_path};
use shared::Shared;
pub use types::*;

/// The log of a data directory; a cheap handle. It closes when the last handle is dropped, better with [`Log::close`].
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    writer: Mutex<Option<rt::JoinHandle<()>>>,
    preparer: Mutex<Option<rt::JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.preparation.close();
        drop(self.shared.queue.close());
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("dir", &self.inner.shared.dir).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens or creates the log in `dir`: syncs and re-reads its tail, reads on from the recovery points, passes every
    /// whole frame from there (with no recovery points: of the whole log) to `sink`, and starts the writer.
    /// `recovery_points` are those of all replicas ([`Log::recovery_points`]) at one moment, or none.
    pub async fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        recovery_points: Vec<RecoveryPoint>,
        sink: &mut dyn FrameSink,
    ) -> Result<(Log, Vec<RecoveredReplica>), LogError> {
        let path = dir.to_owned();
        let failed = |source| LogError::Io { path: path.clone(), source };
        let mut opened = recovery::open(disk, dir, options, recovery_points, sink).await?;
        if opened.mark_session {
            opened.writer.mark_session().await.map_err(|failure| failed(failure.to_io_error()))?;
        }
        let shared = opened.shared;
        let failing = Arc::downgrade(&shared);
        let owner = Owner::new(move |why| {
            if let Some(shared) = failing.upgrade() {
                shared.fail(&LogFailure::of_task(why), Vec::new());
            }
        });
        let preparer = rt::spawn_dedicated(
            "log-prepare",
            owner.clone(),
            prepare::run(shared.disk.clone(), shared.dir.clone(), shared.options.clone(), shared.preparation.clone()),
        );
        let writer = rt::spawn_dedicated("log-writer", owner, opened.writer.run());
        let inner = Inner {
            shared,
            writer: Mutex::new(Some(writer.map_err(failed)?)),
            preparer: Mutex::new(Some(preparer.map_err(failed)?)),
        };
        let log = Log { inner: Arc::new(inner) };
        for replica in opened.newly_lost {
            if let Some(replica) = log.replica(replica) {
                replica.write(FrameBody::Lost).await.map_err(failed)?;
            }
        }
        Ok((log, opened.recovered))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Creates a replica's log; returns when the creation is durable. `AlreadyExists` if the id is known.
    pub async fn create_group(&self, creation: GroupCreation) -> io::Result<ReplicaLog> {
        let (sender, receiver) = oneshot::channel();
        let id = creation.replica;
        let replica = Arc::new(Replica::new(id, creation.payload.clone()));
        let refused = {
            let mut replicas = self.shared().replicas.lock();
            if replicas.contains_key(&id) {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("replica {id} is here already")));
            }
            let mut state = replica.state.lock();
            state.vote = creation.vote;
            state.purged = creation.purged;
            state.purged_synced = creation.purged;
            let sequence = state.take_sequence();
            let frame = frame_body::to_raw(FrameBody::Create(creation));
            let queued = Queued::new(&replica, sequence, frame, Done::Place(Some(sender)));
            let pushed = self.shared().queue.push(vec![queued]);
            drop(state);
            match pushed {
                Ok(bell) => {
                    replicas.insert(id, replica.clone());
                    drop(replicas);
                    drop(bell);
                    None
                }
                Err(refused) => Some(refused),
            }
        };
        if let Some((failure, _)) = refused {
            return Err(failure.to_io_error());
        }
        let created = receiver.await.unwrap_or_else(|_| Err(closed().to_io_error()));
        if created.is_err() {
            self.shared().replicas.lock().remove(&id);
        }
        created.map(|_| self.handle(replica))
    }

    /// Removes a replica's log; its id is never used again.
    pub async fn remove_group(&self, replica: ReplicaId) -> io::Result<()> {
        let Some(log) = self.replica(replica) else {
            return Ok(());
        };
        let written = log.write(FrameBody::Remove).await;
        if written.is_ok() {
            self.shared().replicas.lock().remove(&replica);
        }
        written.map(drop)
    }

    fn handle(&self, replica: Arc<Replica>) -> ReplicaLog {
        ReplicaLog::new(replica, self.shared().clone(), self.inner.clone())
    }

    /// The log of a known replica.
    #[must_use]
    pub fn replica(&self, replica: ReplicaId) -> Option<ReplicaLog> {
        let found = self.shared().replicas.lock().get(&replica).cloned();
        found.map(|replica| self.handle(replica))
    }

    /// All replicas of this directory.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaId> {
        self.shared().replicas.lock().keys().copied().collect()
    }

    /// The recovery points of all replicas at one moment. A checkpoint keeps them all: a replica without one counts as
    /// created later.
    #[must_use]
    pub fn recovery_points(&self) -> Vec<RecoveryPoint> {
        self.recovery_points_without(&BTreeMap::new())
    }

    /// As [`Self::recovery_points`], for a checkpoint that contains the `released` entries and those before them, where no
    /// replica will read these entries again: for recovery from it they count as purged.
    #[must_use]
    pub fn recovery_points_without(&self, released: &BTreeMap<ReplicaId, LogId>) -> Vec<RecoveryPoint> {
        let resume = self.shared().resume_from();
        let replicas: Vec<Arc<Replica>> = self.shared().replicas.lock().values().cloned().collect();
        let point = |replica: &Arc<Replica>| {
            replica_log::recovery_point_of(replica, resume, released.get(&replica.id).copied())
        };
        let recovery_points = replicas.iter().map(point);
        // A replica whose creation is not durable yet counts as created later.
        recovery_points.filter(|point| point.sequence > 0).collect()
    }

    /// Opens a segment for reading and pins it.
    #[must_use]
    pub fn segment(&self, sequence: u64) -> Option<Arc<Segment>> {
        self.shared().segments.get(sequence)
    }

    /// The segments that exist, oldest first; the last is the active one.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared().segments.list()
    }

    /// Removes a sealed segment. Refused (`ResourceBusy`) while Raft still needs an entry in or before it.
    pub async fn unlink(&self, sequence: u64) -> io::Result<()> {
        let busy = |what: String| io::Error::new(io::ErrorKind::ResourceBusy, format!("segment {sequence} {what}"));
        let Some(segment) = self.segment(sequence) else {
            return Ok(());
        };
        if !segment.sealed.load(Ordering::Acquire) {
            return Err(busy("is not sealed".to_owned()));
        }
        if let Some(point) = self.recovery_points().iter().find(|point| point.position.segment <= sequence) {
            return Err(busy(format!("holds what replica {} needs", point.replica)));
        }
        let shared = self.shared().clone();
        let unlink = move || {
            shared.disk.unlink(&segment.path)?;
            shared.segments.remove(sequence);
            shared.disk.sync_dir(&shared.dir)
        };
        blocking(&*self.shared().disk, unlink).await?;
        self.space_freed();
        Ok(())
    }

    /// Passes every whole frame of a segment to `sink`, those of damaged commits too. `Err` if the segment cannot be read
    /// at all.
    pub async fn scan(&self, sequence: u64, sink: &mut dyn FrameSink) -> Result<(), LogError> {
        let segment = self.segment(sequence).ok_or(LogError::Segment(sequence, "not there"))?;
        let used_bytes = segment.info().used_bytes;
        let file = SegmentFile { sequence, path: segment.path.clone(), file: segment.file.clone() };
        let mut walk = Walk::new(0, 0).up_to(used_bytes).run(&[file], Vec::new(), sink)?;
        // What recovery and the writer count as used was whole once: a break in it is no torn tail.
        walk.rest_is_damaged(used_bytes, None, sink)
    }

    /// The position from which recovery read the log.
    #[must_use]
    pub fn recovered_from(&self) -> LogPosition {
        self.shared().recovered_from
    }

    /// Sets the number of batches before that position in the segment where recovery began.
    pub fn note_batches(&self, batches: u64) {
        if let Some(segment) = self.segment(self.recovered_from().segment) {
            let most = self.shared().options.segment_batches_max;
            segment.batches.fetch_add(u32::try_from(batches).unwrap_or(most).min(most), Ordering::AcqRel);
        }
    }

    /// Seals the segment early, if it is the active one.
    pub fn end_segment(&self, sequence: u64) {
        drop(self.shared().queue.end_segment(sequence));
    }

    /// Of what lies before this place, more than `bytes` of the log were written since.
    #[must_use]
    pub fn place_behind(&self, bytes: u64) -> LogPosition {
        self.shared().place_behind(bytes)
    }

    /// The position before which everything is durable.
    #[must_use]
    pub fn durable_upto(&self) -> LogPosition {
        self.shared().durable_upto()
    }

    /// First byte of the last durable commit. Damage before it can be proven; damage of that commit looks like a torn
    /// write.
    #[must_use]
    pub fn last_commit(&self) -> LogPosition {
        self.shared().resume_from()
    }

    /// Bytes that can be written without taking new space: the rest of the active segment and the prepared ones.
    #[must_use]
    pub fn headroom_bytes(&self) -> u64 {
        let shared = self.shared();
        let active = shared.segments.list().last().map_or(0, |s| s.file_bytes.saturating_sub(u64::from(s.used_bytes)));
        active + shared.preparation.ready_count() * u64::from(shared.options.segment_bytes)
    }

    /// Notifies the preparation of segments that space was freed.
    pub fn space_freed(&self) {
        self.shared().preparation.space_freed();
    }

    /// Stops the log for good: a task that maintains its files has ended.
    pub(crate) fn fail(&self, why: &str) {
        self.shared().fail(&LogFailure::of_task(why), Vec::new());
    }

    /// Why the log stopped for good, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<LogFailure> {
        self.shared().queue.failure()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let shared = self.shared();
        let counters = &shared.counters;
        LogStats {
            commits: counters.commits.load(Ordering::Relaxed),
            frames: counters.frames.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            sync_nanos: counters.sync_nanos.load(Ordering::Relaxed),
            sync_times: counters.sync_times.counts(),
            commit_sizes: counters.commit_sizes.counts(),
            queued_bytes: shared.queue.bytes() as u64,
            cached_bytes: shared.cache.bytes() as u64,
            relocated_bytes: counters.relocated_bytes.load(Ordering::Relaxed),
        }
    }

    /// Writes the queued frames, marks a clean end, and stops the writer. Later calls are refused.
    pub async fn close(&self) -> io::Result<()> {
        let failed = self.failure().filter(|failure| *failure != closed());
        self.shared().preparation.close();
        drop(self.shared().queue.close());
        let tasks = [self.inner.writer.lock().take(), self.inner.preparer.lock().take()];
        for task in tasks.into_iter().flatten() {
            task.await.map_err(|e| io::Error::other(e.to_string()))?;
        }
        match failed.or_else(|| self.failure().filter(|failure| *failure != closed())) {
            Some(failure) => Err(failure.to_io_error()),
            None => Ok(()),
        }
    }
}

/// Runs blocking work: in place if the disk does not block, else on a thread of its own.
async fn blocking<T: Send + 'static>(
    disk: &dyn Disk,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if !disk.blocks() {
        return work();
    }
    rt::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e.to_string())))
}
