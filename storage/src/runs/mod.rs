//! Runs: files of one replica's live batches, grouped by partition and retention class, made by the rewriter.
//!
//! A run is committed when a checkpoint lists it, and its files are kept as long as a kept checkpoint lists it. May not
//! know: why a batch is copied, or what a class means.

pub(crate) mod files;
pub(crate) mod format;
pub(crate) mod rebuild;
pub(crate) mod retention_class;
pub(crate) mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::ids::{Lineage, RunId};
use ottla_env::disk::File;
use ottla_env::rt;
use retention_class::RetentionClass;

/// Directory of the runs.
pub(crate) const RUNS_DIR: &str = "runs";

/// A run as a checkpoint lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) id: RunId,
    pub(crate) lineage: Lineage,
    /// Random: distinguishes the file from one that had the same id and was never committed.
    pub(crate) incarnation: u64,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// Bytes of its batches.
    pub(crate) batch_bytes: u64,
    pub(crate) class: RetentionClass,
    /// How often its batches were copied, at most; 0 for a run that an import made.
    pub(crate) rewrites: u32,
}

impl Listing {
    /// Its length as a position; a run ends far below 4 GiB.
    pub(crate) fn used_bytes(&self) -> u32 {
        u32::try_from(self.bytes).unwrap_or(u32::MAX)
    }
}

/// Path of a run's file.
pub(crate) fn run_path(data_dir: &Path, run: RunId) -> PathBuf {
    data_dir.join(RUNS_DIR).join(format!("{:016}.run", run.0))
}

/// Path of a run's `.idx`.
pub(crate) fn run_index_path(data_dir: &Path, run: RunId) -> PathBuf {
    run_path(data_dir, run).with_extension("idx")
}

/// The run to which a file belongs, by its name; anything may follow the number.
pub(crate) fn run_of_name(name: &str) -> Option<RunId> {
    let (digits, _) = name.split_once('.')?;
    (digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok().map(RunId))?
}

/// An open run.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) listing: Listing,
    pub(crate) file: Arc<dyn File>,
    /// When it was made; `None` if it was there when the directory was opened.
    pub(crate) made_at: Option<rt::Instant>,
    /// The newest checkpoint does not list it any more: its files are kept for the older one.
    pub(crate) leaving: bool,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("listing", &self.listing).field("leaving", &self.leaving).finish_non_exhaustive()
    }
}

/// The runs of a data directory.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    state: Mutex<RunsState>,
}

#[derive(Debug, Default)]
struct RunsState {
    runs: BTreeMap<RunId, Run>,
    next: RunId,
}

impl Runs {
    pub(crate) fn new(runs: BTreeMap<RunId, Run>, next: RunId) -> Self {
        Self { state: Mutex::new(RunsState { runs, next }) }
    }

    /// An id that was never used.
    pub(crate) fn take_id(&self) -> RunId {
        let mut state = self.state.lock();
        let id = state.next;
        state.next = RunId(id.0 + 1);
        id
    }

    /// The next id to be used.
    pub(crate) fn next_id(&self) -> RunId {
        self.state.lock().next
    }

    /// A run's file; also of a retired run, as long as reads of it may be planned.
    pub(crate) fn file(&self, run: RunId) -> Option<Arc<dyn File>> {
        self.state.lock().runs.get(&run).map(|run| Arc::clone(&run.file))
    }

    /// One run.
    pub(crate) fn get(&self, run: RunId) -> Option<Run> {
        self.state.lock().runs.get(&run).cloned()
    }

    /// The runs that the newest checkpoint lists, in order.
    pub(crate) fn listed(&self) -> Vec<Listing> {
        let state = self.state.lock();
        state.runs.values().filter(|run| !run.leaving).map(|run| run.listing.clone()).collect()
    }

    /// When a run was made; `None` if it is not known, or was there when the directory was opened.
    pub(crate) fn made_at(&self, run: RunId) -> Option<rt::Instant> {
        self.state.lock().runs.get(&run)?.made_at
    }

    /// The runs that wait for their files to be unlinked, with their lengths.
    pub(crate) fn leaving(&self) -> Vec<(RunId, u64)> {
        let state = self.state.lock();
        state.runs.values().filter(|run| run.leaving).map(|run| (run.listing.id, run.listing.bytes)).collect()
    }

    /// The runs whose files exist, with their lengths.
    pub(crate) fn all(&self) -> Vec<(RunId, u64)> {
        self.state.lock().runs.values().map(|run| (run.listing.id, run.listing.bytes)).collect()
    }

    /// Adds a run that a checkpoint lists.
    pub(crate) fn add(&self, run: Run) {
        self.state.lock().runs.insert(run.listing.id, run);
    }

    /// Retires a run that the newest checkpoint does not list any more.
    pub(crate) fn retire(&self, run: RunId) {
        if let Some(run) = self.state.lock().runs.get_mut(&run) {
            run.leaving = true;
        }
    }

    /// Drops a run whose files are unlinked.
    pub(crate) fn forget(&self, run: RunId) {
        self.state.lock().runs.remove(&run);
    }
}
