//! POST /api/shards/<id>/move, on any node: moves a shard's replicas to other nodes, all partitions with it.
//! `?nodes=<node>,...` names them, the preferred leader first; `?cancel=true` takes the move that is under way back.
//!
//! The response is sent when the move is recorded, with the nodes that are to have the replicas; the shard's leader carries it
//! out, and /v1/shards/<id> shows how far it is. 400: no such list of nodes; 404: no such shard; 409: a node is not registered,
//! drained or named twice, the shard is being split, or there is nothing to cancel; 503: retry. May not know: how a shard is
//! moved.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use ottla_protocol::ids::NodeId;
use serde::Deserialize;
use serde_json::json;

use super::nodes::status_of;
use super::{AdminState, refused, starting_response};
use crate::metadata::ShardId;

#[derive(Debug, Deserialize)]
pub(super) struct MoveQuery {
    nodes: Option<String>,
    #[serde(default)]
    cancel: bool,
}

impl MoveQuery {
    /// The nodes, or `None` to cancel.
    fn target(&self) -> Result<Option<Vec<NodeId>>, String> {
        match (&self.nodes, self.cancel) {
            (None, true) => Ok(None),
            (Some(named), false) => {
                let node =
                    |word: &str| word.parse().map(NodeId).map_err(|_| format!("'{word}' is not the id of a node"));
                named.split(',').map(node).collect::<Result<_, _>>().map(Some)
            }
            (Some(_), true) | (None, false) => Err("name either nodes=<node>,... or cancel=true".to_owned()),
        }
    }
}

pub(super) async fn shard(
    State(state): State<AdminState>,
    Path(id): Path<u64>,
    Query(query): Query<MoveQuery>,
) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    let target = match query.target() {
        Ok(target) => target,
        Err(why) => return refused(StatusCode::BAD_REQUEST, why),
    };
    let shard = ShardId(id);
    if shard == ShardId::METADATA || domain.metadata.image().shard(shard).is_none() {
        return refused(StatusCode::NOT_FOUND, "no shard of this number that carries partitions");
    }
    match domain.metadata.move_shard(shard, target).await {
        Ok(nodes) => {
            Json(json!({ "id": shard.0, "nodes": nodes.iter().map(|node| node.0).collect::<Vec<_>>() })).into_response()
        }
        Err(error) => refused(status_of(&error), error.to_string()),
    }
}
