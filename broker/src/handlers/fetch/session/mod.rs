//! Incremental fetch sessions (KIP-227): the node stores the partitions that a consumer fetches, so that requests name
//! only changes and responses only news. A bounded cache in memory; losing a session costs one full request.
//! A session watches its partitions. A request reads only those that have changed, had more records, failed or are
//! named in the request, so that a large session without changes costs nothing.
//!
//!     session id, epoch    meaning
//!     0, -1                a full request without a session
//!     0,  0                a full request that opens a session
//!     id, -1               closes the session; a full request without one
//!     id,  0               closes it and opens another
//!     id,  n               the next request of the session; n counts from 1
//!
//! May not know: partitions' contents, sockets. Lock order: the sessions, one session, the locks of a watch.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use ottla_env::rt::{self, Instant};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::fetch::{FetchPartition, FetchPartitionResponse, FetchRequest};
use ottla_protocol::id_hash::IdHashMap;
use ottla_protocol::ids::Offset;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::limits::FETCH_SESSION_PARTITIONS_MAX;
use crate::partition::{ChangeFeed, Partition, Subscription};

/// A session unused for this long may be evicted for a new one (Kafka's two minutes).
const IDLE_BEFORE_EVICTION: Duration = Duration::from_secs(120);

/// A partition as the request names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The topic's name, before v13.
    pub name: Option<StrBytes>,
    /// The topic's id, from v13.
    pub id: Option<Uuid>,
    /// The partition's number.
    pub index: i32,
}

/// A partition to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The partition.
    pub key: Key,
    /// Offset and limits of the fetch.
    pub from: FetchPartition,
    /// Its number in the session, 0 without one.
    pub slot: u64,
}

/// The partitions that a request fetches, after its session is resolved.
#[derive(Debug)]
pub struct Plan {
    /// The partitions to read, in this order.
    pub wanted: Vec<Wanted>,
    kind: Kind,
}

impl Plan {
    /// Watches a partition that was found for `wanted` on behalf of its session. Called before the partition is read,
    /// so that no change is missed.
    pub fn found(&self, wanted: &Wanted, partition: &Partition) {
        self.watch_by(wanted, |watch, known| partition.subscribe(watch, wanted.slot, known));
    }

    /// True if the session has found the partition before: Kafka's session then has the topic's name, and a deleted
    /// topic is reported as an unknown topic, not as an unknown id (KIP-516, `FetchSession.CachedPartition`).
    #[must_use]
    pub fn had_found(&self, wanted: &Wanted) -> bool {
        let Kind::Incremental(session) = &self.kind else { return false };
        session.lock().remembered.get(&wanted.slot).is_some_and(|remembered| remembered.was_found)
    }

    fn watch_by(
        &self,
        wanted: &Wanted,
        watch_it: impl FnOnce(&Arc<ChangeFeed>, Option<&Subscription>) -> Option<Subscription>,
    ) {
        let Kind::Incremental(session) = &self.kind else { return };
        let mut session = session.lock();
        let watch = session.watch.clone();
        let Some(remembered) = session.remembered.get_mut(&wanted.slot) else { return };
        remembered.was_found = true;
        if let Some(watched) = watch_it(&watch, remembered.watched.as_ref()) {
            remembered.watched = Some(watched);
        }
    }

    /// The watch of the session over all its partitions; without a session the caller waits for each partition.
    #[must_use]
    pub fn watch(&self) -> Option<Arc<ChangeFeed>> {
        match &self.kind {
            Kind::Incremental(session) => Some(session.lock().watch.clone()),
            Kind::NoSession | Kind::NewSession => None,
        }
    }

    /// Adds the partitions that have changed during a wait.
    pub fn refresh(&mut self) {
        if let Kind::Incremental(session) = &self.kind {
            self.wanted = session.lock().wanted();
        }
    }
}

#[derive(Debug)]
enum Kind {
    NoSession,
    NewSession,
    Incremental(Arc<Mutex<Session>>),
}

#[derive(Debug)]
struct Session {
    id: i32,
    /// The epoch that the next request must carry.
    epoch: i32,
    by_ids: bool,
    /// By slot.
    remembered: IdHashMap<u64, Remembered>,
    slots: HashMap<Key, u64>,
    /// Slots to read, by turn: a partition that returned records goes to the end, so that all get their turn.
    due: BTreeMap<u64, u64>,
    /// Slots and turns are numbered by the same counter.
    next_number: u64,
    watch: Arc<ChangeFeed>,
}

#[derive(Debug)]
struct Remembered {
    wanted: Wanted,
    turn: u64,
    high_watermark: Offset,
    log_start: Offset,
    failed: bool,
    was_found: bool,
    /// Reports changes; without it the partition is read by every request.
    watched: Option<Subscription>,
}

#[derive(Debug)]
struct Slot {
    session: Arc<Mutex<Session>>,
    partitions: usize,
    used: Instant,
}

/// The sessions of a node.
#[derive(Debug)]
pub struct FetchSessions {
    slots: Mutex<HashMap<i32, Slot>>,
    sessions_max: usize,
}

impl FetchSessions {
    /// An empty cache; `max.incremental.fetch.session.cache.slots`.
    #[must_use]
    pub fn new(sessions_max: usize) -> Self {
        Self { slots: Mutex::default(), sessions_max }
    }

    /// Sessions in the cache.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slots.lock().len()
    }

    /// Resolves the session of a request, and the partitions that it fetches.
    pub fn begin(&self, request: FetchRequest, by_ids: bool) -> Result<Plan, ErrorCode> {
        match request.session_epoch {
            -1 | 0 => {
                if request.session_id != 0 {
                    self.slots.lock().remove(&request.session_id);
                }
                let kind = if request.session_epoch == 0 { Kind::NewSession } else { Kind::NoSession };
                Ok(Plan { wanted: named(&request).collect(), kind })
            }
            _ => self.continue_session(&request, by_ids),
        }
    }

    fn continue_session(&self, request: &FetchRequest, by_ids: bool) -> Result<Plan, ErrorCode> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(&request.session_id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let shared = slot.session.clone();
        let mut session = shared.lock();
        if session.epoch != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_ids != by_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        session.update(request);
        slot.partitions = session.remembered.len();
        slot.used = rt::now();
        if session.remembered.is_empty() {
            drop(session);
            slots.remove(&request.session_id);
            return Ok(Plan { wanted: Vec::new(), kind: Kind::NoSession });
        }
        drop(slots);
        let wanted = session.wanted();
        drop(session);
        Ok(Plan { wanted, kind: Kind::Incremental(shared) })
    }

    /// Returns the session id for the response, and keeps in `answers` only what is new to the client.
    pub fn finish(&self, plan: Plan, by_ids: bool, answers: &mut Vec<(Key, FetchPartitionResponse)>) -> i32 {
        match plan.kind {
            Kind::NoSession => 0,
            Kind::NewSession => self.open(plan.wanted, by_ids, answers),
            Kind::Incremental(session) => {
                let mut session = session.lock();
                answers.retain(|(key, answer)| session.record_response(key, answer));
                session.id
            }
        }
    }

    /// Opens a session for the fetched partitions; 0 if there is no room for one.
    fn open(&self, wanted: Vec<Wanted>, by_ids: bool, answers: &[(Key, FetchPartitionResponse)]) -> i32 {
        let mut slots = self.slots.lock();
        if wanted.is_empty() || !make_room(&mut slots, self.sessions_max, wanted.len()) {
            return 0;
        }
        let id = loop {
            let id = i32::try_from(rt::random_u64() & 0x7fff_ffff).unwrap_or(1);
            if id != 0 && !slots.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session {
            id,
            epoch: 1,
            by_ids,
            remembered: IdHashMap::default(),
            slots: HashMap::new(),
            due: BTreeMap::new(),
            next_number: 1,
            watch: Arc::default(),
        };
        wanted.into_iter().for_each(|wanted| session.remember(wanted));
        for (key, answer) in answers {
            session.record_response(key, answer);
        }
        let partitions = session.remembered.len();
        slots.insert(id, Slot { session: Arc::new(Mutex::new(session)), partitions, used: rt::now() });
        id
    }
}

/// Makes room for a session of `partitions`: evicts idle sessions first, then those smaller than the new one.
fn make_room(slots: &mut HashMap<i32, Slot>, sessions_max: usize, partitions: usize) -> bool {
    if sessions_max == 0 || partitions > FETCH_SESSION_PARTITIONS_MAX {
        return false;
    }
    let now = rt::now();
    let mut total: usize = slots.values().map(|slot| slot.partitions).sum();
    while slots.len() >= sessions_max || total + partitions > FETCH_SESSION_PARTITIONS_MAX {
        let idle = slots.iter().filter(|(_, slot)| now.since(slot.used) > IDLE_BEFORE_EVICTION);
        let victim = idle.min_by_key(|(_, slot)| slot.used).map(|(id, _)| *id).or_else(|| {
            let smallest = slots.iter().min_by_key(|(_, slot)| slot.partitions)?;
            (smallest.1.partitions < partitions).then_some(*smallest.0)
        });
        let Some(slot) = victim.and_then(|id| slots.remove(&id)) else { return false };
        total -= slot.partitions;
    }
    true
}

fn named(request: &FetchRequest) -> impl Iterator<Item = Wanted> + '_ {
    request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| Wanted {
            key: Key { name: topic.name.clone(), id: topic.id, index: partition.index },
            from: *partition,
            slot: 0,
        })
    })
}

impl Session {
    /// The partitions to read, in the order of turns.
    fn wanted(&mut self) -> Vec<Wanted> {
        for slot in self.watch.take_changed() {
            self.make_due(slot);
        }
        let due = self.due.values().filter_map(|slot| self.remembered.get(slot));
        due.map(|remembered| remembered.wanted.clone()).collect()
    }

    fn make_due(&mut self, slot: u64) {
        if let Some(remembered) = self.remembered.get(&slot) {
            self.due.insert(remembered.turn, slot);
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    fn update(&mut self, request: &FetchRequest) {
        for wanted in named(request) {
            let Some(slot) = self.slots.get(&wanted.key).copied() else {
                self.remember(wanted);
                continue;
            };
            if let Some(remembered) = self.remembered.get_mut(&slot) {
                remembered.wanted.from = wanted.from;
            }
            self.make_due(slot);
        }
        for topic in &request.forgotten {
            for index in &topic.partitions {
                let key = Key { name: topic.name.clone(), id: topic.id, index: *index };
                self.forget(&key);
            }
        }
    }

    fn forget(&mut self, key: &Key) {
        let forgotten = self.slots.remove(key).and_then(|slot| self.remembered.remove(&slot));
        if let Some(forgotten) = forgotten {
            self.due.remove(&forgotten.turn);
        }
    }

    fn remember(&mut self, mut wanted: Wanted) {
        self.forget(&wanted.key);
        let slot = self.number();
        wanted.slot = slot;
        self.slots.insert(wanted.key.clone(), slot);
        self.due.insert(slot, slot);
        let unknown = Offset(-1);
        let remembered = Remembered {
            wanted,
            turn: slot,
            high_watermark: unknown,
            log_start: unknown,
            failed: false,
            was_found: false,
            watched: None,
        };
        self.remembered.insert(slot, remembered);
    }

    /// Stores what the response says of a partition; false if the client has all of it already.
    fn record_response(&mut self, key: &Key, answer: &FetchPartitionResponse) -> bool {
        let Some(slot) = self.slots.get(key).copied() else { return true };
        let next_turn = self.number();
        let Some(remembered) = self.remembered.get_mut(&slot) else { return true };
        let failed = answer.error.is_error();
        let has_records = answer.records_bytes() > 0;
        let news = failed
            || remembered.failed
            || has_records
            || answer.diverging_epoch.is_some()
            || answer.preferred_read_replica.0 >= 0
            || remembered.high_watermark != answer.high_watermark
            || remembered.log_start != answer.log_start;
        remembered.failed = failed;
        remembered.was_found |= answer.error != ErrorCode::UnknownTopicId;
        remembered.high_watermark = answer.high_watermark;
        remembered.log_start = answer.log_start;
        let at_end = !failed && !has_records && remembered.wanted.from.fetch_offset >= answer.high_watermark;
        if has_records {
            self.due.remove(&remembered.turn);
            remembered.turn = next_turn;
            self.due.insert(next_turn, slot);
        } else if at_end && answer.diverging_epoch.is_none() && remembered.watched.is_some() {
            // The watch reports when there is more.
            self.due.remove(&remembered.turn);
        }
        news
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
