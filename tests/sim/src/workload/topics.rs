//! Clients that create, change and delete topics; first of all the topic that most clients use.

use std::collections::BTreeSet;
use std::time::Duration;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, FindCoordinatorRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, MetadataRequest, ProduceRequest, TopicName,
};
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;
use uuid::Uuid;

use super::consumer::values_in;
use super::{pause, value_of};
use crate::laws::i9_topics::{self, Seen, Shape};
use crate::laws::liveness::leaders_are_listed;
use crate::registry::PARTITIONS;
use crate::wire::{Client, text};
use crate::world::World;

/// Values of these clients start here.
const OWNERS_FROM: u64 = 200;
const CREATE: i16 = 7;
const DELETE: i16 = 6;
const ALTER: i16 = 1;
const ADD: i16 = 3;
const METADATA: i16 = 12;
const PRODUCE: i16 = 13;
const FETCH: i16 = 16;
const UNKNOWN_TOPIC: i16 = 3;
/// Errors after which the outcome is unknown: a time-out, or a replica that stopped meanwhile.
const NOT_KNOWN: [i16; 2] = [7, 56];
const TOPIC: i8 = 2;
/// The topic that is there before the last founder.
const EARLY: &str = "early";

fn named(name: &str) -> TopicName {
    TopicName(text(name))
}

fn creation(name: &str, partitions: i32, factor: Option<i16>) -> CreateTopicsRequest {
    let topic = CreatableTopic::default().with_name(named(name)).with_num_partitions(partitions);
    let topic = topic.with_replication_factor(factor.unwrap_or(-1));
    CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(2_000)
}

/// Creates a topic that the nodes can hold without this one, so that the first shards are made before it has joined.
pub(crate) async fn create_first(world: &World, without: SimNode) {
    let mut client = Client::new(world.clone(), "early");
    let topic = CreatableTopic::default().with_name(named(EARLY)).with_num_partitions(1).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(2_000);
    while world.image().is_none_or(|image| image.topic(EARLY).is_none()) {
        if let Some(node) = world.nodes().find(|node| *node != without && world.running_node(*node).is_some()) {
            let _ = client.call(node, CREATE, &request).await;
        }
        pause(200).await;
    }
}

/// Creates the topic that most clients use, and `__consumer_offsets`; returns when both have leaders.
pub(crate) async fn create_shared(world: &World) {
    let mut client = Client::new(world.clone(), "founder");
    while world.image().and_then(|image| image.topic(crate::registry::TOPIC).map(|topic| topic.id)).is_none() {
        let request = creation(crate::registry::TOPIC, PARTITIONS, world.factor());
        let _ = client.call(world.random_node(), CREATE, &request).await;
        pause(200).await;
    }
    if let Some(topic) = world.image().and_then(|image| image.topic(crate::registry::TOPIC).cloned()) {
        world.set_topic(topic.id);
    }
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("group-0")]);
    loop {
        let answer = client.call(world.random_node(), 4, &request).await;
        if answer.is_some_and(|answer| answer.coordinators.first().is_some_and(|found| found.error_code == 0)) {
            break;
        }
        pause(200).await;
    }
    while (0..PARTITIONS).any(|index| world.leader(index).is_none()) {
        rt::sleep(Duration::from_millis(20)).await;
    }
}

/// The outcome of a change.
enum Step {
    Made,
    Refused,
    Unknown,
}

fn step(code: Option<i16>) -> Step {
    match code {
        Some(0) => Step::Made,
        None => Step::Unknown,
        Some(code) if NOT_KNOWN.contains(&code) => Step::Unknown,
        Some(_) => Step::Refused,
    }
}

/// A client that creates, changes and deletes topics, one name at a time.
struct Owner {
    world: World,
    client: Client,
    id: u64,
    names: u64,
    values: u64,
    name: String,
    /// The topic's current state if it exists, the values sent to it, and those acknowledged.
    now: Option<(Shape, BTreeSet<u64>, Vec<(i64, u64)>)>,
}

/// Creates, changes and deletes topics until the workload ends.
pub(crate) async fn owner(world: World, id: u64) {
    let client = Client::new(world.clone(), &format!("owner-{id}"));
    let name = format!("x{id}-0");
    let mut owner = Owner { world, client, id, names: 0, values: 0, name, now: None };
    while owner.world.workload_runs() {
        match (owner.now.is_some(), sim::random_below(12)) {
            (false, _) => owner.create().await,
            (true, 0) => owner.delete().await,
            (true, 1) => owner.add_partition().await,
            (true, 2..4) => owner.set_retention().await,
            (true, 4..8) => owner.produce().await,
            (true, _) => owner.fetch().await,
        }
        pause(150).await;
    }
}

impl Owner {
    /// Records a change before it is requested.
    fn attempt(&self, shape: Option<Shape>) {
        self.world.oracle().topics.entry(self.name.clone()).or_default().after.push(shape);
    }

    /// Records the outcome of the last change; true if it was made.
    fn ended(&mut self, node: SimNode, what: &str, code: Option<i16>) -> bool {
        let done = step(code);
        self.world.trace(None, format!("node {} on {what} of {}: {code:?}", node.0, self.name));
        let mut oracle = self.world.oracle();
        let steps = oracle.topics.entry(self.name.clone()).or_default();
        match done {
            Step::Made => steps.acknowledged = steps.after.len() - 1,
            Step::Refused => drop(steps.after.pop()),
            Step::Unknown => {
                // The change may be made late: this name is not used any more.
                self.names += 1;
                self.name = format!("x{}-{}", self.id, self.names);
                self.now = None;
            }
        }
        matches!(done, Step::Made)
    }

    async fn create(&mut self) {
        let (node, partitions) = (self.world.random_node(), 1 + i32::try_from(sim::random_below(3)).unwrap_or(0));
        let mut shape = Shape { id: None, partitions, retention_ms: None };
        self.attempt(Some(shape.clone()));
        let answer = self.client.call(node, CREATE, &creation(&self.name, partitions, None)).await;
        let made = answer.and_then(|answer| answer.topics.into_iter().next());
        let id = made.as_ref().filter(|made| made.error_code == 0).map(|made| made.topic_id);
        if let Some(id) = id {
            let mut oracle = self.world.oracle();
            let verdict = i9_topics::new_id(&mut oracle.topic_ids, id, &self.name);
            if let Some(Some(last)) = oracle.topics.entry(self.name.clone()).or_default().after.last_mut() {
                last.id = Some(id);
            }
            drop(oracle);
            self.world.judge(verdict);
        }
        shape.id = id;
        if self.ended(node, "creation", made.map(|made| made.error_code)) {
            self.now = Some((shape, BTreeSet::new(), Vec::new()));
        }
    }

    async fn delete(&mut self) {
        let node = self.world.random_node();
        self.attempt(None);
        let topic = DeleteTopicState::default().with_name(Some(named(&self.name)));
        let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(2_000);
        let answer = self.client.call(node, DELETE, &request).await;
        let code = answer.and_then(|answer| answer.responses.first().map(|deleted| deleted.error_code));
        if self.ended(node, "deletion", code) {
            self.now = None;
        }
    }

    async fn add_partition(&mut self) {
        let Some((shape, ..)) = &self.now else { return };
        let node = self.world.random_node();
        let more = Shape { partitions: shape.partitions + 1, ..shape.clone() };
        self.attempt(Some(more.clone()));
        let topic = CreatePartitionsTopic::default().with_name(named(&self.name)).with_count(more.partitions);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic.with_assignments(None)]);
        let answer = self.client.call(node, ADD, &request.with_timeout_ms(2_000)).await;
        let code = answer.and_then(|answer| answer.results.first().map(|added| added.error_code));
        if self.ended(node, "a partition", code)
            && let Some((shape, ..)) = &mut self.now
        {
            *shape = more;
        }
    }

    async fn set_retention(&mut self) {
        let Some((shape, ..)) = &self.now else { return };
        let node = self.world.random_node();
        // At least a week: no run lasts so long.
        let retention_ms = 7 * 86_400_000 + i64::try_from(sim::random_below(1 << 40)).unwrap_or(0);
        let other = Shape { retention_ms: Some(retention_ms), ..shape.clone() };
        self.attempt(Some(other.clone()));
        let setting = AlterableConfig::default()
            .with_name(text("retention.ms"))
            .with_config_operation(0)
            .with_value(Some(text(&retention_ms.to_string())));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(&self.name))
            .with_configs(vec![setting]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.client.call(node, ALTER, &request).await;
        let code = answer.and_then(|answer| answer.responses.first().map(|altered| altered.error_code));
        if self.ended(node, "retention", code)
            && let Some((shape, ..)) = &mut self.now
        {
            *shape = other;
        }
    }

    async fn produce(&mut self) {
        let Some((Shape { id: Some(id), .. }, sent, acknowledged)) = &mut self.now else { return };
        let node = self.world.random_node();
        let value = value_of(OWNERS_FROM + self.id, self.values);
        self.values += 1;
        sent.insert(value);
        let mut batch = BatchBuilder::new(Codec::None);
        let timestamp = rt::wall_clock_ms();
        batch.push(&NewRecord { timestamp, key: None, value: Some(&value.to_be_bytes()), headers: &[] });
        let Ok(records) = batch.build() else { return };
        let data = PartitionProduceData::default().with_index(0).with_records(Some(records));
        let topic = TopicProduceData::default().with_topic_id(*id).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(2_000).with_topic_data(vec![topic]);
        let answer = self.client.call(node, PRODUCE, &request).await;
        let answer = answer.as_ref().and_then(|answer| answer.responses.first()?.partition_responses.first());
        if let Some(answer) = answer.filter(|answer| answer.error_code == 0) {
            acknowledged.push((answer.base_offset, value));
        }
    }

    /// Reads everything that a node shows. An answer may end before a batch that is damaged on the node's disk: the
    /// next one is an error then, never empty.
    async fn fetch(&mut self) {
        let Some((Shape { id: Some(id), .. }, sent, acknowledged)) = &self.now else { return };
        let node = self.world.random_node();
        let (told, id) = (acknowledged.len(), *id);
        let (mut found, mut upto) = (Vec::new(), 0);
        loop {
            let answer = self.client.call(node, FETCH, &fetch_from(id, upto)).await;
            let answer = answer.and_then(|answer| answer.responses.into_iter().next()?.partitions.into_iter().next());
            let Some(shown) = answer.filter(|shown| shown.error_code == 0) else { break };
            let Ok(more) = values_in(&shown.records.clone().unwrap_or_default()) else { break };
            let is_end = more.is_empty();
            found.extend(more);
            let read_upto = found.last().map_or(0, |(offset, _)| offset + 1);
            // A deposed leader may not have all records, and shows less.
            upto = if is_end { shown.high_watermark.max(upto) } else { read_upto };
            if is_end || upto >= shown.high_watermark {
                break;
            }
        }
        let foreign = found.iter().map(|(_, value)| *value).find(|value| !sent.contains(value));
        self.world.judge(i9_topics::own_records(&self.name, id, foreign));
        let shows = |known: &&(i64, u64)| known.0 < upto;
        let missing = acknowledged[..told].iter().filter(shows).find(|known| !found.contains(known)).copied();
        self.world.judge(i9_topics::kept(&self.name, id, missing));
    }
}

/// A fetch of a topic's first partition without a limit: its client sends little.
fn fetch_from(id: Uuid, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(1 << 24);
    let topic = FetchTopic::default().with_topic_id(id).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_bytes(1 << 24)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Queries nodes for topics, in their current metadata image and over the wire.
pub(crate) async fn watcher(world: World) {
    let mut client = Client::new(world.clone(), "watcher");
    while world.workload_runs() {
        pause(60).await;
        let known: Vec<String> = world.oracle().topics.keys().cloned().collect();
        if known.is_empty() {
            continue;
        }
        // Mostly the newest names.
        let back = sim::random_below(known.len() as u64).min(sim::random_below(known.len() as u64));
        let Some(name) = known.get(known.len() - 1 - usize::try_from(back).unwrap_or(0)).cloned() else { continue };
        let node = world.random_node();
        let before = world.oracle().topics.get(&name).map_or(0, |steps| steps.acknowledged);
        if sim::random_below(3) == 0 {
            request_metadata(&world, &mut client, node, &name, before).await;
        } else {
            look(&world, node, &name, before).await;
        }
    }
}

async fn look(world: &World, node: SimNode, name: &str, before: usize) {
    let wanted = name.to_owned();
    let answer = world
        .request(node, move |running| async move {
            running.metadata.read_index().await.ok()?;
            let image = running.metadata.image();
            Some(image.topic(&wanted).map(|topic| Seen {
                id: topic.id,
                partitions: topic.partition_count(),
                retention_ms: topic.overrides.get("retention.ms").and_then(|value| value.parse().ok()),
            }))
        })
        .await;
    let Some(Some(seen)) = answer else { return };
    let now = world.oracle().topics.get(name).cloned().unwrap_or_default();
    world.judge(i9_topics::current(name, &format!("node {}", node.0), before, &now, seen.as_ref()));
}

async fn request_metadata(world: &World, client: &mut Client, node: SimNode, name: &str, before: usize) {
    let topic = MetadataRequestTopic::default().with_name(Some(named(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
    let answer = client.call(node, METADATA, &request).await;
    if let Some(answer) = &answer {
        world.judge(leaders_are_listed(node.0, answer));
    }
    let code = answer.and_then(|answer| answer.topics.first().map(|topic| topic.error_code));
    if code == Some(UNKNOWN_TOPIC) {
        let now = world.oracle().topics.get(name).cloned().unwrap_or_default();
        world.judge(i9_topics::unknown(name, &format!("node {}", node.0), before, &now));
    }
}

/// Requests producer ids from random nodes.
pub(crate) async fn producer_ids(world: World) {
    let mut client = Client::new(world.clone(), "ids");
    while world.workload_runs() {
        pause(400).await;
        let node = world.random_node();
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        let Some(answer) = client.call(node, 4, &request).await else { continue };
        if answer.error_code == 0 {
            let to = format!("a producer of node {}, {:?}", node.0, sim::elapsed());
            let verdict = i9_topics::new_id(&mut world.oracle().producer_ids, answer.producer_id.0, &to);
            world.judge(verdict);
        }
    }
}
