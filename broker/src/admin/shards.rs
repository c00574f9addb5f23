//! The JSON API's pages about shards: /v1/shards and /v1/shards/{id}. Any node answers from its local state: replicas
//! from the metadata, leader and term from its own replica or from other nodes' leadership updates, and details of its
//! own replica if it has one.
//!
//! Changes nothing. May not know: Raft beyond what a replica reports.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use ottla_env::rt;
use ottla_protocol::ids::NodeId;
use ottla_raft::{Membership, Role};
use ottla_storage::ids::{LogId, ReplicaId};
use serde_json::{Value, json};

use super::{AdminState, starting_response};
use crate::handlers::context::Domain;
use crate::metadata::{MetadataImage, ReplicaRecord, ShardId, ShardKind, ShardRecord};

/// The state of this node's replica of a shard.
struct LocalReplica {
    replica: ReplicaId,
    role: Role,
    members: Membership,
    applied: Option<LogId>,
    waiting_bytes: usize,
}

pub(super) async fn list(State(state): State<AdminState>) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    let image = domain.metadata.image();
    let shards: Vec<Value> =
        image.shards.values().map(|shard| summary(domain, &image, shard, here(domain, shard.id).as_ref())).collect();
    Json(json!({ "node_id": domain.config.node_id.0, "shards": shards })).into_response()
}

pub(super) async fn one(State(state): State<AdminState>, Path(id): Path<u64>) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    let domain = domain.clone();
    // A shard may carry a hundred thousand partitions: the page is not made on a thread that serves clients.
    let page = rt::spawn_blocking(move || described(&domain, ShardId(id))).await;
    match page {
        Ok(Some(page)) => Json(page).into_response(),
        Ok(None) => (StatusCode::NOT_FOUND, Json(json!({"error": "no shard of this number"}))).into_response(),
        Err(error) => {
            tracing::error!("the page of shard {id} failed: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn described(domain: &Domain, id: ShardId) -> Option<Value> {
    let image = domain.metadata.image();
    let shard = image.shard(id)?;
    let here = here(domain, id);
    let mut page = summary(domain, &image, shard, here.as_ref());
    page["created"] = shard.created.0.into();
    page["split"] = shard
        .split
        .as_ref()
        .map_or(Value::Null, |split| json!({ "parent": split.parent.0, "done": split.done.is_some() }));
    page["merge"] = shard
        .merge
        .as_ref()
        .map_or(Value::Null, |merge| json!({ "into": merge.survivor.0, "phase": merge.phase.name() }));
    page["topics"] = topics(&image, id);
    let closed = domain.partitions.closed().into_iter().find(|(_, aside)| aside.shard == Some(id));
    page["closed"] = closed.map_or(Value::Null, |(_, aside)| aside.why.into());
    page["here"] = here.map_or(Value::Null, |here| {
        let ids = |replicas: &std::collections::BTreeSet<ReplicaId>| replicas.iter().map(|id| id.0).collect::<Vec<_>>();
        json!({
            "node": domain.config.node_id.0,
            "replica": here.replica.0,
            "applied": here.applied.map(|applied| applied.index.0),
            "applied_term": here.applied.map(|applied| applied.term.0),
            "voters": here.members.voters.iter().map(ids).collect::<Vec<_>>(),
            "learners": ids(&here.members.learners),
            "waiting_bytes": here.waiting_bytes,
            "serves": here.role.ready && !here.role.stopped,
            "stopped": here.role.stopped,
        })
    });
    Some(page)
}

fn summary(domain: &Domain, image: &MetadataImage, shard: &ShardRecord, here: Option<&LocalReplica>) -> Value {
    let (leader, term) = leader(domain, shard, here).map_or((None, None), |(node, term)| (Some(node), Some(term)));
    let kind = match shard.kind {
        ShardKind::Metadata => "metadata",
        ShardKind::Pool { .. } => "pool",
        ShardKind::ConsumerOffsets => "consumer-offsets",
        ShardKind::TransactionState => "transaction-state",
    };
    let closed = domain.partitions.closed();
    let pinned = matches!(shard.kind, ShardKind::Pool { pinned: true, .. });
    let replica = |replica: &ReplicaRecord| {
        json!({
            "id": replica.id.0,
            "node": replica.node.0,
            "directory": replica.directory.to_string(),
            "role": match closed.iter().any(|(closed, _)| *closed == replica.id) {
                true => "closed",
                false => role(shard, replica, leader, here),
            },
        })
    };
    json!({
        "id": shard.id.0,
        "kind": kind,
        "pinned": pinned,
        "leader": leader.map(|node| node.0),
        "term": term,
        "replicas": shard.members().map(replica).collect::<Vec<_>>(),
        "partitions": image.partitions_by_shard.get(&shard.id).copied().unwrap_or(0),
    })
}

/// The leader and the term, as far as this node knows.
fn leader(domain: &Domain, shard: &ShardRecord, here: Option<&LocalReplica>) -> Option<(NodeId, u64)> {
    match here {
        Some(here) => {
            let leader = shard.members().find(|replica| Some(replica.id) == here.role.leader)?;
            (!here.role.stopped).then_some((leader.node, here.role.term.0))
        }
        None if shard.id == ShardId::METADATA => None,
        None => domain.partitions.leader_elsewhere(shard.id),
    }
}

/// The role of a replica: `leaving` if it is to be removed. A node without a replica of its own cannot tell a learner
/// from a follower, and reports both as `replica`.
fn role(
    shard: &ShardRecord,
    replica: &ReplicaRecord,
    leader: Option<NodeId>,
    here: Option<&LocalReplica>,
) -> &'static str {
    let leads = match here {
        Some(here) => here.role.leader == Some(replica.id) && !here.role.stopped,
        None => leader == Some(replica.node) && shard.replicas.contains(replica),
    };
    match here {
        _ if leads => "leader",
        _ if shard.leaving.contains(replica) => "leaving",
        Some(here) if here.members.is_voter(replica.id) => "follower",
        Some(here) if here.members.learners.contains(&replica.id) => "learner",
        // The Raft group does not have it as a member yet.
        Some(_) => "joining",
        None => "replica",
    }
}

fn here(domain: &Domain, id: ShardId) -> Option<LocalReplica> {
    if id == ShardId::METADATA {
        let group = domain.metadata.group();
        let role = *group.role().borrow();
        let (replica, members, applied) = (group.replica(), group.membership(), group.applied());
        return Some(LocalReplica { replica, role, members, applied, waiting_bytes: 0 });
    }
    let shard = domain.partitions.shards().into_iter().find(|shard| shard.creation.shard == id)?;
    Some(LocalReplica {
        replica: shard.replica,
        role: shard.role(),
        members: shard.members(),
        applied: shard.applied_checksum().map(|(applied, _)| applied),
        waiting_bytes: shard.waiting_bytes(),
    })
}

/// The partitions that a shard carries, by topic.
fn topics(image: &MetadataImage, id: ShardId) -> Value {
    let mut topics = Vec::new();
    for topic in image.topics.values() {
        let partitions: Vec<i32> = topic.routed_to(id).map(|(index, _)| index).collect();
        if !partitions.is_empty() {
            topics.push(json!({ "name": *topic.name, "partitions": partitions }));
        }
    }
    topics.into()
}
