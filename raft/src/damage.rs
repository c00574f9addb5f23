//! Entries of a replica's log that do not read back, and what happens to a replica that has them.
//!
//! ```text
//!  committed, wanted by another member -> the member waits until the entry is purged here, then gets a snapshot
//!  not committed, or unread by apply   -> the replica stops, and is rebuilt from the others
//! ```
//! May not know: how entries are read, or purged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ottla_env::rt;
use ottla_storage::ids::RaftIndex;
use parking_lot::Mutex;

/// How often a task that waits for a damaged entry checks whether it is purged.
const PURGE_CHECK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct DamageState {
    /// The greatest committed entry that is damaged.
    committed: Option<RaftIndex>,
    /// openraft was requested to purge up to here because of it.
    purged: Option<RaftIndex>,
}

/// The known damage of one replica's log.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    state: Mutex<DamageState>,
    is_fatal: AtomicBool,
    snapshot_due: AtomicBool,
}

impl Damage {
    /// Notes that this committed entry is damaged: no member can be sent it from here.
    pub(crate) fn note_committed(&self, index: RaftIndex) {
        let mut state = self.state.lock();
        state.committed = state.committed.max(Some(index));
    }

    /// True if this damaged entry is known to be committed.
    pub(crate) fn is_committed(&self, index: RaftIndex) -> bool {
        self.state.lock().committed >= Some(index)
    }

    /// Entries up to here should be purged as soon as the checkpoint contains them: members that lack them then get a
    /// snapshot.
    pub(crate) fn to_purge(&self) -> Option<RaftIndex> {
        let state = self.state.lock();
        state.committed.filter(|committed| state.purged < Some(*committed))
    }

    /// Notes that openraft was requested to purge up to here.
    pub(crate) fn note_purged(&self, upto: RaftIndex) {
        let mut state = self.state.lock();
        state.purged = state.purged.max(Some(upto));
    }

    /// Returns when openraft was requested to purge this damaged entry: a member that lacks it is to get a snapshot.
    pub(crate) async fn until_purged(&self, index: RaftIndex) {
        self.note_committed(index);
        while self.state.lock().purged < Some(index) {
            rt::sleep(PURGE_CHECK_INTERVAL).await;
        }
        self.snapshot_due.store(true, Ordering::Release);
    }

    /// True once after a damaged entry that a member lacks was purged: openraft chooses what to send next only after an
    /// error.
    pub(crate) fn take_snapshot_due(&self) -> bool {
        self.snapshot_due.load(Ordering::Acquire) && self.snapshot_due.swap(false, Ordering::AcqRel)
    }

    /// Notes that the replica cannot continue.
    pub(crate) fn set_fatal(&self) {
        self.is_fatal.store(true, Ordering::Release);
    }

    /// True if the replica stopped because of damage.
    pub(crate) fn is_fatal(&self) -> bool {
        self.is_fatal.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_known_up_to_the_greatest_index() {
        let damage = Damage::default();
        assert!(!damage.is_committed(RaftIndex(1)));
        [5, 3].into_iter().for_each(|index| damage.note_committed(RaftIndex(index)));
        let known = [1, 3, 5, 6].map(|index| damage.is_committed(RaftIndex(index)));
        assert_eq!(known, [true, true, true, false]);
    }
}
