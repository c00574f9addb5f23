//! Unsafe recovery: a replica whose group has lost its majority for good becomes its only voter, by order of an
//! operator.
//!
//! Works on a directory that no node uses. What the lost members had acknowledged and this replica lacks is gone; and a
//! member that returns after all would be another group with the same id. A replica whose own log has lost something
//! continues with what is whole. May not know: where members are located, and what an entry means.

use std::sync::Arc;

use ottla_storage::checkpoint::CheckpointSource;
use ottla_storage::data_dir::RecoveredReplica;
use ottla_storage::entry::{Batches, Entry, EntryKind, Vote};
use ottla_storage::ids::{LogId, RaftIndex, Term};
use ottla_storage::log::EntryRange;
use tokio::sync::oneshot;

use crate::applier::{Applier, InitialState};
use crate::directory::Directory;
use crate::error::RaftError;
use crate::host::latest_membership;
use crate::membership::{Creation, Membership};
use crate::openraft_types::decode_stored_membership;
use crate::options::RaftOptions;
use crate::state_machine::StateMachine;

/// The number of terms for which lost frames may have recorded votes, beyond the frames known to be lost.
const TERMS_LOST: u64 = 1 << 10;
/// Bytes of entries read at once.
const READ_BYTES: usize = 4 << 20;

/// The membership and the log end of a replica, according to its own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSummary {
    /// The membership in force at the end of its log.
    pub members: Membership,
    /// The end of its log.
    pub last: LogId,
}

impl ReplicaSummary {
    /// Reads the summary of a recovered replica.
    ///
    /// # Errors
    /// `Damaged` if the replica may have lost what it acknowledged, or its log lacks the data; then it cannot be used
    /// for recovery.
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
        let members = latest_membership(&*log, recovered.applied, &stored, &creation.members).await;
        let members = members.map_err(|error| RaftError::Storage { replica, what: error.to_string() })?;
        Ok(Self { members, last })
    }

    /// Makes the replica the only member from the next entry on; returns the id of that entry.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn make_sole_voter(
        &self,
        directory: &dyn Directory,
        recovered: &RecoveredReplica,
    ) -> Result<LogId, RaftError> {
        Ok(self.begin_sole_voter_term(directory, recovered, 1).await?.log_id)
    }

    /// Begins the term that is `terms` after the last known one, with the replica as the only member.
    async fn begin_sole_voter_term(
        &self,
        directory: &dyn Directory,
        recovered: &RecoveredReplica,
        terms: u64,
    ) -> Result<Entry, RaftError> {
        let replica = recovered.id;
        let storage = |what: String| RaftError::Storage { replica, what };
        let log = directory.replica_log(replica).ok_or_else(|| storage("it has no log".to_owned()))?;
        // A term that no member has used: a member that still votes in an older one cannot win.
        let term = Term(log.vote().map_or(0, |vote| vote.term.0).max(self.last.term.0) + terms);
        let vote = Vote { term, voted_for: replica, committed: false };
        log.save_vote(vote).await.map_err(|error| storage(error.to_string()))?;
        let log_id = LogId { term, index: RaftIndex(self.last.index.0 + 1) };
        let payload = Membership::of([replica]).encode();
        let entry = Entry { log_id, kind: EntryKind::Membership, clock_ms: 0, payload, batches: Batches::default() };
        let (done, synced) = oneshot::channel();
        log.append(
            vec![entry.clone()],
            Box::new(move |result| {
                // The receiver is this function.
                let _ = done.send(result);
            }),
        );
        let synced = synced.await.map_err(|_| storage("the log was closed".to_owned()))?;
        synced.map(|()| entry).map_err(|error| storage(error.to_string()))
    }
}

/// A replica that has applied all that is whole. While this value exists a checkpoint can include the replica.
pub struct AcceptedLoss {
    /// Its last entry.
    pub log_id: LogId,
    _source: Arc<Applier>,
}

/// Applies what is whole of a replica that was opened although it lost something, reports to `state_machine` where
/// something is lost, and makes the replica the only member. The rest of the log was synced here and no other member
/// has it: so it counts as committed.
///
/// # Errors
/// When the log cannot be read or written. Nothing takes effect before the directory accepts the loss.
pub async fn accept_loss(
    directory: Arc<dyn Directory>,
    recovered: &RecoveredReplica,
    state_machine: Box<dyn StateMachine>,
) -> Result<AcceptedLoss, RaftError> {
    let replica = recovered.id;
    let storage = |what: String| RaftError::Storage { replica, what };
    let missing = recovered.missing.clone().unwrap_or_default();
    let holding = ReplicaSummary::of(&*directory, recovered).await?;
    let log = directory.replica_log(replica).ok_or_else(|| storage("it has no log".to_owned()))?;
    let membership = decode_stored_membership(recovered.membership.clone()).unwrap_or_default();
    let initial = InitialState { applied: recovered.applied, membership, ..InitialState::default() };
    let entries = RaftOptions::default().state_check_entries;
    let applier = Applier::new(directory.clone(), log.clone(), Arc::default(), initial, state_machine, entries);
    let source: Arc<dyn CheckpointSource> = applier.clone();
    directory.register(replica, Arc::downgrade(&source));
    // Each lost frame may have been a vote for a term of its own, and not all lost frames may be known.
    let last = holding.begin_sole_voter_term(&*directory, recovered, missing.frames + TERMS_LOST).await?;
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
                applier.mark_lost(entry.log_id);
            }
            applier.apply(entry.into()).map_err(|error| storage(error.to_string()))?;
        }
    }
    if missing.at_end {
        applier.mark_lost(last.log_id);
    }
    let log_id = last.log_id;
    applier.apply(last.into()).map_err(|error| storage(error.to_string()))?;
    Ok(AcceptedLoss { log_id, _source: applier })
}
