//! What a node answers on its admin port is what /openapi.json says.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use ottla_tests::cluster::{Cluster, until};
use serde_json::{Map, Value, json};

/// What is wrong with a value by its schema: types, members that are missing or not described, words that are none of a list.
struct Checked<'a> {
    schemas: &'a Value,
}

impl Checked<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        if let Some(name) = schema["$ref"].as_str() {
            return self.check(&self.schemas[name.rsplit('/').next().unwrap()], value, at);
        }
        if let Some(any) = schema["oneOf"].as_array() {
            let wrong: Vec<_> = any.iter().filter_map(|one| self.check(one, value, at).err()).collect();
            return if wrong.len() < any.len() { Ok(()) } else { Err(wrong.join("; ")) };
        }
        let members = self.members(schema);
        if !is_of_type(schema, value) && members.is_empty() {
            return Err(format!("{at} is not {}: {value}", schema["type"]));
        }
        if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
            return Err(format!("{at} is none of {}: {value}", schema["enum"]));
        }
        for (number, item) in value.as_array().into_iter().flatten().enumerate() {
            self.check(&schema["items"], item, &format!("{at}[{number}]"))?;
        }
        if members.is_empty() {
            return Ok(());
        }
        let found = value.as_object().ok_or_else(|| format!("{at} is no object: {value}"))?;
        if let Some(missing) = self.required(schema).iter().find(|name| !found.contains_key(**name)) {
            return Err(format!("{at} has no {missing}: {value}"));
        }
        for (name, member) in found {
            let described = members.get(name).ok_or_else(|| format!("{at} has {name}, which is not described"))?;
            self.check(described, member, &format!("{at}.{name}"))?;
        }
        Ok(())
    }

    /// The schema itself, or those that it puts together.
    fn parts<'s>(&'s self, schema: &'s Value) -> Vec<&'s Value> {
        match (schema["$ref"].as_str(), schema["allOf"].as_array()) {
            (Some(name), _) => self.parts(&self.schemas[name.rsplit('/').next().unwrap()]),
            (None, Some(parts)) => parts.iter().flat_map(|part| self.parts(part)).collect(),
            (None, None) => vec![schema],
        }
    }

    fn members(&self, schema: &Value) -> Map<String, Value> {
        let parts = self.parts(schema).into_iter();
        parts.filter_map(|part| part["properties"].as_object().cloned()).flatten().collect()
    }

    fn required<'s>(&'s self, schema: &'s Value) -> Vec<&'s str> {
        let parts = self.parts(schema).into_iter();
        parts.filter_map(|part| part["required"].as_array()).flatten().filter_map(Value::as_str).collect()
    }
}

fn is_of_type(schema: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    };
    match &schema["type"] {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => false,
    }
}

#[test]
fn every_page_is_as_the_description_says() {
    let cluster = Cluster::start(3, &[]);
    cluster.create_topic("t", 3, 3);
    let broker = &cluster.brokers[0];
    let page = |path: &str| -> (u16, Value) {
        let (status, body) = broker.http(path).unwrap();
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
    };
    let (_, description) = page("/openapi.json");
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    let checked = Checked { schemas: &description["components"]["schemas"] };
    until("all shards are led", || broker.http("/readyz").is_some_and(|(status, _)| status == 200));
    let shard = page("/v1/topics/t").1["partitions"][0]["shard"].to_string();
    let of = |path: &str, method: &str, status: u16| {
        let answers = &description["paths"][path][method]["responses"][status.to_string()];
        answers["content"]["application/json"]["schema"].clone()
    };
    for (path, described, expected) in [
        ("/readyz", "/readyz", 200),
        ("/v1/cluster", "/v1/cluster", 200),
        ("/v1/topics", "/v1/topics", 200),
        ("/v1/topics/t", "/v1/topics/{name}", 200),
        ("/v1/topics/none", "/v1/topics/{name}", 404),
        ("/v1/groups?partitions=true", "/v1/groups", 200),
        ("/v1/groups/none", "/v1/groups/{id}", 404),
        ("/v1/shards", "/v1/shards", 200),
        (&format!("/v1/shards/{shard}"), "/v1/shards/{id}", 200),
        ("/v1/shards/999", "/v1/shards/{id}", 404),
    ] {
        let (status, body) = page(path);
        assert_eq!(status, expected, "{path}: {body}");
        checked.check(&of(described, "get", status), &body, path).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    for (path, described, expected) in [
        (format!("/api/shards/{shard}/split"), "/api/shards/{id}/split", 409),
        (format!("/api/shards/{shard}/move?cancel=true"), "/api/shards/{id}/move", 409),
        (format!("/api/shards/{shard}/move"), "/api/shards/{id}/move", 400),
        (format!("/api/shards/{shard}/move?nodes=3,2,1"), "/api/shards/{id}/move", 200),
        ("/api/shards/999/set-clock".to_owned(), "/api/shards/{id}/set-clock", 404),
        ("/api/nodes/9/drain".to_owned(), "/api/nodes/{id}/drain", 404),
        ("/api/nodes/3/undrain".to_owned(), "/api/nodes/{id}/undrain", 200),
    ] {
        let (status, body) = broker.http_post(&path).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
        assert_eq!(status, expected, "{path}: {body}");
        checked.check(&of(described, "post", status), &body, &path).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

#[test]
fn the_check_finds_what_is_wrong() {
    let schemas = json!({
        "A": { "type": "object", "properties": { "n": { "type": ["integer", "null"] } }, "required": ["n"] },
        "B": { "allOf": [{ "$ref": "#/components/schemas/A" }, { "type": "object", "properties": { "w": { "type": "string", "enum": ["x"] } } }] },
    });
    let checked = Checked { schemas: &schemas };
    let list = json!({ "type": "array", "items": { "$ref": "#/components/schemas/B" } });
    for (value, why) in [
        (json!([{ "n": 1, "w": "x" }, { "n": null }]), None),
        (json!([{ "w": "x" }]), Some("has no n")),
        (json!([{ "n": "1" }]), Some("[0].n is not")),
        (json!([{ "n": 1, "w": "y" }]), Some("is none of")),
        (json!([{ "n": 1, "z": 1 }]), Some("which is not described")),
        (json!([1]), Some("is no object")),
        (json!({}), Some("is not")),
    ] {
        let found = checked.check(&list, &value, "page");
        assert!(
            found.as_ref().err().map(String::as_str).is_some_and(|wrong| why.is_some_and(|why| wrong.contains(why)))
                || (found.is_ok() && why.is_none()),
            "{value}: {found:?}"
        );
    }
}
