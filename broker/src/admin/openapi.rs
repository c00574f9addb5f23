//! GET /openapi.json: what the admin port answers, as an OpenAPI 3.1 description. The text lies beside this file; a test holds it
//! against the routes, and tests/tests/admin_pages.rs against what a node answers.
//!
//! May not know: how a page is made.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

const TEXT: &str = include_str!("openapi.json");
/// Stands in the text for the version of this build.
const VERSION_PLACE: &str = "\"version\": \"VERSION\"";

pub(super) async fn description() -> Response {
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    ([(CONTENT_TYPE, "application/json")], TEXT.replacen(VERSION_PLACE, &version, 1)).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// The routes as the source of the router has them: path and method.
    fn routes() -> BTreeSet<(String, String)> {
        let source = include_str!("mod.rs");
        let routes = source.split(".route(\"").skip(1).map(|rest| {
            let (path, rest) = rest.split_once('"').unwrap();
            let method = rest.trim_start_matches(", ").split_once('(').unwrap().0;
            (path.to_owned(), method.to_owned())
        });
        routes.collect()
    }

    #[test]
    fn every_route_is_described_and_no_other() {
        let text: Value = serde_json::from_str(TEXT).unwrap();
        let paths = text["paths"].as_object().unwrap().iter();
        let described: BTreeSet<_> = paths
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(move |method| (path.clone(), method.clone()))
            })
            .collect();
        assert_eq!(described, routes());
        assert!(TEXT.contains(VERSION_PLACE));
    }

    #[test]
    fn what_the_description_refers_to_is_there() {
        let text: Value = serde_json::from_str(TEXT).unwrap();
        let schemas = text["components"]["schemas"].as_object().unwrap();
        let named: BTreeSet<&str> =
            TEXT.split("#/components/schemas/").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect();
        assert_eq!(named, schemas.keys().map(String::as_str).collect());
    }
}
