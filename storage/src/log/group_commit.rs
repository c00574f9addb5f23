//! Group commit: when the writer delays a commit so that replicas that write all the time share one sync.
//!
//! Two busy replicas, each with one entry in flight, would otherwise alternate: while the entry of one is synced the entry
//! of the other waits, and each sync serves one replica. A sync costs far more than the time in which the replica that was
//! just acknowledged submits its next entry, so the commit is delayed for that long. After a delay in vain, the following
//! commits are not delayed.
//!
//! Pure. May not know: how the delay is implemented.

use std::time::Duration;

use super::commit::LastSequences;
use crate::ids::ReplicaId;

/// A commit is delayed for at most this fraction of the last sync (a divisor).
const SYNC_SHARE: u32 = 2;
/// Upper bound of the delay.
const WAIT_MAX: Duration = Duration::from_micros(250);
/// A sync faster than this is not worth a delay.
const SYNC_MIN: Duration = Duration::from_micros(40);
/// Limit of the backoff: after a delay in vain 2 commits are not delayed, doubled each time, up to 2 to the power of this.
const MISSES_MAX: u32 = 6;

/// State that the writer keeps between commits.
#[derive(Debug, Default)]
pub(crate) struct GroupCommit {
    /// Replicas of the last commit and of the one before it.
    recent: [Vec<ReplicaId>; 2],
    last_sync: Duration,
    misses: u32,
    skip: u32,
}

impl GroupCommit {
    /// Records that a commit with frames of these replicas was written, and how long its sync took.
    pub(crate) fn committed(&mut self, replicas: &LastSequences, sync: Duration) {
        self.recent.swap(0, 1);
        self.recent[0].clear();
        self.recent[0].extend(replicas.iter().map(|(replica, _)| *replica));
        self.last_sync = sync;
    }

    /// The replicas that the next commit may wait for, and how long; `None` if it should not be delayed.
    pub(crate) fn expected(&self) -> Option<(Vec<ReplicaId>, Duration)> {
        let [last, before] = &self.recent;
        let alone = last.iter().chain(before).all(|replica| last.first() == Some(replica));
        if alone || self.last_sync < SYNC_MIN {
            return None;
        }
        let mut expected: Vec<ReplicaId> = last.iter().chain(before).copied().collect();
        expected.sort_unstable();
        expected.dedup();
        Some((expected, (self.last_sync / SYNC_SHARE).min(WAIT_MAX)))
    }

    /// Whether this commit is not delayed because earlier delays were in vain. Consumes one step of the backoff.
    pub(crate) fn skips(&mut self) -> bool {
        let skips = self.skip > 0;
        self.skip = self.skip.saturating_sub(1);
        skips
    }

    /// Records the outcome of a delay.
    pub(crate) fn waited(&mut self, all_came: bool) {
        self.misses = if all_came { 0 } else { (self.misses + 1).min(MISSES_MAX) };
        self.skip = if all_came { 0 } else { 1 << self.misses };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(group_commit: &mut GroupCommit, replicas: &[u64]) {
        let list = replicas.iter().map(|id| (ReplicaId(*id), 1)).collect();
        group_commit.committed(&list, Duration::from_micros(200));
    }

    fn expected(group_commit: &GroupCommit) -> Vec<u64> {
        group_commit.expected().map(|(ids, _)| ids.iter().map(|id| id.0).collect()).unwrap_or_default()
    }

    #[test]
    fn replicas_that_take_turns_are_waited_for_and_one_alone_never_waits() {
        let mut group_commit = GroupCommit::default();
        assert!(group_commit.expected().is_none());
        commit(&mut group_commit, &[1]);
        commit(&mut group_commit, &[1]);
        assert!(group_commit.expected().is_none());
        commit(&mut group_commit, &[2]);
        assert_eq!(expected(&group_commit), [1, 2]);
        assert_eq!(group_commit.expected().map(|(_, wait)| wait), Some(Duration::from_micros(100)));
        commit(&mut group_commit, &[1, 2]);
        assert_eq!(expected(&group_commit), [1, 2]);
        commit(&mut group_commit, &[1]);
        commit(&mut group_commit, &[1]);
        assert!(group_commit.expected().is_none());
    }

    #[test]
    fn waiting_in_vain_is_given_up_for_longer_and_longer() {
        let mut group_commit = GroupCommit::default();
        let skipped = |group_commit: &mut GroupCommit| (0..1_000).take_while(|_| group_commit.skips()).count();
        assert_eq!(skipped(&mut group_commit), 0);
        let counts: Vec<_> = (0..8)
            .map(|_| {
                group_commit.waited(false);
                skipped(&mut group_commit)
            })
            .collect();
        assert_eq!(counts, [2, 4, 8, 16, 32, 64, 64, 64]);
        group_commit.waited(true);
        assert_eq!(skipped(&mut group_commit), 0);
    }
}
