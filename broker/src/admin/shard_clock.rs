//! POST /api/shards/<id>/set-clock and /set-clock/<milliseconds since 1970>, on any node: sets a shard's clock to its
//! leader's wall clock, or to that time.
//!
//! The response is sent when the change is applied. 404: no such shard; 409: most nodes' clocks do not agree, or the
//! time lies ahead, or the feature level is too low; 503: retry. May not know: how a clock is set.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde_json::json;

use super::{AdminState, refused, starting_response};
use crate::metadata::ShardId;
use crate::shard::SetClockOutcome;

/// Time limit for the shard's leader.
const WAIT: Duration = Duration::from_secs(10);

pub(super) async fn set(state: State<AdminState>, Path(id): Path<u64>) -> Response {
    change(&state, ShardId(id), None).await
}

pub(super) async fn set_to(state: State<AdminState>, Path((id, to_ms)): Path<(u64, i64)>) -> Response {
    change(&state, ShardId(id), Some(to_ms)).await
}

async fn change(state: &AdminState, shard: ShardId, to_ms: Option<i64>) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    if shard == ShardId::METADATA || domain.metadata.image().shard(shard).is_none() {
        return refused(StatusCode::NOT_FOUND, "no shard of this number that has a clock");
    }
    match domain.partitions.set_clock(shard, to_ms, WAIT).await {
        SetClockOutcome::Done(clock_ms) => Json(json!({ "id": shard.0, "clock_ms": clock_ms })).into_response(),
        SetClockOutcome::NotConfirmed => refused(
            StatusCode::CONFLICT,
            "most nodes' clocks do not agree with that of the shard's leader: put them right, or name the time",
        ),
        SetClockOutcome::Ahead => refused(StatusCode::CONFLICT, "this time lies ahead of the leader's clock"),
        SetClockOutcome::LevelTooLow => {
            refused(StatusCode::CONFLICT, "not before ottla.version=2: ottla feature upgrade ottla.version=2")
        }
        SetClockOutcome::NotLeader => {
            refused(StatusCode::SERVICE_UNAVAILABLE, "the shard has no leader now; ask again")
        }
        SetClockOutcome::TimedOut => {
            refused(StatusCode::SERVICE_UNAVAILABLE, "the shard's leader has not answered in time; ask again")
        }
    }
}
