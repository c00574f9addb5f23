//! A cluster as a client sees it: topics with their leaders, and the coordinators of groups.
//!
//! May not know: records, offsets.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, FindCoordinatorRequest, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use ottla_protocol::error::ErrorCode;
use uuid::Uuid;

use super::address::Address;
use super::brokers::{Broker, Brokers};
use super::error::{ClientError, is_retriable};
use super::retry::Retry;

/// A partition: topic and number.
pub type TopicPartition = (String, i32);

const GROUP: i8 = 0;
const BROKERS: i8 = 1;

/// A client's view of a cluster.
pub struct Cluster {
    pub(super) brokers: Brokers,
}

/// A topic as a Metadata response describes it.
#[derive(Debug, Clone)]
pub struct TopicView {
    /// Its name.
    pub name: String,
    /// The topic's id, if the broker's version sends it.
    pub id: Option<Uuid>,
    /// True for internal topics.
    pub internal: bool,
    /// By number.
    pub partitions: Vec<PartitionView>,
}

/// A partition as a Metadata response describes it.
#[derive(Debug, Clone)]
pub struct PartitionView {
    /// Its number.
    pub index: i32,
    /// The leader, if there is one.
    pub leader: Option<i32>,
    /// The leader's epoch; -1 if unknown.
    pub epoch: i32,
    /// Brokers with a replica, preferred leader first.
    pub replicas: Vec<i32>,
    /// The in-sync replicas.
    pub in_sync: Vec<i32>,
}

impl TopicView {
    /// The replication factor, as Kafka's tools show it: the number of replicas of the first partition.
    #[must_use]
    pub fn replication_factor(&self) -> usize {
        self.partitions.first().map_or(0, |partition| partition.replicas.len())
    }
}

/// All brokers, and the controller.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// The cluster's id.
    pub id: String,
    /// The broker named as controller: an Ottla node names itself, since any node accepts changes.
    pub controller: Option<i32>,
    /// By id.
    pub brokers: Vec<Broker>,
    /// Brokers that are registered and fenced: they have no session, or are stopping. From DescribeCluster v2 on.
    pub fenced: Vec<Broker>,
}

impl Cluster {
    /// The cluster behind these addresses.
    #[must_use]
    pub fn at(bootstrap: Vec<Address>) -> Self {
        Self { brokers: Brokers::new(bootstrap) }
    }

    /// All topics, or those named, each found or with its error. Creates none.
    ///
    /// # Errors
    /// When no broker responds.
    pub async fn topics(
        &mut self,
        names: Option<&[String]>,
    ) -> Result<Vec<Result<TopicView, ClientError>>, ClientError> {
        let answer = self.metadata(names).await?;
        let mut topics: Vec<_> = answer.topics.into_iter().map(|topic| (name_of(&topic), topic_view(topic))).collect();
        topics.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(topics.into_iter().map(|(_, view)| view).collect())
    }

    /// A topic that exists, with its partitions.
    ///
    /// # Errors
    /// When it does not exist, or no broker responds.
    pub async fn topic(&mut self, name: &str) -> Result<TopicView, ClientError> {
        let mut retry = Retry::new();
        loop {
            let found = self.topics(Some(&[name.to_owned()])).await?.pop();
            let unknown = ErrorCode::UnknownTopicOrPartition.code();
            let found = found.unwrap_or_else(|| Err(refused_topic(name, unknown)));
            match found {
                Err(error) if error.is_retriable() && retry.backoff().await => {}
                found => return found,
            }
        }
    }

    /// The given partitions without those that do not exist.
    ///
    /// # Errors
    /// When no broker responds.
    pub async fn existing(
        &mut self,
        mut partitions: BTreeSet<TopicPartition>,
    ) -> Result<BTreeSet<TopicPartition>, ClientError> {
        let names: BTreeSet<String> = partitions.iter().map(|(topic, _)| topic.clone()).collect();
        let names: Vec<String> = names.into_iter().collect();
        let mut known = BTreeSet::new();
        for topic in self.topics(Some(&names)).await?.into_iter().flatten() {
            known.extend(topic.partitions.iter().map(|partition| (topic.name.clone(), partition.index)));
        }
        partitions.retain(|at| known.contains(at));
        Ok(partitions)
    }

    /// The leaders of all partitions of these topics, without partitions that have none. An unknown topic is an error.
    pub(super) async fn leaders(&mut self, topics: &[String]) -> Result<BTreeMap<TopicPartition, i32>, ClientError> {
        let mut leaders = BTreeMap::new();
        for topic in self.topics(Some(topics)).await? {
            match topic {
                Ok(topic) => leaders.extend(
                    topic
                        .partitions
                        .iter()
                        .filter_map(|partition| Some(((topic.name.clone(), partition.index), partition.leader?))),
                ),
                // The topic has no leaders at the moment.
                Err(error) if error.is_retriable() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(leaders)
    }

    async fn metadata(&mut self, names: Option<&[String]>) -> Result<MetadataResponse, ClientError> {
        let topic = |name: &String| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let topics = names.map(|names| names.iter().map(topic).collect());
        let make = |_| MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
        let answer = self.brokers.send_any(4..=12, make).await?;
        let broker = |broker: &kafka_protocol::messages::metadata_response::MetadataResponseBroker| {
            Some(Broker {
                id: broker.node_id.0,
                address: Address { host: broker.host.to_string(), port: u16::try_from(broker.port).ok()? },
                rack: broker.rack.as_ref().map(ToString::to_string),
            })
        };
        self.brokers.update(answer.brokers.iter().filter_map(broker));
        Ok(answer)
    }

    /// All brokers, and the controller.
    ///
    /// # Errors
    /// When no broker responds.
    pub async fn describe(&mut self) -> Result<ClusterView, ClientError> {
        let make = |version| {
            let request = DescribeClusterRequest::default();
            let request = if version >= 1 { request.with_endpoint_type(BROKERS) } else { request };
            if version >= 2 { request.with_include_fenced_brokers(true) } else { request }
        };
        let answer = self.brokers.send_any(0..=2, make).await?;
        ClientError::check(answer.error_code, answer.error_message.as_deref(), || "the cluster".to_owned())?;
        let broker = |broker: &DescribeClusterBroker| {
            Some(Broker {
                id: broker.broker_id.0,
                address: Address { host: broker.host.to_string(), port: u16::try_from(broker.port).ok()? },
                rack: broker.rack.as_ref().map(ToString::to_string),
            })
        };
        let that_are = |fenced: bool| {
            let all = answer.brokers.iter().filter(|broker| broker.is_fenced == fenced);
            let mut all: Vec<_> = all.filter_map(broker).collect();
            all.sort_by_key(|broker| broker.id);
            all
        };
        let (brokers, fenced) = (that_are(false), that_are(true));
        self.brokers.update(brokers.clone());
        let controller = Some(answer.controller_id.0).filter(|id| *id >= 0);
        Ok(ClusterView { id: answer.cluster_id.to_string(), controller, brokers, fenced })
    }

    /// Requests the list of brokers, once: does not wait if no broker responds at all.
    pub(super) async fn meet(&mut self) -> Result<(), ClientError> {
        if self.brokers.known().is_empty() {
            self.metadata(Some(&[])).await?;
        }
        Ok(())
    }

    /// The broker that coordinates a group.
    pub(super) async fn coordinator(&mut self, group: &str) -> Result<i32, ClientError> {
        let mut retry = Retry::new();
        loop {
            match self.find_coordinator(group).await {
                Err(error) if error.is_retriable() && retry.backoff().await => {}
                found => return found,
            }
        }
    }

    async fn find_coordinator(&mut self, group: &str) -> Result<i32, ClientError> {
        let keys = vec![StrBytes::from_string(group.to_owned())];
        let make = |_| FindCoordinatorRequest::default().with_key_type(GROUP).with_coordinator_keys(keys);
        let answer = self.brokers.send_any(4..=6, make).await?;
        let unavailable = ErrorCode::CoordinatorNotAvailable.code();
        let Some(found) = answer.coordinators.into_iter().next() else {
            return Err(refused_group(group, unavailable, None));
        };
        ClientError::check(found.error_code, found.error_message.as_deref(), || format!("group {group}"))?;
        let (id, port) = (found.node_id.0, u16::try_from(found.port).ok());
        let Some(port) = port else { return Err(refused_group(group, unavailable, None)) };
        if !self.brokers.known().iter().any(|broker| broker.id == id) {
            let address = Address { host: found.host.to_string(), port };
            let known = self.brokers.known().into_iter().chain([Broker { id, address, rack: None }]);
            self.brokers.update(known);
        }
        Ok(id)
    }
}

/// A topic's name as the wire format's type.
pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub(super) fn refused_group(group: &str, code: i16, message: Option<&str>) -> ClientError {
    ClientError::Refused { what: format!("group {group}"), code, message: message.map(str::to_owned) }
}

pub(super) fn refused_topic(name: &str, code: i16) -> ClientError {
    ClientError::Refused { what: format!("topic {name}"), code, message: None }
}

fn name_of(topic: &MetadataResponseTopic) -> String {
    topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default()
}

fn topic_view(topic: MetadataResponseTopic) -> Result<TopicView, ClientError> {
    let name = name_of(&topic);
    // A topic exists although one of its partitions has no leader.
    if topic.error_code != ErrorCode::None.code() && (topic.partitions.is_empty() || !is_retriable(topic.error_code)) {
        return Err(refused_topic(&name, topic.error_code));
    }
    let mut partitions: Vec<_> = topic.partitions.into_iter().map(partition_view).collect();
    partitions.sort_by_key(|partition| partition.index);
    let id = Some(topic.topic_id).filter(|id| !id.is_nil());
    Ok(TopicView { name, id, internal: topic.is_internal, partitions })
}

fn partition_view(partition: MetadataResponsePartition) -> PartitionView {
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
    PartitionView {
        index: partition.partition_index,
        leader: Some(partition.leader_id.0).filter(|id| *id >= 0),
        epoch: partition.leader_epoch,
        replicas: ids(&partition.replica_nodes),
        in_sync: ids(&partition.isr_nodes),
    }
}
