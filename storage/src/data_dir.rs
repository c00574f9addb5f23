//! One data directory as a whole: identity and lock, log, batch index, checkpoint and space.
//!
//! May not know: metadata, topics or Raft; it hands recovered replicas to whoever runs them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_protocol::ids::Offset;
use uuid::Uuid;

use crate::checkpoint::CutSource;
use crate::entry::{Entry, Verdict, Vote};
use crate::ids::{LogId, ReplicaId};
use crate::index::{BatchLine, ExtentKey};
use crate::read::{ReadError, ReadPlan, ReadRequest};

/// How a data directory is opened.
#[derive(Debug, Clone)]
pub struct DataDirOptions {
    /// The node that opens it; must be the node that created it.
    pub node_id: i32,
    /// The cluster the node belongs to, once it is known; must be the one recorded.
    pub cluster_id: Option<String>,
    /// The directory id that metadata expects here; a wiped directory has another one.
    pub directory_id_expected: Option<Uuid>,
    /// Size of a segment file (`ottla.log.segment.bytes`).
    pub segment_bytes: u32,
    /// Cut a replica after so many bytes of its frames.
    pub checkpoint_bytes: u64,
    /// Cut a dirty replica after this time.
    pub checkpoint_interval: Duration,
    /// Free bytes below which writes are refused.
    pub reserve_bytes: u64,
    /// `ottla.sync`: false only in tests.
    pub sync: bool,
}

/// Why a data directory cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds the lock.
    #[error("data directory {0} is in use by another process")]
    InUse(String),
    /// Written by a later release.
    #[error("data directory {path} has format {found}, this release reads up to {supported}: upgrade ottla")]
    NewerFormat { path: String, found: u32, supported: u32 },
    /// It belongs to another node or cluster, or was wiped.
    #[error("data directory {path} is not the one expected: {what}")]
    Foreign { path: String, what: String },
    /// A file of the directory cannot be understood.
    #[error("data directory {path}: {what}")]
    Damaged { path: String, what: String },
    /// The disk failed.
    #[error("data directory {path}: {source}")]
    Io { path: String, source: std::io::Error },
}

/// A replica as found on disk.
#[derive(Debug, Clone)]
pub struct RecoveredReplica {
    /// Which replica.
    pub id: ReplicaId,
    /// What its creator recorded about the group.
    pub creation: Bytes,
    /// Its vote, if it ever voted.
    pub vote: Option<Vote>,
    /// Entries up to here are purged.
    pub purged: Option<LogId>,
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
}

/// One open data directory.
#[derive(Debug)]
pub struct DataDir {}

impl DataDir {
    /// Locks, checks and recovers the directory, creating it if it is empty.
    pub async fn open(_path: &Path, _options: DataDirOptions) -> Result<(Arc<Self>, Vec<RecoveredReplica>), DataDirError> {
        unimplemented!()
    }
    /// The random id of this directory.
    pub fn directory_id(&self) -> Uuid {
        unimplemented!()
    }
    /// Records the cluster id once it is minted or learnt.
    pub async fn set_cluster_id(&self, _cluster_id: &str) -> Result<(), DataDirError> {
        unimplemented!()
    }
    /// Adds what apply decided about an entry: lines of accepted batches, and verdicts for the next checkpoint.
    /// Called for EVERY applied entry, in order, before watermarks move. `verdicts` has one item per batch.
    pub fn record_applied(&self, _replica: ReplicaId, _entry: &Entry, _verdicts: &[Verdict]) -> Result<(), DataDirError> {
        unimplemented!()
    }
    /// Registers the source of a replica's cuts; held weakly.
    pub fn register(&self, _replica: ReplicaId, _source: std::sync::Weak<dyn CutSource>) {
        unimplemented!()
    }
    /// Cuts every dirty replica now and makes the checkpoint durable.
    pub async fn checkpoint_now(&self) -> Result<(), DataDirError> {
        unimplemented!()
    }
    /// The last entry of the replica that the oldest kept checkpoint contains: the state before it survives without its entries.
    pub fn oldest_kept(&self, _replica: ReplicaId) -> Option<LogId> {
        unimplemented!()
    }
    /// The partition's log start, as apply decided it; what lies below counts as dead from now on.
    pub fn set_log_start(&self, _key: ExtentKey, _log_start: Offset) {
        unimplemented!()
    }
    /// The partition is gone from the replica: all its data is dead.
    pub fn drop_partition(&self, _key: ExtentKey) {
        unimplemented!()
    }
    /// Plans a read; pins what it needs.
    pub fn plan_read(&self, _request: ReadRequest) -> Result<ReadPlan, ReadError> {
        unimplemented!()
    }
    /// The batch that holds `offset`.
    pub async fn batch_at(&self, _key: ExtentKey, _offset: Offset) -> Result<Option<BatchLine>, ReadError> {
        unimplemented!()
    }
    /// The first batch, not wholly below log start, whose greatest timestamp is at least `timestamp_ms`.
    pub async fn batch_by_time(&self, _key: ExtentKey, _timestamp_ms: i64) -> Result<Option<BatchLine>, ReadError> {
        unimplemented!()
    }
    /// The first batch with the greatest timestamp of the partition.
    pub async fn batch_of_max_timestamp(&self, _key: ExtentKey) -> Result<Option<BatchLine>, ReadError> {
        unimplemented!()
    }
    /// Bytes of the partition's batches from log start: the number of DescribeLogDirs and `retention.bytes`.
    pub fn bytes_of(&self, _key: ExtentKey) -> u64 {
        unimplemented!()
    }
    /// The log start that retention wants: the end of the longest prefix of whole batches, all below `up_to` (the high
    /// watermark), that are older than `cutoff_ms` or in excess of `bytes_max`. `None` if nothing is to go.
    pub async fn retention_point(
        &self,
        _key: ExtentKey,
        _up_to: Offset,
        _cutoff_ms: Option<i64>,
        _bytes_max: Option<u64>,
    ) -> Result<Option<Offset>, ReadError> {
        unimplemented!()
    }
    /// False when the disk is nearly full or has failed: producers get a retriable error.
    pub fn accepts_writes(&self) -> bool {
        unimplemented!()
    }
    /// Why the directory has failed, if it has.
    pub fn poisoned(&self) -> Option<Arc<str>> {
        unimplemented!()
    }
    /// Total and free bytes of the file system.
    pub fn disk_bytes(&self) -> (u64, u64) {
        unimplemented!()
    }
    /// Writes a last checkpoint, leaves the clean-shutdown mark and releases the lock.
    pub async fn close(&self) -> Result<(), DataDirError> {
        unimplemented!()
    }
}
