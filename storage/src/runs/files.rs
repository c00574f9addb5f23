//! The files of runs: lists those that exist at the start, opens them, and removes those that no kept checkpoint lists.
//!
//! May not know: the index, which the caller fills from the opened files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::format::{HeaderFound, decode_header};
use super::rebuild::index_image;
use super::{Listing, RUNS_DIR, Run, Runs, run_index_path, run_of_name, run_path};
use crate::ids::RunId;
use crate::index::file::{self, Opened};
use ottla_env::disk::{Disk, File, OpenMode, PAGE_BYTES, read_exact_at};

/// Why the runs of a directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// A file that a checkpoint lists cannot be used.
    #[error("{path}: {what}")]
    Damaged {
        /// The run.
        path: String,
        what: String,
    },
    #[error("format version {0}")]
    NewerFormat(u32),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The runs found at the start.
pub(crate) struct FoundRuns {
    pub(crate) runs: Runs,
    /// The indexes of the listed runs; `None` where it is to be rebuilt from the run.
    pub(crate) indexes: Vec<(Listing, Option<Opened>)>,
}

/// Opens a run that a checkpoint lists: it was synced before it was listed, so what is missing was lost.
fn open_run(disk: &Arc<dyn Disk>, data_dir: &Path, run: &Listing) -> Result<Arc<dyn File>, RunError> {
    let path = run_path(data_dir, run.id);
    let damaged = |what: &str| RunError::Damaged { path: path.display().to_string(), what: what.to_owned() };
    let file = match disk.open(&path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("it is not there: restore it")),
        opened => opened?,
    };
    if file.bytes()? != run.bytes {
        return Err(damaged("it is shorter or longer than it was written: restore it"));
    }
    let mut head = [0; PAGE_BYTES];
    let read = read_exact_at(&*file, &mut head, 0);
    match read.map(|()| decode_header(&head)) {
        Ok(HeaderFound::Sound { id, incarnation, lineage })
            if (id, incarnation, lineage) == (run.id, run.incarnation, run.lineage) => {}
        Ok(HeaderFound::Newer(version)) => return Err(RunError::NewerFormat(version)),
        Ok(HeaderFound::Sound { .. }) => return Err(damaged("it is another run than the one listed: restore it")),
        // Its batches are located by the index, and each has a checksum of its own.
        _ => tracing::error!(path = %path.display(), "the run's header is damaged"),
    }
    Ok(file)
}

/// Opens a run's `.idx`; `None` if it is missing or damaged.
pub(crate) fn open_run_index(disk: &Arc<dyn Disk>, data_dir: &Path, run: &Listing) -> io::Result<Option<Opened>> {
    match disk.open(&run_index_path(data_dir, run.id), OpenMode::Read) {
        Ok(file) => file::open(file, run.id.file_number(), run.used_bytes()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The bytes of a run's `.idx`, from the run.
pub(crate) fn rebuilt_index(disk: &Arc<dyn Disk>, data_dir: &Path, run: &Listing) -> io::Result<Vec<u8>> {
    let file = disk.open(&run_path(data_dir, run.id), OpenMode::Read)?;
    index_image(run, &file)
}

/// Files set aside, as no checkpoint says what they are.
const ASIDE: &str = ".lost";

/// Removes the files of runs that no kept checkpoint lists: they were never committed, or not yet removed.
fn remove_orphans(disk: &Arc<dyn Disk>, dir: &Path, kept: &BTreeSet<RunId>) -> io::Result<()> {
    let mut removed = 0;
    for entry in disk.list(dir)?.into_iter().filter(|entry| !entry.name.ends_with(ASIDE)) {
        let listed = run_of_name(&entry.name).is_some_and(|run| kept.contains(&run)) && !entry.name.ends_with(".new");
        if !listed {
            disk.unlink(&dir.join(&entry.name))?;
            removed += 1;
        }
    }
    if removed > 0 {
        tracing::info!(files = removed, "removed files of runs that no checkpoint lists");
    }
    Ok(())
}

/// Opens the runs that the newest checkpoint lists, keeps those that the older one lists, and removes all others. Without
/// a valid checkpoint nothing is removed, since it is not known what was listed.
pub(crate) fn load(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    listed: &BTreeMap<RunId, Listing>,
    next: RunId,
    waiting: &BTreeMap<RunId, Listing>,
    has_checkpoint: bool,
) -> Result<FoundRuns, RunError> {
    let dir = data_dir.join(RUNS_DIR);
    disk.create_dir_all(&dir)?;
    let names = disk.list(&dir)?;
    let last = names.iter().filter_map(|entry| run_of_name(&entry.name)).max();
    let next = next.max(last.map_or(RunId(0), |last| RunId(last.0 + 1)));
    if has_checkpoint {
        let kept = listed.keys().chain(waiting.keys()).copied().collect();
        remove_orphans(disk, &dir, &kept)?;
    } else if !names.is_empty() {
        for entry in names.iter().filter(|entry| !entry.name.ends_with(ASIDE)) {
            disk.rename(&dir.join(&entry.name), &dir.join(format!("{}{ASIDE}", entry.name)))?;
        }
        disk.sync_dir(&dir)?;
        tracing::error!(dir = %dir.display(), "no checkpoint lists the runs that are here: they are kept aside");
    }
    let mut runs = BTreeMap::new();
    let mut indexes = Vec::new();
    for run in listed.values() {
        let file = open_run(disk, data_dir, run)?;
        indexes.push((run.clone(), open_run_index(disk, data_dir, run)?));
        runs.insert(run.id, Run { listing: run.clone(), file, made_at: None, leaving: false });
    }
    for run in waiting.values() {
        // Not read: it is only needed if the newest checkpoint is found damaged.
        if let Ok(file) = disk.open(&run_path(data_dir, run.id), OpenMode::Read) {
            runs.insert(run.id, Run { listing: run.clone(), file, made_at: None, leaving: true });
        }
    }
    Ok(FoundRuns { runs: Runs::new(runs, next), indexes })
}
