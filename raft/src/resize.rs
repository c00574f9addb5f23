//! The split or the merge of a group on one node: apply decides it in memory, and it is made durable behind apply, in order
//! (design section 8).
//!
//! ```text
//!  apply of the entry    the bytes have another owner, in memory; the states on both sides are cut, as a pair
//!  a task                `RaftHost::open_child` or `RaftHost::commit_merge`: the pair in one transaction
//! ```
//! Until then neither side gives another cut. May not know: which partitions there are, and why they move, and how the pair
//! becomes durable.

use std::io;
use std::sync::Arc;

use ottla_storage::data_dir::MergeCut;
use ottla_storage::entry::EntryKind;
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId};
use ottla_storage::log::EntryRange;

use crate::directory::EntryLog;
use crate::seeded_child::SeededChild;
use crate::state_machine::{AbsorbedReplica, StateMachine};

/// What apply has decided and what is not durable yet.
#[derive(Debug)]
pub enum Resize {
    /// A part of the state is to become a group of its own.
    Split(Box<SeededChild>),
    /// The state of another replica here was taken over.
    Merge(Merged),
}

/// Bytes of entries read at once while looking for a merge.
const READ_BYTES: usize = 4 << 20;

/// Of entries that are to be applied before a replica is opened, the last one that waits for no other replica here: that may not
/// be opened yet.
pub(crate) async fn before_merge(
    log: &dyn EntryLog,
    state_machine: &mut dyn StateMachine,
    applied: Option<LogId>,
    committed: Option<LogId>,
) -> io::Result<Option<LogId>> {
    let Some(last) = committed.filter(|_| committed > applied) else { return Ok(committed) };
    let mut before = applied;
    let mut next = applied.max(log.purged()).map_or(1, |id| id.index.0 + 1);
    while next <= last.index.0 {
        let part = log.read_to_apply(EntryRange { first: RaftIndex(next), last: last.index }, READ_BYTES).await;
        let part = match part {
            // Apply reads it, too, and says what it means.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => break,
            part => part?,
        };
        if part.is_empty() {
            break;
        }
        for entry in part {
            let waits = entry.kind == EntryKind::Normal && state_machine.prerequisite(&entry).is_some();
            if waits {
                return Ok(before);
            }
            before = Some(entry.log_id);
            next = entry.log_id.index.0 + 1;
        }
    }
    Ok(committed)
}

/// A replica that has taken over the state of another one here.
pub struct Merged {
    pub(crate) cut: MergeCut,
    pub(crate) from: Arc<dyn AbsorbedReplica>,
}

impl std::fmt::Debug for Merged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Merged(replica {} into {} at {})", self.absorbed(), self.survivor(), self.cut.survivor.applied)
    }
}

impl Merged {
    /// The replica that carries nothing any more.
    #[must_use]
    pub fn absorbed(&self) -> ReplicaId {
        self.cut.absorbed.replica
    }

    /// The replica that carries its partitions now.
    #[must_use]
    pub fn survivor(&self) -> ReplicaId {
        self.cut.survivor.replica
    }
}
