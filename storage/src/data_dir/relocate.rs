//! A shard without a quorum holds back nobody's space: its entries that wait to be applied move to the tail of the log, so that
//! recovery points, and with them the segments that recovery needs, move on.
//!
//! May not know: how a copy is written.

use super::identity::RELOCATION_FORMAT_VERSION;
use super::{DataDir, DataDirError};
use crate::ids::LogPosition;

/// A replica moves about so much in one round: its copies share the writer with everybody's frames.
const BYTES_PER_ROUND: u64 = 4 << 20;

impl DataDir {
    /// One round: every replica moves some of what lies too far back. Before an entry is applied for the first time in this
    /// process nobody knows its place but the log; what was applied goes with the next checkpoint.
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
            self.require_format(RELOCATION_FORMAT_VERSION).await.map_err(|error| self.fail("node.json", error))?;
            let moved = log.relocate(applied, before, BYTES_PER_ROUND).await;
            let bytes = moved.map_err(|error| self.fail("relocation", error))?;
            if bytes > 0 {
                tracing::info!(%replica, bytes, "entries that wait to be applied were written once more at the end of the log");
            }
        }
        Ok(())
    }
}
