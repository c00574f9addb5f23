//! The runs of a directory: opening them at the start, their indexes, and unlinking what no kept checkpoint lists.
//!
//! May not know: which batches a run holds.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::index_files::write_index;
use super::{DataDir, DataDirError};
use crate::checkpoint::file::off_thread;
use crate::checkpoint::state::Operation;
use crate::checkpoint::{Checkpoint, Found};
use crate::ids::RunId;
use crate::index::BatchIndex;
use crate::index::file::Opened;
use crate::index::in_memory_file;
use crate::runs::files::{self, RunError};
use crate::runs::{Listing, RUNS_DIR, Runs, run_index_path, run_path};
use ottla_env::disk::Disk;
use ottla_env::mutants::{self, Bug};

fn run_error(path: &Path, error: RunError) -> DataDirError {
    let runs = path.join(RUNS_DIR);
    match error {
        RunError::Io(error) => DataDirError::io(&runs, error),
        RunError::NewerFormat(found) => {
            DataDirError::NewerFormat { path: runs.display().to_string(), found, supported: 1 }
        }
        RunError::Damaged { path, what } => DataDirError::Damaged { path, what },
    }
}

/// Marks rewritten segments, before the indexes of segments are read: what those list does not count.
pub(super) fn mark_rewritten(index: &BatchIndex, found: &Found) {
    found.state.rewritten.iter().for_each(|segment| index.set_rewritten(*segment));
}

/// Opens the runs that the checkpoint lists and adds their indexes; removes runs that no kept checkpoint lists.
pub(super) async fn load(
    disk: &Arc<dyn Disk>,
    path: &Path,
    index: &BatchIndex,
    found: &Found,
) -> Result<Runs, DataDirError> {
    let (listed, next) = (found.state.runs.clone(), found.state.next_run);
    let waiting = found.checkpoint.runs_that_wait();
    let (work_disk, data_dir, existed) = (Arc::clone(disk), path.to_owned(), found.existed);
    let work = move || Ok(files::load(&work_disk, &data_dir, &listed, next, &waiting, existed));
    let loaded = off_thread(disk, work).await.map_err(|error| DataDirError::io(path, error))?;
    let loaded = loaded.map_err(|error| run_error(path, error))?;
    for (run, opened) in loaded.indexes {
        let number = run.id.file_number();
        let installed = opened.map(|opened| index.install(number, opened));
        if matches!(installed, Some(Ok(()))) {
            continue;
        }
        tracing::warn!(run = run.id.0, "the run's index is missing or damaged: rebuilding it from the run");
        // Header and directory may be sound and an index entry not: only a lookup that reads it finds that.
        index.forget(number);
        let opened = rebuild(disk, path, &run).await?;
        let damaged = |error: crate::index::IndexError| DataDirError::Damaged {
            path: run_index_path(path, run.id).display().to_string(),
            what: error.to_string(),
        };
        index.install(number, opened).map_err(damaged)?;
    }
    Ok(loaded.runs)
}

/// Rebuilds a run's `.idx` from the run, and opens it.
async fn rebuild(disk: &Arc<dyn Disk>, path: &Path, run: &Listing) -> Result<Opened, DataDirError> {
    let index_path = run_index_path(path, run.id);
    let (work_disk, work_path, work_run) = (Arc::clone(disk), path.to_owned(), run.clone());
    let image = off_thread(disk, move || files::rebuilt_index(&work_disk, &work_path, &work_run)).await;
    let damaged = |what: String| DataDirError::Damaged { path: index_path.display().to_string(), what };
    let image = image.map_err(|error| damaged(format!("it cannot be rebuilt from the run: {error}")))?;
    let io = |error| DataDirError::io(&index_path, error);
    let image = Bytes::from(image);
    if !write_index(disk, &index_path, image.clone()).await.map_err(io)? {
        return in_memory_file::open(image, run.id.file_number(), run.used_bytes()).map_err(io);
    }
    let (work_disk, work_path, work_run) = (Arc::clone(disk), path.to_owned(), run.clone());
    let opened = off_thread(disk, move || files::open_run_index(&work_disk, &work_path, &work_run)).await;
    opened.map_err(io)?.ok_or_else(|| damaged("it does not read back".to_owned()))
}

impl DataDir {
    /// Rebuilds a run's index from the run, and writes its `.idx` again.
    pub(super) async fn rebuild_run_index(&self, run: RunId) -> Result<(), DataDirError> {
        let _writing = self.index_files.lock().await;
        let Some(run) = self.runs.get(run).filter(|run| !run.leaving) else { return Ok(()) };
        let opened = rebuild(&self.disk, &self.path, &run.listing).await?;
        let index = Arc::clone(&self.index);
        let number = run.listing.id.file_number();
        let installed = off_thread(&self.disk, move || Ok(index.install(number, opened))).await;
        let path = run_index_path(&self.path, run.listing.id);
        installed
            .map_err(|error| DataDirError::io(&path, error))?
            .map_err(|error| DataDirError::Damaged { path: path.display().to_string(), what: error.to_string() })
    }

    /// Runs without a live batch.
    pub(super) fn dead_runs(&self) -> Vec<RunId> {
        let listed = self.runs.listed().into_iter().map(|run| run.id);
        listed.filter(|run| self.index.table.is_dead(run.file_number())).collect()
    }

    /// The checkpoint operations for runs that died and rewritten segments that were unlinked.
    pub(super) fn run_operations(&self, checkpoint: &Checkpoint) -> Vec<Operation> {
        let mut operations: Vec<Operation> = self.dead_runs().into_iter().map(Operation::DropRun).collect();
        if !checkpoint.newest().rewritten.is_empty() {
            let there: std::collections::BTreeSet<u64> =
                self.log.segments().iter().map(|segment| segment.sequence).collect();
            let gone = checkpoint.newest().rewritten.iter().filter(|segment| !there.contains(segment));
            operations.extend(gone.map(|segment| Operation::Unlinked(*segment)));
        }
        operations
    }

    /// Retires the runs that the newest, durable checkpoint does not list any more.
    pub(super) fn note_runs(&self, checkpoint: &Checkpoint) {
        for run in self.runs.listed() {
            if !checkpoint.newest().runs.contains_key(&run.id) {
                self.runs.retire(run.id);
            }
        }
    }

    /// True if files are kept only because the older generation, or an earlier transaction of the newest, needs them.
    pub(super) fn runs_wait_for_older(&self, checkpoint: &Checkpoint) -> bool {
        let Some(older) = checkpoint.older() else { return false };
        let there = |run: &RunId| self.runs.get(*run).is_some();
        checkpoint.runs_that_wait().keys().any(there)
            || !self.index.held_by_passes(Some(&older.compacted)).is_empty()
            || checkpoint.newest().rewritten.iter().any(|segment| !older.rewritten.contains(segment))
    }

    /// Segments that must be kept although they hold no live batch, as must those with the verdicts on their batches: a
    /// kept checkpoint still refers to them.
    pub(super) async fn held_segments(&self) -> Vec<u64> {
        if mutants::is_on(Bug::RewrittenUnlinkedEarly) {
            return Vec::new();
        }
        let checkpoint = self.checkpoint.lock().await;
        let segments = self.log.segments().into_iter().map(|segment| segment.sequence);
        let rewritten = segments.filter(|segment| self.index.is_rewritten(*segment));
        let older = checkpoint.older();
        let held = rewritten.filter(|segment| older.is_none_or(|older| !older.rewritten.contains(segment)));
        let by_passes = self.index.held_by_passes(older.map(|older| &older.compacted));
        held.chain(by_passes).collect()
    }
}

/// Removes runs with their indexes, as far as they are there.
pub(super) fn unlink_run_files(disk: &Arc<dyn Disk>, path: &Path, runs: &[RunId]) -> io::Result<()> {
    for run in runs {
        for file in [run_path(path, *run), run_index_path(path, *run)] {
            match disk.unlink(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    disk.sync_dir(&path.join(RUNS_DIR))
}
