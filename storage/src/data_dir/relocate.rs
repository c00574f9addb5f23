//! Relocation of entries: those that wait long to be applied are copied to the tail of the log, so that recovery points,
//! and with them the segments that recovery needs, move on. So a shard without a quorum does not hold back space.
//!
//! May not know: how a copy is written.

use std::io;

use super::identity::RELOCATION_FORMAT_VERSION;
use super::{DataDir, DataDirError};
use crate::ids::LogPosition;

/// Bytes that a replica relocates in one round, about: its copies share the writer with the frames of all replicas.
const BYTES_PER_ROUND: u64 = 4 << 20;

impl DataDir {
    /// One round: relocates, for every replica, some entries that lie too far back. Before an entry is applied for the
    /// first time in this process only the log has its position; applied entries are released by the next checkpoint.
    pub(super) async fn relocate(&self) -> Result<(), DataDirError> {
        let before = self.log.place_behind(self.options.relocation_bytes);
        if before == (LogPosition { segment: 0, byte: 0 }) || self.is_replaying() {
            return Ok(());
        }
        for replica in self.log.replicas() {
            let Some(log) = self.log.replica(replica) else { continue };
            let checkpointed = self.checkpointed(replica).map(|id| id.index);
            let applied = self.index.recorded(replica).max(checkpointed);
            if log.lowest_place_above(applied).is_none_or(|lowest| lowest >= before) {
                continue;
            }
            match self.require_format(RELOCATION_FORMAT_VERSION).await {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    tracing::warn!(%error, "no room to raise the directory's format: nothing is relocated");
                    return Ok(());
                }
                raised => raised.map_err(|error| self.fail("node.json", error))?,
            }
            let moved = log.relocate(applied, before, BYTES_PER_ROUND).await;
            let bytes = moved.map_err(|error| self.fail("relocation", error))?;
            if bytes > 0 {
                tracing::info!(%replica, bytes, "entries that wait to be applied were written once more at the end of the log");
            }
        }
        Ok(())
    }
}
