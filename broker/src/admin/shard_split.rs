//! POST /api/shards/<id>/split, on any node: makes partitions of a shard a shard of their own, on the same nodes.
//! `?partitions=<topic>:<number>,...` names them; without it every second one that the shard carries moves.
//!
//! The response is sent when the split is recorded, with the number of the new shard; the shard's leader carries it out.
//! 400: such partitions cannot be named; 404: no such shard or topic; 409: the shard is being split or moved, does not carry
//! the partitions, or the feature level is too low; 503: retry. May not know: how a shard is split.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::nodes::status_of;
use super::{AdminState, refused, starting_response};
use crate::metadata::{MetadataImage, ShardId};

#[derive(Debug, Deserialize)]
pub(super) struct SplitQuery {
    partitions: Option<String>,
}

pub(super) async fn split(
    State(state): State<AdminState>,
    Path(id): Path<u64>,
    Query(query): Query<SplitQuery>,
) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    let (parent, image) = (ShardId(id), domain.metadata.image());
    if parent == ShardId::METADATA || image.shard(parent).is_none() {
        return refused(StatusCode::NOT_FOUND, "no shard of this number that carries partitions");
    }
    let partitions = match query.partitions.as_deref() {
        None => every_second(&image, parent),
        Some(named) => match parse(&image, named) {
            Ok(partitions) => partitions,
            Err((status, why)) => return refused(status, why),
        },
    };
    let moved = partitions.len();
    match domain.metadata.split_shard(parent, partitions).await {
        Ok(child) => Json(json!({ "id": parent.0, "child": child.0, "partitions": moved })).into_response(),
        Err(error) => refused(status_of(&error), error.to_string()),
    }
}

/// Every second partition of a shard, by topic and number: each topic is halved.
fn every_second(image: &MetadataImage, shard: ShardId) -> Vec<(Uuid, i32)> {
    let topics = image.topics.values();
    let carried = topics.flat_map(|topic| topic.routed_to(shard).map(|(index, _)| (topic.id, index)));
    carried.skip(1).step_by(2).collect()
}

fn parse(image: &MetadataImage, named: &str) -> Result<Vec<(Uuid, i32)>, (StatusCode, String)> {
    let one = |word: &str| {
        let no_partition = || (StatusCode::BAD_REQUEST, format!("'{word}' is not <topic>:<number>"));
        let (topic, index) = word.rsplit_once(':').ok_or_else(no_partition)?;
        let index = index.parse().map_err(|_| no_partition())?;
        let known = image.topic(topic).ok_or_else(|| (StatusCode::NOT_FOUND, format!("no topic '{topic}'")))?;
        Ok((known.id, index))
    };
    named.split(',').map(one).collect()
}
