//! Reads of batches: from the mapping when resident, with pread on a blocking thread when not.
//!
//! A plan lists the batches; it is read at once ([`ReadPlan::read`]) or in chunks while it is sent
//! ([`ReadPlan::into_stream`]). May not know: fetch sessions, isolation levels, or what kind of client reads.

mod batch;
pub(crate) mod damage;
mod plan;
pub(crate) mod readahead;
mod stream;

use ottla_protocol::ids::Offset;

pub(crate) use batch::is_sound;
pub(crate) use plan::Noting;
pub use plan::ReadPlan;
pub use stream::ReadStream;

use crate::ids::{LogPosition, RunId};
use crate::index::{ExtentKey, IndexedBatch};

/// Bytes that are copied at a time: what stays in the processor's cache until it is sent.
pub const PIECE_BYTES: usize = 256 * 1024;

/// A read of one partition.
#[derive(Debug, Clone, Copy)]
pub struct ReadRequest {
    /// The partition within one replica.
    pub key: ExtentKey,
    /// The first offset wanted; the batch that holds it is the first one read, whole.
    pub from: Offset,
    /// Batches that begin at or above this offset are not read (the high watermark or the LSO). Everything below it was
    /// applied here: what is missing is damaged, and an error if the read begins there.
    pub up_to: Offset,
    /// Bytes after which no further batch is added.
    pub bytes_max: usize,
    /// Read the first batch even if it is longer than `bytes_max`.
    pub at_least_one: bool,
    /// Which batches are wanted.
    pub wanted: Wanted,
}

/// Which batches a read gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Every batch, as a replica needs them.
    All,
    /// Batches with records, as clients need them: those that compaction has emptied only where nothing follows below `up_to`,
    /// so that a reader reaches the end.
    WithRecords,
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
    /// The file of a batch was unlinked while the read was planned: its batches were moved or deleted. Retry.
    #[error("the batch at offset {0} has moved")]
    Moved(Offset),
    /// The directory has failed and serves no more reads.
    #[error("data directory has failed: {0}")]
    Poisoned(String),
}

/// The data that an earlier process wrote: segments before a position, runs before an id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VerifyBelow {
    pub(crate) log: LogPosition,
    pub(crate) run: RunId,
}

impl VerifyBelow {
    fn covers(self, position: LogPosition) -> bool {
        match RunId::of_file(position.segment) {
            Some(run) => run < self.run,
            None => position < self.log,
        }
    }
}

fn damaged(indexed: &IndexedBatch, cause: &str) -> ReadError {
    ReadError::Damaged { offset: indexed.base_offset, cause: cause.to_owned() }
}
