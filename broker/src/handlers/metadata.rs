//! Metadata (key 3, v0-v13): the cluster and its topics as this listener's clients reach them.
//!
//! v0: no names = all topics; v1+: null = all, none = none. v4: auto-creation if the client allows it (and the broker,
//! `auto.create.topics.enable`). v8: authorized operations (KIP-430). v10: topic ids (KIP-516), v12: topics requested
//! by id, UNKNOWN_TOPIC_ID. v13: top-level error. Before a topic is reported as unknown, the node makes a metadata read
//! index, one for the whole request; a request creates at most [`METADATA_AUTO_CREATE_MAX`] topics.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use ottla_protocol::error::ErrorCode;
use uuid::Uuid;

use super::support::partition_metadata::PartitionLookup;
use super::support::{authorized_operations, endpoints, text};
use crate::handlers::context::Context;
use crate::limits::METADATA_AUTO_CREATE_MAX;
use crate::metadata::{MetadataImage, Topic, names};

/// One topic of the response: found, or the error.
enum Entry {
    Found(Arc<Topic>),
    Missing { name: Option<TopicName>, id: Uuid, error: ErrorCode },
}

pub(super) async fn handle(ctx: &Context, version: i16, request: MetadataRequest) -> MetadataResponse {
    let mut image = ctx.metadata.image();
    let entries: Vec<_> = match wanted(version, &request) {
        None => image.topics.values().cloned().map(Entry::Found).collect(),
        Some(names) => {
            let mut unknown = ErrorCode::UnknownTopicOrPartition;
            if names.iter().any(|wanted| look_up(&image, wanted).is_none()) {
                if ctx.metadata.read_index().await.is_err() {
                    // Newer metadata of other nodes may have the topic.
                    unknown = ErrorCode::LeaderNotAvailable;
                }
                image = ctx.metadata.image();
            }
            let may_create = (version < 4 || request.allow_auto_topic_creation) && ctx.config.topics.auto_create;
            let errors = if may_create { create_missing(ctx, &image, &names).await } else { Vec::new() };
            image = ctx.metadata.image();
            names.iter().map(|wanted| entry(&image, wanted, unknown, &errors)).collect()
        }
    };
    let topics = entries.iter().filter_map(|entry| match entry {
        Entry::Found(topic) => Some(&**topic),
        Entry::Missing { .. } => None,
    });
    ctx.partitions.ping_leaders(topics).await;
    answer(ctx, version, &request, &image, entries)
}

/// The requested topics, each once; `None` for all.
fn wanted(version: i16, request: &MetadataRequest) -> Option<Vec<&MetadataRequestTopic>> {
    let topics = request.topics.as_ref()?;
    if version == 0 && topics.is_empty() {
        return None;
    }
    let mut seen = HashSet::new();
    Some(topics.iter().filter(|topic| seen.insert((topic.name.as_deref(), topic.topic_id))).collect())
}

fn look_up<'a>(image: &'a MetadataImage, wanted: &MetadataRequestTopic) -> Option<&'a Arc<Topic>> {
    match &wanted.name {
        Some(name) => image.topic(name),
        None => image.topic_by_id(&wanted.topic_id),
    }
}

/// Creates the missing topics by name; returns the errors of those that were not created.
async fn create_missing(
    ctx: &Context,
    image: &MetadataImage,
    names: &[&MetadataRequestTopic],
) -> Vec<(StrBytes, ErrorCode)> {
    let missing = names.iter().filter(|wanted| look_up(image, wanted).is_none());
    let missing: Vec<StrBytes> = missing.filter_map(|wanted| wanted.name.as_ref().map(|name| name.0.clone())).collect();
    let (mut errors, mut created) = (Vec::new(), Vec::new());
    for (number, name) in missing.iter().enumerate() {
        if number >= METADATA_AUTO_CREATE_MAX {
            // Retriable: a client that needs more topics sends the request again.
            errors.push((name.clone(), ErrorCode::LeaderNotAvailable));
            continue;
        }
        match ctx.metadata.auto_create(name).await {
            Ok(_) => created.push(name.as_str()),
            Err(error) => errors.push((name.clone(), error.code())),
        }
    }
    if !created.is_empty() {
        ctx.partitions.wait_for_first_leaders(&created, None).await;
    }
    errors
}

/// `unknown`: the error of a name that does not exist.
fn entry(
    image: &MetadataImage,
    wanted: &MetadataRequestTopic,
    unknown: ErrorCode,
    errors: &[(StrBytes, ErrorCode)],
) -> Entry {
    if let Some(topic) = look_up(image, wanted) {
        return Entry::Found(topic.clone());
    }
    let Some(name) = &wanted.name else {
        let known = unknown == ErrorCode::UnknownTopicOrPartition;
        let error = if known { ErrorCode::UnknownTopicId } else { unknown };
        return Entry::Missing { name: None, id: wanted.topic_id, error };
    };
    let refused = errors.iter().find(|(refused, _)| *refused == name.0).map(|(_, error)| *error);
    let error = match refused {
        Some(error) => error,
        None if names::check_name(name).is_err() => ErrorCode::InvalidTopic,
        None => unknown,
    };
    Entry::Missing { name: Some(name.clone()), id: Uuid::nil(), error }
}

fn answer(
    ctx: &Context,
    version: i16,
    request: &MetadataRequest,
    image: &MetadataImage,
    entries: Vec<Entry>,
) -> MetadataResponse {
    let topic_operations =
        authorized_operations::if_requested(request.include_topic_authorized_operations, authorized_operations::TOPIC);
    let mut views = PartitionLookup::new(ctx, image);
    let topics: Vec<_> = entries
        .into_iter()
        .map(|entry| match entry {
            Entry::Found(topic) => found(&mut views, version, &topic, topic_operations),
            Entry::Missing { name, id, error } => missing(version, name, id, error),
        })
        .collect();
    let brokers = endpoints::reachable(ctx, image, views.named())
        .into_iter()
        .map(|node| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(node.node.0))
                .with_host(node.host)
                .with_port(node.port)
                .with_rack(node.rack)
        })
        .collect();
    let response = MetadataResponse::default()
        .with_brokers(brokers)
        .with_cluster_id(Some(text(&image.cluster_id)))
        .with_controller_id(BrokerId(endpoints::controller(ctx).0))
        .with_topics(topics);
    if (8..=10).contains(&version) {
        response.with_cluster_authorized_operations(authorized_operations::if_requested(
            request.include_cluster_authorized_operations,
            authorized_operations::CLUSTER,
        ))
    } else {
        response
    }
}

fn found(views: &mut PartitionLookup<'_>, version: i16, topic: &Topic, operations: i32) -> MetadataResponseTopic {
    let partitions = (0..topic.partition_count())
        .map(|index| {
            let view = views.of(topic, index);
            let partition = MetadataResponsePartition::default()
                .with_error_code(view.error.code())
                .with_partition_index(index)
                .with_leader_id(view.leader)
                .with_replica_nodes(view.replicas)
                .with_isr_nodes(view.in_sync);
            let partition = if version >= 5 { partition.with_offline_replicas(view.offline) } else { partition };
            if version >= 7 { partition.with_leader_epoch(view.leader_epoch) } else { partition }
        })
        .collect();
    described(version, topic, operations, partitions)
}

/// The topic with what this version has of it.
fn described(
    version: i16,
    topic: &Topic,
    operations: i32,
    partitions: Vec<MetadataResponsePartition>,
) -> MetadataResponseTopic {
    let answer = MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(&topic.name))))
        .with_is_internal(topic.internal)
        .with_partitions(partitions);
    let answer = if version >= 8 { answer.with_topic_authorized_operations(operations) } else { answer };
    if version >= 10 { answer.with_topic_id(topic.id) } else { answer }
}

fn missing(version: i16, name: Option<TopicName>, id: Uuid, error: ErrorCode) -> MetadataResponseTopic {
    // Only v12 can leave the name out.
    let name = if version >= 12 { name } else { Some(name.unwrap_or_default()) };
    let answer = MetadataResponseTopic::default().with_name(name).with_error_code(error.code());
    if version >= 10 { answer.with_topic_id(id) } else { answer }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::BytesMut;
    use kafka_protocol::protocol::{Decodable, Encodable, Message};

    use super::*;
    use crate::config::TopicConfig;
    use crate::shard::fake::{TOPIC, image_with_topic};

    #[test]
    fn every_version_says_of_a_topic_what_it_can() {
        let image = image_with_topic(1, TopicConfig::default());
        let topic = image.topic_by_id(&TOPIC).unwrap();
        for version in MetadataResponse::VERSIONS.min..=MetadataResponse::VERSIONS.max {
            let response = MetadataResponse::default().with_topics(vec![described(version, topic, 3400, Vec::new())]);
            let mut bytes = BytesMut::new();
            response.encode(&mut bytes, version).unwrap_or_else(|error| panic!("v{version}: {error}"));
            let read = MetadataResponse::decode(&mut bytes.freeze(), version).unwrap().topics.remove(0);
            let (operations, id) = (read.topic_authorized_operations, read.topic_id);
            let defaults = MetadataResponseTopic::default();
            let expected = if version >= 8 { 3400 } else { defaults.topic_authorized_operations };
            assert_eq!((operations, id == TOPIC), (expected, version >= 10), "v{version}");
        }
    }
}
