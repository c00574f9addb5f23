//! CreateTopics (key 19, v2-v7): creates topics by number of partitions and replicas, or by manual assignment.
//!
//! v4: -1 means the broker's default. v5: the response has partitions, replicas and all configs (KIP-525); v7: the
//! topic's id. Answered after the commit: the topic is in every image that a read index reaches. `validate_only` checks
//! everything and changes nothing, TOPIC_ALREADY_EXISTS included. An internal topic may be created too, with other numbers than its
//! own. A name given twice in a request: INVALID_REQUEST. The answer waits a moment, within the request's timeout, until this node
//! knows the leaders of the new partitions.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};
use ottla_env::rt;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;

use super::support::text;
use crate::config::Config;
use crate::config::describe::describe_topic;
use crate::handlers::context::Context;
use crate::metadata::{CreatedTopic, MetadataError, NewTopic};

pub(super) async fn handle(ctx: &Context, version: i16, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.as_str()).or_default() += 1;
    }
    let mut asked = Vec::new();
    let mut results: BTreeMap<usize, Result<CreatedTopic, MetadataError>> = BTreeMap::new();
    for (place, topic) in request.topics.iter().enumerate() {
        let once = times.get(topic.name.as_str()) == Some(&1);
        match new_topic(version, topic) {
            Ok(new) if once => asked.push((place, new)),
            Ok(_) => {
                let error = MetadataError::InvalidRequest("Duplicate topic name.".to_owned());
                results.insert(place, Err(error));
            }
            Err(error) => {
                results.insert(place, Err(error));
            }
        }
    }
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0).max(1));
    let (places, topics): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
    let deadline = rt::now() + timeout;
    let created = ctx.metadata.create_topics(topics, request.validate_only, timeout).await;
    let names: Vec<&str> = created.iter().flatten().map(|topic| topic.name.as_str()).collect();
    if !request.validate_only {
        ctx.partitions.wait_for_first_leaders(&names, Some(deadline)).await;
    }
    results.extend(places.into_iter().zip(created));
    let config = ctx.metadata.config();
    let topics = results
        .into_iter()
        .filter_map(|(place, result)| {
            let asked = request.topics.get(place)?;
            if let Ok(topic) = &result {
                note_factor(asked, topic);
            }
            Some(answer(version, &config, asked.name.clone(), result))
        })
        .collect();
    CreateTopicsResponse::default().with_topics(topics)
}

/// Says that a topic has another replication factor than its client asked for; so does the answer, from v5 on.
fn note_factor(asked: &CreatableTopic, topic: &CreatedTopic) {
    if asked.replication_factor > 0 && asked.replication_factor != topic.factor {
        let (name, asked, factor) = (&topic.name, asked.replication_factor, topic.factor);
        tracing::info!(
            "topic {name:?} has replication factor {factor}: with {asked} the loss of one node would stop it"
        );
    }
}

fn new_topic(version: i16, topic: &CreatableTopic) -> Result<NewTopic, MetadataError> {
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let why = format!("Null value not supported for topic configs: {}", config.name);
            return Err(MetadataError::InvalidConfig(why));
        };
        configs.insert(config.name.to_string(), value.to_string());
    }
    let by_hand = !topic.assignments.is_empty();
    // Before v4 a request without an assignment must give both numbers; -1 has no meaning there.
    let unset = |number: i32| number == -1 && (version >= 4 || by_hand);
    Ok(NewTopic {
        name: topic.name.to_string(),
        partitions: Some(topic.num_partitions).filter(|count| !unset(*count)),
        factor: Some(topic.replication_factor).filter(|factor| !unset(i32::from(*factor))),
        assignments: topic
            .assignments
            .iter()
            .map(|one| (one.partition_index, one.broker_ids.iter().map(|node| NodeId(node.0)).collect()))
            .collect(),
        configs,
    })
}

fn answer(
    version: i16,
    config: &Config,
    name: TopicName,
    result: Result<CreatedTopic, MetadataError>,
) -> CreatableTopicResult {
    let answer = CreatableTopicResult::default().with_name(name).with_error_message(None);
    let topic = match result {
        Ok(topic) => topic,
        Err(error) => {
            return answer
                .with_error_code(error.code().code())
                .with_error_message(Some(text(&error.to_string())))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_configs(if version >= 5 { Some(Vec::new()) } else { None });
        }
    };
    let answer = answer.with_error_code(ErrorCode::None.code());
    let answer = if version >= 7 { answer.with_topic_id(topic.id) } else { answer };
    if version < 5 {
        return answer;
    }
    let configs = describe_topic(&config.values, &topic.overrides)
        .into_iter()
        .map(|described| {
            CreatableTopicConfigs::default()
                .with_name(text(&described.name))
                .with_value(described.value.as_deref().map(text))
                .with_read_only(described.read_only)
                .with_config_source(described.source)
                .with_is_sensitive(described.sensitive)
        })
        .collect();
    answer.with_num_partitions(topic.partitions).with_replication_factor(topic.factor).with_configs(Some(configs))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::protocol::Encodable;
    use uuid::Uuid;

    use super::*;

    fn asked(partitions: i32, factor: i16) -> CreatableTopic {
        CreatableTopic::default().with_num_partitions(partitions).with_replication_factor(factor)
    }

    #[test]
    fn answers_encode_in_every_version() {
        let config = Config::default();
        for version in 2..=7 {
            let created = CreatedTopic {
                name: "t".into(),
                id: Uuid::from_u128(7),
                partitions: 3,
                factor: 1,
                overrides: BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]),
            };
            for result in [Ok(created), Err(MetadataError::DeletionDisabled)] {
                let good = result.is_ok();
                let answer = answer(version, &config, TopicName(text("t")), result);
                assert_eq!(answer.configs.as_ref().is_some_and(|all| all.len() > 30), good && version >= 5);
                let response = CreateTopicsResponse::default().with_topics(vec![answer]);
                response.encode(&mut BytesMut::new(), version).unwrap();
            }
        }
    }

    #[test]
    fn minus_one_is_the_default_from_v4_on() {
        assert_eq!(new_topic(4, &asked(-1, -1)).map(|topic| (topic.partitions, topic.factor)), Ok((None, None)));
        let old = new_topic(3, &asked(-1, -1)).map(|topic| (topic.partitions, topic.factor));
        assert_eq!(old, Ok((Some(-1), Some(-1))));
        assert_eq!(new_topic(7, &asked(0, -2)).map(|topic| (topic.partitions, topic.factor)), Ok((Some(0), Some(-2))));
    }
}
