//! A cluster in the course of hours: nodes report what their shards have to do, the balancer decides by the pure functions of
//! the product, and what it decides takes its time.
//!
//! ```text
//!  a step of a split or merge   a quarter of a second: twelve shards were there after 4.1 to 4.7 s (docs/resizing.md)
//!  a replica on another node    20 seconds
//!  a report                     every two seconds, or every 30 while the load stands still and nothing is under way
//! ```
//! Six nodes in three zones; on-demand topics of 64 partitions, a topic in the pool, and one of which a shard was split off by hand.
//! A partition's load varies by up to a tenth from report to report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ottla_protocol::ids::{NodeId, PartitionId};
use uuid::Uuid;

use crate::metadata::balance::{Action, Change};
use crate::metadata::command::Command;
use crate::metadata::decide::ControllerRequest;
use crate::metadata::image::{NodeRecord, ShardId};
use crate::metadata::liveness::{FenceReason, Liveness};
use crate::metadata::requests::Nodes;
use crate::metadata::tests::balance::Balanced;
use crate::metadata::tests::moves::submit;
use crate::metadata::tests::placement::{apply, node};
use crate::metadata::tests::topic_shards::{carry_out_resizes, configure, finish_moves, settle, shards, world_of};
use crate::metadata::{moves, splits};

pub(super) const MEGABYTE: f64 = 1e6;
/// What a shard has room for (`ottla.shard.bytes.per.second`); it is to have twice what it needs.
pub(super) const ROOM: u64 = 64_000_000;
pub(super) const PARTITIONS: i32 = 64;
/// The partitions of the topic in the pool, and what each of them has to do.
const STEADY: (usize, u64) = (24, 2_000_000);

const STEP_TAKES: Duration = Duration::from_millis(250);
const MOVE_TAKES: Duration = Duration::from_secs(20);
const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// The time within which load stands still, or nothing was done, if reports are to be rarer.
const QUIET: Duration = Duration::from_secs(30);
/// At the most so many shards are moved at the same time, and so many are split or merged (docs/resizing.md).
const AT_A_TIME: usize = 2;

/// Bytes a second of a partition of an on-demand topic: the number of the topic, and that of the partition.
pub(super) type Load = fn(at: Duration, topic: usize, index: i32) -> f64;

/// What a step was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Split,
    Merge,
    Move,
    Election,
}

/// A step that was taken.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) at: Duration,
    pub(super) kind: Kind,
    pub(super) shard: ShardId,
    /// The shard that was split off it, or that takes it over; none while it is moved there first.
    pub(super) other: Option<ShardId>,
    pub(super) reason: String,
}

/// A replica that was put on another node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    pub(super) at: Duration,
    /// To spread load; else to be merged, or since its node is drained.
    pub(super) by_load: bool,
    pub(super) shard: ShardId,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
}

/// How it was when nodes reported.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Duration,
    /// Bytes a second of the first topic, what its shards have room for, and how many it has for itself.
    pub(super) load: u64,
    pub(super) capacity: u64,
    pub(super) shards: usize,
    /// Bytes a second that each node takes in and sends out.
    pub(super) nodes: BTreeMap<NodeId, u64>,
}

/// See the head of the file.
pub(super) struct World {
    pub(super) balanced: Balanced,
    pub(super) at: Duration,
    /// The shard that was split off by hand, and its nodes.
    pub(super) by_hand: (ShardId, Vec<NodeId>),
    topics: usize,
    load: Load,
    /// The load of each partition of each topic, as of the last report.
    loads: Vec<Vec<f64>>,
    interval: Duration,
    reports_at: Duration,
    moving_since: BTreeMap<ShardId, Duration>,
    placed: BTreeMap<ShardId, Vec<NodeId>>,
    uncovered_since: Option<Duration>,
    pub(super) uncovered_longest: Duration,
    pub(super) steps: Vec<Step>,
    pub(super) moved: Vec<Moved>,
    /// The same of leaderships that were given away.
    pub(super) led: Vec<Moved>,
    pub(super) samples: Vec<Sample>,
}

/// A number from 0 to 1 that belongs to these.
pub(super) fn hashed(of: [u64; 2]) -> f64 {
    let mixed = of.into_iter().fold(0x9e37_79b9_7f4a_7c15_u64, |known, next| {
        let mixed = (known ^ next).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb).rotate_left(31)
    });
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

/// The part of a topic's load that one of its partitions has, if none is hot: a half to one and a half of the mean.
pub(super) fn part(index: i32) -> f64 {
    (0.5 + hashed([7, u64::from(index.unsigned_abs())])) / f64::from(PARTITIONS)
}

fn id(topic: usize) -> Uuid {
    Uuid::from_u128(1 + topic as u128)
}

impl World {
    /// With so many on-demand topics; `interval`: between reports while nothing happens.
    pub(super) fn new(topics: usize, interval: Duration, load: Load) -> Self {
        let record = |id: i32| node(id, Some(&format!("zone-{}", (id - 1) % 3 + 1)), &[100]);
        let mut partitions = vec![usize::try_from(PARTITIONS).unwrap(); topics];
        partitions.extend([STEADY.0, 8]);
        let mut machine = world_of((1..=6).map(record).collect(), 4, &partitions);
        for topic in 0..topics {
            configure(&mut machine, topic, "ottla.shard.bytes.per.second", &ROOM.to_string()).unwrap();
            configure(&mut machine, topic, "ottla.shard.mode", "on-demand").unwrap();
        }
        let by_hand = machine.image().topic_by_id(&id(topics + 1)).unwrap().route(0).unwrap().shard;
        let split = splits::split(machine.image(), by_hand, &[(id(topics + 1), 0)]).unwrap();
        apply(&mut machine, &[split]);
        settle(&mut machine);
        let by_hand = machine.image().topic_by_id(&id(topics + 1)).unwrap().route(0).unwrap().shard;
        let nodes = machine.image().shard(by_hand).unwrap().replicas.iter().map(|replica| replica.node).collect();
        let mut balanced = Balanced::new(machine);
        balanced
            .partitions
            .extend((0..).take(STEADY.0).map(|index| (PartitionId { topic: id(topics), index }, STEADY.1)));
        let mut world = Self {
            balanced,
            by_hand: (by_hand, nodes),
            topics,
            load,
            loads: Vec::new(),
            interval,
            at: Duration::ZERO,
            reports_at: Duration::ZERO,
            uncovered_since: None,
            uncovered_longest: Duration::ZERO,
            moving_since: BTreeMap::new(),
            placed: BTreeMap::new(),
            steps: Vec::new(),
            moved: Vec::new(),
            led: Vec::new(),
            samples: Vec::new(),
        };
        world.note_placement();
        world
    }

    pub(super) fn image(&self) -> &crate::metadata::image::MetadataImage {
        self.balanced.machine.image()
    }

    pub(super) fn join(&mut self, number: i32, zone: &str) {
        let record = NodeRecord { levels: crate::levels::Levels::OWN, ..node(number, Some(zone), &[100]) };
        let up = Command::SetNodeLiveness { node: record.id, liveness: Liveness { fenced: None, since_ms: 1 } };
        apply(&mut self.balanced.machine, &[Command::RegisterNode(record), up]);
        self.reports_at = self.at;
    }

    /// The nodes of a zone are down, or up again.
    pub(super) fn fence(&mut self, zone: &str, down: bool) {
        let of_zone = self.image().nodes.values().filter(|record| record.rack.as_deref() == Some(zone));
        let nodes: Vec<NodeId> = of_zone.map(|record| record.id).collect();
        for node in nodes {
            let liveness = Liveness { fenced: down.then_some(FenceReason::SessionExpired), since_ms: 1 };
            apply(&mut self.balanced.machine, &[Command::SetNodeLiveness { node, liveness }]);
        }
        self.reports_at = self.at;
    }

    /// An operator drains a zone, or takes that back.
    pub(super) fn drain(&mut self, zone: &str, drain: bool) {
        let request = ControllerRequest::Drain { nodes: Nodes::Zone(zone.to_owned()), drain };
        submit(&mut self.balanced.machine, &request).unwrap();
        self.reports_at = self.at;
    }

    /// How many replicas a node has.
    pub(super) fn held(&self, node: NodeId) -> usize {
        self.placed.values().filter(|nodes| nodes.contains(&node)).count()
    }

    /// The shards that the topic has for itself.
    pub(super) fn own(&self, topic: usize) -> BTreeSet<ShardId> {
        shards(&self.balanced.machine, topic).0
    }

    /// Time passes until then.
    pub(super) fn run_until(&mut self, end: Duration) {
        while self.at < end {
            if self.at >= self.reports_at {
                self.report();
            }
            let is_active = self.round();
            let moves_end = self.moving_since.values().map(|since| *since + MOVE_TAKES).min();
            let next = match is_active {
                true => self.at + STEP_TAKES,
                false => moves_end.unwrap_or(end).min(self.reports_at),
            };
            let next = next.max(self.at + STEP_TAKES).min(end);
            self.balanced.pass(next - self.at);
            self.at = next;
        }
    }

    fn report(&mut self) {
        let mut moves_on = false;
        let load = |topic| (0..PARTITIONS).map(|index| (self.load)(self.at, topic, index)).collect();
        self.loads = (0..self.topics).map(load).collect();
        for (topic, loads) in self.loads.iter().enumerate() {
            let total: f64 = loads.iter().sum();
            for (index, load) in (0..).zip(loads) {
                let is_quiet = |at: Duration| ((self.load)(at, topic, index) - load).abs() <= total / 500.0;
                let is_still = || is_quiet(self.at.saturating_sub(QUIET)) && is_quiet(self.at + self.interval);
                moves_on = moves_on || !is_still();
                let noise = hashed([self.at.as_secs() / 2, (topic * 64) as u64 + u64::from(index.unsigned_abs())]);
                let bytes = (load * (0.9 + 0.2 * noise)) as u64;
                self.balanced.partitions.insert(PartitionId { topic: id(topic), index }, bytes);
            }
        }
        let recent = self.steps.last().is_some_and(|step| self.at - step.at < QUIET);
        let is_busy = moves_on || recent || !self.moving_since.is_empty();
        self.reports_at = self.at + if is_busy { REPORT_INTERVAL } else { self.interval };
        self.balanced.report_now();
        self.sample();
    }

    /// Carries out what is recorded, and records what is due; true if there was anything.
    fn round(&mut self) -> bool {
        let before = self.image().index;
        carry_out_resizes(&mut self.balanced.machine);
        let is_over = |shard| self.moving_since.get(&shard).is_none_or(|since| self.at >= *since + MOVE_TAKES);
        finish_moves(&mut self.balanced.machine, is_over);
        if moves::due(self.image()).is_empty() {
            for action in self.balanced.due_now() {
                self.take(action);
            }
        } else {
            submit(&mut self.balanced.machine, &ControllerRequest::Balance).unwrap();
        }
        let is_active = self.image().index != before;
        if is_active {
            self.note_placement();
        }
        self.check_cover();
        is_active
    }

    fn take(&mut self, action: Action) {
        let kind = match &action.change {
            Change::Split { .. } => Kind::Split,
            Change::Merge { .. } => Kind::Merge,
            Change::Replicas { shard, nodes, .. } => {
                let before = &self.placed[shard];
                if nodes[0] != before[0] {
                    let (from, to) = (before[0], nodes[0]);
                    self.led.push(Moved { at: self.at, by_load: true, shard: *shard, from, to });
                }
                let stay = nodes.iter().all(|node| before.contains(node));
                if stay { Kind::Election } else { Kind::Move }
            }
        };
        let (shard, next) = (action.change.shard(), ShardId(self.image().next_shard_id));
        self.balanced.take(&action);
        let survivor = self.image().shard(shard).and_then(|record| Some(record.merge.as_ref()?.survivor));
        let other = if kind == Kind::Split { Some(next) } else { survivor };
        self.steps.push(Step { at: self.at, kind, shard, other, reason: action.reason });
    }

    /// Compares where replicas are with where they were, and that no more is under way than may be.
    fn note_placement(&mut self) {
        let image = self.balanced.machine.image();
        let moving = image.shards.values().filter(|record| record.is_moving()).map(|record| record.id);
        let (at, since) = (self.at, std::mem::take(&mut self.moving_since));
        self.moving_since = moving.map(|shard| (shard, since.get(&shard).copied().unwrap_or(at))).collect();
        let resizing = image.open_splits().count() + image.open_merges().count();
        assert!(self.moving_since.len() <= AT_A_TIME, "{} shards are moved at {at:?}", self.moving_since.len());
        assert!(resizing <= AT_A_TIME, "{resizing} shards are split or merged at {at:?}");
        let nodes =
            |replicas: &[crate::metadata::image::ReplicaRecord]| replicas.iter().map(|replica| replica.node).collect();
        let placed: BTreeMap<ShardId, Vec<NodeId>> =
            image.shards.values().map(|record| (record.id, nodes(&record.replicas))).collect();
        for (shard, nodes) in &placed {
            let Some(before) = self.placed.get(shard) else { continue };
            let to = nodes.iter().filter(|node| !before.contains(node));
            let from = before.iter().filter(|node| !nodes.contains(node));
            let last = self.steps.iter().rev().find(|step| step.shard == *shard);
            let by_load = last.is_some_and(|step| step.at == at && step.kind == Kind::Move);
            self.moved.extend(from.zip(to).map(|(from, to)| Moved {
                at,
                by_load,
                shard: *shard,
                from: *from,
                to: *to,
            }));
        }
        self.placed = placed;
    }

    /// Bytes a second in each shard of an on-demand topic, and what there may be: half of what it has room for, an eighth of that in
    /// a shard of other topics. A partition alone in its shard has all that there is.
    fn covers(&self, topic: usize) -> Vec<(f64, f64)> {
        let image = self.image();
        let record = image.topic_by_id(&id(topic)).unwrap();
        let own = self.own(topic);
        let mut loads: BTreeMap<ShardId, (f64, usize)> = BTreeMap::new();
        for (load, route) in self.loads[topic].iter().zip(record.partitions.iter()) {
            let (bytes, count) = loads.entry(route.shard).or_default();
            *bytes += load;
            *count += 1;
        }
        let room = ROOM as f64;
        let of = |(shard, (bytes, count)): (ShardId, (f64, usize))| match (own.contains(&shard), count) {
            (true, 1) => (bytes, bytes.max(room / 2.0)),
            (true, _) => (bytes, room / 2.0),
            (false, _) => (bytes, room / 8.0),
        };
        loads.into_iter().map(of).collect()
    }

    /// For how long a shard has more to do than it has room for.
    fn check_cover(&mut self) {
        let is_covered = (0..self.topics).all(|topic| self.covers(topic).iter().all(|(load, room)| load <= room));
        self.uncovered_since = if is_covered { None } else { self.uncovered_since.or(Some(self.at)) };
        let lasts = self.uncovered_since.map_or(Duration::ZERO, |since| self.at - since);
        self.uncovered_longest = self.uncovered_longest.max(lasts);
    }

    /// What each node takes in and sends out now.
    pub(super) fn node_bytes(&self) -> BTreeMap<NodeId, u64> {
        let image = self.image();
        let up = image.nodes.values().filter(|record| !record.is_fenced());
        let mut bytes: BTreeMap<NodeId, u64> = up.map(|record| (record.id, 0)).collect();
        for (shard, load) in self.balanced.shard_loads() {
            let Some(record) = image.shard(shard) else { continue };
            let leader = self.balanced.leader(record);
            let up: Vec<NodeId> =
                record.replicas.iter().map(|replica| replica.node).filter(|node| bytes.contains_key(node)).collect();
            for node in &up {
                let times = if Some(*node) == leader { up.len() as u64 } else { 1 };
                *bytes.entry(*node).or_default() += times * load.bytes_in;
            }
        }
        bytes
    }

    fn sample(&mut self) {
        let covers = self.covers(0);
        let load: f64 = covers.iter().map(|(load, _)| load).sum();
        let capacity: f64 = covers.iter().map(|(_, room)| room).sum();
        let (load, capacity) = (load as u64, capacity as u64);
        self.samples.push(Sample { at: self.at, load, capacity, shards: self.own(0).len(), nodes: self.node_bytes() });
    }
}
