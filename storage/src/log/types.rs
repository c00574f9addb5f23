//! Public types of the log: options, recovery points, results of recovery, positions of entries.
//!
//! May not know: how any of it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ids::PartitionId;

use super::histogram::BUCKETS;
use crate::entry::{Entry, EntryVerdicts, Vote};
use crate::ids::{LogId, LogPosition, RaftIndex, ReplicaId};

/// Called once, in the order of the appends, when a frame is durable or can never be.
pub type OnSynced = Box<dyn FnOnce(io::Result<()>) + Send>;

/// How a log is kept. Limits are in bytes.
#[derive(Clone)]
pub struct LogOptions {
    /// Size of a segment file. Default 256 MiB.
    pub segment_bytes: u32,
    /// A segment is sealed early once it holds so many batches, each an entry of its index. Default 2 million.
    pub segment_batches_max: u32,
    /// Most bytes of a commit, which always holds at least one frame. Default 4 MiB.
    pub commit_bytes_max: u32,
    /// Entries kept in memory after they are synced, for apply and for followers a little behind. Each keeps the whole
    /// read buffer that it came in, and memory that is touched again soon is cheap: so few. Default 16 MiB.
    pub cache_bytes_max: usize,
    /// Segments kept ready ahead of the active one. Default 1.
    pub prepared_segments: u32,
    /// Rate of zeroing ahead, which makes later syncs cheaper; 0 leaves it out. Default 64 MiB.
    pub zero_ahead_bytes_per_second: u64,
    /// Free space that preparing a segment may not touch. Default 256 MiB.
    pub reserve_bytes: u64,
    /// Whether each commit starts on a page of its own; `None`: as the device
    /// reports. Default `None`.
    pub fresh_page_per_commit: Option<bool>,
    /// False acknowledges before anything is durable: for tests, without the guarantee of durability. Default true.
    pub sync: bool,
    /// The last entry of each replica in the checkpoint. Purges above it are ignored where every frame is there, so that
    /// those entries are applied again, since nothing else holds their effects. `None`: no purge is ignored. Default
    /// `None`.
    pub held: Option<BTreeMap<ReplicaId, RaftIndex>>,
    /// Replicas whose loss an operator accepts. Default none.
    pub accept_loss: AcceptLoss,
    /// After a kill without a reboot, so many bytes after the end must be zero, and samples of the rest,
    /// before the tail counts as clean. More than a commit is long. Default 8 MiB.
    pub quiet_bytes: u32,
    /// Called once when a write or a sync failed and the log has stopped for good.
    pub on_failure: Option<Arc<dyn Fn(&LogFailure) + Send + Sync>>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 20,
            segment_batches_max: 2_000_000,
            commit_bytes_max: 4 << 20,
            cache_bytes_max: 16 << 20,
            prepared_segments: 1,
            zero_ahead_bytes_per_second: 64 << 20,
            reserve_bytes: 256 << 20,
            fresh_page_per_commit: None,
            sync: true,
            held: None,
            accept_loss: AcceptLoss::default(),
            quiet_bytes: 8 << 20,
            on_failure: None,
        }
    }
}

/// The replicas that are opened although they lost what they may have acknowledged: blank entries replace the lost
/// ones. They stay marked as lost until [`super::ReplicaLog::accept_loss`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AcceptLoss {
    /// None of them.
    #[default]
    Nothing,
    /// These.
    Of(BTreeSet<ReplicaId>),
    /// All.
    All,
}

impl AcceptLoss {
    /// True if the replica is among them.
    #[must_use]
    pub fn covers(&self, replica: ReplicaId) -> bool {
        match self {
            Self::Nothing => false,
            Self::Of(replicas) => replicas.contains(&replica),
            Self::All => true,
        }
    }
}

/// The lost part of a replica's log, where the loss is accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// Why the replica counts as lost.
    pub why: String,
    /// Frames that were written and are missing.
    pub frames: u64,
    /// Entries that are missing before later ones, first and last of each range.
    pub entries: Vec<(RaftIndex, RaftIndex)>,
    /// Entries after the last one may be missing, too.
    pub at_end: bool,
}

/// Most bytes of an entry's command, batches and their descriptors: with its headers it must fit into a frame between
/// nodes, too, for an entry that one node can write and not send to another would block its shard for ever.
pub const ENTRY_BYTES_MAX: usize = 255 << 20;
/// Most bytes of a batch: its entry also holds a command, of a group's guard at most.
pub const BATCH_BYTES_MAX: usize = ENTRY_BYTES_MAX - (1 << 20);
/// Part of a segment reserved for its table of replicas and for the headers of commit and frame: an eighth, at most so
/// much.
const SEGMENT_HEADS_BYTES_MAX: u64 = 1 << 20;

/// The largest record batch that is accepted where segments have this size, and the limit of an entry of several. The log
/// writes larger ones as well, in a segment of their size (a follower's segments may be smaller than its leader's, and a
/// table of very many replicas larger than the part reserved here); but large segments must not become the rule where
/// small ones are configured.
#[must_use]
pub fn batch_bytes_max(segment_bytes: u64) -> usize {
    let heads = (segment_bytes / 8).min(SEGMENT_HEADS_BYTES_MAX);
    usize::try_from(segment_bytes - heads).map_or(BATCH_BYTES_MAX, |bytes| bytes.min(BATCH_BYTES_MAX))
}

/// The smallest segment in which a batch of this size is accepted: the inverse of [`batch_bytes_max`].
#[must_use]
pub fn segment_bytes_min(batch_bytes: u64) -> u64 {
    batch_bytes.saturating_mul(8).div_ceil(7).min(batch_bytes.saturating_add(SEGMENT_HEADS_BYTES_MAX))
}

/// Why a log has stopped for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFailure {
    /// The operation that failed.
    pub operation: &'static str,
    /// What the disk said.
    pub kind: io::ErrorKind,
    /// The same, in words.
    pub message: String,
}

impl LogFailure {
    /// A task of the log, or of its directory, has panicked.
    pub(crate) fn of_task(why: &str) -> Self {
        Self { operation: "a task", kind: io::ErrorKind::Other, message: why.to_owned() }
    }

    /// The failure as the error that every waiting and later caller receives.
    #[must_use]
    pub fn to_io_error(&self) -> io::Error {
        io::Error::new(self.kind, format!("log stopped: {} failed: {}", self.operation, self.message))
    }
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// Written by a newer release.
    #[error(
        "{path}: format version {found} is newer than {supported}, which is the newest this release reads; run the newer release"
    )]
    NewerFormat {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// The segment is not there, or still in use.
    #[error("segment {0}: {1}")]
    Segment(u64, &'static str),
}

/// Where recovery of one replica may begin: all earlier frames of it are summarised here. Kept in checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryPoint {
    /// The replica.
    pub replica: ReplicaId,
    /// What its group was created with.
    pub creation: Bytes,
    /// The replica's frames up to and including this number need not be read, but for those that are kept.
    pub sequence: u64,
    /// Numbers up to `sequence`, first and last of each range: entries that were relocated and are still needed.
    pub kept: Vec<(u64, u64)>,
    /// Position from which the log must be read for it.
    pub position: LogPosition,
    /// Its vote.
    pub vote: Option<Vote>,
    /// Entries up to here are purged.
    pub purged: Option<LogId>,
    /// True if it lost acknowledged bytes: it counts in no quorum (I11).
    pub lost: bool,
}

/// The creation of a group, one frame (design section 8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupCreation {
    /// The replica, whose id was never used before.
    pub replica: ReplicaId,
    /// What the shard stores about the group; opaque here.
    pub payload: Bytes,
    /// A seeded vote, for the child of a split.
    pub vote: Option<Vote>,
    /// The log begins after this id.
    pub purged: Option<LogId>,
}

/// What recovery found about one replica. Its entries are read through its `ReplicaLog`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredReplica {
    /// The replica.
    pub id: ReplicaId,
    /// What its group was created with.
    pub creation: Bytes,
    /// Its greatest vote.
    pub vote: Option<Vote>,
    /// Entries up to here are purged.
    pub purged: Option<LogId>,
    /// Behind which entry it began, if the frame of its creation was read, and it began behind one.
    pub begins_after: Option<LogId>,
    /// Its newest entry, or `purged`.
    pub last_log_id: Option<LogId>,
    /// Number of its last frame.
    pub sequence: u64,
    /// Set if bytes that may have been acknowledged are gone: it may neither vote, acknowledge nor lead (I11).
    pub lost: Option<String>,
    /// Entries whose batch bodies are damaged while their frame is not; only [`super::ReplicaLog::read_to_apply`] reads
    /// them.
    pub damaged: Vec<LogId>,
    /// The first damaged entry that nothing proves to be committed. A replica with peers may have acknowledged it and
    /// is lost (I11); a sole voter is the only replica that ever had it.
    pub damaged_unproven: Option<LogId>,
    /// Entries up to here are known to be committed: verdicts on them are in the log, or they are purged.
    pub committed: RaftIndex,
    /// Set in place of `lost` where the loss is accepted.
    pub missing: Option<Missing>,
}

/// The position of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryPlace {
    /// First byte of its frame.
    pub position: LogPosition,
    /// Length of the frame.
    pub frame_bytes: u32,
    /// First byte of the commit that holds it, in the same segment.
    pub commit_byte: u32,
}

/// The position of one batch of an entry; batches of a frame follow each other without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPlace {
    /// Its partition.
    pub partition: PartitionId,
    /// First byte of the batch's own header.
    pub position: LogPosition,
    /// Length of the batch.
    pub bytes: u32,
}

/// One whole frame met while reading the log.
#[derive(Debug, Clone)]
pub struct ScannedFrame {
    /// The replica of the frame.
    pub replica: ReplicaId,
    /// Its number among the replica's frames.
    pub sequence: u64,
    /// First byte of the frame.
    pub position: LogPosition,
    /// Length of the frame.
    pub frame_bytes: u32,
    /// Its content.
    pub body: FrameBody,
}

/// The content of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameBody {
    /// An entry; it voids all earlier-numbered entries at its index and above.
    Entry(Entry),
    /// A vote; the greatest wins.
    Vote(Vote),
    /// Entries after this id are void (all, if `None`).
    Truncate(Option<LogId>),
    /// Entries up to this id are no longer needed by Raft (their data may be).
    Purge(LogId),
    /// The replica's first frame.
    Create(GroupCreation),
    /// The verdicts of apply.
    Verdicts(Vec<EntryVerdicts>),
    /// The replica was removed from this directory; its id is never used again.
    Remove,
    /// The replica lost acknowledged bytes, as recovery found (I11).
    Lost,
}

/// Receives every whole frame, in log order, while the log is read. Void entries are among them: an entry is final once
/// verdicts for its index have been seen.
pub trait FrameSink: Send {
    /// One frame. `batches` is empty for anything but an entry.
    fn frame(&mut self, frame: &ScannedFrame, batches: &[BatchPlace]);
    /// A segment is begun: what follows lies in it.
    fn segment(&mut self, _sequence: u64) {}
}

/// A sink that ignores all frames.
#[derive(Debug, Default)]
pub struct NoSink;

impl FrameSink for NoSink {
    fn frame(&mut self, _frame: &ScannedFrame, _batches: &[BatchPlace]) {}
}

/// One segment as the log lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub sequence: u64,
    /// Bytes in use (its header included); final once sealed.
    pub used_bytes: u32,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// True once it is full and synced.
    pub sealed: bool,
}

/// Counters of a log since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Commits written.
    pub commits: u64,
    /// Frames in them.
    pub frames: u64,
    /// Bytes in them, headers and padding included.
    pub bytes: u64,
    /// Nanoseconds spent in syncs.
    pub sync_nanos: u64,
    /// Syncs by the time they took; bounds: [`super::SYNC_NANOS_BOUNDS`].
    pub sync_times: [u64; BUCKETS],
    /// Commits by their bytes; bounds: [`super::COMMIT_BYTES_BOUNDS`].
    pub commit_sizes: [u64; BUCKETS],
    /// Bytes waiting for the writer.
    pub queued_bytes: u64,
    /// Bytes of entries held in memory.
    pub cached_bytes: u64,
    /// Bytes of entries that were written once more at the tail.
    pub relocated_bytes: u64,
}

/// Entries `first..=last` of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRange {
    /// First index.
    pub first: RaftIndex,
    /// Last index.
    pub last: RaftIndex,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_segment_for_a_batch_accepts_it_and_a_smaller_one_does_not() {
        for batch in [61, 917_504, 1_048_588, 7 << 20, (7 << 20) + 1, 100 << 20] {
            let segment = segment_bytes_min(batch);
            assert!(batch_bytes_max(segment) as u64 >= batch, "{batch} in {segment}");
            // An eighth is rounded down.
            assert!((batch_bytes_max(segment - 2) as u64) < batch, "{batch} below {segment}");
        }
        assert_eq!(batch_bytes_max(u64::from(u32::MAX)), BATCH_BYTES_MAX);
    }
}
