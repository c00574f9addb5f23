//! Which voters of a group are in sync, as its leader tracks them, and when members were last caught up.
//!
//! A voter is in sync if within [`RaftOptions::in_sync_lag`](crate::RaftOptions) it had everything that the leader had
//! at that time (Kafka's `replica.lag.time.max.ms`). May not know: what depends on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ottla_env::rt;
use ottla_storage::ids::{ReplicaId, Term};
use parking_lot::Mutex;

/// A new leader counts its followers as in sync until they had time to respond.
const NEW_LEADER_GRACE: Duration = Duration::from_secs(3);
/// The most positions of the leader's log end that are kept; far more than there are observations within any sensible
/// lag.
const LOG_ENDS_MAX: usize = 4_096;

/// The last entry that a member is known to have, and when it responded last.
pub(crate) type FollowerProgress = (Option<u64>, Option<rt::Instant>);

/// What the leader of one term has observed of its followers.
struct TermObservations {
    term: Term,
    since: rt::Instant,
    /// The log end at each observation.
    ends: VecDeque<(rt::Instant, u64)>,
    /// When each member was last known to be caught up.
    caught_up: BTreeMap<ReplicaId, rt::Instant>,
}

impl TermObservations {
    fn new(term: Term, since: rt::Instant) -> Self {
        Self { term, since, ends: VecDeque::new(), caught_up: BTreeMap::new() }
    }

    /// Records one observation of all members.
    fn observe(&mut self, now: rt::Instant, end: u64, members: &BTreeMap<ReplicaId, FollowerProgress>) {
        self.ends.push_back((now, end));
        self.caught_up.retain(|replica, _| members.contains_key(replica));
        for (replica, known) in members {
            let (Some(matched), Some(heard)) = known else { continue };
            // A member that has now what the log had then was caught up then; but of a member that no longer responds
            // only its last response counts.
            if let Some((at, _)) = self.ends.iter().rev().find(|(_, end)| end <= matched) {
                let caught_up = self.caught_up.entry(*replica).or_insert(*at.min(heard));
                *caught_up = (*caught_up).max(*at.min(heard));
            }
        }
        // A log end that all members have reached is not needed any more.
        let all = members.values().map(|(matched, _)| matched.unwrap_or(0)).min().unwrap_or(0);
        while self.ends.len() > LOG_ENDS_MAX || self.ends.get(1).is_some_and(|(_, end)| *end <= all) {
            self.ends.pop_front();
        }
    }

    fn is_in_sync(&self, replica: ReplicaId, now: rt::Instant, lag: Duration) -> bool {
        match self.caught_up.get(&replica) {
            Some(at) => now.since(*at) <= lag,
            None => now.since(self.since) <= NEW_LEADER_GRACE.min(lag),
        }
    }
}

/// The in-sync state of the members while this replica leads.
#[derive(Default)]
pub(crate) struct InSyncTracker {
    seen: Mutex<Option<TermObservations>>,
    in_sync: Mutex<Arc<[ReplicaId]>>,
    /// The voters before a change of them that is not committed yet.
    committed_sets: Mutex<Vec<BTreeSet<ReplicaId>>>,
}

impl InSyncTracker {
    /// When a member was last caught up, to the second; `None` if this leader does not know.
    pub(crate) fn caught_up_at(&self, member: ReplicaId) -> Option<rt::Instant> {
        self.seen.lock().as_ref()?.caught_up.get(&member).copied()
    }

    /// The voters that are in sync.
    pub(crate) fn in_sync(&self) -> Arc<[ReplicaId]> {
        self.in_sync.lock().clone()
    }

    /// The number of voters in sync.
    pub(crate) fn in_sync_count(&self) -> usize {
        self.in_sync.lock().len()
    }

    /// Records that this replica leads in `term`, that its log ends at `end`, and how far the other members are. Until
    /// a change of the voters is complete and committed, the set of voters counts that has the fewest in sync: the
    /// others may be left without a leader.
    pub(crate) fn observe(
        &self,
        (own, term, end): (ReplicaId, Term, u64),
        others: &BTreeMap<ReplicaId, FollowerProgress>,
        VoterSets { sets, is_committed }: VoterSets,
        lag: Duration,
    ) {
        let now = rt::now();
        let mut last = self.seen.lock();
        let seen = last.take().filter(|seen| seen.term == term);
        let seen = last.insert(seen.unwrap_or_else(|| TermObservations::new(term, now)));
        seen.observe(now, end, others);
        let is_in = |replica: &ReplicaId| *replica == own || seen.is_in_sync(*replica, now, lag);
        let in_sync = |voters: &BTreeSet<ReplicaId>| voters.iter().copied().filter(is_in).collect::<Arc<[_]>>();
        let mut committed_sets = self.committed_sets.lock();
        let counted = sets.iter().chain(committed_sets.iter().filter(|_| !is_committed)).map(in_sync);
        *self.in_sync.lock() = counted.min_by_key(|in_sync| in_sync.len()).unwrap_or_default();
        if is_committed {
            *committed_sets = sets;
        }
    }

    /// Another replica leads.
    pub(crate) fn clear(&self) {
        *self.in_sync.lock() = Arc::default();
        self.committed_sets.lock().clear();
    }
}

/// The voters according to a leader's log.
pub(crate) struct VoterSets {
    /// Two sets while a joint change is under way.
    pub(crate) sets: Vec<BTreeSet<ReplicaId>>,
    /// The entry of this membership is committed.
    pub(crate) is_committed: bool,
}

#[cfg(test)]
mod tests {
    use ottla_env::sim;

    use super::*;

    const LAG: Duration = Duration::from_secs(30);
    const FOLLOWER: ReplicaId = ReplicaId(2);

    fn at(seconds: i64) -> rt::Instant {
        rt::Instant(seconds * 1_000_000_000)
    }

    fn look(seen: &mut TermObservations, seconds: i64, end: u64, matched: Option<u64>) -> bool {
        seen.observe(at(seconds), end, &BTreeMap::from([(FOLLOWER, (matched, Some(at(seconds))))]));
        seen.is_in_sync(FOLLOWER, at(seconds), LAG)
    }

    #[test]
    fn new_voters_are_in_sync_when_the_change_is_committed() {
        let own = ReplicaId(1);
        let of = |ids: &[u64]| ids.iter().copied().map(ReplicaId).collect::<BTreeSet<_>>();
        sim::run(1, move || async move {
            let tracker = InSyncTracker::default();
            let others: BTreeMap<_, _> = [2, 3].map(|id| (ReplicaId(id), (Some(7), Some(rt::now())))).into();
            let in_sync = |sets: &[&[u64]], is_committed| {
                let voters = VoterSets { sets: sets.iter().map(|ids| of(ids)).collect(), is_committed };
                tracker.observe((own, Term(1), 7), &others, voters, LAG);
                tracker.in_sync().iter().map(|replica| replica.0).collect::<Vec<_>>()
            };
            assert_eq!(in_sync(&[&[1]], true), [1]);
            assert_eq!(in_sync(&[&[1], &[1, 2, 3]], false), [1]);
            assert_eq!(in_sync(&[&[1], &[1, 2, 3]], true), [1], "both must agree");
            assert_eq!(in_sync(&[&[1, 2, 3]], false), [1], "followers may not know of the end of the change");
            assert_eq!(in_sync(&[&[1, 2, 3]], true), [1, 2, 3]);
            rt::sleep(NEW_LEADER_GRACE * 2).await;
            assert_eq!(in_sync(&[&[1, 2, 3], &[1, 4]], false), [1], "a voter that is not caught up");
        });
    }

    #[test]
    fn a_follower_that_keeps_up_with_a_delay_is_in_sync() {
        let mut seen = TermObservations::new(Term(1), at(0));
        // Always 20 seconds behind a log that grows all the time.
        for second in 0..200 {
            let end = u64::try_from(second).unwrap_or(0) * 100;
            assert!(look(&mut seen, second, end, Some(end.saturating_sub(2_000))), "{second}");
        }
        assert!(seen.ends.len() < 30, "{}", seen.ends.len());
    }

    #[test]
    fn a_stalled_follower_is_out_of_sync_after_the_lag_and_in_sync_when_caught_up() {
        let mut seen = TermObservations::new(Term(1), at(0));
        assert!(look(&mut seen, 0, 10, Some(10)));
        for second in 1..=30 {
            assert!(look(&mut seen, second, 100, Some(10)), "{second}");
        }
        assert!(!look(&mut seen, 31, 100, Some(10)));
        assert!(!look(&mut seen, 32, 200, Some(99)));
        assert!(look(&mut seen, 33, 300, Some(200)));
        // Nothing is written: no follower lags.
        assert!(look(&mut seen, 500, 300, Some(300)));
    }

    #[test]
    fn a_silent_follower_is_out_of_sync_although_nothing_is_written() {
        let mut seen = TermObservations::new(Term(1), at(0));
        for second in 1..=60 {
            let heard = at(second.min(20));
            seen.observe(at(second), 10, &BTreeMap::from([(FOLLOWER, (Some(10), Some(heard)))]));
            assert_eq!(seen.is_in_sync(FOLLOWER, at(second), LAG), second <= 50, "{second}");
        }
        seen.observe(at(61), 10, &BTreeMap::new());
        assert!(seen.caught_up.is_empty(), "it is no member any more");
    }

    #[test]
    fn a_new_leader_gives_its_followers_time_to_respond() {
        let mut seen = TermObservations::new(Term(1), at(0));
        assert!(look(&mut seen, 1, 10, None));
        assert!(look(&mut seen, 3, 10, None));
        assert!(!look(&mut seen, 4, 10, None));
        assert!(look(&mut seen, 5, 10, Some(10)));
    }
}
