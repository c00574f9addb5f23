//! A summary of one replica's log: what the simulation compares before a crash and after it (I8, I11). Numbers, no entries.

use super::replica_log::ReplicaLog;
use crate::entry::Vote;
use crate::ids::{LogId, Term};

/// The in-memory state of one replica's log, without entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSummary {
    /// The newest vote that counts.
    pub vote: Option<Vote>,
    /// Entries up to here are purged.
    pub purged: Option<LogId>,
    /// Index of the first entry.
    pub first_index: u64,
    /// Term and frame number of each entry from there on.
    pub entries: Vec<(Term, u64)>,
    /// Number of the last frame that is durable.
    pub synced: u64,
    /// The last frame number that was assigned.
    pub last: u64,
    /// The newest frame that is not durable yet and voids or purges entries.
    pub voiding: Option<u64>,
    /// The frame that removes the replica is queued: after a crash nothing may be left of it.
    pub removed: bool,
}

impl LogSummary {
    /// The term of the entry at an index.
    #[must_use]
    pub fn term_at(&self, index: u64) -> Option<Term> {
        let at = usize::try_from(index.checked_sub(self.first_index)?).ok()?;
        self.entries.get(at).map(|(term, _)| *term)
    }
}

impl ReplicaLog {
    /// The summary of the log, as of now.
    #[must_use]
    pub fn summary(&self) -> LogSummary {
        self.with_state(|state| LogSummary {
            vote: state.vote,
            purged: state.purged,
            first_index: state.first_index,
            entries: state.slots.iter().map(|slot| (slot.term, slot.sequence)).collect(),
            synced: state.synced_sequence,
            last: state.next_sequence.saturating_sub(1),
            voiding: state.voiding_by(),
            removed: state.removed,
        })
    }
}
