//! The metrics pages over HTTP: `/metrics` for every scrape, and pages of single partitions and topics by a filter.
//!
//! May not know: which families there are.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use ottla_env::rt;
use serde::Deserialize;

use super::groups::Scope;
use super::http::{Names, text_format};
use super::table::Table;
use super::{AdminState, exposition, starting_response, topics};
use crate::config::NameFilter;
use crate::handlers::context::Domain;

/// The query parameters of a page: any other is refused, since a misspelt filter would select everything.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicsQuery {
    /// All topics if absent.
    topic: Option<Names>,
}

/// The query parameters of `/metrics`; other parameters that a scrape is configured with are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct OverviewQuery {
    scope: Option<Scope>,
}

pub(super) async fn overview(State(state): State<AdminState>, Query(query): Query<OverviewQuery>) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    text_format(exposition::render(domain, query.scope.unwrap_or(Scope::Node)).await)
}

pub(super) async fn partitions(State(state): State<AdminState>, Query(query): Query<TopicsQuery>) -> Response {
    show(&state, query, topics::partitions_of).await
}

pub(super) async fn topics(State(state): State<AdminState>, Query(query): Query<TopicsQuery>) -> Response {
    show(&state, query, topics::named).await
}

/// Responds with the table that `collect` makes of the selected topics.
async fn show<R: Send>(
    state: &AdminState,
    query: TopicsQuery,
    collect: fn(&Domain, Option<&NameFilter>) -> Table<R>,
) -> Response {
    let Some(domain) = state.domain.get() else { return starting_response() };
    let (names, domain) = (query.topic.map(Names::filter), domain.clone());
    // The table may have a hundred thousand partitions: it is not made on a thread that serves clients.
    match rt::spawn_blocking(move || collect(&domain, names.as_ref())).await {
        // The text is made while the client reads it: of that many partitions it has sixty megabytes.
        Ok(table) => text_format(Body::from_stream(stream::iter(table.into_pieces().map(Ok::<_, Infallible>)))),
        Err(error) => {
            tracing::error!("a page of metrics failed: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
