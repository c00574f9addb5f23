//! I8: recovery yields a prefix of what was written that contains everything synced, and nothing truncated comes back.
//! I11: a replica that lost what it promised takes part in nothing.
//!
//! A replica's promises are the votes in the messages that it sent, and what its log had synced when it went down. It
//! may find itself lost, but only if its disk was corrupted.

use ottla_storage::data_dir::RecoveredReplica;
use ottla_storage::entry::Vote;
use ottla_storage::ids::RaftIndex;
use ottla_storage::log::Outline;

use super::Violation;

const LAW: &str = "I8 recovery keeps what was synced";
const LOST: &str = "I11 who lost takes no part";

/// What a replica had before it went down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Before {
    /// The greatest vote of any message that it sent.
    pub(crate) vote: Option<Vote>,
    /// The end of the newest snapshot that was sent to it.
    pub(crate) offered: Option<RaftIndex>,
    /// Its log when it went down.
    pub(crate) log: Option<Outline>,
}

/// The replica as recovery found it; `corrupted`: its disk was.
pub(crate) fn found(
    before: &Before,
    recovered: &RecoveredReplica,
    after: &Outline,
    corrupted: bool,
) -> Result<(), Violation> {
    let replica = recovered.id.0;
    let broken = |what: String| Err(Violation::new(LAW, None, format!("replica {replica} {what}")));
    if let Some(lost) = &recovered.lost {
        return if corrupted { Ok(()) } else { broken(format!("finds itself lost, and its disk is sound: {lost}")) };
    }
    if !corrupted && let Some(id) = recovered.damaged.first() {
        return broken(format!("finds entry {id} damaged, and its disk is sound"));
    }
    if recovered.damaged_unproven.is_some() {
        return Ok(());
    }
    let last = recovered.last_log_id.map(|id| id.index);
    // A snapshot is durable in the checkpoint before the log is purged up to its end; Raft purges when it finds the
    // gap.
    if recovered.applied.map(|id| id.index) > last.max(recovered.purged.map(|id| id.index)).max(before.offered) {
        return broken(format!("has applied up to {:?}, and its log ends at {last:?}", recovered.applied));
    }
    if let Some(promised) = before.vote
        && !recovered.vote.is_some_and(|kept| keeps(kept, promised))
    {
        return broken(format!("voted {promised:?} and remembers {:?}", recovered.vote));
    }
    match &before.log {
        Some(log) => entries(replica, log, after),
        None => Ok(()),
    }
}

/// A replica follows a leader that others elected in the same term, whichever candidate it had voted for.
fn keeps(kept: Vote, promised: Vote) -> bool {
    kept.term > promised.term
        || (kept.term == promised.term && (kept.voted_for == promised.voted_for || kept.committed))
}

fn entries(replica: u64, before: &Outline, after: &Outline) -> Result<(), Violation> {
    let broken = |what: String| Err(Violation::new(LAW, None, format!("replica {replica} {what}")));
    if after.last < before.synced {
        return broken(format!("had synced frame {}, its last one is {}", before.synced, after.last));
    }
    let purged = |of: &Outline| of.purged.map_or(RaftIndex(0), |id| id.index).0;
    for (index, (term, frame)) in (before.first_index..).zip(&before.entries) {
        let gone = index > purged(after) && after.term_at(index) != Some(*term);
        if *frame <= before.synced && gone {
            let found = after.term_at(index);
            return broken(format!("had synced entry {index} of term {}, now it has {found:?} there", term.0));
        }
    }
    if before.voiding.is_some_and(|by| by > after.last) {
        // The truncation was never written.
        return Ok(());
    }
    for (index, (term, _)) in (after.first_index..).zip(&after.entries) {
        if index > purged(before) && before.term_at(index) != Some(*term) {
            let had = before.term_at(index);
            return broken(format!("has entry {index} of term {}, when it went down it had {had:?}", term.0));
        }
    }
    Ok(())
}

/// A lost replica was opened.
pub(crate) fn takes_part(replica: u64, why: &str) -> Violation {
    Violation::new(LOST, None, format!("replica {replica} takes part although it is lost: {why}"))
}

/// A replica that had a log is missing.
pub(crate) fn gone(replica: u64) -> Violation {
    Violation::new(LAW, None, format!("replica {replica} had a log, and nothing is left of it"))
}

/// A replica that was removed is there again.
pub(crate) fn came_back(replica: u64) -> Violation {
    Violation::new(LAW, None, format!("replica {replica} was removed, and is there again"))
}
