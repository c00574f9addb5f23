//! Public types of a data directory: options, errors, recovered replicas, counters.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::failure::OnFailure;
use crate::entry::Vote;
use crate::ids::{LogId, RaftIndex, ReplicaId};
use crate::log::{LogError, LogOptions, LogStats, Missing};
use crate::rewrite::RewriteOptions;

/// How a data directory is opened.
#[derive(Clone)]
pub struct DataDirOptions {
    /// The node that opens it; must be the node that created it.
    pub node_id: i32,
    /// The cluster the node belongs to, once it is known; must be the one recorded.
    pub cluster_id: Option<String>,
    /// The directory id that metadata expects here; a wiped directory has another one.
    pub directory_id_expected: Option<Uuid>,
    /// How the log is kept: segment size, reserve, sync.
    pub log: LogOptions,
    /// Bytes of a replica's frames after which its state is checkpointed. Default 64 MiB.
    pub checkpoint_bytes: u64,
    /// Time after which the state of a dirty replica is checkpointed. Default 10 s.
    pub checkpoint_interval: Duration,
    /// Interval of maintenance. Default 500 ms.
    pub maintenance_interval: Duration,
    /// While space is ample, a checkpoint generation is replaced only to let go of dead files no more often than this.
    /// Default 20 s.
    pub reclaim_interval: Duration,
    /// Entries that wait to be applied are relocated to the tail when so much of the log was written since, so that a
    /// shard without a quorum holds back no space. Default 4 GiB.
    pub relocation_bytes: u64,
    /// How live batches of mostly dead files are copied together.
    pub rewrite: RewriteOptions,
    /// Bytes of batches that are read and verified a second, whether anybody reads them or not. 0: none. Default 4 MiB.
    pub scrub_bytes_per_second: u64,
    /// Called once if the directory fails.
    pub on_failure: Option<OnFailure>,
}

impl Default for DataDirOptions {
    fn default() -> Self {
        Self {
            node_id: 0,
            cluster_id: None,
            directory_id_expected: None,
            log: LogOptions::default(),
            checkpoint_bytes: 64 << 20,
            checkpoint_interval: Duration::from_secs(10),
            maintenance_interval: Duration::from_millis(500),
            reclaim_interval: Duration::from_secs(20),
            relocation_bytes: 4 << 30,
            rewrite: RewriteOptions::default(),
            scrub_bytes_per_second: 4 << 20,
            on_failure: None,
        }
    }
}

/// Why a data directory cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds the lock.
    #[error("data directory {0} is in use by another process")]
    InUse(String),
    /// Written by a later release.
    #[error("data directory {path} has format {found}, this release reads up to {supported}: run the newer release")]
    NewerFormat {
        /// The directory or file.
        path: String,
        /// Its format.
        found: u32,
        /// The newest this release reads.
        supported: u32,
    },
    /// It belongs to another node or cluster, or was wiped.
    #[error("data directory {path} is not the one expected: {what}")]
    Foreign {
        /// The directory.
        path: String,
        /// What does not fit.
        what: String,
    },
    /// A file of the directory cannot be understood.
    #[error("data directory: {path}: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The disk failed.
    #[error("data directory: {path}: {source}")]
    Io {
        /// File or directory.
        path: String,
        /// What the disk said.
        source: io::Error,
    },
    /// The directory failed earlier.
    #[error("data directory has failed: {0}")]
    Failed(String),
}

impl DataDirError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.display().to_string(), source }
    }
}

impl From<LogError> for DataDirError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Io { path, source } => Self::io(&path, source),
            LogError::NewerFormat { path, found, supported } => {
                Self::NewerFormat { path: path.display().to_string(), found, supported }
            }
            LogError::Segment(sequence, what) => {
                Self::Damaged { path: format!("segment {sequence}"), what: what.to_owned() }
            }
        }
    }
}

impl From<DataDirError> for io::Error {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::Io { source, .. } => source,
            other => io::Error::other(other.to_string()),
        }
    }
}

/// A replica as found on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredReplica {
    /// Which replica.
    pub id: ReplicaId,
    /// The creation payload of the group; empty if the replica is lost with its creation.
    pub creation: Bytes,
    /// Its vote, if it ever voted.
    pub vote: Option<Vote>,
    /// Entries up to here are purged.
    pub purged: Option<LogId>,
    /// Set for the child of a split that has no state yet: the entry of its parent's log behind which it begins. It is
    /// neither opened nor removed before [`super::DataDir::commit_split`].
    pub unseeded: Option<LogId>,
    /// The last entry of its log.
    pub last_log_id: Option<LogId>,
    /// The last entry that `state` contains.
    pub applied: Option<LogId>,
    /// The membership at `applied`.
    pub membership: Bytes,
    /// Checksum of the replicated state at `applied`.
    pub checksum: u64,
    /// The state at `applied`, in key order.
    pub state: Vec<(Bytes, Bytes)>,
    /// Set if it may have lost what it acknowledged: it may neither vote, acknowledge nor lead (I11).
    pub lost: Option<String>,
    /// Entries whose batches are damaged while their frames are not.
    pub damaged: Vec<LogId>,
    /// The first damaged entry that nothing proves to be committed. A replica with peers may have acknowledged it and
    /// is lost (I11); a sole voter is the only replica that ever had it.
    pub damaged_unproven: Option<LogId>,
    /// Entries up to here are known to be committed: verdicts on them are in the log, or they are purged.
    pub committed: RaftIndex,
    /// Set in place of `lost` where the loss is accepted ([`crate::log::AcceptLoss`]).
    pub missing: Option<Missing>,
}

/// Counters and sizes of a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DataDirStats {
    /// The log's own counters.
    pub log: LogStats,
    /// Segments that exist.
    pub segments: u64,
    /// Bytes in use in them.
    pub log_bytes: u64,
    /// Bytes of live batches, in segments and runs.
    pub live_bytes: u64,
    /// Bytes that segment files and runs take.
    pub file_bytes: u64,
    /// Runs that exist.
    pub runs: u64,
    /// Bytes of them.
    pub run_bytes: u64,
    /// Jobs that the rewriter has done since the directory was opened.
    pub rewrites: u64,
    /// Bytes it has copied since then.
    pub rewritten_bytes: u64,
    /// Passes of compaction that were done since the directory was opened.
    pub compactions: u64,
    /// Bytes that they have written.
    pub compacted_bytes: u64,
    /// Files it leaves as they are because a batch in them is damaged.
    pub damaged_sources: u64,
    /// Damaged or missing batches that were fetched from another replica.
    pub repaired_batches: u64,
    /// Runs unlinked since the directory was opened.
    pub unlinked_runs: u64,
    /// Bytes of the file system.
    pub disk_total_bytes: u64,
    /// What of it is free.
    pub disk_free_bytes: u64,
    /// Checkpoint transactions since the directory was opened.
    pub checkpoints: u64,
    /// Bytes of checkpoints written since the directory was opened.
    pub checkpoint_bytes: u64,
    /// Segments unlinked since the directory was opened.
    pub unlinked_segments: u64,
    /// `.idx` files written since the directory was opened.
    pub index_files: u64,
    /// Damaged batches met by reads.
    pub damaged_reads: u64,
    /// Times that everything was verified since the directory was opened.
    pub scrubs: u64,
    /// Bytes that were verified for that.
    pub scrubbed_bytes: u64,
}

impl DataDirStats {
    /// Bytes on the disk for each live byte; 1 if there are no live bytes.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn space_amplification(&self) -> f64 {
        if self.live_bytes == 0 { 1.0 } else { self.file_bytes as f64 / self.live_bytes as f64 }
    }

    /// Bytes written, copies and checkpoints included, for each byte written to the log since the directory was opened.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn write_amplification(&self) -> f64 {
        let all = self.log.bytes + self.rewritten_bytes + self.compacted_bytes + self.checkpoint_bytes;
        if self.log.bytes == 0 { 1.0 } else { all as f64 / self.log.bytes as f64 }
    }
}
