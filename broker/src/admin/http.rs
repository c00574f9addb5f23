//! Parts of requests and responses that several pages share. May not know: what pages show.

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::config::{InvalidExpression, NameFilter};

/// A filter by names, as a query has it: an expression that cannot be used is answered with 400.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Names(NameFilter);

impl Names {
    pub(super) fn filter(self) -> NameFilter {
        self.0
    }
}

impl TryFrom<String> for Names {
    type Error = InvalidExpression;

    fn try_from(expression: String) -> Result<Self, Self::Error> {
        NameFilter::new(&expression).map(Self)
    }
}

/// A page in Prometheus' text format.
pub(super) fn text_format(page: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page.into()).into_response()
}
