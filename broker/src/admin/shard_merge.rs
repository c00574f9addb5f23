//! POST /api/shards/<id>/merge, on any node: another shard takes over all that this one carries, which ends with it.
//! `?into=<shard>` names the other one; `?cancel=true` takes the merge that is under way back.
//!
//! The response is sent when this is recorded; the leaders of both shards carry it out, and /v1/shards/<id> shows how far it is,
//! until there is no such shard any more. 400: no such target; 404: no such shard; 409: one of them is being split, merged or
//! moved, their replicas do not lie in the same directories, they carry different kinds of topics, it belongs to the default pool,
//! there is nothing to cancel any more, or the feature level is too low; 503: retry. May not know: how shards are merged.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::json;

use super::nodes::status_of;
use super::{AdminState, refused, starting_response};
use crate::metadata::{MergeStep, ShardId};

#[derive(Debug, Deserialize)]
pub(super) struct MergeQuery {
    into: Option<u64>,
    #[serde(default)]
    cancel: bool,
}

pub(super) async fn shard(
    State(state): State<AdminState>,
    Path(id): Path<u64>,
    Query(query): Query<MergeQuery>,
) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    let (absorbed, image) = (ShardId(id), domain.metadata.image());
    let Some(record) = image.shard(absorbed).filter(|_| absorbed != ShardId::METADATA) else {
        return refused(StatusCode::NOT_FOUND, "no shard of this number that carries partitions");
    };
    let step = match (query.into, query.cancel) {
        (Some(survivor), false) => MergeStep::Begin { survivor: ShardId(survivor), absorbed },
        (None, true) => {
            let intent = record.merge.as_ref().map(|merge| merge.intent).unwrap_or_default();
            MergeStep::Cancel { absorbed, intent }
        }
        (Some(_), true) | (None, false) => {
            return refused(StatusCode::BAD_REQUEST, "name either into=<shard> or cancel=true");
        }
    };
    let partitions = image.partitions_by_shard.get(&absorbed).copied().unwrap_or(0);
    match domain.metadata.merge(step).await {
        Ok(()) => Json(json!({ "id": id, "into": query.into, "partitions": partitions })).into_response(),
        Err(error) => refused(status_of(&error), error.to_string()),
    }
}
