//! The metadata image against a model of plain maps that are written from the rules: ids are never reused, names and
//! ids are taken or free, and a partition has an open intent until its shard has reported the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_model::{Random, lives};
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use crate::config::Config;
use crate::levels::{FeatureLevel, Levels};
use crate::metadata::action::ActionRecord;
use crate::metadata::command::{Command, IntentEnd, NewShard, encode};
use crate::metadata::image::{
    Intent, IntentKey, IntentKind, MetadataImage, NodeRecord, NodeState, PartitionRoute, ReplicaRecord, ShardId,
    ShardKind,
};
use crate::metadata::liveness::{FenceReason, Liveness};
use crate::metadata::state_machine::{MetadataStateMachine, Outcome, Refusal};
use crate::metadata::tests::placement::node;

type Values = BTreeMap<String, String>;

#[derive(Default)]
struct Topic {
    name: String,
    overrides: Values,
    /// Shard and intent of each partition.
    partitions: Vec<(u64, u64)>,
}

#[derive(Default)]
struct Model {
    cluster_id: Option<String>,
    nodes: BTreeMap<i32, NodeRecord>,
    shards: BTreeMap<u64, (NewShard, u64)>,
    leaving: BTreeMap<u64, Vec<ReplicaRecord>>,
    adding: BTreeMap<u64, BTreeSet<ReplicaId>>,
    topics: BTreeMap<Uuid, Topic>,
    /// The intents that each shard has not reported as ended: the partitions to adopt or to drop, by shard, index and
    /// topic.
    intents: BTreeMap<(u64, u64, Uuid), (IntentKind, BTreeSet<i32>)>,
    configs: BTreeMap<Option<i32>, Values>,
    group_configs: BTreeMap<String, Values>,
    client_metrics: BTreeMap<String, Values>,
    actions: Vec<ActionRecord>,
    producer_ids: i64,
    shard_ids_given: BTreeSet<u64>,
    replica_ids_given: BTreeSet<u64>,
}

/// What has no values is not there.
fn put(configs: &mut BTreeMap<String, Values>, name: &str, values: &Values) {
    configs.insert(name.to_owned(), values.clone());
    configs.retain(|_, values| !values.is_empty());
}

fn refused(because: Refusal) -> Result<(), Refusal> {
    Err(because)
}

impl Model {
    fn add_shard(&mut self, index: u64, shard: &NewShard) -> Result<(), Refusal> {
        let id = shard.id.0;
        let newest_shard = self.shard_ids_given.last().copied().unwrap_or(0);
        if self.shards.contains_key(&id) || (id != 0 && id <= newest_shard) {
            return refused(Refusal::Shard);
        }
        let newest_replica = self.replica_ids_given.last().copied().unwrap_or(0);
        let ids: BTreeSet<u64> = shard.replicas.iter().map(|replica| replica.id.0).collect();
        let all_new = ids.iter().all(|id| *id > newest_replica);
        if ids.is_empty() || ids.len() < shard.replicas.len() || !all_new {
            return refused(Refusal::ReplicaId);
        }
        // The metadata group's first voters may be known before their nodes.
        if id != 0 && !shard.replicas.iter().all(|replica| self.nodes.contains_key(&replica.node.0)) {
            return refused(Refusal::NoSuchNode);
        }
        self.replica_ids_given.extend(ids);
        self.shard_ids_given.insert(id);
        self.shards.insert(id, (shard.clone(), index));
        Ok(())
    }

    fn set_replicas(&mut self, id: u64, before: &[ReplicaId], replicas: &[ReplicaRecord]) -> Result<(), Refusal> {
        let (shard, _) = self.shards.get_mut(&id).ok_or(Refusal::Shard)?;
        let had: Vec<ReplicaId> = shard.replicas.iter().map(|replica| replica.id).collect();
        if had != before {
            return refused(Refusal::Replicas);
        }
        let leaving = self.leaving.entry(id).or_default();
        let stays = |replica: &ReplicaRecord| shard.replicas.contains(replica) || leaving.contains(replica);
        let new: Vec<_> = replicas.iter().filter(|replica| !stays(replica)).collect();
        let ids: BTreeSet<_> = replicas.iter().map(|replica| replica.id).collect();
        let newest = self.replica_ids_given.last().copied().unwrap_or(0);
        if replicas.is_empty() || ids.len() < replicas.len() || new.iter().any(|replica| replica.id.0 <= newest) {
            return refused(Refusal::ReplicaId);
        }
        if !new.iter().all(|replica| self.nodes.contains_key(&replica.node.0)) {
            return refused(Refusal::NoSuchNode);
        }
        self.replica_ids_given.extend(new.iter().map(|replica| replica.id.0));
        let adding = self.adding.entry(id).or_default();
        adding.extend(new.iter().map(|replica| replica.id));
        adding.retain(|replica| ids.contains(replica));
        if let ShardKind::Pool { factor, pinned } = &mut shard.kind
            && *factor != i16::try_from(replicas.len()).unwrap()
        {
            (*factor, *pinned) = (i16::try_from(replicas.len()).unwrap(), true);
        }
        let members = shard.replicas.iter().chain(leaving.iter());
        *leaving = members.filter(|replica| !ids.contains(&replica.id)).copied().collect();
        shard.replicas = replicas.to_vec();
        Ok(())
    }

    fn may_carry(&self, shards: &[ShardId]) -> bool {
        !shards.is_empty() && shards.iter().all(|shard| shard.0 != 0 && self.shards.contains_key(&shard.0))
    }

    /// Partition by partition: its shard is to carry it, or to drop it.
    fn intend(&mut self, kind: IntentKind, index: u64, topic: Uuid, number: usize, shard: u64) {
        let intent = self.intents.entry((shard, index, topic)).or_insert((kind, BTreeSet::new()));
        if intent.0 != kind {
            // A partition that was to be adopted is to be dropped at once.
            *intent = (kind, BTreeSet::new());
        }
        intent.1.insert(i32::try_from(number).unwrap());
    }

    fn append_partitions(&mut self, index: u64, topic: Uuid, shards: &[ShardId]) {
        for shard in shards {
            let partitions = &mut self.topics.get_mut(&topic).unwrap().partitions;
            partitions.push((shard.0, index));
            let number = partitions.len() - 1;
            self.intend(IntentKind::Adopt, index, topic, number, shard.0);
        }
    }

    fn set_broker_config(&mut self, node: Option<NodeId>, values: &Values) -> Result<(), Refusal> {
        if node.is_some_and(|node| !self.nodes.contains_key(&node.0)) {
            return refused(Refusal::NoSuchNode);
        }
        self.configs.insert(node.map(|node| node.0), values.clone());
        self.configs.retain(|_, values| !values.is_empty());
        Ok(())
    }

    fn change(&mut self, index: u64, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::Bootstrap { cluster_id } => match &self.cluster_id {
                Some(_) => return refused(Refusal::AlreadyBootstrapped),
                None => self.cluster_id = Some(cluster_id.clone()),
            },
            Command::RegisterNode(node) => self.register_node(index, node),
            Command::SetFeatureLevel { level } => {
                if level.0 < 1 || self.nodes.values().any(|node| level.0 < node.levels.oldest.0) {
                    return refused(Refusal::FeatureLevel);
                }
            }
            Command::AddShard(shard) => return self.add_shard(index, shard),
            Command::CreateTopic { name, id, overrides, shards, .. } => {
                if id.is_nil() || self.topics.iter().any(|(known, topic)| known == id || topic.name == *name) {
                    return refused(Refusal::TopicExists);
                }
                if !self.may_carry(shards) {
                    return refused(Refusal::Shard);
                }
                let topic = Topic { name: name.clone(), overrides: overrides.clone(), partitions: Vec::new() };
                self.topics.insert(*id, topic);
                self.append_partitions(index, *id, shards);
            }
            Command::DeleteTopic { id } => {
                let topic = self.topics.remove(id).ok_or(Refusal::NoSuchTopic)?;
                for (number, (shard, _)) in topic.partitions.iter().enumerate() {
                    self.intend(IntentKind::Drop, index, *id, number, *shard);
                }
            }
            Command::AddPartitions { id, count_before, shards } => {
                let count = self.topics.get(id).ok_or(Refusal::NoSuchTopic)?.partitions.len();
                if count != *count_before as usize {
                    return refused(Refusal::PartitionCount);
                }
                if !self.may_carry(shards) {
                    return refused(Refusal::Shard);
                }
                self.append_partitions(index, *id, shards);
            }
            Command::SetTopicConfig { id, overrides } => {
                self.topics.get_mut(id).ok_or(Refusal::NoSuchTopic)?.overrides = overrides.clone();
            }
            Command::SetBrokerConfig { node, values } => return self.set_broker_config(*node, values),
            Command::SetGroupConfig { group, values } => put(&mut self.group_configs, group, values),
            Command::RecordAction(action) => self.actions.push(action.clone()),
            Command::SetClientMetrics { subscription, values } => put(&mut self.client_metrics, subscription, values),
            Command::AllocateProducerIds { .. } => {}
            Command::EndIntent { key, .. } => {
                let ended = self.intents.remove(&(key.shard.0, key.index.0, key.topic));
                return ended.map(drop).ok_or(Refusal::NoSuchIntent);
            }
            Command::SetNodeState { node, state } => {
                self.nodes.get_mut(&node.0).ok_or(Refusal::NoSuchNode)?.state = *state;
            }
            Command::SetNodeLiveness { node, liveness } => {
                self.nodes.get_mut(&node.0).ok_or(Refusal::NoSuchNode)?.liveness = *liveness;
            }
            Command::RemoveNode { node } => return self.remove_node(*node),
            Command::SetReplicas { shard, before, replicas } => return self.set_replicas(shard.0, before, replicas),
            Command::SplitShard { .. }
            | Command::EndSplit { .. }
            | Command::Merge(_)
            | Command::DropShard { .. }
            | Command::SetEpochBases { .. } => unreachable!("none is drawn"),
            Command::ForgetReplicas { shard, reached, left } => return self.forget_replicas(*shard, reached, left),
        }
        Ok(())
    }

    fn register_node(&mut self, index: u64, node: &NodeRecord) {
        let mut known = self.nodes.get(&node.id.0).cloned().unwrap_or_else(|| node.clone());
        if known.liveness.fenced.is_some() {
            known.liveness.fenced = Some(FenceReason::Starting);
        }
        let (epoch, state, liveness) = (RaftIndex(index), known.state, known.liveness);
        self.nodes.insert(node.id.0, NodeRecord { epoch, state, liveness, ..node.clone() });
    }

    fn remove_node(&mut self, node: NodeId) -> Result<(), Refusal> {
        let members = self.shards.values().flat_map(|(shard, _)| &shard.replicas);
        let mut members = members.chain(self.leaving.values().flatten());
        if self.nodes.contains_key(&node.0) && members.any(|replica| replica.node == node) {
            return refused(Refusal::Replicas);
        }
        self.nodes.remove(&node.0).ok_or(Refusal::NoSuchNode)?;
        self.configs.remove(&Some(node.0));
        Ok(())
    }

    fn forget_replicas(&mut self, shard: ShardId, reached: &[ReplicaId], left: &[ReplicaId]) -> Result<(), Refusal> {
        let (shard, _) = self.shards.get(&shard.0).ok_or(Refusal::Shard)?;
        let has: BTreeSet<_> = shard.replicas.iter().map(|replica| replica.id).collect();
        let leaving = self.leaving.entry(shard.id.0).or_default();
        let gone = leaving.iter().filter(|replica| left.contains(&replica.id)).count();
        let added = self.adding.remove(&shard.id.0).unwrap_or_default();
        if has != reached.iter().copied().collect() {
            self.adding.insert(shard.id.0, added);
            return refused(Refusal::Replicas);
        }
        if gone == 0 && added.is_empty() {
            return refused(Refusal::Replicas);
        }
        leaving.retain(|replica| !left.contains(&replica.id));
        Ok(())
    }

    fn apply(&mut self, index: u64, command: &Command) -> Outcome {
        if let Command::AllocateProducerIds { count } = command {
            let first = self.producer_ids;
            self.producer_ids += i64::from(*count);
            return Outcome::ProducerIds { first };
        }
        self.change(index, command).map_or_else(Outcome::Refused, |()| Outcome::Done)
    }

    fn check(&self, image: &MetadataImage) {
        assert_eq!(*image.cluster_id, *self.cluster_id.clone().unwrap_or_default());
        assert!(image.nodes.values().eq(self.nodes.values()));
        assert_eq!(image.next_producer_id, self.producer_ids);
        assert_eq!(image.shards.len(), self.shards.len());
        for (shard, (expected, created)) in image.shards.values().zip(self.shards.values()) {
            assert_eq!((shard.id, shard.kind, &shard.replicas), (expected.id, expected.kind, &expected.replicas));
            assert_eq!(shard.created, RaftIndex(*created));
            let adding = self.adding.get(&shard.id.0).cloned().unwrap_or_default();
            assert_eq!(shard.adding.iter().copied().collect::<BTreeSet<_>>(), adding);
            assert_eq!(shard.leaving, self.leaving.get(&shard.id.0).cloned().unwrap_or_default());
        }
        let configs = image.broker_configs.iter().map(|(node, values)| (node.map(|node| node.0), values));
        assert!(configs.eq(self.configs.iter().map(|(node, values)| (*node, values))));
        assert_eq!(*image.group_configs, self.group_configs);
        assert_eq!(*image.client_metrics, self.client_metrics);
        assert!(image.actions.values().map(|action| &**action).eq(&self.actions));
        self.check_topics(image);
        let intents: Vec<_> = image.intents.iter().map(|(key, intent)| (*key, intent.as_ref().clone())).collect();
        let expected: Vec<_> = self.intents.iter().map(expected_intent).collect();
        assert_eq!(intents, expected);
        for shard in self.shards.keys() {
            let of_shard: Vec<_> = image.intents_of(ShardId(*shard)).map(|(key, _)| *key).collect();
            let expected: Vec<_> = expected.iter().map(|(key, _)| *key).filter(|key| key.shard.0 == *shard).collect();
            assert_eq!(of_shard, expected);
        }
    }

    fn check_topics(&self, image: &MetadataImage) {
        assert_eq!((image.topics.len(), image.topics_by_id.len()), (self.topics.len(), self.topics.len()));
        let mut carried: BTreeMap<u64, u64> = BTreeMap::new();
        for ((id, expected), (by_id, topic)) in self.topics.iter().zip(image.topics_by_id.iter()) {
            assert_eq!((id, id), (by_id, &topic.id));
            assert_eq!((&*topic.name, &*topic.overrides), (&*expected.name, &expected.overrides));
            let named = image.topic(&expected.name).unwrap();
            assert!(Arc::ptr_eq(named, topic), "one topic under its name and its id");
            let route = |(shard, intent): &(u64, u64)| PartitionRoute {
                shard: ShardId(*shard),
                epoch_base: 0,
                intent: RaftIndex(*intent),
            };
            assert!(topic.partitions.iter().copied().eq(expected.partitions.iter().map(route)));
            expected.partitions.iter().for_each(|(shard, _)| *carried.entry(*shard).or_default() += 1);
            // The most specific value wins: the topic's, the node's, that of all nodes, else the default.
            let of = |values: Option<&Values>, name: &str| values.and_then(|values| values.get(name)).cloned();
            let set = of(Some(&expected.overrides), "retention.ms")
                .or_else(|| of(self.configs.get(&Some(THIS_NODE)), "log.retention.ms"))
                .or_else(|| of(self.configs.get(&None), "log.retention.ms"));
            let retention_ms = set.map_or(604_800_000, |value| value.parse().unwrap());
            assert_eq!(topic.config.retention_ms, Some(retention_ms), "retention of {}", topic.name);
        }
        let counts = image.partitions_by_shard.iter().filter(|(_, count)| **count > 0);
        assert!(counts.map(|(shard, count)| (shard.0, *count)).eq(carried));
    }
}

fn expected_intent(
    (key, (kind, partitions)): (&(u64, u64, Uuid), &(IntentKind, BTreeSet<i32>)),
) -> (IntentKey, Intent) {
    let partitions = partitions.iter().map(|number| (*number, 0)).collect();
    let key = IntentKey { shard: ShardId(key.0), index: RaftIndex(key.1), topic: key.2 };
    (key, Intent { kind: *kind, partitions })
}

const THIS_NODE: i32 = 1;

fn values(random: &mut Random, name: &str) -> Values {
    let set = random.once_in(2);
    set.then(|| (name.to_owned(), random.between(1, 99).to_string())).into_iter().collect()
}

/// A shard that is known, mostly.
fn some_shards(random: &mut Random, model: &Model) -> Vec<ShardId> {
    let known: Vec<u64> = model.shards.keys().copied().collect();
    let most = if random.once_in(10) { 0 } else { 4 };
    let one = |random: &mut Random| match random.pick(&known) {
        Some(known) if !random.once_in(20) => ShardId(*known),
        _ => ShardId(random.below(12)),
    };
    (0..random.between(i64::from(most > 0), most)).map(|_| one(random)).collect()
}

fn a_shard(random: &mut Random, model: &Model) -> NewShard {
    let newest = |given: &BTreeSet<u64>| given.last().copied().unwrap_or(0);
    let near = |random: &mut Random, newest: u64| (newest + 1 + random.below(2)) - u64::from(random.once_in(8));
    let id = near(random, newest(&model.shard_ids_given));
    let first = near(random, newest(&model.replica_ids_given));
    let replica = |random: &mut Random, number: u64| ReplicaRecord {
        id: ReplicaId(first + number * random.below(9).min(1)),
        node: NodeId(i32::try_from(random.between(1, 3)).unwrap()),
        directory: Uuid::from_u128(1),
    };
    let fewest = i64::from(!random.once_in(20));
    let count = random.between(fewest, 3).cast_unsigned();
    let kind = [ShardKind::Pool { factor: 1, pinned: false }, ShardKind::ConsumerOffsets][random.index(2)];
    NewShard { id: ShardId(id), kind, replicas: (0..count).map(|number| replica(random, number)).collect() }
}

/// Some of a shard's replicas go, some come.
fn some_replicas(random: &mut Random, model: &Model) -> Command {
    let shards: Vec<_> = model.shards.keys().copied().collect();
    let shard = if random.once_in(9) { random.below(9) } else { random.pick(&shards).copied().unwrap_or(1) };
    let mut replicas = model.shards.get(&shard).map_or(Vec::new(), |(shard, _)| shard.replicas.clone());
    let back = model.leaving.get(&shard).and_then(|leaving| random.pick(leaving)).copied();
    let mut before: Vec<_> = replicas.iter().map(|replica| replica.id).collect();
    if random.once_in(9) {
        before.pop();
    }
    replicas.retain(|_| random.once_in(2));
    replicas.extend(back.filter(|_| random.once_in(3)));
    let newest = model.replica_ids_given.last().copied().unwrap_or(0);
    for number in 0..random.below(3) {
        replicas.push(ReplicaRecord {
            id: ReplicaId((newest + 1 + number).saturating_sub(random.below(9) / 8)),
            node: NodeId(i32::try_from(random.between(1, 3)).unwrap()),
            directory: Uuid::from_u128(u128::from(random.below(3))),
        });
    }
    Command::SetReplicas { shard: ShardId(shard), before, replicas }
}

fn command(random: &mut Random, model: &Model) -> Command {
    let id = Uuid::from_u128(u128::from(random.below(9)));
    let a_node = |random: &mut Random| i32::try_from(random.between(1, 3)).unwrap();
    match random.below(34) {
        0 => Command::Bootstrap { cluster_id: format!("cluster-{}", random.below(9)) },
        1 => {
            let node = node(a_node(random), Some("z"), &[random.below(99)]);
            let oldest = FeatureLevel(1 + i16::from(random.once_in(4)));
            let newest = FeatureLevel(oldest.0 + i16::from(random.once_in(2)));
            Command::RegisterNode(NodeRecord { levels: Levels { oldest, newest }, ..node })
        }
        31 => Command::SetFeatureLevel { level: FeatureLevel(i16::from(!random.once_in(4))) },
        2 | 3 => Command::AddShard(a_shard(random, model)),
        4..8 => Command::CreateTopic {
            name: format!("t{}", random.below(6)),
            id,
            internal: false,
            overrides: values(random, "retention.ms"),
            shards: some_shards(random, model),
        },
        8 | 9 => Command::DeleteTopic { id },
        10..13 => {
            let count = model.topics.get(&id).map_or(0, |topic| topic.partitions.len());
            let count_before = u32::try_from(count).unwrap() + u32::from(random.once_in(8));
            Command::AddPartitions { id, count_before, shards: some_shards(random, model) }
        }
        13 | 14 => Command::SetTopicConfig { id, overrides: values(random, "retention.ms") },
        15 => {
            let node = (!random.once_in(2)).then(|| NodeId(a_node(random)));
            Command::SetBrokerConfig { node, values: values(random, "log.retention.ms") }
        }
        17..20 => some_replicas(random, model),
        20 => {
            let shards: Vec<_> = model.shards.keys().copied().collect();
            let shard = random.pick(&shards).copied().unwrap_or(1);
            let ids = |replicas: &[ReplicaRecord]| replicas.iter().map(|replica| replica.id).collect::<Vec<_>>();
            let mut reached = model.shards.get(&shard).map_or(Vec::new(), |(shard, _)| ids(&shard.replicas));
            if random.once_in(9) {
                reached.pop();
            }
            let left = model.leaving.get(&shard).map_or(Vec::new(), |leaving| ids(leaving));
            Command::ForgetReplicas { shard: ShardId(shard), reached, left }
        }
        27 | 28 => Command::SetNodeState {
            node: NodeId(a_node(random)),
            state: [NodeState::Active, NodeState::Draining, NodeState::Leaving][random.index(3)],
        },
        32 | 33 => {
            let fenced = [None, Some(FenceReason::Stopped), Some(FenceReason::SessionExpired)][random.index(3)];
            let since_ms = i64::try_from(random.below(9)).unwrap();
            Command::SetNodeLiveness { node: NodeId(a_node(random)), liveness: Liveness { fenced, since_ms } }
        }
        29 => Command::RemoveNode { node: NodeId(a_node(random)) },
        16 => Command::AllocateProducerIds { count: u32::try_from(random.between(1, 1_000)).unwrap() },
        _ => {
            let open: Vec<_> = model.intents.keys().copied().collect();
            let (shard, index, topic) = random.pick(&open).copied().unwrap_or((1, 1, id));
            let index = index + u64::from(random.once_in(10));
            let key = IntentKey { shard: ShardId(shard), index: RaftIndex(index), topic };
            Command::EndIntent { key, end: IntentEnd::Done }
        }
    }
}

#[test]
fn the_image_is_what_a_model_of_plain_maps_says() {
    let mut config = Config::default();
    config.node_id = NodeId(THIS_NODE);
    let config = Arc::new(config);
    lives(6_000, 150, |random, steps| {
        let (mut machine, mut model) = (MetadataStateMachine::new(Arc::clone(&config)), Model::default());
        for index in 1..=steps {
            // Several commands in one entry, as the controller batches them: each is decided on the result of those
            // before it.
            let mut commands = Vec::new();
            let mut expected = Vec::new();
            for _ in 0..=random.below(3) {
                let command = command(random, &model);
                expected.push(model.apply(index, &command));
                commands.push(command);
            }
            let decided_on = RaftIndex(index - 1);
            assert_eq!(machine.apply(RaftIndex(index), &encode(decided_on, &commands)), Ok(expected), "{commands:?}");
            model.check(machine.image());
            if random.once_in(20) {
                let records = machine.all_records();
                machine = MetadataStateMachine::restore(Arc::clone(&config), RaftIndex(index), &records).unwrap();
                model.check(machine.image());
            }
        }
    });
}
