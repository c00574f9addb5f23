//! Load spread over nodes: carried out step by step until nothing is due, the cluster is even, and it stays so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ottla_env::rt::{self, Instant};
use ottla_protocol::ids::{NodeId, PartitionId};
use ottla_storage::ids::ReplicaId;
use proptest::prelude::*;
use uuid::Uuid;

use super::moves::{founded, submit, zones};
use super::placement::{apply, node};
use super::topic_shards;
use crate::levels::Levels;
use crate::metadata::action::Step;
use crate::metadata::balance::{Action, BalanceState, Change, DirectorySpace, Load, LoadReport, NodeShare};
use crate::metadata::clock::Clock;
use crate::metadata::command::{Command, NewShard};
use crate::metadata::decide::{ControllerRequest, decide};
use crate::metadata::image::{NodeRecord, NodeState, ReplicaRecord, ShardId, ShardKind, ShardRecord};
use crate::metadata::requests::{ConfigChange, ConfigOp, ConfigOwner};
use crate::metadata::state_machine::MetadataStateMachine;

const MEGABYTE: u64 = 1_000_000;
const STEPS_MAX: usize = 200;

/// A cluster, what its shards have to do, and its balancer.
pub(super) struct Balanced {
    pub(super) machine: MetadataStateMachine,
    state: BalanceState,
    loads: BTreeMap<ShardId, Load>,
    /// Bytes a second that producers send to partitions: their shards have these beside `loads`.
    pub(super) partitions: BTreeMap<PartitionId, u64>,
    free_percent: BTreeMap<NodeId, u64>,
    now: Instant,
}

impl Balanced {
    pub(super) fn new(machine: MetadataStateMachine) -> Self {
        let state = BalanceState::default();
        let (loads, partitions, free_percent) = Default::default();
        Self { machine, state, loads, partitions, free_percent, now: rt::now() }
    }

    /// The wall clock began with the monotonic one.
    fn clock(&self) -> Clock {
        Clock { now: self.now, wall_ms: self.now.0 / 1_000_000 + 1 }
    }

    /// Time passes.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Every node reports, long enough after the last time for averages to follow and for shards to have rested.
    pub(super) fn report(&mut self) {
        self.pass(Duration::from_secs(300));
        self.report_now();
    }

    /// The shard of each partition that has something to do.
    fn routes(&self) -> impl Iterator<Item = (PartitionId, ShardId, u64)> {
        let image = self.machine.image();
        self.partitions.iter().filter_map(|(partition, bytes)| {
            let shard = image.topic_by_id(&partition.topic)?.route(partition.index)?.shard;
            Some((*partition, shard, *bytes))
        })
    }

    /// What each shard takes in and sends out.
    pub(super) fn shard_loads(&self) -> BTreeMap<ShardId, Load> {
        let mut loads = self.loads.clone();
        for (_, shard, bytes) in self.routes() {
            loads.entry(shard).or_default().bytes_in += bytes;
        }
        loads
    }

    /// The node that leads a shard: the preferred one, unless that is down.
    pub(super) fn leader(&self, shard: &ShardRecord) -> Option<NodeId> {
        let image = self.machine.image();
        let preferred = image.preferred_leader(shard).into_iter().chain(&shard.replicas);
        preferred.map(|replica| replica.node).find(|node| !image.is_fenced(*node))
    }

    /// Every node that is up reports.
    pub(super) fn report_now(&mut self) {
        let image = self.machine.image().clone();
        let mut reports: BTreeMap<NodeId, LoadReport> = BTreeMap::new();
        for record in image.nodes.values().filter(|record| !record.is_fenced()) {
            let free_bytes = self.free_percent.get(&record.id).copied().unwrap_or(50);
            let space = |id: Uuid| DirectorySpace { id, free_bytes, total_bytes: 100 };
            let directories = record.directories.iter().map(|directory| space(directory.id)).collect();
            let (shards, partitions) = (Vec::new(), Vec::new());
            let report = LoadReport { node: record.id, epoch: record.epoch, shards, directories, partitions };
            reports.insert(record.id, report);
        }
        let leader = |shard: &ShardId| self.leader(image.shard(*shard)?);
        for (shard, load) in self.shard_loads() {
            let report = leader(&shard).and_then(|node| reports.get_mut(&node));
            report.into_iter().for_each(|report| report.shards.push((shard, load)));
        }
        for (partition, shard, bytes_in) in self.routes() {
            let report = leader(&shard).and_then(|node| reports.get_mut(&node));
            let load = Load { bytes_in, bytes_out: 0 };
            report.into_iter().for_each(|report| report.partitions.push((partition, load)));
        }
        let clock = self.clock();
        for report in reports.into_values() {
            self.state.report(report, 1, &image, &clock);
        }
    }

    fn due(&mut self) -> Vec<Action> {
        self.report();
        self.due_now()
    }

    /// The steps that are due, as far as is known from the reports.
    pub(super) fn due_now(&mut self) -> Vec<Action> {
        let clock = self.clock();
        self.state.due(1, self.machine.image(), &clock)
    }

    /// Takes a step: what it is for is recorded.
    pub(super) fn take(&mut self, action: &Action) {
        let shard = action.change.shard();
        let image = self.machine.image().clone();
        let before = image.shards[&shard].as_ref().clone();
        let step = Step { action: action.clone(), at_ms: self.clock().wall_ms };
        submit(&mut self.machine, &ControllerRequest::Rebalance(step)).unwrap();
        let after = self.machine.image().shards[&shard].clone();
        assert!(zones(self.machine.image(), &after) >= zones(self.machine.image(), &before), "{}", action.reason);
        let clock = self.clock();
        self.state.done(action, &image, &clock);
    }

    /// Takes every step, and returns them.
    pub(super) fn run(&mut self) -> Vec<Action> {
        let mut steps = Vec::new();
        loop {
            let due = self.due();
            if due.is_empty() {
                return steps;
            }
            for action in due {
                self.take(&action);
                steps.push(action);
            }
            topic_shards::settle(&mut self.machine);
            assert!(steps.len() < STEPS_MAX, "it never ends: {:?}", steps.last());
        }
    }

    pub(super) fn shares(&mut self) -> Vec<NodeShare> {
        let clock = self.clock();
        self.state.status(1, self.machine.image(), &clock, false).shares
    }

    fn range(&mut self, share: impl Fn(&NodeShare) -> u64) -> (u64, u64) {
        let of: Vec<_> = self.shares().iter().map(share).collect();
        (*of.iter().min().unwrap(), *of.iter().max().unwrap())
    }
}

fn load(megabytes: u64) -> Load {
    Load { bytes_in: megabytes * MEGABYTE, bytes_out: megabytes * MEGABYTE }
}

/// The nodes on which a step puts replicas.
fn nodes_of(step: &Action) -> &[NodeId] {
    match &step.change {
        Change::Replicas { nodes, .. } => nodes,
        other => panic!("{other:?}"),
    }
}

/// Adds a shard on these nodes.
fn add_shard(machine: &mut MetadataStateMachine, number: u64, pinned: bool, nodes: &[i32]) -> ShardId {
    let directory = |id: i32| Uuid::from_u128(u128::from(id.unsigned_abs()) * 100 + 1);
    let replica = |(at, id): (u64, &i32)| ReplicaRecord {
        id: ReplicaId(number * 10 + at),
        node: NodeId(*id),
        directory: directory(*id),
    };
    let kind = ShardKind::Pool { factor: i16::try_from(nodes.len()).unwrap(), pinned };
    let replicas = (0..).zip(nodes).map(replica).collect();
    apply(machine, &[Command::AddShard(NewShard { id: ShardId(number), kind, replicas })]);
    ShardId(number)
}

/// The shards that the node is to lead.
fn led_by(balanced: &Balanced, node: i32) -> Vec<ShardId> {
    let image = balanced.machine.image();
    let carrying = image.shards.values().filter(|shard| shard.kind != ShardKind::Metadata);
    carrying.filter(|shard| shard.replicas[0].node == NodeId(node)).map(|shard| shard.id).collect()
}

#[test]
fn nodes_that_join_get_their_share() {
    let mut balanced = Balanced::new(founded(3, 1));
    assert_eq!(balanced.run(), [], "a new cluster is even");
    for id in [4, 5] {
        apply(&mut balanced.machine, &[Command::RegisterNode(node(id, Some("z0"), &[100]))]);
    }
    let replicas = balanced.shares().iter().map(|share| share.replicas).sum::<u64>();
    let steps = balanced.run();
    let ((least, most), (least_led, most_led)) =
        (balanced.range(|share| share.replicas), balanced.range(|share| share.leads));
    assert!(most - least <= 1 && most_led - least_led <= 1, "{:?}", balanced.shares());
    let moves = steps.iter().filter(|step| step.reason.starts_with("a replica")).count() as u64;
    assert!(moves <= replicas * 2 / 5 + 1, "{moves} of {replicas} replicas were moved");
}

#[test]
fn a_hot_node_gives_leaderships_away_before_replicas() {
    let mut balanced = Balanced::new(founded(3, 1));
    let hot = led_by(&balanced, 1);
    balanced.loads = hot.iter().map(|shard| (*shard, load(50))).collect();
    balanced.report();
    let before = balanced.range(|share| share.bytes);
    let steps = balanced.run();
    assert!(!steps.is_empty() && steps.iter().all(|step| step.reason.contains("is led by")), "{steps:?}");
    let after = balanced.range(|share| share.bytes);
    assert!(after.1 < before.1 && after.0 > before.0, "{before:?} {after:?}");
}

#[test]
fn with_more_nodes_than_replicas_a_hot_node_gives_replicas_away() {
    let mut balanced = Balanced::new(founded(6, 3));
    let on_first = |shard: &ShardId| {
        let record = &balanced.machine.image().shards[shard];
        record.kind != ShardKind::Metadata && record.replicas.iter().any(|replica| replica.node == NodeId(1))
    };
    let hot: Vec<_> = balanced.machine.image().shards.keys().copied().filter(on_first).collect();
    balanced.loads = hot.iter().map(|shard| (*shard, load(30))).collect();
    balanced.report();
    let before = balanced.range(|share| share.bytes);
    assert!(balanced.run().iter().any(|step| step.reason.starts_with("a replica")));
    let after = balanced.range(|share| share.bytes);
    assert!(after.1 - after.0 < (before.1 - before.0) / 2, "{before:?} {after:?}");
}

#[test]
fn one_hot_shard_and_load_that_varies_move_nothing_for_long() {
    let mut machine = founded(3, 1);
    for at in 0..60_u64 {
        let mut nodes = [1, 2, 3];
        nodes.rotate_left(usize::try_from(at % 3).unwrap());
        add_shard(&mut machine, 900 + at, false, &nodes);
    }
    let mut balanced = Balanced::new(machine);
    let all: Vec<_> = (1..=3).flat_map(|node| led_by(&balanced, node)).collect();
    for round in 0..20_u64 {
        let varying = |(at, shard): (u64, &ShardId)| (*shard, load(50 + (at * at * 7 + round * 13 * at) % 101));
        balanced.loads = (0..).zip(&all).map(varying).collect();
        assert_eq!(balanced.run(), [], "load that varies");
    }
    balanced.loads = BTreeMap::from([(all[0], load(500))]);
    let steps = balanced.run();
    assert!(steps.len() <= all.len(), "the others leave its node: {steps:?}");
    assert!(steps.iter().all(|step| step.change.shard() != all[0]), "elsewhere it would be as hot");
}

#[test]
fn nothing_is_done_before_all_nodes_have_reported_and_where_it_is_disabled_only_what_was_asked_for() {
    let mut balanced = Balanced::new(founded(3, 1));
    apply(&mut balanced.machine, &[Command::RegisterNode(node(4, Some("z0"), &[100]))]);
    let image = balanced.machine.image().clone();
    let clock = balanced.clock();
    assert_eq!(balanced.state.due(1, &image, &clock), []);
    assert!(!balanced.due().is_empty());
    let clock = balanced.clock();
    assert_eq!(balanced.state.due(2, &image, &clock), [], "another controller knows nothing");

    let ops = vec![("ottla.balance.enable".to_owned(), ConfigOp::Set("false".to_owned()))];
    let change = ConfigChange { owner: ConfigOwner::AllNodes, ops, replace: false };
    submit(&mut balanced.machine, &ControllerRequest::ChangeConfig(change)).unwrap();
    assert_eq!(balanced.due(), []);
    let clock = balanced.clock();
    let status = balanced.state.status(1, balanced.machine.image(), &clock, true);
    assert!(!status.enabled && !status.plan.is_empty() && status.applying == status.plan);
    let steps = balanced.run();
    assert_eq!(steps, status.plan, "the plan as it was shown");
    assert_eq!(balanced.due(), []);
}

/// Another controller does not bring back what has just left, and shows what was done.
#[test]
fn what_was_done_and_why_outlives_the_controller() {
    let mut balanced = Balanced::new(founded(3, 1));
    let nodes: Vec<_> = balanced.machine.image().nodes.values().cloned().collect();
    let understands = |node| Command::RegisterNode(NodeRecord { levels: Levels::OWN, ..node });
    let nodes = nodes.into_iter().chain([node(4, Some("z0"), &[100])]).map(understands);
    let level = Command::SetFeatureLevel { level: Levels::OWN.newest };
    apply(&mut balanced.machine, &nodes.chain([level]).collect::<Vec<_>>());
    let steps = balanced.run();
    assert!(!steps.is_empty());
    let (image, clock) = (balanced.machine.image().clone(), balanced.clock());
    let told = |state: &mut BalanceState, term| state.status(term, &image, &clock, false).history;
    let before = told(&mut balanced.state, 1);
    assert_eq!(before.iter().map(|done| &done.action).collect::<Vec<_>>(), steps.iter().collect::<Vec<_>>());
    let mut another = BalanceState::default();
    assert_eq!(told(&mut another, 2), before);
    assert_eq!(another.recent(clock.now), balanced.state.recent(clock.now), "the same rests and stays away");
    assert!(!another.recent(clock.now).left.is_empty());

    // A step that was planned before the level was raised has no time, and is not recorded.
    let shard = *balanced.machine.image().shards.keys().find(|shard| **shard != ShardId::METADATA).unwrap();
    let record = balanced.machine.image().shards[&shard].clone();
    let before = record.replicas.iter().map(|replica| replica.id).collect();
    let nodes = record.nodes().into_iter().rev().collect();
    let action = Action { change: Change::Replicas { shard, before, nodes }, reason: "undated".to_owned() };
    let kept = balanced.machine.image().actions.len();
    submit(&mut balanced.machine, &ControllerRequest::Rebalance(Step { action, at_ms: 0 })).unwrap();
    assert_eq!(balanced.machine.image().actions.len(), kept);
}

#[test]
fn what_was_assigned_by_hand_stays() {
    let mut machine = founded(3, 1);
    let by_hand: Vec<_> = (0..9).map(|at| add_shard(&mut machine, 900 + at, true, &[1])).collect();
    let mut balanced = Balanced::new(machine);
    let moved: BTreeSet<_> = balanced.run().iter().map(|step| step.change.shard()).collect();
    assert!(by_hand.iter().all(|shard| !moved.contains(shard)));
}

#[test]
fn replicas_leave_a_disk_that_is_nearly_full_for_one_that_has_space() {
    let mut balanced = Balanced::new(founded(5, 1));
    balanced.free_percent = BTreeMap::from([(NodeId(1), 4), (NodeId(2), 8)]);
    let step = balanced.due().remove(0);
    assert!(
        step.reason.contains("whose disk has 4 % free") && !nodes_of(&step).contains(&NodeId(1)),
        "{}",
        step.reason
    );
    let before: BTreeSet<_> = balanced.machine.image().shards[&step.change.shard()].nodes().into_iter().collect();
    assert!(nodes_of(&step).iter().filter(|node| !before.contains(node)).all(|node| *node != NodeId(2)));
}

#[test]
fn a_step_is_void_when_the_shard_has_changed() {
    let mut balanced = Balanced::new(founded(3, 1));
    apply(&mut balanced.machine, &[Command::RegisterNode(node(4, Some("z0"), &[100]))]);
    let step = balanced.due().into_iter().find(|step| step.reason.starts_with("a replica")).unwrap();
    let request = ControllerRequest::Rebalance(Step { action: step, at_ms: 0 });
    submit(&mut balanced.machine, &request).unwrap();
    assert!(decide(balanced.machine.image(), &request).is_err(), "it is being moved");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_ends_and_changes_nothing_more(
        nodes in 1_i32..8,
        zones in 1_i32..4,
        joining in 0_i32..3,
        drained in proptest::option::of(1_i32..8),
        megabytes in proptest::collection::vec(0_u64..200, 30),
    ) {
        let mut balanced = Balanced::new(founded(nodes, zones));
        for id in nodes + 1..=nodes + joining {
            apply(&mut balanced.machine, &[Command::RegisterNode(node(id, Some(&format!("z{}", id % zones)), &[100]))]);
        }
        let shards: Vec<_> = balanced.machine.image().shards.keys().copied().collect();
        balanced.loads = shards.iter().zip(&megabytes).map(|(shard, load_in)| (*shard, load(*load_in))).collect();
        if let Some(id) = drained.filter(|id| *id <= nodes) {
            apply(&mut balanced.machine, &[Command::SetNodeState { node: NodeId(id), state: NodeState::Draining }]);
        }
        for step in balanced.run() {
            let image = balanced.machine.image();
            prop_assert!(nodes_of(&step).iter().all(|node| image.nodes.contains_key(node)));
        }
        prop_assert_eq!(balanced.run(), []);
    }
}
