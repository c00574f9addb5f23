//! GET /v1/balance, on any node: what the balancer of the metadata's leader plans and why, and what it did. POST /api/balance/apply:
//! it carries the plan out, also where `ottla.balance.enable` is false; POST /api/balance/pause and /resume set that.
//!
//! 503: retry. May not know: how a plan is made.

use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use super::nodes::status_of;
use super::{AdminState, refused, starting_response};
use crate::metadata::balance::{Action, BalanceStatus, Change};
use crate::metadata::{ConfigChange, ConfigOp, ConfigOwner, MetadataError};

/// The setting that pauses the balancer.
const ENABLE: &str = "ottla.balance.enable";

pub(super) async fn show(State(state): State<AdminState>) -> Response {
    status(&state, false).await
}

pub(super) async fn apply(State(state): State<AdminState>) -> Response {
    status(&state, true).await
}

pub(super) async fn pause(State(state): State<AdminState>) -> Response {
    enable(&state, false).await
}

pub(super) async fn resume(State(state): State<AdminState>) -> Response {
    enable(&state, true).await
}

async fn status(state: &AdminState, apply: bool) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    match domain.metadata.balance_status(apply).await {
        Ok(status) => Json(described(&status)).into_response(),
        Err(error) => refused(status_of(&error), error.to_string()),
    }
}

async fn enable(state: &AdminState, enabled: bool) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    let ops = vec![(ENABLE.to_owned(), ConfigOp::Set(enabled.to_string()))];
    let change = ConfigChange { owner: ConfigOwner::AllNodes, ops, replace: false };
    let outcome =
        domain.metadata.alter_configs(vec![change], false).await.into_iter().collect::<Result<Vec<_>, MetadataError>>();
    match outcome {
        Ok(_) => Json(json!({ "enabled": enabled })).into_response(),
        Err(error) => refused(status_of(&error), error.to_string()),
    }
}

fn described(status: &BalanceStatus) -> Value {
    let action = |action: &Action| {
        let mut described = json!({ "shard": action.change.shard().0, "reason": action.reason });
        match &action.change {
            Change::Replicas { nodes, .. } => described["nodes"] = nodes.iter().map(|node| node.0).collect(),
            // The history does not keep which they were.
            Change::Split { partitions, .. } if partitions.is_empty() => {}
            Change::Split { partitions, .. } => described["partitions"] = partitions.len().into(),
            Change::Merge { into, .. } => described["into"] = into.iter().map(|shard| shard.0).collect(),
        }
        described
    };
    let share = status.shares.iter().map(|share| {
        json!({
            "node": share.node.0,
            "replicas": share.replicas,
            "leaders": share.leads,
            "bytes_per_second": share.bytes,
        })
    });
    let done = status.history.iter().map(|done| {
        let mut described = action(&done.action);
        described["at_ms"] = done.at_ms.into();
        described
    });
    json!({
        "enabled": status.enabled,
        "complete": status.complete,
        "nodes": share.collect::<Vec<_>>(),
        "plan": status.plan.iter().map(action).collect::<Vec<_>>(),
        "applying": status.applying.iter().map(action).collect::<Vec<_>>(),
        "history": done.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::ShardId;
    use crate::metadata::balance::Done;

    #[test]
    fn a_planned_split_tells_its_partitions_and_one_of_the_history_tells_none() {
        let split = |count| {
            let partitions = (0..count).map(|index| (uuid::Uuid::from_u128(1), index)).collect();
            Action { change: Change::Split { shard: ShardId(3), partitions }, reason: "why".to_owned() }
        };
        let done = Done { at_ms: 7, action: split(0) };
        let (complete, shares) = (true, Vec::new());
        let (plan, applying, history) = (vec![split(2)], Vec::new(), vec![done]);
        let told = described(&BalanceStatus { enabled: true, complete, shares, plan, applying, history });
        assert_eq!(told["plan"], json!([{ "shard": 3, "reason": "why", "partitions": 2 }]));
        assert_eq!(told["history"], json!([{ "shard": 3, "reason": "why", "at_ms": 7 }]));
    }
}
