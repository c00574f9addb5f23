//! Unlinks the segments and runs that nothing refers to any more, one after the other while space is ample.
//!
//! May not know: why their batches have died.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::index_files::index_path;
use super::run_files::unlink_run_files;
use super::{DataDir, DataDirError};
use crate::checkpoint::file::off_thread;
use crate::ids::RunId;
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;

/// How many files go at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unlinking {
    /// As many as are due by the pace, all while space is not ample.
    Paced,
    AtOnce,
}

impl DataDir {
    fn may_unlink(&self, how: Unlinking) -> bool {
        let mut pace = self.unlink_pace.lock();
        let is_due = pace.is_due(rt::now(), self.log.stats().bytes);
        is_due || how == Unlinking::AtOnce || self.space_pressure() > 0.0
    }

    fn has_unlinked(&self, bytes: u64) {
        self.unlink_pace.lock().unlinked(rt::now(), bytes);
    }

    /// Unlinks the sealed segments that nothing refers to any more.
    pub(super) async fn unlink_dead(&self, how: Unlinking) -> Result<(), DataDirError> {
        let Some(needed_from) = self.needed_from().await else { return Ok(()) };
        let held = self.held_segments().await;
        let writing = self.index_files.lock().await;
        let segments = self.log.segments();
        let mut unlinked = false;
        for segment in segments.iter().filter(|segment| segment.sealed && segment.sequence < needed_from) {
            let is_needed = held.contains(&segment.sequence)
                || !self.index.table.is_dead(segment.sequence)
                || self.index.table.may_decide_on(segment.sequence, &held);
            if is_needed {
                continue;
            }
            if !self.may_unlink(how) {
                break;
            }
            // A mapping kept for the next reader would keep the space.
            self.open_segments.forget(segment.sequence);
            match self.log.unlink(segment.sequence).await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => continue,
                Err(error) => return Err(self.fail("unlink", error)),
            }
            self.has_unlinked(segment.file_bytes);
            self.index.forget(segment.sequence);
            let (disk, path) = (Arc::clone(&self.disk), index_path(&self.path, segment.sequence));
            let removed = off_thread(&self.disk, move || disk.unlink(&path)).await;
            if let Err(error) =
                removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            {
                return Err(self.fail("unlink", error));
            }
            self.counters.unlinked_segments.fetch_add(1, Ordering::Relaxed);
            tracing::info!(
                segment = segment.sequence,
                bytes = segment.file_bytes,
                "segment unlinked: nothing in it is live"
            );
            unlinked = true;
        }
        drop(writing);
        if unlinked {
            let oldest = self.log.segments().first().map_or(u64::MAX, |segment| segment.sequence);
            self.prune(oldest);
            self.log.space_freed();
            self.settle().await?;
        }
        Ok(())
    }

    /// Unlinks the files of runs that no kept checkpoint lists.
    pub(super) async fn unlink_runs(&self, how: Unlinking) -> Result<(), DataDirError> {
        let free: Vec<(RunId, u64)> = {
            let checkpoint = self.checkpoint.lock().await;
            if checkpoint.older().is_none() {
                return Ok(());
            }
            let waiting = checkpoint.runs_that_wait();
            let waits = |run: &RunId| waiting.contains_key(run) && !mutants::is_on(Bug::RunUnlinkedEarly);
            let needed = |run: &RunId| waits(run) || checkpoint.newest().runs.contains_key(run);
            self.runs.leaving().into_iter().filter(|(run, _)| !needed(run)).collect()
        };
        if free.is_empty() {
            return Ok(());
        }
        let writing = self.index_files.lock().await;
        for (run, bytes) in &free {
            if !self.may_unlink(how) {
                break;
            }
            self.open_segments.forget(run.file_number());
            self.index.forget(run.file_number());
            let (disk, data_dir, run) = (Arc::clone(&self.disk), self.path.clone(), *run);
            let unlink = move || unlink_run_files(&disk, &data_dir, &[run]);
            off_thread(&self.disk, unlink).await.map_err(|error| self.fail("unlink", error))?;
            self.has_unlinked(*bytes);
            self.runs.forget(run);
            self.counters.unlinked_runs.fetch_add(1, Ordering::Relaxed);
            tracing::info!(run = run.0, "run unlinked: nothing in it is live");
        }
        drop(writing);
        let oldest = self.log.segments().first().map_or(u64::MAX, |segment| segment.sequence);
        self.prune(oldest);
        self.log.space_freed();
        Ok(())
    }
}
