//! One replica's log in outline: what the proofs compare before a crash and after it (I8, I11). Numbers only, no entries.

use super::replica_log::ReplicaLog;
use crate::entry::Vote;
use crate::ids::{LogId, Term};

/// What memory knows of one replica's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
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
    /// Number of the last frame that was given out.
    pub last: u64,
    /// The newest frame that is not durable yet and voids or purges entries.
    pub voiding: Option<u64>,
}

impl Outline {
    /// The term of the entry at an index.
    #[must_use]
    pub fn term_at(&self, index: u64) -> Option<Term> {
        let at = usize::try_from(index.checked_sub(self.first_index)?).ok()?;
        self.entries.get(at).map(|(term, _)| *term)
    }
}

impl ReplicaLog {
    /// The log in outline, as of now.
    #[must_use]
    pub fn outline(&self) -> Outline {
        self.with_state(|state| Outline {
            vote: state.vote,
            purged: state.purged,
            first_index: state.first_index,
            entries: state.slots.iter().map(|slot| (slot.term, slot.sequence)).collect(),
            synced: state.synced_sequence,
            last: state.next_sequence.saturating_sub(1),
            voiding: state.voiding_by(),
        })
    }
}
