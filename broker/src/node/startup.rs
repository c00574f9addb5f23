//! The end of a start: when a node counts as ready, what it waits for, and what it logs.
//!
//! May not know: how services are built.

use std::sync::Arc;
use std::time::Duration;

use ottla_env::rt;

use super::addresses::{self, Bound};
use crate::admin::Admin;
use crate::admin::readiness::{Phase, Readiness};
use crate::config::Config;
use crate::handlers::context::Domain;
use crate::metadata::{ListenerEndpoint, MetadataError, MetadataHandle, MetadataImage, ShardId};
use crate::partition::Partitions;
use crate::shard::Shards;

/// How long a start waits until the metadata has a leader and is current here.
const METADATA_WAIT: Duration = Duration::from_secs(5);
/// Before the metadata's leader is asked again.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);
/// How long a start waits for leaders of its shards.
const LEADERS_WAIT: Duration = Duration::from_secs(5);

/// How long a node that is otherwise ready waits until its shards have leaders, and then until it is unfenced.
const READY_WAIT: Duration = Duration::from_secs(10);

const _: () = assert!(LEADERS_WAIT.as_millis() < READY_WAIT.as_millis());

/// A node is ready when:
/// - it is registered with the feature levels that this build understands, and so are all founders of a new cluster:
///   before, no topic could be placed on them, and a feature level that is new to this build could not be raised;
/// - the leaders of its shards are known, or the wait for them has ended;
/// - it is unfenced, so that other nodes list it to clients, or the wait for that has ended.
pub(super) async fn become_ready(metadata: MetadataHandle, partitions: Partitions, readiness: Readiness) {
    let mut images = metadata.watch();
    let is_whole = |image: &MetadataImage| {
        let founded = image.nodes.len() >= image.expected_nodes() || image.shards.len() > 1;
        founded && image.nodes.get(&metadata.node_id()).is_some_and(|node| node.levels == metadata.levels())
    };
    if !is_whole(&images.borrow_and_update()) {
        readiness.enter(Phase::Joining, "waiting until all nodes of the new cluster are registered", 2, 3);
        if images.wait_for(|image| is_whole(image)).await.is_err() {
            return;
        }
    }
    if !partitions.wait_until_led(rt::now() + READY_WAIT).await {
        tracing::warn!("some shards have no leader; what they carry is not served yet");
    }
    let is_told_of = |image: &Arc<MetadataImage>| !image.is_fenced(metadata.node_id());
    if !matches!(rt::timeout(READY_WAIT, images.wait_for(is_told_of)).await, Ok(Ok(_))) {
        tracing::warn!("this node is fenced, and clients of other nodes are not told of it yet");
    }
    let closed = partitions.closed();
    let step = match closed.first() {
        None => "serving".to_owned(),
        Some((_, aside)) => format!("serving, but {} replicas here are closed; the first: {}", closed.len(), aside.why),
    };
    readiness.enter(Phase::Serving, step, 1, 1);
}

/// Logs the addresses, directories and counts that an operator needs.
pub(super) fn log(
    domain: &Domain,
    bound: &[Bound],
    advertised: &[ListenerEndpoint],
    admin: Option<&Admin>,
    readiness: &Readiness,
) {
    let image = domain.metadata.image();
    let directories: Vec<&str> = domain.directories.iter().map(|directory| directory.path.as_str()).collect();
    tracing::info!(
        "Ottla {} serves: node {}, cluster {}, {} topics, {} partitions, started in {} ms",
        env!("CARGO_PKG_VERSION"),
        domain.config.node_id.0,
        image.cluster_id,
        image.topics.len(),
        image.partition_count(),
        readiness.elapsed_ms(),
    );
    tracing::info!("clients: bootstrap.servers={}", addresses::bootstrap(advertised));
    for (bound, advertised) in bound.iter().zip(advertised) {
        tracing::debug!(
            "listener {} on {}: clients are told {}:{}",
            advertised.name,
            bound.address,
            advertised.host,
            advertised.port
        );
    }
    tracing::info!("data: {}", directories.join(", "));
    match admin {
        Some(admin) => tracing::info!("admin: http://{}/ (metrics, healthz, readyz)", admin.address),
        None => tracing::info!("admin: off (ottla.admin.listener=none)"),
    }
    if let Some(advice) = addresses::advice(bound, advertised) {
        tracing::warn!("{advice}");
    }
}

/// Waits, with a timeout, until everything that is committed in the metadata is in this node's image: its disk lacks what others
/// changed while it was away, and its clients would not find topics that were created then.
pub(super) async fn catch_up(metadata: &MetadataHandle) {
    let mut roles = metadata.group().role();
    let caught_up = async {
        loop {
            drop(roles.borrow_and_update());
            match metadata.read_index().await {
                Ok(()) | Err(MetadataError::Stopped(_)) => return,
                // There is no leader yet, or it does not answer.
                Err(_) => drop(rt::timeout(RETRY_BACKOFF, roles.changed()).await),
            }
        }
    };
    if rt::timeout(METADATA_WAIT, caught_up).await.is_err() {
        tracing::warn!("the metadata has no leader yet; what was changed while this node was away is not known to it");
    }
}

/// Waits, with a timeout, until every shard that the metadata places on this node has a leader: then the first request
/// of the first client is served at once.
pub(super) async fn wait_for_leaders(config: &Config, metadata: &MetadataHandle, shards: &Shards) {
    let image = metadata.image();
    let here = image.shards.values().filter(|shard| {
        shard.id != ShardId::METADATA && shard.replicas.iter().any(|replica| replica.node == config.node_id)
    });
    let here: Vec<ShardId> = here.map(|shard| shard.id).collect();
    // A leader that has applied nothing of its own term yet refuses requests, and an early client would have to retry.
    let led = |id: &ShardId| {
        shards.get(*id).map_or_else(
            || shards.is_closed(*id),
            |shard| {
                let role = shard.role();
                role.ready || role.stopped || role.leader.is_some_and(|leader| leader != shard.replica)
            },
        )
    };
    if !shards.wait_for_leadership(rt::now() + LEADERS_WAIT, || here.iter().all(led)).await {
        tracing::warn!("some shards have no leader yet; clients are answered as they come");
    }
}
