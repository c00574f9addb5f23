//! The merge of one shard into another, on disk: a replica of the directory takes over all that a second one serves (design
//! section 8). No byte of data is read, copied or linked; rows of the checkpoint move.
//!
//! ```text
//!  apply of Absorb   move_partitions: from here on the survivor serves them, in memory
//!  a task            commit_merge: the survivor past the Absorb, and the other one without partitions, in one transaction
//! ```
//! A crash before the transaction leaves both as they were: the survivor applies the Absorb again. May not know: what a shard
//! is, and when two of them are merged.

use std::io;

use super::{DataDir, DataDirError};
use crate::checkpoint::StateDelta;
use crate::index::ExtentKey;
use crate::log::ReplicaLog;

/// The states of two replicas just behind the entry by which one of them took over what the other one served.
#[derive(Debug)]
pub struct MergeCut {
    /// The one that carries nothing any more: its changes since its previous cut. It is cut at an entry of its own log.
    pub absorbed: StateDelta,
    /// The one that carries the partitions now.
    pub survivor: StateDelta,
    /// The bytes that it took, as [`DataDir::move_partitions`] returned them.
    pub moved: Vec<ExtentKey>,
}

impl DataDir {
    /// Makes a merge real, in both generations of the checkpoint, once all that both replicas have applied is durable here.
    /// Until then their sources return no cut of either.
    ///
    /// # Errors
    /// When one of them is not here, or the disk fails: the directory has failed then.
    pub async fn commit_merge(&self, cut: MergeCut) -> Result<(), DataDirError> {
        let logs = self.at_rest(&cut).await.map_err(|error| DataDirError::io(&self.path, error))?;
        let [absorbed, survivor] = &logs;
        let verdicts = [(absorbed, cut.absorbed.applied.index), (survivor, cut.survivor.applied.index)];
        self.commit_moved(cut.absorbed, cut.survivor, cut.moved, &verdicts).await
    }

    /// The logs of both, once what is cut is durable, and in its final place: nothing of it may be written under another owner.
    async fn at_rest(&self, cut: &MergeCut) -> io::Result<[ReplicaLog; 2]> {
        let logs = [self.log_of(cut.absorbed.replica)?, self.log_of(cut.survivor.replica)?];
        for (log, applied) in logs.iter().zip([cut.absorbed.applied, cut.survivor.applied]) {
            match log.placed(applied.index).await {
                // It is purged: a checkpoint has it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && log.purged() >= Some(applied) => {}
                placed => drop(placed?),
            }
            self.place_up_to(log, applied.index).await?;
        }
        self.require_format(super::identity::LINEAGE_FORMAT_VERSION).await?;
        Ok(logs)
    }
}
