//! The snapshot that a replica is downloading: what was imported so far, and what is ready to be installed.
//!
//! May not know: how it is fetched, and what installs it.

use ottla_storage::data_dir::ReplicaSnapshot;
use ottla_storage::ids::LogId;
use parking_lot::Mutex;

use crate::directory::SnapshotImport;
use crate::state_parts::ReceivedState;

/// The snapshot download of a replica.
#[derive(Default)]
pub(crate) struct SnapshotDownload(Mutex<DownloadState>);

#[derive(Default)]
struct DownloadState {
    running: bool,
    /// The parts of the state that a failed download has received.
    received: ReceivedState,
    /// What a failed download has imported so far, and up to where the replica had applied its log then.
    import: Option<(Option<LogId>, Box<dyn SnapshotImport>)>,
    /// Ready to be installed as soon as Raft requests it.
    prepared: Option<Prepared>,
}

/// A snapshot whose batches are all imported.
pub(crate) struct Prepared {
    pub(crate) snapshot: ReplicaSnapshot,
    pub(crate) import: Box<dyn SnapshotImport>,
}

impl SnapshotDownload {
    /// Takes the snapshot that Raft requests to install.
    pub(crate) fn take_prepared(&self) -> Option<Prepared> {
        self.0.lock().prepared.take()
    }
}

impl SnapshotDownload {
    /// True if no download was running: now the caller's is, until [`Self::end`].
    pub(crate) fn begin(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().running, true)
    }

    /// Marks the download as ended.
    pub(crate) fn end(&self) {
        self.0.lock().running = false;
    }

    /// The parts of the state that an earlier attempt has received.
    pub(crate) fn take_received(&self) -> ReceivedState {
        std::mem::take(&mut self.0.lock().received)
    }

    /// Keeps parts of a state for the next attempt.
    pub(crate) fn keep_received(&self, received: ReceivedState) {
        self.0.lock().received = received;
    }

    /// What an earlier attempt has imported, unless the replica has applied more of its log since: the import would bring what is
    /// here already.
    pub(crate) fn take_import(&self, applied: Option<LogId>) -> Option<Box<dyn SnapshotImport>> {
        let (at, import) = self.0.lock().import.take()?;
        (at == applied).then_some(import)
    }

    /// Keeps an import for the next attempt.
    pub(crate) fn keep_import(&self, applied: Option<LogId>, import: Option<Box<dyn SnapshotImport>>) {
        self.0.lock().import = import.map(|import| (applied, import));
    }

    /// Stores a snapshot that is ready to be installed.
    pub(crate) fn prepare(&self, prepared: Prepared) {
        self.0.lock().prepared = Some(prepared);
    }
}
