//! The role of a replica in its group: leadership according to openraft, combined with what is applied.
//!
//! May not know: openraft.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ottla_env::mutants::{self, Bug};
use ottla_env::{rt, watch};
use ottla_storage::ids::{ReplicaId, Term};
use parking_lot::Mutex;

/// The role of a replica in its group, as far as the replica knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Role {
    /// The greatest term seen.
    pub term: Term,
    /// The leader of that term, if known.
    pub leader: Option<ReplicaId>,
    /// This replica leads AND has applied an entry of its own term: only now may it serve.
    pub ready: bool,
    /// The replica has stopped; it will not come back in this process.
    pub stopped: bool,
}

/// Waits so long; true if the replica stops before.
pub(crate) async fn stops_within(role: &mut watch::Receiver<Role>, time: Duration) -> bool {
    let stopped = async { role.wait_for(|role| role.stopped).await.is_ok() };
    rt::timeout(time, stopped).await.is_ok()
}

/// The state of leadership, from openraft's metrics and from apply.
#[derive(Debug, Default)]
pub(crate) struct LeadershipState {
    pub(crate) term: u64,
    pub(crate) leader: Option<u64>,
    pub(crate) leads: bool,
    /// The leader of this term is suspected of having failed, or transfers leadership: the role does not name it.
    hidden_term: Option<u64>,
    /// No majority has acknowledged this leader lately.
    quorum_lost: bool,
    stopped: bool,
    /// Since when there is no leader, as far as is known.
    leaderless_since: Option<rt::Instant>,
}

/// Derives the role from the state of leadership and from what is applied.
pub(crate) struct RoleTracker {
    known: Mutex<LeadershipState>,
    applied_term: AtomicU64,
    /// The term in which this leader sends its followers nothing; 0 if it sends heartbeats.
    suspended_term: AtomicU64,
    /// When this leader last asked its followers and a majority followed it.
    followed_at: AtomicI64,
    /// The replica that was last asked to take over, and could not be.
    transfer_failed: watch::Sender<Option<ReplicaId>>,
    role: watch::Sender<Role>,
}

impl RoleTracker {
    pub(crate) fn new() -> Arc<Self> {
        let role = watch::Sender::new(Role::default());
        let (applied_term, suspended_term) = (AtomicU64::new(0), AtomicU64::new(0));
        let followed_at = AtomicI64::new(rt::now().0);
        let transfer_failed = watch::Sender::new(None);
        Arc::new(RoleTracker {
            known: Mutex::default(),
            applied_term,
            suspended_term,
            followed_at,
            transfer_failed,
            role,
        })
    }

    /// An entry of `term` is applied and published.
    pub(crate) fn term_applied(&self, term: u64) {
        if self.applied_term.swap(term, Ordering::SeqCst) != term {
            self.refresh(|_| {});
        }
    }

    pub(crate) fn refresh(&self, change: impl FnOnce(&mut LeadershipState)) {
        let mut known = self.known.lock();
        change(&mut known);
        known.quorum_lost &= known.leads;
        let alive = !known.stopped;
        // A leader without a quorum may have been replaced already.
        let serves = !known.quorum_lost;
        let applied_own = self.applied_term.load(Ordering::SeqCst) == known.term;
        let role = Role {
            term: Term(known.term),
            leader: known.leader.filter(|_| alive && serves && known.hidden_term != Some(known.term)).map(ReplicaId),
            ready: alive && known.leads && serves && (applied_own || mutants::is_on(Bug::ServeBeforeOwnTerm)),
            stopped: known.stopped,
        };
        let since = known.leaderless_since.take();
        known.leaderless_since = role.leader.is_none().then(|| since.unwrap_or_else(rt::now));
        // Sent under the lock: two changes are never reordered.
        self.role.send_if_modified(|current| std::mem::replace(current, role) != role);
    }

    pub(crate) fn role(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    pub(crate) fn current(&self) -> Role {
        *self.role.borrow()
    }

    /// The role does not name the leader of this term, until another one leads or it is shown again.
    pub(crate) fn hide_leader(&self, term: Term) {
        self.refresh(|known| known.hidden_term = Some(term.0));
    }

    /// A transfer is about to be requested; the receiver shows the replica that cannot be asked to take over.
    pub(crate) fn begin_transfer(&self) -> watch::Receiver<Option<ReplicaId>> {
        self.transfer_failed.send_replace(None);
        self.transfer_failed.subscribe()
    }

    /// The request to take over did not reach the replica, or was refused.
    pub(crate) fn note_transfer_failed(&self, to: ReplicaId) {
        self.transfer_failed.send_replace(Some(to));
    }

    /// The role names the leader of this term again, if it was hidden.
    pub(crate) fn show_leader(&self, term: Term) {
        self.refresh(|known| known.hidden_term = known.hidden_term.filter(|hidden| *hidden != term.0));
    }

    /// True if openraft leads here, whether a majority acknowledges or not.
    pub(crate) fn leads(&self) -> bool {
        self.known.lock().leads
    }

    /// True if this leader does not serve, because no majority had acknowledged it.
    pub(crate) fn has_lost_quorum(&self) -> bool {
        self.known.lock().quorum_lost
    }

    /// Notes that a majority followed this leader when it asked.
    pub(crate) fn note_followed(&self, asked_at: rt::Instant) {
        self.followed_at.store(asked_at.0, Ordering::Relaxed);
    }

    /// Since when no majority has said that it follows this leader. It is asked only while heartbeats are not answered.
    pub(crate) fn not_followed(&self) -> Duration {
        rt::now().since(rt::Instant(self.followed_at.load(Ordering::Relaxed)))
    }

    /// Sets whether a majority has acknowledged this leader lately.
    pub(crate) fn set_has_quorum(&self, has_quorum: bool) {
        self.refresh(|known| known.quorum_lost = !has_quorum);
    }

    /// The leader of this term sends its followers nothing, until another term or `resume_heartbeats`.
    pub(crate) fn suspend_heartbeats(&self, term: Term) {
        self.suspended_term.store(term.0, Ordering::Relaxed);
    }

    pub(crate) fn resume_heartbeats(&self) {
        self.suspended_term.store(0, Ordering::Relaxed);
    }

    /// True if the leader of this term sends its followers nothing.
    pub(crate) fn heartbeats_suspended(&self, term: Term) -> bool {
        self.suspended_term.load(Ordering::Relaxed) == term.0
    }

    /// For how long there has been no leader, as far as is known; `None` while there is one.
    pub(crate) fn leaderless_for(&self) -> Option<Duration> {
        self.known.lock().leaderless_since.map(|since| rt::now().since(since))
    }

    pub(crate) fn stop(&self) {
        self.refresh(|known| known.stopped = true);
    }
}
