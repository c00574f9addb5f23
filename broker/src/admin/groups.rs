//! Consumer groups on the admin port: /metrics/groups, /v1/groups and /v1/groups/{id}.
//!
//! - `?group=REGEX` and `?topic=REGEX` filter.
//! - `?scope=node`: groups that this node coordinates, the default of /metrics/groups.
//! - `?scope=replica`: groups of which this node has a replica.
//! - `?scope=cluster`: groups of all coordinators, to which this node sends requests; the default of the JSON pages.
//!
//! May not know: how lag is measured.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use ottla_env::rt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Names, text_format};
use super::{AdminState, group_families, starting_response};
use crate::coordinator::lag::report::{Filter, GroupLag, PartitionLag, Report, TopicLag};
use crate::handlers::context::Domain;
use crate::partition::Isolation;

/// The set of groups on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scope {
    /// Groups that this node coordinates.
    Node,
    /// Groups of which it has a replica.
    Replica,
    /// Groups of all coordinators.
    Cluster,
}

impl Scope {
    pub(super) async fn groups(self, domain: &Domain, filter: &Filter) -> Report {
        match self {
            Self::Node => domain.lags.here(filter, false).await,
            Self::Replica => domain.lags.here(filter, true).await,
            Self::Cluster => domain.lags.cluster(filter).await,
        }
    }
}

/// The query parameters of the pages about groups.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupsQuery {
    group: Option<Names>,
    topic: Option<Names>,
    scope: Option<Scope>,
    /// If true, with each partition; else only the sums of topics.
    #[serde(default)]
    partitions: bool,
}

impl GroupsQuery {
    /// The requested groups, and whether with their partitions.
    async fn groups(self, domain: &Domain, default: Scope) -> (Report, bool) {
        let filter = Filter { group: self.group.map(Names::filter), topic: self.topic.map(Names::filter), exact: None };
        (self.scope.unwrap_or(default).groups(domain, &filter).await, self.partitions)
    }
}

/// A page of megabytes is not made on a thread that serves clients.
async fn written<T: Send + 'static>(write: impl FnOnce() -> T + Send + 'static) -> Result<T, Response> {
    rt::spawn_blocking(write).await.map_err(|error| {
        tracing::error!("a page about groups failed: {error}");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

pub(super) async fn metrics(State(state): State<AdminState>, Query(query): Query<GroupsQuery>) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    let (report, _) = query.groups(domain, Scope::Node).await;
    let page = written(move || {
        let mut page = String::new();
        group_families::write(&report, usize::MAX, &mut page);
        page
    });
    page.await.map_or_else(|refused| refused, text_format)
}

pub(super) async fn list(State(state): State<AdminState>, Query(query): Query<GroupsQuery>) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    let (report, with_partitions) = query.groups(domain, Scope::Cluster).await;
    let page = written(move || {
        let shown = |group: &GroupLag| shown(group, with_partitions);
        json!({ "groups": report.groups.iter().map(shown).collect::<Vec<_>>(), "missing_partitions": report.missing })
    });
    page.await.map_or_else(|refused| refused, |page| Json(page).into_response())
}

pub(super) async fn one(State(state): State<AdminState>, Path(name): Path<String>) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    let report = domain.lags.cluster(&Filter::one(&name)).await;
    let page = written(move || {
        let found = report.groups.first().map(|group| shown(group, true));
        (found, report.missing.is_empty())
    });
    match page.await {
        Ok((Some(group), _)) => Json(group).into_response(),
        Ok((None, true)) => (StatusCode::NOT_FOUND, Json(json!({"error": "no group of this name"}))).into_response(),
        Ok((None, false)) => {
            let error = "neither the group's coordinator nor another replica of its partition answers";
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": error }))).into_response()
        }
        Err(refused) => refused,
    }
}

#[allow(clippy::cast_precision_loss)]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn shown(group: &GroupLag, with_partitions: bool) -> Value {
    let topic = |topic: &TopicLag| {
        let [high_watermark_lag, last_stable_lag] = topic.lag_by_end();
        let mut shown = json!({
            "name": topic.name,
            "partition_count": topic.partitions.len(),
            "committed_sum": topic.committed(),
            "lag": topic.lag(),
            "lag_high_watermark": high_watermark_lag,
            "lag_last_stable": last_stable_lag,
        });
        if with_partitions {
            shown["partitions"] = topic.partitions.iter().map(partition).collect();
        }
        shown
    };
    let [high_watermark_lag, last_stable_lag] = group.lag_by_end();
    json!({
        "name": group.name,
        "protocol_type": group.protocol_type,
        "generation": group.generation,
        "members": group.members,
        "coordinator": group.coordinator.map(|node| node.0),
        "isolation_level": isolation_level(group.isolation),
        "status": group.status().name(),
        "lag": group.lag(),
        "lag_high_watermark": high_watermark_lag,
        "lag_last_stable": last_stable_lag,
        "lag_seconds": group.behind_ms().map(seconds),
        "age_seconds": seconds(group.age_ms()),
        "unknown_partitions": group.unknown(),
        "topics": group.topics.iter().map(topic).collect::<Vec<_>>(),
    })
}

/// As clients' `isolation.level` names it.
fn isolation_level(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadUncommitted => "read_uncommitted",
        Isolation::ReadCommitted => "read_committed",
    }
}

fn partition(partition: &PartitionLag) -> Value {
    let measured = partition.measured;
    let by_end = measured.and_then(|known| known.by_end);
    json!({
        "partition": partition.index,
        "committed_offset": partition.committed,
        "end_offset": measured.map(|known| known.end),
        "last_stable_offset": by_end.map(|by_end| by_end.last_stable),
        "lag": measured.map(|known| known.lag),
        "lag_high_watermark": by_end.map(|by_end| by_end.high_watermark_lag),
        "lag_last_stable": by_end.map(|by_end| by_end.last_stable_lag),
        "lag_seconds": measured.and_then(|known| known.behind_ms).map(seconds),
        "age_seconds": measured.map(|known| seconds(known.age_ms)),
        "status": partition.status.name(),
        "window_complete": partition.completeness(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_null_where_nothing_is_known() {
        let shown = shown(&GroupLag::example("g", &[(100, Some(900)), (5, None)]), true);
        assert_eq!((&shown["lag"], &shown["status"]), (&Value::Null, &json!("ERR")));
        let partitions = &shown["topics"][0]["partitions"];
        assert_eq!(shown["isolation_level"], "read_committed");
        assert_eq!((&partitions[0]["lag"], &partitions[0]["lag_last_stable"]), (&json!(900), &json!(900)));
        assert_eq!(
            (&partitions[0]["lag_high_watermark"], &partitions[0]["last_stable_offset"]),
            (&json!(907), &json!(1000))
        );
        assert_eq!(partitions[0]["lag_seconds"], 1_350.0);
        assert_eq!(partitions[0]["status"], "STOP");
        assert_eq!((&partitions[1]["lag"], &partitions[1]["age_seconds"]), (&Value::Null, &Value::Null));
        assert_eq!((&partitions[1]["lag_last_stable"], &partitions[1]["committed_offset"]), (&Value::Null, &json!(5)));
    }
}
