//! The metadata's state machine: applies committed entries, as a pure function of the state and the entry.
//!
//! The state is a `MetadataImage`; beside it the state machine keeps the records that changed since the last cut and a
//! rolling checksum over every change (I6). Values that are local to the node (effective configurations) are derived
//! and part of neither. May not know: clocks, randomness, the proposer of an entry, waiting requests.

mod configs;
mod merges;
mod nodes;
mod shards;
mod splits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ottla_env::mutants::{self, Bug};
use ottla_storage::ids::RaftIndex;
use uuid::Uuid;

use super::action::ActionRecord;
use super::command::{self, Command, Decision};
use super::image::{
    ACTIONS_KEPT, Intent, IntentKey, IntentKind, MetadataImage, NodeState, PartitionRoute, ShardId, Topic,
};
use super::liveness::Liveness;
use super::records::{ClusterRecord, Record, RecordKey, TopicRecord};
use crate::checksum::{OFFSET_BASIS, fnv1a};
use crate::codec::CodecError;
use crate::config::{Config, TopicConfig};
use crate::levels::FeatureLevel;

/// The outcome of applying one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The command was applied.
    Done,
    /// A block of producer ids was allocated.
    ProducerIds {
        /// First id of the block.
        first: i64,
    },
    /// The state was no longer the one that the command was decided on; nothing was changed.
    Refused(Refusal),
}

/// Why a command was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The cluster has its id already.
    AlreadyBootstrapped,
    /// A topic of that name or id exists.
    TopicExists,
    /// No topic has that id.
    NoSuchTopic,
    /// A shard of the command does not exist, or one that is to be created does.
    Shard,
    /// Another leader's entry came after the decision and before this.
    Overtaken,
    /// A replica id was used before.
    ReplicaId,
    /// The shard has other intended replicas than the command was decided on.
    Replicas,
    /// The topic has another number of partitions than the command was decided on.
    PartitionCount,
    /// No such intent is open.
    NoSuchIntent,
    /// A split or merge of the shard is open, or the split that is reported is not.
    Split,
    /// The step of a merge is not due.
    Merge,
    /// No such node.
    NoSuchNode,
    /// A registered node does not understand the feature level.
    FeatureLevel,
    /// Producer ids are used up.
    ProducerIdsExhausted,
}

/// The metadata group's state.
#[derive(Debug, Clone)]
pub struct MetadataStateMachine {
    image: MetadataImage,
    /// The configuration of this node as started, before dynamic settings.
    base: Arc<Config>,
    dirty: BTreeMap<Bytes, Option<Bytes>>,
    counters_dirty: bool,
    checksum: u64,
}

/// One step of the rolling checksum, in the order of the changes. The checksum before takes part in where the sum
/// begins.
fn mix(checksum: u64, bytes: &[u8]) -> u64 {
    fnv1a(checksum ^ OFFSET_BASIS, bytes.iter().copied())
}

impl MetadataStateMachine {
    /// The state before the first entry.
    #[must_use]
    pub fn new(base: Arc<Config>) -> Self {
        let image = MetadataImage {
            config: Arc::clone(&base),
            next_shard_id: 1,
            next_replica_id: 1,
            ..MetadataImage::default()
        };
        Self { image, base, dirty: BTreeMap::new(), counters_dirty: false, checksum: 0 }
    }

    /// The configuration as started.
    pub(super) fn base(&self) -> Arc<Config> {
        Arc::clone(&self.base)
    }

    /// Restores the state from a checkpoint's records, as of the index `applied`.
    ///
    /// # Errors
    /// When a record was not written by this or an earlier release.
    pub fn restore(base: Arc<Config>, applied: RaftIndex, state: &[(Bytes, Bytes)]) -> Result<Self, CodecError> {
        let mut machine = Self::new(base);
        let mut topics = Vec::new();
        for (key, value) in state {
            match Record::decode(key, value)? {
                Record::Cluster(cluster) => {
                    machine.image.cluster_id = cluster.cluster_id.into();
                    machine.image.next_producer_id = cluster.next_producer_id;
                    machine.image.next_replica_id = cluster.next_replica_id;
                    machine.image.next_shard_id = cluster.next_shard_id;
                    machine.checksum = cluster.checksum;
                    machine.check_level(cluster.level)?;
                    machine.image.level = cluster.level;
                }
                Record::Node(node) => {
                    Arc::make_mut(&mut machine.image.nodes).insert(node.id, node);
                }
                Record::Shard(shard) => {
                    Arc::make_mut(&mut machine.image.shards).insert(shard.id, Arc::new(shard));
                }
                Record::Topic(topic) => topics.push(topic),
                Record::Intent(key, intent) => {
                    machine.image.intents.insert(key, Arc::new(intent));
                }
                Record::BrokerConfig(node, values) => {
                    Arc::make_mut(&mut machine.image.broker_configs).insert(node, values);
                }
                Record::GroupConfig(group, values) => {
                    Arc::make_mut(&mut machine.image.group_configs).insert(group, values);
                }
                Record::ClientMetrics(subscription, values) => {
                    Arc::make_mut(&mut machine.image.client_metrics).insert(subscription, values);
                }
                Record::Action(number, action) => {
                    Arc::make_mut(&mut machine.image.actions).insert(number, action);
                }
            }
        }
        machine.derive_config();
        for topic in topics {
            machine.count_partitions(topic.partitions.iter().map(|route| route.shard), 1);
            let topic = machine.derive_topic(topic);
            machine.put_topic(topic);
        }
        machine.image.index = applied;
        Ok(machine)
    }

    /// A copy to try decisions on: its changes are not published.
    #[must_use]
    pub(super) fn scratch(base: Arc<Config>, image: MetadataImage) -> Self {
        Self { image, base, dirty: BTreeMap::new(), counters_dirty: false, checksum: 0 }
    }

    /// The image as of the last applied entry.
    #[must_use]
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// Rolling checksum over all changes.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        self.checksum
    }

    /// The records that changed since the last call.
    pub fn cut(&mut self) -> Vec<(Bytes, Option<Bytes>)> {
        if self.counters_dirty || !self.dirty.is_empty() {
            let cluster = ClusterRecord {
                cluster_id: self.image.cluster_id.to_string(),
                next_producer_id: self.image.next_producer_id,
                next_replica_id: self.image.next_replica_id,
                next_shard_id: self.image.next_shard_id,
                checksum: self.checksum,
                level: self.image.level,
            };
            self.dirty.insert(RecordKey::Cluster.encode(), Some(Record::Cluster(cluster).value()));
        }
        self.counters_dirty = false;
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// All records, for a snapshot.
    #[must_use]
    pub fn all_records(&self) -> Vec<(Bytes, Bytes)> {
        let mut fresh = self.clone();
        fresh.dirty.clear();
        fresh.counters_dirty = true;
        let image = &self.image;
        for node in image.nodes.values() {
            fresh.note(&Record::Node(node.clone()));
        }
        for shard in image.shards.values() {
            fresh.note(&Record::Shard(shard.as_ref().clone()));
        }
        for topic in image.topics.values() {
            fresh.note(&Record::Topic(topic_record(topic)));
        }
        for (key, intent) in image.intents.iter() {
            fresh.note(&Record::Intent(*key, intent.as_ref().clone()));
        }
        for (node, values) in image.broker_configs.iter() {
            fresh.note(&Record::BrokerConfig(*node, values.clone()));
        }
        for (group, values) in image.group_configs.iter() {
            fresh.note(&Record::GroupConfig(group.clone(), values.clone()));
        }
        for (subscription, values) in image.client_metrics.iter() {
            fresh.note(&Record::ClientMetrics(subscription.clone(), values.clone()));
        }
        for (number, action) in image.actions.iter() {
            fresh.note(&Record::Action(*number, action.clone()));
        }
        fresh.checksum = self.checksum;
        fresh.cut().into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    /// Applies an entry without commands: only the index changes.
    pub fn advance(&mut self, index: RaftIndex) {
        self.image.index = index;
    }

    /// Applies the entry at `index`.
    ///
    /// # Errors
    /// When the payload cannot be decoded: a newer release wrote it. The replica must stop then.
    pub fn apply(&mut self, index: RaftIndex, payload: &[u8]) -> Result<Vec<Outcome>, CodecError> {
        let Decision { decided_on, commands } = command::decode(payload)?;
        let overtaken = decided_on.is_some_and(|decided_on| decided_on != self.image.index);
        let needed = |command: &Command| match command {
            Command::SetFeatureLevel { level } if !overtaken => *level,
            command => command.level(),
        };
        commands.iter().map(needed).try_for_each(|level| self.check_level(level))?;
        let outcomes = commands.into_iter().map(|command| match overtaken {
            true => Outcome::Refused(Refusal::Overtaken),
            false => self.apply_command(index, command),
        });
        let outcomes = outcomes.collect();
        self.image.index = index;
        Ok(outcomes)
    }

    /// Applies one command of the entry at `index`.
    pub(super) fn apply_command(&mut self, index: RaftIndex, command: Command) -> Outcome {
        let applied = match command {
            Command::Bootstrap { cluster_id } => self.bootstrap(cluster_id),
            Command::RegisterNode(mut node) => {
                node.epoch = index;
                let known = self.image.nodes.get(&node.id);
                node.state = known.map_or(NodeState::Active, |known| known.state);
                let of_new_node = Liveness::of_new_node(self.image.level);
                node.liveness = known.map_or(of_new_node, |known| known.liveness.registered_again());
                self.note(&Record::Node(node.clone()));
                Arc::make_mut(&mut self.image.nodes).insert(node.id, node);
                Ok(())
            }
            Command::AddShard(shard) => self.add_shard(index, shard),
            Command::CreateTopic { name, id, internal, overrides, shards } => {
                self.create_topic(index, name, id, internal, overrides, &shards)
            }
            Command::DeleteTopic { id } => self.delete_topic(index, &id),
            Command::AddPartitions { id, count_before, shards } => {
                self.add_partitions(index, &id, count_before, &shards)
            }
            Command::SetTopicConfig { id, overrides } => self.set_topic_config(&id, overrides),
            Command::SetBrokerConfig { node, values } => self.set_broker_config(node, values),
            Command::SetEpochBases { id, first, bases } => self.set_epoch_bases(index, &id, first, &bases),
            Command::SetGroupConfig { group, values } => {
                self.set_group_config(group, values);
                Ok(())
            }
            Command::SetClientMetrics { subscription, values } => {
                self.set_client_metrics(subscription, values);
                Ok(())
            }
            Command::RecordAction(action) => {
                self.record_action(Arc::new(action));
                Ok(())
            }
            Command::AllocateProducerIds { count } => return self.allocate_producer_ids(count),
            Command::EndIntent { key, end: _ } => match self.image.intents.remove(&key) {
                Some(_) => {
                    self.forget(RecordKey::Intent(key).encode());
                    Ok(())
                }
                None => Err(Refusal::NoSuchIntent),
            },
            Command::SetReplicas { shard, before, replicas } => self.set_replicas(shard, &before, replicas),
            Command::ForgetReplicas { shard, reached, left } => self.forget_replicas(shard, &reached, &left),
            Command::SetNodeState { node, state } => self.set_node_state(node, state),
            Command::RemoveNode { node } => self.remove_node(node),
            Command::SetFeatureLevel { level } => self.set_feature_level(level),
            Command::SplitShard { parent, child, partitions } => self.split_shard(index, parent, child, partitions),
            Command::EndSplit { child, at } => self.end_split(index, child, at),
            Command::Merge(step) => self.merge(index, step),
            Command::DropShard { shard } => self.drop_shard(shard),
            Command::SetNodeLiveness { node, liveness } => self.set_node_liveness(node, liveness),
        };
        applied.map_or_else(Outcome::Refused, |()| Outcome::Done)
    }

    /// Fails for a level above those that this node understands: later entries may have any format.
    fn check_level(&self, level: FeatureLevel) -> Result<(), CodecError> {
        if level > self.base.levels.newest { Err(CodecError::Level(level.0)) } else { Ok(()) }
    }

    fn note(&mut self, record: &Record) {
        let (key, value) = (record.key(), record.value());
        self.checksum = mix(mix(self.checksum, &key), &value);
        self.dirty.insert(key, Some(value));
    }

    fn forget(&mut self, key: Bytes) {
        self.checksum = mix(mix(self.checksum, &key), b"-");
        self.dirty.insert(key, None);
    }

    fn note_counter(&mut self, value: u64) {
        self.checksum = mix(self.checksum, &value.to_be_bytes());
        self.counters_dirty = true;
    }

    fn bootstrap(&mut self, cluster_id: String) -> Result<(), Refusal> {
        if !self.image.cluster_id.is_empty() {
            return Err(Refusal::AlreadyBootstrapped);
        }
        self.checksum = mix(self.checksum, cluster_id.as_bytes());
        self.counters_dirty = true;
        self.image.cluster_id = cluster_id.into();
        Ok(())
    }

    fn create_topic(
        &mut self,
        index: RaftIndex,
        name: String,
        id: Uuid,
        internal: bool,
        mut overrides: BTreeMap<String, String>,
        shards: &[ShardId],
    ) -> Result<(), Refusal> {
        if mutants::is_on(Bug::ConfigReadAtApply) {
            let own_ms = self.base.topics.defaults.retention_ms.unwrap_or(-1);
            overrides.entry("retention.ms".to_owned()).or_insert(own_ms.to_string());
        }
        if id.is_nil() || self.image.topics.contains_key(name.as_str()) || self.image.topics_by_id.contains_key(&id) {
            return Err(Refusal::TopicExists);
        }
        self.check_shards(shards)?;
        let partitions =
            shards.iter().map(|shard| PartitionRoute { shard: *shard, epoch_base: 0, intent: index }).collect();
        let record =
            TopicRecord { name, id, internal, overrides: Arc::new(overrides), partitions: Arc::new(partitions) };
        self.note(&Record::Topic(record.clone()));
        self.add_intents(index, IntentKind::Adopt, &id, &record.partitions, 0);
        self.count_partitions(shards.iter().copied(), 1);
        let topic = self.derive_topic(record);
        self.put_topic(topic);
        Ok(())
    }

    fn delete_topic(&mut self, index: RaftIndex, id: &Uuid) -> Result<(), Refusal> {
        let topic = self.image.topics_by_id.remove(id).ok_or(Refusal::NoSuchTopic)?;
        self.image.topics.remove(&topic.name);
        self.forget(RecordKey::Topic(*id).encode());
        self.count_partitions(topic.partitions.iter().map(|route| route.shard), -1);
        self.add_intents(index, IntentKind::Drop, id, &topic.partitions, 0);
        Ok(())
    }

    fn add_partitions(
        &mut self,
        index: RaftIndex,
        id: &Uuid,
        count_before: u32,
        shards: &[ShardId],
    ) -> Result<(), Refusal> {
        let topic = Arc::clone(self.image.topics_by_id.get(id).ok_or(Refusal::NoSuchTopic)?);
        if u32::try_from(topic.partitions.len()) != Ok(count_before) {
            return Err(Refusal::PartitionCount);
        }
        self.check_shards(shards)?;
        let mut partitions = topic.partitions.as_ref().clone();
        partitions.extend(shards.iter().map(|shard| PartitionRoute { shard: *shard, epoch_base: 0, intent: index }));
        let topic = Topic { partitions: Arc::new(partitions), ..topic.as_ref().clone() };
        self.note(&Record::Topic(topic_record(&topic)));
        self.add_intents(index, IntentKind::Adopt, id, &topic.partitions, usize::try_from(count_before).unwrap_or(0));
        self.count_partitions(shards.iter().copied(), 1);
        self.put_topic(topic);
        Ok(())
    }

    fn set_topic_config(&mut self, id: &Uuid, overrides: BTreeMap<String, String>) -> Result<(), Refusal> {
        let topic = self.image.topics_by_id.get(id).ok_or(Refusal::NoSuchTopic)?;
        let record = TopicRecord { overrides: Arc::new(overrides), ..topic_record(topic) };
        self.note(&Record::Topic(record.clone()));
        let topic = self.derive_topic(record);
        self.put_topic(topic);
        Ok(())
    }

    /// A client may have been told the epochs of partitions that an earlier entry created: their bases stay.
    fn set_epoch_bases(&mut self, index: RaftIndex, id: &Uuid, first: u32, bases: &[i32]) -> Result<(), Refusal> {
        let topic = Arc::clone(self.image.topics_by_id.get(id).ok_or(Refusal::NoSuchTopic)?);
        let mut partitions = topic.partitions.as_ref().clone();
        let created = usize::try_from(first).ok().and_then(|first| partitions.get_mut(first..));
        let created =
            created.filter(|created| created.len() == bases.len() && created.iter().all(|route| route.intent == index));
        let created = created.ok_or(Refusal::PartitionCount)?;
        for (route, base) in created.iter_mut().zip(bases) {
            route.epoch_base = *base;
        }
        let shards: BTreeSet<ShardId> = created.iter().map(|route| route.shard).collect();
        let topic = Topic { partitions: Arc::new(partitions), ..topic.as_ref().clone() };
        let with_base =
            |(number, base): &(i32, i32)| (*number, topic.route(*number).map_or(*base, |route| route.epoch_base));
        let with_bases = |shard| {
            let key = IntentKey { shard, index, topic: *id };
            // The command that created the partitions made it, and only the shard ends it.
            let intent = self.image.intents.get(&key).filter(|intent| intent.kind == IntentKind::Adopt);
            let partitions = intent.ok_or(Refusal::NoSuchIntent)?.partitions.iter().map(with_base).collect();
            Ok((key, Intent { kind: IntentKind::Adopt, partitions }))
        };
        for (key, adopted) in shards.into_iter().map(with_bases).collect::<Result<Vec<_>, _>>()? {
            self.note(&Record::Intent(key, adopted.clone()));
            self.image.intents.insert(key, Arc::new(adopted));
        }
        self.note(&Record::Topic(topic_record(&topic)));
        self.put_topic(topic);
        Ok(())
    }

    fn allocate_producer_ids(&mut self, count: u32) -> Outcome {
        let first = self.image.next_producer_id;
        match first.checked_add(i64::from(count)) {
            Some(next) => {
                self.image.next_producer_id = next;
                if !mutants::is_on(Bug::ProducerIdsGivenTwice) {
                    self.note_counter(next.unsigned_abs());
                }
                Outcome::ProducerIds { first }
            }
            None => Outcome::Refused(Refusal::ProducerIdsExhausted),
        }
    }

    fn record_action(&mut self, action: Arc<ActionRecord>) {
        let actions = Arc::make_mut(&mut self.image.actions);
        let number = actions.last_key_value().map_or(1, |(last, _)| last + 1);
        actions.insert(number, action.clone());
        let oldest = if actions.len() > ACTIONS_KEPT { actions.pop_first() } else { None };
        self.note(&Record::Action(number, action));
        if let Some((oldest, _)) = oldest {
            self.forget(RecordKey::Action(oldest).encode());
        }
    }

    fn check_shards(&self, shards: &[ShardId]) -> Result<(), Refusal> {
        let distinct: BTreeSet<_> = shards.iter().collect();
        let known = distinct.iter().all(|shard| **shard != ShardId::METADATA && self.image.shards.contains_key(*shard));
        if shards.is_empty() || !known { Err(Refusal::Shard) } else { Ok(()) }
    }

    /// One intent per shard that carries any of `routes` from number `first` on.
    fn add_intents(
        &mut self,
        index: RaftIndex,
        kind: IntentKind,
        topic: &Uuid,
        routes: &[PartitionRoute],
        first: usize,
    ) {
        let mut by_shard: BTreeMap<ShardId, Vec<(i32, i32)>> = BTreeMap::new();
        for (number, route) in routes.iter().enumerate().skip(first) {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            by_shard.entry(route.shard).or_default().push((number, route.epoch_base));
        }
        self.put_intents(index, kind, topic, by_shard);
    }

    /// One intent for each of these shards.
    fn put_intents(
        &mut self,
        index: RaftIndex,
        kind: IntentKind,
        topic: &Uuid,
        by_shard: BTreeMap<ShardId, Vec<(i32, i32)>>,
    ) {
        for (shard, mut partitions) in by_shard {
            let key = IntentKey { shard, index, topic: *topic };
            // Several commands of one entry may concern one topic: the partitions that they make a shard adopt are one
            // intent.
            if let Some(earlier) = self.image.intents.get(&key).filter(|earlier| earlier.kind == kind) {
                partitions.splice(0..0, earlier.partitions.iter().copied());
            }
            let intent = Intent { kind, partitions };
            self.note(&Record::Intent(key, intent.clone()));
            self.image.intents.insert(key, Arc::new(intent));
        }
    }

    fn count_partitions(&mut self, shards: impl Iterator<Item = ShardId>, change: i64) {
        let counts = Arc::make_mut(&mut self.image.partitions_by_shard);
        for shard in shards {
            let count = counts.entry(shard).or_default();
            *count = count.saturating_add_signed(change);
        }
    }

    fn put_topic(&mut self, topic: Topic) {
        let topic = Arc::new(topic);
        self.image.topics.insert(Arc::clone(&topic.name), Arc::clone(&topic));
        self.image.topics_by_id.insert(topic.id, topic);
    }

    /// Adds the values that are local to the node.
    fn derive_topic(&self, record: TopicRecord) -> Topic {
        let defaults = &self.image.config.topics.defaults;
        let config = if record.overrides.is_empty() {
            Arc::clone(defaults)
        } else {
            Arc::new(TopicConfig::with_overrides(defaults, &record.overrides))
        };
        Topic {
            name: record.name.into(),
            id: record.id,
            internal: record.internal,
            config,
            overrides: record.overrides,
            partitions: record.partitions,
        }
    }
}

fn topic_record(topic: &Topic) -> TopicRecord {
    TopicRecord {
        name: topic.name.to_string(),
        id: topic.id,
        internal: topic.internal,
        overrides: Arc::clone(&topic.overrides),
        partitions: Arc::clone(&topic.partitions),
    }
}
