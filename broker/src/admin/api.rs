//! The JSON API under /v1: the state of the cluster, its topics and groups. Read only: what Kafka's APIs can change is
//! changed through them; the rest is changed under /api.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use super::{AdminState, starting_response};
use crate::handlers::context::Domain;
use crate::metadata::{MetadataImage, Topic};
use crate::partition::{Leader, TopicRef};

pub(super) async fn cluster(State(state): State<AdminState>) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    let image = domain.metadata.image();
    let nodes: Vec<Value> = image
        .nodes
        .values()
        .map(|node| {
            let listeners = node.listeners.iter();
            json!({
                "id": node.id.0,
                "rack": node.rack,
                "version": node.version,
                "state": node.state_name(),
                "to_be": node.state.name(),
                "fenced": node.is_fenced(),
                "since_ms": Some(node.liveness.since_ms).filter(|since_ms| *since_ms > 0),
                "listeners": listeners.map(|l| json!({"name": l.name, "host": l.host, "port": l.port})).collect::<Vec<_>>(),
            })
        })
        .collect();
    Json(json!({
        "cluster_id": *image.cluster_id,
        "node_id": domain.config.node_id.0,
        "metadata_leader": domain.metadata.controller_id().map(|node| node.0),
        "version": env!("CARGO_PKG_VERSION"),
        "nodes": nodes,
        "topics": image.topics.len(),
        "partitions": image.partition_count(),
        "shards": image.shards.len(),
        "metadata_index": image.index.0,
    }))
    .into_response()
}

pub(super) async fn topics(State(state): State<AdminState>) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    let image = domain.metadata.image();
    let topics: Vec<Value> = image.topics.values().map(|topic| summary(&image, topic)).collect();
    Json(json!({ "topics": topics })).into_response()
}

fn summary(image: &MetadataImage, topic: &Topic) -> Value {
    json!({
        "name": *topic.name,
        "id": topic.id.to_string(),
        "internal": topic.internal,
        "partitions": topic.partition_count(),
        "replication_factor": image.replication_factor(topic),
        "configs": *topic.overrides,
    })
}

pub(super) async fn topic(State(state): State<AdminState>, Path(name): Path<String>) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    let image = domain.metadata.image();
    let Some(topic) = image.topic(&name) else {
        return (StatusCode::NOT_FOUND, Json(json!({"error": "no topic of this name"}))).into_response();
    };
    let mut answer = summary(&image, topic);
    let mut leaders = domain.partitions.leaders();
    answer["partitions"] =
        (0..topic.partition_count()).map(|index| partition(domain, topic, index, leaders.of(topic, index))).collect();
    Json(answer).into_response()
}

fn partition(domain: &Domain, topic: &Topic, index: i32, leader: Leader<'_>) -> Value {
    let mut answer = json!({
        "partition": index,
        "shard": topic.route(index).map(|route| route.shard.0),
        "leader": leader.node.map(|node| node.0),
        "leader_epoch": leader.epoch.0,
        "replicas": leader.replicas.iter().map(|node| node.0).collect::<Vec<_>>(),
        "in_sync": leader.in_sync.iter().map(|node| node.0).collect::<Vec<_>>(),
        "offline": leader.offline.iter().map(|node| node.0).collect::<Vec<_>>(),
    });
    if let Ok(Some(found)) = domain.partitions.find_now(TopicRef::Id(topic.id), index) {
        let marks = found.watermarks();
        answer["log_start"] = marks.log_start.0.into();
        answer["high_watermark"] = marks.high_watermark.0.into();
        answer["last_stable"] = marks.last_stable.0.into();
        answer["bytes"] = found.size_bytes().into();
    }
    answer
}
