//! The snapshot that a replica takes at the moment: what has come so far, and what is ready to be installed.
//!
//! May not know: how it is fetched, and what installs it.

use ottla_storage::data_dir::ReplicaSnapshot;
use parking_lot::Mutex;

use crate::directory::SnapshotImport;

/// What a replica takes at the moment.
#[derive(Default)]
pub(crate) struct SnapshotDownload(Mutex<State>);

#[derive(Default)]
struct State {
    running: bool,
    /// What a pull that failed has taken so far.
    import: Option<Box<dyn SnapshotImport>>,
    /// Ready to be installed as soon as Raft says so.
    prepared: Option<Prepared>,
}

/// A snapshot whose batches are all here.
pub(crate) struct Prepared {
    pub(crate) snapshot: ReplicaSnapshot,
    pub(crate) import: Box<dyn SnapshotImport>,
}

impl SnapshotDownload {
    /// Takes what Raft says is to be installed.
    pub(crate) fn take_prepared(&self) -> Option<Prepared> {
        self.0.lock().prepared.take()
    }
}

impl SnapshotDownload {
    /// True if nobody takes one yet: now the caller does, until [`Self::end`].
    pub(crate) fn begin(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().running, true)
    }

    /// Nobody takes one any more.
    pub(crate) fn end(&self) {
        self.0.lock().running = false;
    }

    /// What an earlier attempt has taken.
    pub(crate) fn take_import(&self) -> Option<Box<dyn SnapshotImport>> {
        self.0.lock().import.take()
    }

    /// Keeps what was taken for the next attempt.
    pub(crate) fn keep_import(&self, import: Option<Box<dyn SnapshotImport>>) {
        self.0.lock().import = import;
    }

    /// Everything is here.
    pub(crate) fn prepare(&self, prepared: Prepared) {
        self.0.lock().prepared = Some(prepared);
    }
}
