//! A Raft entry, a vote and a verdict as the log stores them. The log orders them and never interprets them.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId};

use crate::ids::{Lineage, LogId, ReplicaId, Term};

/// The kind of an entry for Raft; the log only stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A leader's first entry: no content.
    Blank = 0,
    /// A command, with or without record batches.
    Normal = 1,
    /// A membership change; `payload` is its encoding.
    Membership = 2,
}

/// One Raft log entry; at most 1 MiB, or one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Term and index.
    pub log_id: LogId,
    /// The kind of the entry.
    pub kind: EntryKind,
    /// The proposer's wall clock, milliseconds since 1970; never falls within a shard.
    pub clock_ms: i64,
    /// The command, encoded by its proposer.
    pub payload: Bytes,
    /// Raw Kafka record batches as clients sent them, grouped by partition, order kept.
    pub batches: Batches,
}

/// The batches of an entry. Clones share them: an entry passes from the proposer through the log's queue and cache to
/// apply, and none of these counts references batch by batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batches(Option<Arc<[EntryBatch]>>);

impl Deref for Batches {
    type Target = [EntryBatch];
    fn deref(&self) -> &[EntryBatch] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl<'a> IntoIterator for &'a Batches {
    type Item = &'a EntryBatch;
    type IntoIter = std::slice::Iter<'a, EntryBatch>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<Vec<EntryBatch>> for Batches {
    fn from(batches: Vec<EntryBatch>) -> Self {
        Self((!batches.is_empty()).then(|| batches.into()))
    }
}

impl FromIterator<EntryBatch> for Batches {
    fn from_iter<I: IntoIterator<Item = EntryBatch>>(batches: I) -> Self {
        batches.into_iter().collect::<Vec<_>>().into()
    }
}

/// One record batch (message format v2) within an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryBatch {
    /// The partition it was sent to.
    pub partition: PartitionId,
    /// The whole batch, 61-byte header included; base offset and leader epoch are not meaningful.
    pub data: Bytes,
}

/// A Raft vote: the candidate that this replica has voted for, and the term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// The term voted in.
    pub term: Term,
    /// The candidate voted for.
    pub voted_for: ReplicaId,
    /// True once a quorum is known to have granted it.
    pub committed: bool,
}

/// What apply decided about one batch of an entry, in the entry's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The batch was assigned the offsets from `base_offset` on, under `epoch`.
    Accepted {
        /// Offset of the batch's first record.
        base_offset: Offset,
        /// Leader epoch that held at that offset.
        epoch: LeaderEpoch,
    },
    /// The batch stays in the log as bytes without an offset.
    Rejected,
}

/// The verdicts of one applied entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryVerdicts {
    /// The entry: an entry of another term at this index is void.
    pub log_id: LogId,
    /// One verdict per batch of the entry.
    pub verdicts: Vec<Verdict>,
    /// To which lineage each batch belongs, if not to that of the replica's own id; empty if all do.
    pub lineages: Vec<Option<Lineage>>,
    /// The segment of the valid copy, where the entry was relocated: elsewhere its frame is void.
    pub relocated_to: Option<u64>,
}
