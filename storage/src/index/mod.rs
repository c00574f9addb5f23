//! The batch index: where the batches of a partition lie, by offset and by time.
//!
//! Index entries are added when a Raft entry is applied, held in memory until the `.idx` file of their segment is
//! written, and read from that file afterwards. May not know: what a topic is, or why a batch was rejected.

mod batch_index;
pub(crate) mod compacted;
mod dirty;
pub(crate) mod file;
pub(crate) mod in_memory_file;
pub(crate) mod index_entry;
mod open_file;
mod overlap;
pub(crate) mod owners;
mod ownership;
pub(crate) mod partition;
mod passes;
mod place;
pub(crate) mod rebuild;
mod replace;
mod search;
pub(crate) mod segment_slice;
mod settle;
#[cfg(test)]
mod tests;

use ottla_protocol::batch::HEADER_BYTES;
use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId};

pub(crate) use batch_index::{BatchIndex, Bounds, Found, Planned};
pub use dirty::DirtyBytes;

#[cfg(any(test, feature = "fuzzing"))]
use crate::ids::ReplicaId;
use crate::ids::{Lineage, LogPosition};

/// The bytes of a partition in a data directory: the key under which index entries are kept. Only the directory makes
/// one, for it knows which bytes a replica owns. It stays good when another replica becomes the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtentKey {
    /// The partition.
    pub partition: PartitionId,
    /// Which stay of its bytes in this directory.
    pub(crate) lineage: Lineage,
}

/// One accepted batch, as the index lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedBatch {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Number of offsets in the batch.
    pub record_count: u32,
    /// Greatest timestamp in the batch, milliseconds since 1970.
    pub max_timestamp_ms: i64,
    /// Leader epoch at `base_offset`.
    pub epoch: LeaderEpoch,
    /// Position of the raw batch.
    pub position: LogPosition,
    /// Length of the raw batch.
    pub bytes: u32,
}

#[cfg(any(test, feature = "fuzzing"))]
impl ExtentKey {
    /// The key of bytes that came for this replica, and were never another's.
    pub(crate) const fn of(replica: ReplicaId, partition: PartitionId) -> Self {
        Self { partition, lineage: Lineage::of(replica) }
    }
}

impl IndexedBatch {
    /// The offset after the batch's last one.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.record_count))
    }

    /// True if compaction has left nothing of what had these offsets: a record takes one byte at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes as usize == HEADER_BYTES
    }
}

/// Whether a lookup may block on disk I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// On an async thread: pages that are not known to be resident are not touched.
    Resident,
    /// On a blocking thread: it may.
    MayBlock,
}

/// Why a lookup in the index returned nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    /// Retry on a blocking thread.
    #[error("not resident")]
    NotResident,
    /// The `.idx` file is damaged: rebuild it and retry.
    #[error("index of segment {segment} is damaged")]
    Damaged { segment: u64 },
    /// Below the bound of the search and not below log start, and no index entry holds it: its frame was damaged when
    /// the index was read back.
    #[error("nothing is known of offset {offset}: what held it is damaged")]
    Missing { offset: Offset },
    /// Another batch has these offsets already.
    #[error("offset {offset} is taken by another batch (known: {known:?}, told: {told:?})")]
    Conflict { offset: Offset, known: Box<IndexedBatch>, told: Box<IndexedBatch> },
    /// An entry number beyond the end; never returned for a sound index.
    #[error("no such index entry")]
    NoSuchEntry,
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
