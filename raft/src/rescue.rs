//! The last resort: a replica whose group has lost its majority for good becomes its only voter, at an operator's word.
//!
//! Works on a directory that no node uses. What the lost members had acknowledged and this replica lacks is gone; and a member
//! that comes back after all would be another group under the same name. May not know: where members live.

use ottla_storage::data_dir::RecoveredReplica;
use ottla_storage::entry::{Batches, Entry, EntryKind, Vote};
use ottla_storage::ids::{LogId, RaftIndex, Term};
use tokio::sync::oneshot;

use crate::directory::Directory;
use crate::error::RaftError;
use crate::host::newest_members;
use crate::members::{Creation, Members};
use crate::types::decode_stored_membership;

/// What a replica knows of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The members in force at the end of its log.
    pub members: Members,
    /// The end of its log.
    pub last: LogId,
}

impl Holding {
    /// Reads it.
    ///
    /// # Errors
    /// `Damaged` if the replica may have lost what it acknowledged, or its log does not tell; then it is of no use here.
    pub async fn of(directory: &dyn Directory, recovered: &RecoveredReplica) -> Result<Self, RaftError> {
        let replica = recovered.id;
        let damaged = |what: &str| RaftError::Damaged { replica, what: what.to_owned() };
        if let Some(what) = &recovered.lost {
            return Err(damaged(what));
        }
        let creation = Creation::decode(recovered.creation.clone()).ok_or_else(|| damaged("its creation"))?;
        let stored = decode_stored_membership(recovered.membership.clone());
        let stored = stored.ok_or_else(|| damaged("its membership in the checkpoint"))?;
        let log = directory.replica_log(replica).ok_or_else(|| damaged("it has no log"))?;
        let last = log.last_log_id().max(log.purged()).ok_or_else(|| damaged("it has no entries"))?;
        let members = newest_members(&*log, recovered.applied, &stored, &creation.members).await;
        let members = members.map_err(|error| RaftError::Storage { replica, what: error.to_string() })?;
        Ok(Self { members, last })
    }

    /// Makes the replica the only member from the next entry on; answers where that stands.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub async fn make_sole_voter(
        &self,
        directory: &dyn Directory,
        recovered: &RecoveredReplica,
    ) -> Result<LogId, RaftError> {
        let replica = recovered.id;
        let storage = |what: String| RaftError::Storage { replica, what };
        let log = directory.replica_log(replica).ok_or_else(|| storage("it has no log".to_owned()))?;
        // A term that nobody has used: whoever still votes in an old one has nothing to say.
        let term = Term(log.vote().map_or(0, |vote| vote.term.0).max(self.last.term.0) + 1);
        let vote = Vote { term, voted_for: replica, committed: false };
        log.save_vote(vote).await.map_err(|error| storage(error.to_string()))?;
        let log_id = LogId { term, index: RaftIndex(self.last.index.0 + 1) };
        let payload = Members::of([replica]).encode();
        let entry = Entry { log_id, kind: EntryKind::Membership, clock_ms: 0, payload, batches: Batches::default() };
        let (done, synced) = oneshot::channel();
        log.append(
            vec![entry],
            Box::new(move |result| {
                // Whoever waits is this function.
                let _ = done.send(result);
            }),
        );
        let synced = synced.await.map_err(|_| storage("the log was closed".to_owned()))?;
        synced.map(|()| log_id).map_err(|error| storage(error.to_string()))
    }
}
