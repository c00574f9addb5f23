//! Partitions that another replica of the directory serves from now on: what a split of a shard is on disk (design
//! section 8). No byte of data is read, copied or linked; rows of the checkpoint move.
//!
//! ```text
//!  apply of Split   move_partitions: from here on the child serves them, in memory
//!  a task           create_child, once the parent's entries up to the Split are durable and at rest
//!                   commit_split: parent past the Split, child and rows in one transaction
//! ```
//! A crash before the creation is durable leaves the parent as it was: it applies the Split again. After it the child is
//! found without a state ([`RecoveredReplica::unseeded`](super::RecoveredReplica)), and only the commit is repeated. May
//! not know: what a shard is, and when one is split.

use std::io;

use ottla_protocol::ids::PartitionId;

use super::identity::LINEAGE_FORMAT_VERSION;
use super::import::REPLAY_WAIT;
use super::{DataDir, DataDirError};
use crate::checkpoint::StateDelta;
use crate::checkpoint::state::Operation;
use crate::ids::{RaftIndex, ReplicaId};
use crate::index::ExtentKey;
use crate::log::{GroupCreation, ReplicaLog};
use ottla_env::rt;

/// A parent's state just behind a Split, and the first state of its child. Both are cut at the Split's entry.
#[derive(Debug)]
pub struct SplitCut {
    /// The parent's changes since its previous cut.
    pub parent: StateDelta,
    /// The whole state of the child.
    pub child: StateDelta,
    /// The bytes that the child took, as [`DataDir::move_partitions`] returned them.
    pub moved: Vec<ExtentKey>,
}

impl DataDir {
    /// From now on `to` serves the bytes that `from` served of these partitions, durable or not; returns which these are.
    /// Called by apply, again after each restart that finds the parent before the Split. Until the split is committed the
    /// replicas' sources return no cut of either.
    ///
    /// # Panics
    /// When a third replica of the directory owns these bytes, or `to` has some of the partitions already.
    pub fn move_partitions(&self, from: ReplicaId, to: ReplicaId, partitions: &[PartitionId]) -> Vec<ExtentKey> {
        partitions.iter().map(|partition| self.index.move_to(to, from, *partition)).collect()
    }

    /// Creates the child of a split at the entry `split` of its parent; durable when this returns. All that the parent wrote
    /// up to there is durable and has its place before: frames of two replicas may stand in the log in any order.
    ///
    /// # Errors
    /// `NotFound` if the parent is not here, `AlreadyExists` if the child is.
    ///
    /// # Panics
    /// When the creation does not begin behind that entry.
    pub async fn create_child(
        &self,
        parent: ReplicaId,
        split: RaftIndex,
        creation: GroupCreation,
    ) -> io::Result<ReplicaLog> {
        let begins_after = creation.purged.map(|id| id.index);
        assert_eq!(begins_after, Some(split), "replica {}: the entry behind which it begins", creation.replica);
        let log = self.log_of(parent)?;
        log.placed(split).await?;
        self.place_up_to(&log, split).await?;
        self.require_format(LINEAGE_FORMAT_VERSION).await?;
        self.create_replica(creation).await
    }

    /// Makes a split real: one transaction has the parent past it, the child and its rows, in both generations of the
    /// checkpoint. Splits of one parent are committed in their order, and before the child is opened or either is removed.
    ///
    /// # Errors
    /// When the parent or the child is not here, or the disk fails: the directory has failed then.
    pub async fn commit_split(&self, cut: SplitCut) -> Result<(), DataDirError> {
        let (parent, child, split) = (cut.parent.replica, cut.child.replica, cut.child.applied.index);
        assert_eq!(cut.parent.applied, cut.child.applied, "replica {child} is cut from {parent} at another entry");
        let here = |replica| self.log_of(replica).map_err(|error| DataDirError::io(&self.path, error));
        let (log, _) = (here(parent)?, here(child)?);
        self.commit_moved(cut.parent, cut.child, cut.moved, &[(&log, split)]).await?;
        self.index.begin(child, split);
        Ok(())
    }

    /// One transaction, in both generations of the checkpoint: a state that has given bytes away, the one that has taken them,
    /// and the rows that say so. `verdicts`: the entries whose verdicts belong to these states.
    pub(super) async fn commit_moved(
        &self,
        from: StateDelta,
        to: StateDelta,
        moved: Vec<ExtentKey>,
        verdicts: &[(&ReplicaLog, RaftIndex)],
    ) -> Result<(), DataDirError> {
        while self.is_replaying() {
            rt::sleep(REPLAY_WAIT).await;
        }
        let (giver, taker) = (from.replica, to.replica);
        let mut checkpoint = self.checkpoint.lock().await;
        // One that has applied nothing since the start has no verdicts that a checkpoint lacks.
        let is_new = |log: &ReplicaLog, upto| self.checkpointed(log.id()).is_none_or(|known| known.index < upto);
        for (log, upto) in verdicts.iter().filter(|(log, upto)| is_new(log, *upto)) {
            self.write_verdicts(log, *upto).await.map_err(|error| self.fail("verdicts", error))?;
        }
        let mut operations = self.operations(&checkpoint, vec![from, to]).await;
        for key in moved {
            if checkpoint.newest().owners.has_row(giver, key.partition) {
                operations.push(Operation::Disown(giver, key.partition));
            }
            operations.push(Operation::Owner(taker, key));
        }
        // Written to both generations: what one of them does not know could not be removed.
        self.transact_cut(&mut checkpoint, operations, true).await?;
        self.transact_cut(&mut checkpoint, Vec::new(), true).await
    }
}
