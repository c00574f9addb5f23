//! Reads of batches: from the mapping when resident, with pread on a blocking thread when not.
//!
//! May not know: fetch sessions, isolation levels or who reads.

use bytes::BytesMut;
use ottla_protocol::ids::Offset;

use crate::index::ExtentKey;

/// What is to be read of one partition.
#[derive(Debug, Clone, Copy)]
pub struct ReadRequest {
    /// The partition, as the replica carries it.
    pub key: ExtentKey,
    /// The first offset wanted; the batch that holds it is the first one read, whole.
    pub from: Offset,
    /// Batches that begin at or above this offset are not read (the high watermark or the LSO).
    pub up_to: Offset,
    /// Bytes after which no further batch is added.
    pub bytes_max: usize,
    /// Read the first batch even if it is longer than `bytes_max`.
    pub at_least_one: bool,
}

/// Why batches cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The batch at this offset is damaged on disk, or its place cannot be read.
    #[error("batch at offset {offset} cannot be read: {cause}")]
    Damaged {
        /// Base offset of the batch.
        offset: Offset,
        /// What is wrong with it.
        cause: String,
    },
    /// The directory has failed; nothing is served from it any more.
    #[error("data directory has failed: {0}")]
    Poisoned(String),
}

/// The batches of one read, with their segments pinned until the plan is dropped.
#[derive(Debug)]
pub struct ReadPlan {}

impl ReadPlan {
    /// True if there is nothing to read at the offset.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    /// Bytes that `copy_patched` will append.
    #[must_use]
    pub fn bytes(&self) -> usize {
        unimplemented!()
    }
    /// Offset after the last batch of the plan; `from` if the plan is empty.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        unimplemented!()
    }
    /// True if every page is known to be in memory: then `copy_patched` may run on an async thread.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        unimplemented!()
    }
    /// Appends the whole batches to `out`, base offset and leader epoch patched, checksums verified where the
    /// bytes come from disk. On damage `out` holds the batches before the damaged one; damage of the first is the error.
    pub fn copy_patched(&self, _out: &mut BytesMut) -> Result<(), ReadError> {
        unimplemented!()
    }
    /// `copy_patched` here if resident, else on a blocking thread.
    pub async fn read(self) -> Result<BytesMut, ReadError> {
        unimplemented!()
    }
}
