//! The admin HTTP API: health, metrics, and a small JSON API for people and tools.
//!
//! Reads images and metrics; changes go through the metadata, as those of any client. The port opens first and closes
//! last, so that probes can tell a recovering node from a dead one. May not know: Raft, disks.

#![allow(clippy::disallowed_types)] // axum serves sockets

mod api;
mod balance;
pub mod check;
mod disk;
mod exposition;
mod families;
mod group_families;
mod groups;
mod http;
mod nodes;
mod openapi;
mod pages;
mod partitions;
pub mod readiness;
mod shard_clock;
mod shard_families;
mod shard_merge;
mod shard_move;
mod shard_split;
mod shards;
mod table;
mod topics;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use ottla_env::critical::Owner;
use ottla_env::rt::{self, JoinHandle};
use tokio::net::TcpListener;

use crate::config::Endpoint;
use crate::handlers::context::Domain;

pub use readiness::Readiness;

/// The state that the pages read; the domain is added when it is built.
#[derive(Clone)]
pub struct AdminState {
    readiness: Readiness,
    domain: Arc<OnceLock<Domain>>,
}

impl AdminState {
    /// The state of a starting node: only its readiness.
    #[must_use]
    pub fn new(readiness: Readiness) -> Self {
        Self { readiness, domain: Arc::default() }
    }

    /// Adds the domain when the node is built.
    pub fn set_domain(&self, domain: Domain) {
        // A second call would be a bug of the node; the first domain stays.
        let _ = self.domain.set(domain);
    }
}

/// The admin server of a node.
pub struct Admin {
    /// The address that it listens on, with the assigned port if port 0 was configured.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

/// The admin port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {endpoint} (ottla.admin.listener): {source}")]
pub struct AdminError {
    endpoint: Endpoint,
    source: io::Error,
}

impl Admin {
    /// Opens the port and serves it.
    pub async fn start(endpoint: &Endpoint, state: AdminState) -> Result<Self, AdminError> {
        let failed = |source| AdminError { endpoint: endpoint.clone(), source };
        let host = if endpoint.host.is_empty() { "0.0.0.0" } else { endpoint.host.as_str() };
        let listener = TcpListener::bind((host, endpoint.port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let task = rt::spawn_critical("admin", Owner::process(), async move {
            if let Err(error) = axum::serve(listener, routes(state)).await {
                tracing::error!("the admin port failed: {error}");
            }
        });
        Ok(Self { address, task })
    }

    /// Closes the port.
    pub fn stop(self) {
        self.task.abort();
    }
}

fn routes(state: AdminState) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/openapi.json", get(openapi::description))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(pages::overview))
        .route("/metrics/partitions", get(pages::partitions))
        .route("/metrics/topics", get(pages::topics))
        .route("/v1/cluster", get(api::cluster))
        .route("/v1/topics", get(api::topics))
        .route("/v1/topics/{name}", get(api::topic))
        .route("/metrics/groups", get(groups::metrics))
        .route("/v1/groups", get(groups::list))
        .route("/v1/groups/{id}", get(groups::one))
        .route("/v1/shards", get(shards::list))
        .route("/v1/shards/{id}", get(shards::one))
        .route("/v1/balance", get(balance::show))
        .route("/api/balance/apply", post(balance::apply))
        .route("/api/balance/pause", post(balance::pause))
        .route("/api/balance/resume", post(balance::resume))
        .route("/api/shards/{id}/set-clock", post(shard_clock::set))
        .route("/api/shards/{id}/set-clock/{to_ms}", post(shard_clock::set_to))
        .route("/api/shards/{id}/merge", post(shard_merge::shard))
        .route("/api/shards/{id}/move", post(shard_move::shard))
        .route("/api/shards/{id}/split", post(shard_split::split))
        .route("/api/nodes/{id}/drain", post(nodes::drain))
        .route("/api/nodes/{id}/undrain", post(nodes::undrain))
        .route("/api/zones/{zone}/drain", post(nodes::drain_zone))
        .route("/api/zones/{zone}/undrain", post(nodes::undrain_zone))
        .with_state(state)
}

async fn index() -> &'static str {
    "Ottla admin port\n\n/openapi.json\n/healthz\n/readyz\n/metrics\n/metrics/groups?group=REGEX&topic=REGEX&scope=SCOPE\n/metrics/partitions?topic=REGEX\n/metrics/topics?topic=REGEX\n/v1/cluster\n/v1/topics\n/v1/topics/{name}\n/v1/groups\n/v1/groups/{id}\n/v1/shards\n/v1/shards/{id}\n/v1/balance\n\
     POST /api/balance/apply\nPOST /api/balance/pause\nPOST /api/balance/resume\n\
     POST /api/shards/{id}/set-clock\nPOST /api/shards/{id}/set-clock/{to_ms}\n\
     POST /api/shards/{id}/merge?into=SHARD\nPOST /api/shards/{id}/merge?cancel=true\n\
     POST /api/shards/{id}/move?nodes=NODE,...\nPOST /api/shards/{id}/move?cancel=true\n\
     POST /api/shards/{id}/split?partitions=TOPIC:NUMBER,...\n\
     POST /api/nodes/{id}/drain\nPOST /api/nodes/{id}/undrain\nPOST /api/zones/{zone}/drain\n\
     POST /api/zones/{zone}/undrain\n"
}

async fn readyz(State(state): State<AdminState>) -> Response {
    let report = state.readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

/// The response to a request that is refused, and why.
fn refused(status: StatusCode, why: impl Into<String>) -> Response {
    (status, Json(serde_json::json!({ "error": why.into() }))).into_response()
}

/// The response of pages that need the domain while the node is starting.
fn starting_response() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "starting; see /readyz\n").into_response()
}
