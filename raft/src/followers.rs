//! How far the members of a group are, as its leader knows it: who is in sync, and who has synced an entry.
//!
//! In sync is a voter that had, within [`RaftOptions::in_sync_lag`](crate::RaftOptions), everything that the leader had then
//! (Kafka's `replica.lag.time.max.ms`). May not know: what depends on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use ottla_storage::env::rt;
use ottla_storage::ids::{RaftIndex, ReplicaId, Term};
use parking_lot::Mutex;

use crate::group::Group;
use crate::handle::GroupHandle;
use crate::types::RaftLogId;

/// A new leader takes its followers for in sync until they had time to tell.
const GRACE: Duration = Duration::from_secs(3);
/// Ends of the leader's log that are remembered at most; far more than there are looks within any sensible lag.
const ENDS_MAX: usize = 4_096;

/// The last entry that a member is known to have, and when it answered last.
pub(crate) type Known = (Option<u64>, Option<rt::Instant>);

/// What the leader of one term has seen of its followers.
struct Seen {
    term: Term,
    since: rt::Instant,
    /// When its log ended where.
    ends: VecDeque<(rt::Instant, u64)>,
    /// Since when, at least, a member lacks something.
    caught_up: BTreeMap<ReplicaId, rt::Instant>,
}

impl Seen {
    fn new(term: Term, since: rt::Instant) -> Self {
        Self { term, since, ends: VecDeque::new(), caught_up: BTreeMap::new() }
    }

    /// Notes how far everybody is.
    fn look(&mut self, now: rt::Instant, end: u64, members: &BTreeMap<ReplicaId, Known>) {
        self.ends.push_back((now, end));
        self.caught_up.retain(|replica, _| members.contains_key(replica));
        for (replica, known) in members {
            let (Some(matched), Some(heard)) = known else { continue };
            // Who has now what there was then was caught up then; but who says nothing any more is only known to have been.
            if let Some((at, _)) = self.ends.iter().rev().find(|(_, end)| end <= matched) {
                let caught_up = self.caught_up.entry(*replica).or_insert(*at.min(heard));
                *caught_up = (*caught_up).max(*at.min(heard));
            }
        }
        // What everybody has tells nothing any more.
        let all = members.values().map(|(matched, _)| matched.unwrap_or(0)).min().unwrap_or(0);
        while self.ends.len() > ENDS_MAX || self.ends.get(1).is_some_and(|(_, end)| *end <= all) {
            self.ends.pop_front();
        }
    }

    fn is_in_sync(&self, replica: ReplicaId, now: rt::Instant, lag: Duration) -> bool {
        match self.caught_up.get(&replica) {
            Some(at) => now.since(*at) <= lag,
            None => now.since(self.since) <= GRACE.min(lag),
        }
    }
}

/// What is known of the members while this replica leads.
#[derive(Default)]
pub(crate) struct Followers {
    seen: Mutex<Option<Seen>>,
    in_sync: Mutex<Arc<[ReplicaId]>>,
    /// How many those are; read for every batch that needs more than one.
    count: AtomicUsize,
}

impl Followers {
    /// When a member had everything, to the second; `None` if this leader does not know.
    pub(crate) fn caught_up_at(&self, member: ReplicaId) -> Option<rt::Instant> {
        self.seen.lock().as_ref()?.caught_up.get(&member).copied()
    }

    fn set(&self, in_sync: Arc<[ReplicaId]>) {
        self.count.store(in_sync.len(), Ordering::Relaxed);
        *self.in_sync.lock() = in_sync;
    }
}

impl Group {
    /// Looks at the followers, if this replica leads.
    pub(crate) fn look_at_followers(&self) {
        let role = self.role();
        let metrics = self.raft.data_metrics();
        let (end, members) = {
            let now = metrics.borrow_watched();
            let heard = |id: &u64| now.heartbeat.as_ref()?.get(id)?.as_ref().map(|at| at.0);
            let members = now.replication.as_ref().map(|members| {
                let member = |(id, at): (&u64, &Option<_>)| (ReplicaId(*id), (at.as_ref().map(index_of), heard(id)));
                members.iter().map(member).collect::<BTreeMap<ReplicaId, Known>>()
            });
            (now.last_log.as_ref().map_or(0, index_of), members)
        };
        let Some(mut members) = members.filter(|_| role.leader == Some(self.replica) && !role.stopped) else {
            self.followers.set(Arc::default());
            return;
        };
        let voters: BTreeSet<_> = self.members().voters.into_iter().flatten().collect();
        members.remove(&self.replica);
        let now = rt::now();
        let mut last = self.followers.seen.lock();
        let seen = last.take().filter(|seen| seen.term == role.term);
        let seen = last.insert(seen.unwrap_or_else(|| Seen::new(role.term, now)));
        seen.look(now, end, &members);
        let is_in =
            |replica: &ReplicaId| *replica == self.replica || seen.is_in_sync(*replica, now, self.options.in_sync_lag);
        self.followers.set(voters.into_iter().filter(is_in).collect());
    }
}

fn index_of(id: &RaftLogId) -> u64 {
    id.index
}

impl GroupHandle {
    /// The voters that are in sync, this one included; nobody where this replica does not lead.
    #[must_use]
    pub fn in_sync(&self) -> Arc<[ReplicaId]> {
        self.0.followers.in_sync.lock().clone()
    }

    /// How many voters are in sync.
    #[must_use]
    pub fn in_sync_count(&self) -> usize {
        self.0.followers.count.load(Ordering::Relaxed)
    }

    /// Waits until so many voters have synced everything up to `index`; false if this replica leads no longer.
    pub async fn synced_by(&self, index: RaftIndex, voters: usize) -> bool {
        let group = &self.0;
        let mut metrics = group.raft.data_metrics();
        loop {
            let members: BTreeSet<_> = group.members().voters.into_iter().flatten().collect();
            {
                let now = metrics.borrow_and_update();
                let Some(progress) = &now.replication else { return false };
                let has = |(id, at): &(&u64, &Option<_>)| {
                    members.contains(&ReplicaId(**id)) && at.as_ref().map(index_of).is_some_and(|at| at >= index.0)
                };
                if progress.iter().filter(has).count() >= voters {
                    return true;
                }
            }
            if metrics.changed().await.is_err() {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(30);
    const FOLLOWER: ReplicaId = ReplicaId(2);

    fn at(seconds: i64) -> rt::Instant {
        rt::Instant(seconds * 1_000_000_000)
    }

    fn look(seen: &mut Seen, seconds: i64, end: u64, matched: Option<u64>) -> bool {
        seen.look(at(seconds), end, &BTreeMap::from([(FOLLOWER, (matched, Some(at(seconds))))]));
        seen.is_in_sync(FOLLOWER, at(seconds), LAG)
    }

    #[test]
    fn who_keeps_up_with_what_was_there_a_while_ago_is_in_sync() {
        let mut seen = Seen::new(Term(1), at(0));
        // Always 20 seconds behind a log that never rests.
        for second in 0..200 {
            let end = u64::try_from(second).unwrap_or(0) * 100;
            assert!(look(&mut seen, second, end, Some(end.saturating_sub(2_000))), "{second}");
        }
        assert!(seen.ends.len() < 30, "{}", seen.ends.len());
    }

    #[test]
    fn who_stands_still_is_out_of_sync_after_the_lag_and_in_again_when_it_has_all() {
        let mut seen = Seen::new(Term(1), at(0));
        assert!(look(&mut seen, 0, 10, Some(10)));
        for second in 1..=30 {
            assert!(look(&mut seen, second, 100, Some(10)), "{second}");
        }
        assert!(!look(&mut seen, 31, 100, Some(10)));
        assert!(!look(&mut seen, 32, 200, Some(99)));
        assert!(look(&mut seen, 33, 300, Some(200)));
        // Nothing is written: nobody lags.
        assert!(look(&mut seen, 500, 300, Some(300)));
    }

    #[test]
    fn who_says_nothing_any_more_falls_out_although_nothing_is_written() {
        let mut seen = Seen::new(Term(1), at(0));
        for second in 1..=60 {
            let heard = at(second.min(20));
            seen.look(at(second), 10, &BTreeMap::from([(FOLLOWER, (Some(10), Some(heard)))]));
            assert_eq!(seen.is_in_sync(FOLLOWER, at(second), LAG), second <= 50, "{second}");
        }
        seen.look(at(61), 10, &BTreeMap::new());
        assert!(seen.caught_up.is_empty(), "it is no member any more");
    }

    #[test]
    fn a_new_leader_gives_its_followers_time_to_tell() {
        let mut seen = Seen::new(Term(1), at(0));
        assert!(look(&mut seen, 1, 10, None));
        assert!(look(&mut seen, 3, 10, None));
        assert!(!look(&mut seen, 4, 10, None));
        assert!(look(&mut seen, 5, 10, Some(10)));
    }
}
