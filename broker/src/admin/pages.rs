//! The pages of metrics over HTTP: `/metrics` for every scrape, and single partitions and topics by a filter.
//!
//! May not know: which families there are.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use ottla_storage::env::rt;
use serde::Deserialize;

use super::groups::Scope;
use super::http::{Names, text_format};
use super::table::Table;
use super::{AdminState, exposition, not_yet, topics};
use crate::config::NameFilter;
use crate::server::context::Domain;

/// What may be asked of a page: anything else is refused, for it would be taken for a filter that does not filter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    /// All topics without it.
    topic: Option<Names>,
}

/// What may be asked of `/metrics`. Other parameters that a scrape is configured with are not its concern.
#[derive(Debug, Deserialize)]
pub(super) struct Overview {
    scope: Option<Scope>,
}

pub(super) async fn overview(State(state): State<AdminState>, Query(asked): Query<Overview>) -> Response {
    let Some(domain) = state.domain.get() else { return not_yet() };
    text_format(exposition::render(domain, asked.scope.unwrap_or(Scope::Node)).await)
}

pub(super) async fn partitions(State(state): State<AdminState>, Query(named): Query<Named>) -> Response {
    show(&state, named, topics::partitions_of).await
}

pub(super) async fn topics(State(state): State<AdminState>, Query(named): Query<Named>) -> Response {
    show(&state, named, topics::named).await
}

/// Answers with what `look` finds of the topics that are named.
async fn show<R: Send>(
    state: &AdminState,
    named: Named,
    look: fn(&Domain, Option<&NameFilter>) -> Table<R>,
) -> Response {
    let Some(domain) = state.domain.get() else { return not_yet() };
    let (names, domain) = (named.topic.map(Names::filter), domain.clone());
    // A hundred thousand partitions are looked at: not on a thread that serves clients.
    match rt::spawn_blocking(move || look(&domain, names.as_ref())).await {
        // The text is made as the reader takes it: of so many partitions it has sixty megabytes.
        Ok(table) => text_format(Body::from_stream(stream::iter(table.into_pieces().map(Ok::<_, Infallible>)))),
        Err(error) => {
            tracing::error!("a page of metrics failed: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
