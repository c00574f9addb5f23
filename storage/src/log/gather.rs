//! When a commit waits a moment for more: replicas that write all the time share their commits instead of taking turns.
//!
//! Two busy replicas, each with one entry in flight, fall into step by turns: while the one's entry is synced the other's
//! waits, and each sync serves one of them. A sync costs far more than the moment in which the replica that was just
//! told brings its next entry, so the commit waits that long for it. Where nobody comes, the next ones do not wait.
//!
//! Pure. May not know: how one waits.

use std::time::Duration;

use super::commit::LastSequences;
use crate::ids::ReplicaId;

/// A commit waits for at most this part of the last sync.
const SYNC_SHARE: u32 = 2;
/// And never longer.
const PATIENCE_MAX: Duration = Duration::from_micros(250);
/// A sync as quick as this is not worth a wait.
const SYNC_MIN: Duration = Duration::from_micros(40);
/// Commits that do not wait after a wait in vain: doubled each time, up to 2 to the power of this.
const MISSES_MAX: u32 = 6;

/// What the writer remembers between commits.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    /// Replicas of the last commit and of the one before it.
    recent: [Vec<ReplicaId>; 2],
    last_sync: Duration,
    misses: u32,
    skip: u32,
}

impl Gathering {
    /// A commit was written, and its sync took so long.
    pub(crate) fn committed(&mut self, replicas: &LastSequences, sync: Duration) {
        self.recent.swap(0, 1);
        self.recent[0].clear();
        self.recent[0].extend(replicas.iter().map(|(replica, _)| *replica));
        self.last_sync = sync;
    }

    /// Whom the next commit may wait for, and how long; `None` if it should not.
    pub(crate) fn expected(&self) -> Option<(Vec<ReplicaId>, Duration)> {
        let [last, before] = &self.recent;
        let alone = last.iter().chain(before).all(|replica| last.first() == Some(replica));
        if alone || self.last_sync < SYNC_MIN {
            return None;
        }
        let mut expected: Vec<ReplicaId> = last.iter().chain(before).copied().collect();
        expected.sort_unstable();
        expected.dedup();
        Some((expected, (self.last_sync / SYNC_SHARE).min(PATIENCE_MAX)))
    }

    /// Whether this commit passes without a wait because earlier ones waited in vain.
    pub(crate) fn skips(&mut self) -> bool {
        let skips = self.skip > 0;
        self.skip = self.skip.saturating_sub(1);
        skips
    }

    /// A wait is over.
    pub(crate) fn waited(&mut self, all_came: bool) {
        self.misses = if all_came { 0 } else { (self.misses + 1).min(MISSES_MAX) };
        self.skip = if all_came { 0 } else { 1 << self.misses };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(gathering: &mut Gathering, replicas: &[u64]) {
        let list = replicas.iter().map(|id| (ReplicaId(*id), 1)).collect();
        gathering.committed(&list, Duration::from_micros(200));
    }

    fn expected(gathering: &Gathering) -> Vec<u64> {
        gathering.expected().map(|(ids, _)| ids.iter().map(|id| id.0).collect()).unwrap_or_default()
    }

    #[test]
    fn replicas_that_take_turns_are_waited_for_and_one_alone_never_waits() {
        let mut gathering = Gathering::default();
        assert!(gathering.expected().is_none());
        commit(&mut gathering, &[1]);
        commit(&mut gathering, &[1]);
        assert!(gathering.expected().is_none());
        commit(&mut gathering, &[2]);
        assert_eq!(expected(&gathering), [1, 2]);
        assert_eq!(gathering.expected().map(|(_, patience)| patience), Some(Duration::from_micros(100)));
        commit(&mut gathering, &[1, 2]);
        assert_eq!(expected(&gathering), [1, 2]);
        commit(&mut gathering, &[1]);
        commit(&mut gathering, &[1]);
        assert!(gathering.expected().is_none());
    }

    #[test]
    fn waiting_in_vain_is_given_up_for_longer_and_longer() {
        let mut gathering = Gathering::default();
        let skipped = |gathering: &mut Gathering| (0..1_000).take_while(|_| gathering.skips()).count();
        assert_eq!(skipped(&mut gathering), 0);
        let counts: Vec<_> = (0..8)
            .map(|_| {
                gathering.waited(false);
                skipped(&mut gathering)
            })
            .collect();
        assert_eq!(counts, [2, 4, 8, 16, 32, 64, 64, 64]);
        gathering.waited(true);
        assert_eq!(skipped(&mut gathering), 0);
    }
}
