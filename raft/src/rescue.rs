//! The last resort: a replica whose group has lost its majority for good becomes its only voter, at an operator's word.
//!
//! Works on a directory that no node uses. What the lost members had acknowledged and this replica lacks is gone; and a member
//! that comes back after all would be another group under the same name. A replica whose own log has lost something goes on
//! with what is whole. May not know: where members live, and what an entry means.

use std::sync::Arc;

use ottla_storage::checkpoint::CheckpointSource;
use ottla_storage::data_dir::RecoveredReplica;
use ottla_storage::entry::{Batches, Entry, EntryKind, Vote};
use ottla_storage::ids::{LogId, RaftIndex, Term};
use ottla_storage::log::EntryRange;
use tokio::sync::oneshot;

use crate::applier::{Applier, Origin};
use crate::directory::Directory;
use crate::error::RaftError;
use crate::host::newest_members;
use crate::machine::StateMachine;
use crate::members::{Creation, Members};
use crate::types::decode_stored_membership;

/// Terms that votes may have named of which not even the frames are known to be gone.
const TERMS_LOST: u64 = 1 << 10;
/// Bytes of entries read at once.
const READ_BYTES: usize = 4 << 20;

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
        Ok(self.begin_alone(directory, recovered, 1).await?.log_id)
    }

    /// Begins the term that comes so many after the last known one, with the replica as the only member.
    async fn begin_alone(
        &self,
        directory: &dyn Directory,
        recovered: &RecoveredReplica,
        terms: u64,
    ) -> Result<Entry, RaftError> {
        let replica = recovered.id;
        let storage = |what: String| RaftError::Storage { replica, what };
        let log = directory.replica_log(replica).ok_or_else(|| storage("it has no log".to_owned()))?;
        // A term that nobody has used: whoever still votes in an old one has nothing to say.
        let term = Term(log.vote().map_or(0, |vote| vote.term.0).max(self.last.term.0) + terms);
        let vote = Vote { term, voted_for: replica, committed: false };
        log.save_vote(vote).await.map_err(|error| storage(error.to_string()))?;
        let log_id = LogId { term, index: RaftIndex(self.last.index.0 + 1) };
        let payload = Members::of([replica]).encode();
        let entry = Entry { log_id, kind: EntryKind::Membership, clock_ms: 0, payload, batches: Batches::default() };
        let (done, synced) = oneshot::channel();
        log.append(
            vec![entry.clone()],
            Box::new(move |result| {
                // Whoever waits is this function.
                let _ = done.send(result);
            }),
        );
        let synced = synced.await.map_err(|_| storage("the log was closed".to_owned()))?;
        synced.map(|()| entry).map_err(|error| storage(error.to_string()))
    }
}

/// A replica that has applied all that is whole. While it is held a checkpoint can be made of it.
pub struct Settled {
    /// Its last entry.
    pub log_id: LogId,
    _source: Arc<Applier>,
}

/// Applies what is whole of a replica that was opened though it lost something, tells `machine` where something is gone, and
/// makes the replica the only member. It was synced here and nobody else has it: so it counts as committed.
///
/// # Errors
/// When the log cannot be read or written. Nothing is real before the directory accepts the loss.
pub async fn accept_loss(
    directory: Arc<dyn Directory>,
    recovered: &RecoveredReplica,
    machine: Box<dyn StateMachine>,
) -> Result<Settled, RaftError> {
    let replica = recovered.id;
    let storage = |what: String| RaftError::Storage { replica, what };
    let missing = recovered.missing.clone().unwrap_or_default();
    let holding = Holding::of(&*directory, recovered).await?;
    let log = directory.replica_log(replica).ok_or_else(|| storage("it has no log".to_owned()))?;
    let membership = decode_stored_membership(recovered.membership.clone()).unwrap_or_default();
    let origin = Origin { applied: recovered.applied, membership, ..Origin::default() };
    let applier = Applier::new(directory.clone(), log.clone(), Arc::default(), origin, machine);
    let source: Arc<dyn CheckpointSource> = applier.clone();
    directory.register(replica, Arc::downgrade(&source));
    // Each frame that is gone may have been a vote for a term of its own, and not all of them may be known.
    let last = holding.begin_alone(&*directory, recovered, missing.frames + TERMS_LOST).await?;
    let mut next = RaftIndex(recovered.applied.max(log.purged()).map_or(0, |id| id.index.0 + 1));
    while next < last.log_id.index {
        let range = EntryRange { first: next, last: RaftIndex(last.log_id.index.0 - 1) };
        let part = log.read_to_apply(range, READ_BYTES).await.map_err(|error| storage(error.to_string()))?;
        next = match part.last() {
            Some(entry) => RaftIndex(entry.log_id.index.0 + 1),
            None => return Err(storage(format!("entry {} does not read back", next.0))),
        };
        for entry in part {
            if missing.entries.iter().any(|(first, _)| *first == entry.log_id.index) {
                applier.lose(entry.log_id);
            }
            applier.apply(entry.into()).map_err(|error| storage(error.to_string()))?;
        }
    }
    if missing.at_end {
        applier.lose(last.log_id);
    }
    let log_id = last.log_id;
    applier.apply(last.into()).map_err(|error| storage(error.to_string()))?;
    Ok(Settled { log_id, _source: applier })
}
