//! Topics as an administrator sees them: create, change, delete; configs and sizes.
//!
//! A change is sent once: a retry could undo what another client changed since. May not know: records.

use std::collections::BTreeMap;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, DescribeLogDirsRequest,
    IncrementalAlterConfigsRequest,
};
use kafka_protocol::protocol::StrBytes;
use ottla_protocol::error::ErrorCode;
use uuid::Uuid;

use super::cluster::{Cluster, TopicPartition, TopicView, refused_topic, topic_name};
use super::connection::REQUEST_TIMEOUT_MS;
use super::error::ClientError;

const TOPIC: i8 = 2;
const SET: i8 = 0;
const DELETE: i8 = 1;
/// The source of a config that is set for the topic itself.
const DYNAMIC_TOPIC_CONFIG: i8 = 1;

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// `None`: the broker's default.
    pub partitions: Option<i32>,
    /// None: the broker's default.
    pub replication_factor: Option<i16>,
    /// Names and values.
    pub configs: Vec<(String, String)>,
}

/// A topic that was created, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its name.
    pub name: String,
    /// Its id; none where none was given.
    pub id: Option<Uuid>,
    /// The number of partitions, if the response has it.
    pub partitions: Option<i32>,
    /// Its replication factor, if the response has it.
    pub replication_factor: Option<i16>,
}

/// A change of one config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigEdit {
    /// Gives it a value.
    Set(String, String),
    /// Back to the default.
    Delete(String),
}

/// One config of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name.
    pub name: String,
    /// None if it is secret or has none.
    pub value: Option<String>,
    /// True if it was set for this topic.
    pub is_own: bool,
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

impl Cluster {
    /// Creates topics; the result of each, in the order of the response.
    ///
    /// # Errors
    /// When no broker responds.
    pub async fn create_topics(
        &mut self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<Result<Created, ClientError>>, ClientError> {
        let topic = |topic: &NewTopic| {
            let config = |(name, value): &(String, String)| {
                CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
            };
            CreatableTopic::default()
                .with_name(topic_name(&topic.name))
                .with_num_partitions(topic.partitions.unwrap_or(-1))
                .with_replication_factor(topic.replication_factor.unwrap_or(-1))
                .with_configs(topic.configs.iter().map(config).collect())
        };
        let make = |_| {
            CreateTopicsRequest::default()
                .with_topics(topics.iter().map(topic).collect())
                .with_timeout_ms(REQUEST_TIMEOUT_MS)
                .with_validate_only(validate_only)
        };
        let answer = self.brokers.send_any(4..=7, make).await?;
        let created = |topic: kafka_protocol::messages::create_topics_response::CreatableTopicResult| {
            let name = topic.name.to_string();
            ClientError::check(topic.error_code, topic.error_message.as_deref(), || format!("topic {name}"))?;
            Ok(Created {
                id: Some(topic.topic_id).filter(|id| !id.is_nil()),
                partitions: Some(topic.num_partitions).filter(|count| *count >= 0),
                replication_factor: Some(topic.replication_factor).filter(|factor| *factor >= 0),
                name,
            })
        };
        Ok(answer.topics.into_iter().map(created).collect())
    }

    /// Deletes topics; the result of each.
    ///
    /// # Errors
    /// When no broker responds.
    pub async fn delete_topics(
        &mut self,
        names: &[String],
    ) -> Result<Vec<(String, Result<(), ClientError>)>, ClientError> {
        let make = |version| {
            let request = DeleteTopicsRequest::default().with_timeout_ms(REQUEST_TIMEOUT_MS);
            if version >= 6 {
                let state = |name: &String| DeleteTopicState::default().with_name(Some(topic_name(name)));
                return request.with_topics(names.iter().map(state).collect());
            }
            request.with_topic_names(names.iter().map(|name| topic_name(name)).collect())
        };
        let answer = self.brokers.send_any(1..=6, make).await?;
        let outcome = |topic: kafka_protocol::messages::delete_topics_response::DeletableTopicResult| {
            let name = topic.name.map(|name| name.to_string()).unwrap_or_default();
            let outcome =
                ClientError::check(topic.error_code, topic.error_message.as_deref(), || format!("topic {name}"));
            (name, outcome)
        };
        Ok(answer.responses.into_iter().map(outcome).collect())
    }

    /// Adds partitions to a topic.
    ///
    /// # Errors
    /// When it is refused or no broker responds.
    pub async fn add_partitions(&mut self, topic: &str, count: i32, validate_only: bool) -> Result<(), ClientError> {
        let wanted =
            CreatePartitionsTopic::default().with_name(topic_name(topic)).with_count(count).with_assignments(None);
        let make = |_| {
            CreatePartitionsRequest::default()
                .with_topics(vec![wanted])
                .with_timeout_ms(REQUEST_TIMEOUT_MS)
                .with_validate_only(validate_only)
        };
        let answer = self.brokers.send_any(0..=3, make).await?;
        answer.results.iter().try_for_each(|result| {
            ClientError::check(result.error_code, result.error_message.as_deref(), || format!("topic {topic}"))
        })
    }

    /// Changes configs of a topic, all or none.
    ///
    /// # Errors
    /// When it is refused or no broker responds.
    pub async fn alter_configs(
        &mut self,
        topic: &str,
        edits: &[ConfigEdit],
        validate_only: bool,
    ) -> Result<(), ClientError> {
        let config = |edit: &ConfigEdit| {
            let (name, operation, value) = match edit {
                ConfigEdit::Set(name, value) => (name, SET, Some(text(value))),
                ConfigEdit::Delete(name) => (name, DELETE, None),
            };
            AlterableConfig::default().with_name(text(name)).with_config_operation(operation).with_value(value)
        };
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(topic))
            .with_configs(edits.iter().map(config).collect());
        let make = |_| {
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(validate_only)
        };
        let answer = self.brokers.send_any(0..=1, make).await?;
        answer.responses.iter().try_for_each(|result| {
            ClientError::check(result.error_code, result.error_message.as_deref(), || format!("topic {topic}"))
        })
    }

    /// All configs of a topic, by name.
    ///
    /// # Errors
    /// When it does not exist or no broker responds.
    pub async fn topic_configs(&mut self, topic: &str) -> Result<Vec<ConfigEntry>, ClientError> {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(topic))
            .with_configuration_keys(None);
        let make = |_| DescribeConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.brokers.send_any(1..=4, make).await?;
        let unknown = ErrorCode::UnknownTopicOrPartition.code();
        let result = answer.results.into_iter().next().ok_or_else(|| refused_topic(topic, unknown))?;
        ClientError::check(result.error_code, result.error_message.as_deref(), || format!("topic {topic}"))?;
        let mut configs: Vec<_> = result
            .configs
            .iter()
            .map(|config| ConfigEntry {
                name: config.name.to_string(),
                value: config.value.as_ref().map(ToString::to_string),
                is_own: config.config_source == DYNAMIC_TOPIC_CONFIG,
            })
            .collect();
        configs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(configs)
    }

    /// The size of each partition on its leader, where the leader responds with it.
    pub async fn sizes(&mut self, topic: &TopicView) -> BTreeMap<TopicPartition, i64> {
        let mut led: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for partition in &topic.partitions {
            if let Some(leader) = partition.leader {
                led.entry(leader).or_default().push(partition.index);
            }
        }
        let mut sizes = BTreeMap::new();
        for (leader, partitions) in led {
            let wanted =
                DescribableLogDirTopic::default().with_topic(topic_name(&topic.name)).with_partitions(partitions);
            let make = |_| DescribeLogDirsRequest::default().with_topics(Some(vec![wanted]));
            let Ok(answer) = self.brokers.send(leader, 1..=4, make).await else { continue };
            let directories = answer.results.iter().filter(|directory| directory.error_code == 0);
            for partition in directories.flat_map(|directory| &directory.topics).flat_map(|topic| &topic.partitions) {
                if !partition.is_future_key {
                    sizes.insert((topic.name.clone(), partition.partition_index), partition.partition_size);
                }
            }
        }
        sizes
    }
}
