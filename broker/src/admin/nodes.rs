//! POST /api/nodes/<id>/drain and /undrain, and the same under /api/zones/<zone>: moves all replicas off nodes, or
//! allows replicas on them again.
//!
//! The response is sent when the change is committed, with the nodes and the number of replicas that each still holds,
//! which falls as shards are moved. 404: no such node; 409: the other nodes cannot take the replicas; 503: retry.
//! May not know: how shards are moved.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use ottla_protocol::ids::NodeId;
use serde_json::{Value, json};

use super::{AdminState, refused, starting_response};
use crate::metadata::{MetadataError, MetadataImage, NodeRecord, Nodes};

pub(super) async fn drain(state: State<AdminState>, Path(id): Path<i32>) -> Response {
    change(&state, Nodes::One(NodeId(id)), true).await
}

pub(super) async fn undrain(state: State<AdminState>, Path(id): Path<i32>) -> Response {
    change(&state, Nodes::One(NodeId(id)), false).await
}

pub(super) async fn drain_zone(state: State<AdminState>, Path(zone): Path<String>) -> Response {
    change(&state, Nodes::Zone(zone), true).await
}

pub(super) async fn undrain_zone(state: State<AdminState>, Path(zone): Path<String>) -> Response {
    change(&state, Nodes::Zone(zone), false).await
}

async fn change(state: &AdminState, nodes: Nodes, drain: bool) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    if let Err(error) = domain.metadata.drain(nodes.clone(), drain).await {
        return refused(status_of(&error), error.to_string());
    }
    let image = domain.metadata.image();
    let is_meant = |node: &&NodeRecord| match &nodes {
        Nodes::One(id) => node.id == *id,
        Nodes::Zone(zone) => node.rack.as_deref() == Some(zone),
    };
    let nodes: Vec<Value> = image.nodes.values().filter(is_meant).map(|node| described(&image, node)).collect();
    Json(json!({ "nodes": nodes })).into_response()
}

fn described(image: &MetadataImage, node: &NodeRecord) -> Value {
    let is_here = |shard: &&std::sync::Arc<crate::metadata::ShardRecord>| {
        shard.id != crate::metadata::ShardId::METADATA && shard.members().any(|replica| replica.node == node.id)
    };
    json!({
        "id": node.id.0,
        "rack": node.rack,
        "state": node.state.name(),
        "shards": image.shards.values().filter(is_here).count(),
    })
}

/// The status of a refused change of the metadata.
pub(super) fn status_of(error: &MetadataError) -> StatusCode {
    match error {
        MetadataError::NotRegistered(_) | MetadataError::UnknownTopic | MetadataError::UnknownTopicId => {
            StatusCode::NOT_FOUND
        }
        MetadataError::NotController { .. } | MetadataError::TimedOut | MetadataError::Overloaded => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::CONFLICT,
    }
}
