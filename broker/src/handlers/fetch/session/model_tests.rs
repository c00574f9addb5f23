//! Sessions against a model that reads every partition in every request: a session may leave out only what its client
//! has already, however few partitions it reads, and whatever changed between two requests.

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_model::{Random, lives};
use ottla_protocol::fetch::{FetchTopic, ForgottenTopic};
use ottla_protocol::ids::{LeaderEpoch, NodeId, PartitionId};

use super::*;
use crate::shard::read_view::{LogOffsetSnapshot, ReadView};

const PARTITIONS: i32 = 6;
const SESSIONS_MAX: usize = 3;

/// A partition's log start and end.
#[derive(Clone, Copy, Default)]
struct Log {
    start: i64,
    end: i64,
}

/// The node's partitions, and the same as readers see them.
#[derive(Default)]
struct Node {
    logs: BTreeMap<i32, Log>,
    published: ReadView,
}

fn id(index: i32) -> PartitionId {
    PartitionId { topic: Uuid::from_u128(1), index }
}

impl Node {
    /// Some partition grows, is trimmed, goes or comes back.
    fn change(&mut self, random: &mut Random) {
        let index = i32::try_from(random.between(0, i64::from(PARTITIONS) - 1)).unwrap();
        if random.once_in(12) && self.logs.remove(&index).is_some() {
            return self.published.publish(Vec::new(), &[id(index)]);
        }
        let log = self.logs.entry(index).or_default();
        let mut bytes = 0;
        if random.once_in(3) {
            log.start = random.between(log.start, log.end);
        } else {
            log.end += random.between(0, 2);
            bytes = 10;
        }
        let end = Offset(log.end);
        let marks = LogOffsetSnapshot {
            log_start: Offset(log.start),
            high_watermark: end,
            last_stable: end,
            ..LogOffsetSnapshot::default()
        };
        self.published.publish(vec![(id(index), marks, bytes, None)], &[]);
    }

    /// The response of a read of the partition; records only while there is `room`.
    fn read(&self, index: i32, offset: i64, room: &mut u64) -> FetchPartitionResponse {
        let failed = |error| FetchPartitionResponse::failed(index, error);
        let Some(log) = self.logs.get(&index) else { return failed(ErrorCode::UnknownTopicOrPartition) };
        if offset < log.start || offset > log.end {
            return failed(ErrorCode::OffsetOutOfRange);
        }
        let mut answer = failed(ErrorCode::None);
        (answer.high_watermark, answer.log_start) = (Offset(log.end), Offset(log.start));
        if offset < log.end && *room > 0 {
            *room -= 1;
            answer.records = vec![Bytes::from_static(b"batch")];
        }
        answer
    }
}

/// What a client has last received of a partition, and the offset that it fetches from.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Told {
    index: i32,
    offset: i64,
    last: Option<(i64, i64)>,
    failed: bool,
}

/// The model of a session: its partitions in the order of their turns.
struct Model {
    epoch: i32,
    by_ids: bool,
    turns: Vec<Told>,
}

impl Model {
    fn name(&mut self, index: i32, offset: i64) {
        match self.turns.iter_mut().find(|told| told.index == index) {
            Some(told) => told.offset = offset,
            None => self.turns.push(Told { index, offset, last: None, failed: false }),
        }
    }

    /// Reads everything; returns what is new, in order.
    fn answer(&mut self, node: &Node, mut room: u64) -> Vec<(i32, bool)> {
        let mut news = Vec::new();
        let (mut waiting, mut served) = (Vec::new(), Vec::new());
        for mut told in std::mem::take(&mut self.turns) {
            let answer = node.read(told.index, told.offset, &mut room);
            let marks = Some((answer.high_watermark.0, answer.log_start.0));
            let (failed, records) = (answer.error.is_error(), answer.records_bytes() > 0);
            if failed || told.failed || records || marks != told.last {
                news.push((told.index, records));
            }
            (told.last, told.failed) = (marks, failed);
            if records { served.push(told) } else { waiting.push(told) }
        }
        self.turns = waiting;
        self.turns.extend(served);
        news
    }
}

fn key(index: i32, by_ids: bool) -> Key {
    if by_ids {
        Key { name: None, id: Some(Uuid::from_u128(1)), index }
    } else {
        Key { name: Some(StrBytes::from_static_str("t")), id: None, index }
    }
}

fn request(session: (i32, i32), by_ids: bool, named: &BTreeMap<i32, i64>, forgotten: &[i32]) -> FetchRequest {
    let Key { name, id, .. } = key(0, by_ids);
    let partitions = named.iter().map(|(index, offset)| FetchPartition {
        index: *index,
        current_leader_epoch: LeaderEpoch(-1),
        fetch_offset: Offset(*offset),
        last_fetched_epoch: LeaderEpoch(-1),
        log_start: Offset(-1),
        max_bytes: 1 << 20,
    });
    FetchRequest {
        replica_id: NodeId(-1),
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 1 << 20,
        isolation_level: 0,
        session_id: session.0,
        session_epoch: session.1,
        topics: vec![FetchTopic { name: name.clone(), id, partitions: partitions.collect() }],
        forgotten: vec![ForgottenTopic { name, id, partitions: forgotten.to_vec() }],
        rack_id: StrBytes::default(),
    }
}

struct World {
    node: Node,
    sessions: FetchSessions,
    models: BTreeMap<i32, Model>,
}

fn some_named(random: &mut Random, count_max: i64) -> BTreeMap<i32, i64> {
    let count = random.between(0, count_max);
    let one = |random: &mut Random| (random.below(PARTITIONS as u64 + 1), random.between(0, 6));
    (0..count).map(|_| one(random)).map(|(index, offset)| (i32::try_from(index).unwrap(), offset)).collect()
}

impl World {
    /// The sessions that are left; those evicted must have been the smallest, and smaller than the new one.
    fn settle_evictions(&mut self, newcomer: Option<usize>) {
        let left: Vec<i32> = self.sessions.slots.lock().keys().copied().collect();
        let gone: Vec<i32> = self.models.keys().copied().filter(|id| !left.contains(id)).collect();
        for id in gone {
            let smallest = self.models.values().map(|model| model.turns.len()).min();
            let size = self.models.remove(&id).map(|model| model.turns.len());
            assert_eq!(size, smallest, "a larger session gave way");
            assert!(size < newcomer, "a session gave way to one that is not larger");
        }
        assert_eq!(self.sessions.count(), left.len());
        assert!(left.len() <= SESSIONS_MAX && left.iter().all(|id| self.models.contains_key(id) || newcomer.is_some()));
    }

    /// Reads the wanted partitions after they are watched; nothing changes in between that the plan does not contain.
    fn read(&self, plan: &Plan, room: u64) -> Vec<(Key, FetchPartitionResponse)> {
        for wanted in &plan.wanted {
            if let Some(cell) = self.node.published.get(id(wanted.key.index)) {
                plan.watch_by(wanted, |watch, known| {
                    if known.is_some_and(|known| known.is_of(&cell)) {
                        None
                    } else {
                        cell.subscribe(watch, wanted.slot)
                    }
                });
            }
        }
        let mut room = room;
        let read = |w: &Wanted| self.node.read(w.key.index, w.from.fetch_offset.0, &mut room);
        let answers: Vec<_> = plan.wanted.iter().map(read).collect();
        plan.wanted.iter().map(|wanted| wanted.key.clone()).zip(answers).collect()
    }

    fn open(&mut self, random: &mut Random, replaced: i32) {
        let by_ids = random.once_in(2);
        let named = some_named(random, 6);
        let plan = self.sessions.begin(request((replaced, 0), by_ids, &named, &[]), by_ids).unwrap();
        self.models.remove(&replaced);
        let room = random.below(4);
        let mut answers = self.read(&plan, room);
        let told = self.sessions.finish(plan, by_ids, &mut answers);
        assert_eq!(answers.len(), named.len(), "a full request is answered in full");
        let full = self.models.len() == SESSIONS_MAX;
        let smallest = self.models.values().map(|model| model.turns.len()).min();
        let fits = !named.is_empty() && (!full || smallest < Some(named.len()));
        assert_eq!(told != 0, fits);
        self.settle_evictions(Some(named.len()));
        if told != 0 {
            let mut model = Model { epoch: 1, by_ids, turns: Vec::new() };
            named.into_iter().for_each(|(index, offset)| model.name(index, offset));
            let _ = model.answer(&self.node, room);
            assert!(self.models.insert(told, model).is_none(), "a session id was given twice");
        }
    }

    /// A request of an unknown session, or with a wrong epoch or another way to name topics.
    fn refused(&mut self, random: &mut Random, session: i32) {
        let Some(model) = self.models.get(&session) else { return };
        let (epoch, by_ids) = (model.epoch, model.by_ids);
        let begin =
            |id, epoch, by_ids| self.sessions.begin(request((id, epoch), by_ids, &BTreeMap::new(), &[]), by_ids);
        let unknown = (1..).find(|id| !self.models.contains_key(id)).unwrap();
        match random.below(4) {
            0 => assert_eq!(begin(unknown, 1, by_ids).unwrap_err(), ErrorCode::FetchSessionIdNotFound),
            1 => assert_eq!(begin(session, epoch + 1, by_ids).unwrap_err(), ErrorCode::InvalidFetchSessionEpoch),
            2 => assert_eq!(begin(session, epoch, !by_ids).unwrap_err(), ErrorCode::FetchSessionTopicIdError),
            _ => {
                let plan = begin(session, -1, by_ids).unwrap();
                assert_eq!(self.sessions.finish(plan, by_ids, &mut Vec::new()), 0);
                self.models.remove(&session);
            }
        }
        self.settle_evictions(None);
    }

    fn continue_session(&mut self, random: &mut Random, session: i32) {
        let Some(model) = self.models.get_mut(&session) else { return };
        let by_ids = model.by_ids;
        let mut named = some_named(random, 2);
        // As clients do: a partition that returned records is fetched from the next offset on.
        for told in &model.turns {
            let end = self.node.logs.get(&told.index).map_or(0, |log| log.end);
            if random.once_in(2) && told.offset != end {
                named.insert(told.index, if random.once_in(10) { end + 1 } else { end });
            }
        }
        let forgotten: Vec<i32> =
            (0..random.between(0, 9) / 8).map(|_| i32::try_from(random.below(8)).unwrap()).collect();
        let asked = request((session, model.epoch), by_ids, &named, &forgotten);
        let mut plan = self.sessions.begin(asked, by_ids).unwrap();
        model.epoch += 1;
        named.into_iter().for_each(|(index, offset)| model.name(index, offset));
        model.turns.retain(|told| !forgotten.contains(&told.index));
        if model.turns.is_empty() {
            assert!(plan.wanted.is_empty());
            assert_eq!(self.sessions.finish(plan, by_ids, &mut Vec::new()), 0);
            self.models.remove(&session);
            return self.settle_evictions(None);
        }
        if random.once_in(3) {
            // The request waits, and partitions change meanwhile.
            (0..random.below(3)).for_each(|_| self.node.change(random));
            plan.refresh();
        }
        let room = random.below(4);
        let mut answers = self.read(&plan, room);
        let news = self.models.get_mut(&session).unwrap().answer(&self.node, room);
        assert_eq!(self.sessions.finish(plan, by_ids, &mut answers), session);
        let told: Vec<_> = answers.iter().map(|(key, answer)| (key.index, answer.records_bytes() > 0)).collect();
        assert_eq!(told, news, "(partition, with records)");
        assert!(answers.iter().all(|(known, _)| *known == key(known.index, by_ids)));
    }
}

#[test]
fn a_session_tells_what_one_that_looks_at_everything_would_tell() {
    lives(8_000, 80, |random, steps| {
        let (node, sessions) = (Node::default(), FetchSessions::new(SESSIONS_MAX));
        let mut world = World { node, sessions, models: BTreeMap::new() };
        for _ in 0..steps {
            let ids: Vec<i32> = world.models.keys().copied().collect();
            let session = random.pick(&ids).copied().unwrap_or(0);
            match random.below(20) {
                0 | 1 => {
                    let replaced = if random.once_in(3) { session } else { 0 };
                    world.open(random, replaced);
                }
                2 => world.refused(random, session),
                3..=8 => world.node.change(random),
                _ => world.continue_session(random, session),
            }
        }
    });
}
