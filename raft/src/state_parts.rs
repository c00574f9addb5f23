//! A replica's state in parts, for another member: held in memory while it is fetched, since the checkpoint goes on
//! meanwhile and parts of two checkpoints do not fit together.
//!
//! May not know: how parts travel, what the keys mean.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_env::critical::Owner;
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_storage::data_dir::ReplicaSnapshot;
use ottla_storage::ids::LogId;
use parking_lot::Mutex;

use crate::net::{Resume, StatePart};

/// How long a replica holds a state that no member asks for.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long a state is given to members that begin. A member that cannot use it, since batches of it have left with a split, with a
/// dropped topic or in a pass of compaction, begins again for as long as it gets the same one.
const SHARED_MAX: Duration = Duration::from_secs(5);

struct Held {
    state: Arc<ReplicaSnapshot>,
    read_at: rt::Instant,
    used_at: rt::Instant,
}

/// The state that is being fetched from this replica, by any number of members.
#[derive(Default)]
pub(crate) struct HeldState(Mutex<Option<Held>>);

impl HeldState {
    /// The state to go on with: the one at `resume`; for a first part one that was read in the last [`SHARED_MAX`] and reaches the
    /// log, which begins after `purged`.
    pub(crate) fn find(&self, resume: Option<&Resume>, purged: Option<LogId>) -> Option<Arc<ReplicaSnapshot>> {
        let (mut held, now) = (self.0.lock(), rt::now());
        let held = held.as_mut().filter(|held| match resume {
            Some(resume) => held.state.applied == resume.of,
            None => Some(held.state.applied) >= purged && now.since(held.read_at) < SHARED_MAX,
        })?;
        held.used_at = now;
        Some(held.state.clone())
    }

    /// Holds a state until it has not been used for [`IDLE_MAX`].
    pub(crate) fn hold(self: &Arc<Self>, state: Arc<ReplicaSnapshot>, owner: Owner) {
        let now = rt::now();
        let before = self.0.lock().replace(Held { state, read_at: now, used_at: now });
        if before.is_some() {
            return;
        }
        let weak = Arc::downgrade(self);
        rt::spawn_critical("held-state", owner, async move {
            loop {
                rt::sleep(IDLE_MAX / 2).await;
                let Some(held) = weak.upgrade() else { return };
                let mut held = held.0.lock();
                if held.as_ref().is_none_or(|held| rt::now().since(held.used_at) >= IDLE_MAX) {
                    *held = None;
                    return;
                }
            }
        });
    }
}

/// The part of a state that follows the key `after`: keys and values of `bytes_max`, but at least one.
pub(crate) fn part_of(state: &ReplicaSnapshot, after: Option<&Bytes>, bytes_max: usize) -> StatePart {
    let first = after.map_or(0, |after| state.keys.partition_point(|(key, _)| key <= after));
    let mut bytes = 0;
    let fits = |(key, value): &&(Bytes, Bytes)| {
        let is_first = bytes == 0;
        bytes += key.len() + value.len();
        is_first || bytes <= bytes_max
    };
    let rest = state.keys.get(first..).unwrap_or_default();
    let keys: Vec<_> = rest.iter().take_while(fits).cloned().collect();
    let is_last = keys.len() == rest.len();
    let (membership, checksum) = (state.membership.clone(), state.checksum);
    StatePart { state: ReplicaSnapshot { applied: state.applied, membership, checksum, keys }, is_last }
}

/// A state of which parts were received, in order.
#[derive(Debug, Default)]
pub(crate) struct ReceivedState(Option<ReplicaSnapshot>);

impl ReceivedState {
    /// What to ask for next.
    pub(crate) fn resume(&self) -> Option<Resume> {
        let known = self.0.as_ref()?;
        Some(Resume { of: known.applied, after: known.keys.last()?.0.clone() })
    }

    /// Takes a part; returns the state when it is whole. The sender begins anew when it does not hold the state any more.
    ///
    /// # Errors
    /// The keys of the part do not follow those that are known.
    pub(crate) fn take(&mut self, part: StatePart) -> Result<Option<ReplicaSnapshot>, &'static str> {
        let StatePart { state, is_last } = part;
        let mixes = mutants::is_on(Bug::StateOfTwoPoints);
        let known = self.0.take().filter(|known| known.applied == state.applied || mixes);
        let last = known.as_ref().and_then(|known| known.keys.last()).filter(|_| !mixes);
        let follows = last.zip(state.keys.first()).is_none_or(|((last, _), (first, _))| last < first);
        if !follows || !state.keys.is_sorted_by(|one, next| one.0 < next.0) {
            return Err("the keys of a state are out of order");
        }
        self.0 = Some(match known {
            Some(mut known) => {
                // With the bug all but the last one of its keys are lost.
                let lost = if mutants::is_on(Bug::StatePartLost) { state.keys.len().saturating_sub(1) } else { 0 };
                known.keys.extend(state.keys.into_iter().skip(lost));
                known
            }
            None => state,
        });
        Ok(if is_last { self.0.take() } else { None })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ottla_env::sim;
    use ottla_storage::ids::{RaftIndex, Term};

    fn state(index: u64, keys: u8) -> ReplicaSnapshot {
        let applied = LogId { term: Term(1), index: RaftIndex(index) };
        let pair = |key: u8| (Bytes::from(vec![key; 3]), Bytes::from(vec![key; 10]));
        let keys = (0..keys).map(pair).collect();
        ReplicaSnapshot { applied, membership: Bytes::from_static(b"m"), checksum: index, keys }
    }

    #[test]
    fn parts_of_any_size_make_the_state_again() {
        for (keys, bytes_max) in [(0, 1), (1, 1), (7, 1), (7, 13), (7, 26), (7, 27), (200, 500)] {
            let (whole, mut received) = (state(5, keys), ReceivedState::default());
            let again = loop {
                let resume = received.resume();
                let part = part_of(&whole, resume.as_ref().map(|resume| &resume.after), bytes_max);
                assert!(part.state.keys.len() <= (bytes_max / 13).max(1));
                if let Some(again) = received.take(part).unwrap() {
                    break again;
                }
            };
            assert_eq!(again, whole);
        }
    }

    #[test]
    fn a_state_at_another_point_begins_anew_and_keys_out_of_order_are_refused() {
        let (old, new, mut received) = (state(5, 7), state(6, 4), ReceivedState::default());
        assert_eq!(received.take(part_of(&old, None, 30)), Ok(None));
        assert_eq!(received.take(part_of(&new, None, 30)), Ok(None));
        let after = received.resume().unwrap();
        assert_eq!(after.of, new.applied);
        assert!(received.take(part_of(&new, None, 30)).is_err(), "the same keys once more");
        assert_eq!(received.resume(), None);
        assert_eq!(received.take(part_of(&new, None, 1_000)), Ok(Some(new)));
    }

    #[test]
    fn a_state_is_held_while_it_is_used_and_shared_by_those_whom_it_serves() {
        sim::run(1, || async {
            let (held, state) = (Arc::<HeldState>::default(), Arc::new(state(5, 3)));
            held.hold(state.clone(), Owner::process());
            let resume = |index| Resume { of: LogId { term: Term(1), index: RaftIndex(index) }, after: Bytes::new() };
            assert!(held.find(None, Some(resume(5).of)).is_some());
            assert!(held.find(None, Some(resume(6).of)).is_none(), "the log begins after it");
            for _ in 0..5 {
                rt::sleep(IDLE_MAX / 2).await;
                assert!(held.find(Some(&resume(5)), None).is_some());
            }
            assert!(held.find(Some(&resume(4)), None).is_none());
            assert!(held.find(None, None).is_none(), "those who begin get a newer one");
            rt::sleep(IDLE_MAX * 2).await;
            assert!(held.find(Some(&resume(5)), None).is_none());
        });
    }
}
