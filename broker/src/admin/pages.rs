//! The pages of metrics over HTTP: `/metrics` for every scrape, and single partitions and topics by a filter.
//!
//! May not know: which families there are.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use ottla_storage::env::rt;
use serde::Deserialize;

use super::groups::{Scope, bad_request};
use super::table::Table;
use super::{AdminState, exposition, not_yet, query, topics};
use crate::config::NameFilter;
use crate::server::context::Domain;

const TEXT: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];

/// What may be asked of a page: anything else is refused, for it would be taken for a filter that does not filter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    /// A regular expression over topic names; all topics without it.
    topic: Option<String>,
}

pub(super) async fn overview(State(state): State<AdminState>, uri: Uri) -> Response {
    let Some(domain) = state.domain.get() else { return not_yet() };
    match Scope::of(&query::Query::of(&uri), Scope::Node) {
        Ok(scope) => (TEXT, exposition::render(domain, scope).await).into_response(),
        Err(why) => bad_request(&why),
    }
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
    let names = match named.topic.as_deref().map(NameFilter::new).transpose() {
        Ok(names) => names,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("topic: {error}\n")).into_response(),
    };
    let domain = domain.clone();
    // A hundred thousand partitions are looked at: not on a thread that serves clients.
    match rt::spawn_blocking(move || look(&domain, names.as_ref())).await {
        // The text is made as the reader takes it: of so many partitions it has sixty megabytes.
        Ok(table) => {
            (TEXT, Body::from_stream(stream::iter(table.into_pieces().map(Ok::<_, Infallible>)))).into_response()
        }
        Err(error) => {
            tracing::error!("a page of metrics failed: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
