//! CheckQuorum: a leader that no majority acknowledges stops serving until one does, so that clients that still reach
//! it look for another leader.
//!
//! It also suspends its heartbeats, for 2 of every 3 seconds: where its messages arrive and the responses do not, its
//! followers would otherwise hear it, remain its followers, and have no leader that serves. May not know: why responses
//! are missing.

use std::time::Duration;

use openraft::Instant;
use openraft::async_runtime::WatchReceiver;

use crate::group::Group;
use crate::options::{ELECTION_MAX, HEARTBEAT};

/// A leader that no majority has acknowledged for so long stops serving.
const QUORUM_SILENCE_MAX: Duration = Duration::from_secs(2);
/// Such a leader sends nothing for so long, which is enough to be suspected and replaced; then it tries whether it is
/// acknowledged.
pub(crate) const SUSPEND_TIME: Duration = Duration::from_secs(2);
/// How long it tries.
const TRIAL_TIME: Duration = Duration::from_secs(1);

// Followers elect another leader before one that is only slow gives up; a trial sends more than one heartbeat.
const _: () = assert!(QUORUM_SILENCE_MAX.as_millis() > ELECTION_MAX.as_millis());
const _: () = assert!(TRIAL_TIME.as_millis() >= 2 * HEARTBEAT.as_millis());

/// True if a leader that has been unacknowledged for so long sends no heartbeats.
fn suspends_heartbeats(silent: Duration) -> bool {
    let Some(past) = silent.checked_sub(QUORUM_SILENCE_MAX) else { return false };
    past.as_millis() % (SUSPEND_TIME + TRIAL_TIME).as_millis() < SUSPEND_TIME.as_millis()
}

impl Group {
    /// Notes whether a majority has acknowledged this leader lately. A leader that had lost its quorum serves again
    /// when all that it has logged is applied: a client that gave up waiting for its entries reads the state that they
    /// make, not the one before.
    pub(crate) fn check_quorum(&self) {
        let metrics = self.raft.data_metrics();
        // Not known before the first response: until then nothing of its term is committed, and it does not serve
        // anyhow.
        let silent = metrics.borrow_watched().last_quorum_acked.as_ref().map(|at| at.elapsed());
        let is_acknowledged = silent.is_none_or(|silent| silent < QUORUM_SILENCE_MAX);
        let is_alone = self.members().is_sole_voter(self.replica);
        if silent.is_some_and(suspends_heartbeats) && !is_alone {
            self.role_tracker.suspend_heartbeats(self.role().term);
        } else {
            self.role_tracker.resume_heartbeats();
        }
        let is_settled = !self.role_tracker.has_lost_quorum() || self.applier.applied() >= self.log.last_log_id();
        self.role_tracker.set_has_quorum((is_acknowledged && is_settled) || is_alone);
    }
}
