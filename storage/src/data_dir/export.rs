//! Snapshot export: reads the state in the newest checkpoint, and live batches by partition and offset, for another
//! replica of the shard. Nothing is copied or pinned for longer than one response (design section 4, snapshots).
//!
//! May not know: which replica receives it, and how it is sent.

use std::io;

use bytes::Bytes;
use ottla_protocol::ids::Offset;

use super::DataDir;
use super::peers::{Exported, ExportedBatch};
use crate::ids::{LogId, ReplicaId};
use crate::index::partition::GONE;
use crate::read::{ReadError, ReadRequest};

/// A replica's state between two of its entries, as the newest checkpoint holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSnapshot {
    /// The last entry that it contains.
    pub applied: LogId,
    /// The membership in force there, encoded by Raft.
    pub membership: Bytes,
    /// Checksum of the replicated state.
    pub checksum: u64,
    /// Its keys and values, in the order of the keys.
    pub keys: Vec<(Bytes, Bytes)>,
}

impl DataDir {
    /// The state of a replica as the newest checkpoint holds it; `None` before there is one. Read back from the disk.
    pub async fn snapshot_of(&self, replica: ReplicaId) -> io::Result<Option<ReplicaSnapshot>> {
        let state = self.checkpoint.lock().await.read_back().await?;
        let found = state.replicas.into_iter().find(|(id, _)| *id == replica);
        Ok(found.and_then(|(_, state)| {
            Some(ReplicaSnapshot {
                applied: state.head.applied?,
                membership: state.head.membership,
                checksum: state.head.checksum,
                keys: state.keys.into_iter().collect(),
            })
        }))
    }

    /// Batches for another replica of the shard. The response ends before a batch that is damaged here.
    pub async fn export(&self, request: ReadRequest) -> Result<Exported, ReadError> {
        // The requesting replica may be ahead of this one.
        let end = self.index.partition(request.key).and_then(|known| known.read().end_offset());
        let up_to = request.up_to.min(end.unwrap_or(Offset(0)));
        let plan = self.plan_read(ReadRequest { up_to, ..request }).await?;
        let done = plan.pass();
        let entries: Vec<_> =
            plan.indexed_batches().map(|indexed| (indexed.bytes as usize, indexed.max_timestamp_ms)).collect();
        let log_start = self.index.log_start(request.key);
        // All data of a removed replica counts as expired: the requesting replica must not take that for the truth.
        let owner = self.index.owner(request.key);
        if log_start == GONE && owner.is_none_or(|owner| self.log.replica(owner).is_none()) {
            return Err(ReadError::Moved(request.from));
        }
        if entries.is_empty() {
            return Ok(Exported { log_start, batches: Vec::new(), done });
        }
        let mut bytes = plan.read().await?.freeze();
        let mut batches = Vec::with_capacity(entries.len());
        for (length, max_timestamp_ms) in entries {
            if bytes.len() < length {
                break;
            }
            batches.push(ExportedBatch { max_timestamp_ms, data: bytes.split_to(length) });
        }
        Ok(Exported { log_start, batches, done })
    }
}
