//! `ottla node ...`: the nodes of a cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use ottla_env::rt;
use serde_json::{Value, json};

use super::common::{Admin, Bootstrap, Format, Output};
use super::failure::Failure;
use super::output::{Column, or_nothing, print, print_json, table};
use super::shard::{json_of, page};
use super::units;
use crate::client::{Broker, http};

/// The pause between two polls of a drain's progress.
const LOOK: Duration = Duration::from_secs(1);
/// How long a wait goes on while nothing leads the metadata.
const UNAVAILABLE_MAX: Duration = Duration::from_secs(60);

/// What can be done with nodes.
#[derive(Debug, Subcommand)]
pub(super) enum Words {
    /// Lists nodes
    List(List),
    /// Has a node, or all of a zone, hold nothing: leaders are handed over, replicas move to other nodes
    #[command(after_help = "Example:\n  ottla node drain 3\n  ottla node drain --zone zone-c --wait")]
    Drain(Drain),
    /// Takes a drain back
    #[command(after_help = "Example:\n  ottla node undrain 3\n  ottla node undrain --zone zone-c")]
    Undrain(Drain),
    /// Drains a node, dead or alive, and forgets it
    Remove(Remove),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla node list\n  ottla node list --admin http://127.0.0.1:9644")]
pub(super) struct List {
    /// Admin port of an Ottla node: it tells states and since when, versions, and who leads the metadata, which Kafka's
    /// protocol does not
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Drain {
    /// Number of the node
    #[arg(required_unless_present = "zone", conflicts_with = "zone")]
    node: Option<i32>,
    /// All nodes of this zone
    #[arg(long)]
    zone: Option<String>,
    /// Returns when nothing is left on them
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla node remove 3")]
pub(super) struct Remove {
    /// Number of the node
    node: i32,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub(super) async fn run(words: Words) -> Result<(), Failure> {
    match words {
        Words::List(words) => list(&words).await,
        Words::Drain(words) => drain(&words, "drain").await,
        Words::Undrain(words) => drain(&words, "undrain").await,
        Words::Remove(words) => remove(&words).await,
    }
}

async fn drain(words: &Drain, verb: &str) -> Result<(), Failure> {
    let path = match (words.node, &words.zone) {
        (Some(node), _) => format!("/api/nodes/{node}/{verb}"),
        (None, zone) => format!("/api/zones/{}/{verb}", http::escaped(zone.as_deref().unwrap_or_default())),
    };
    let admin = &words.admin.url;
    let mut answered_at = rt::now();
    loop {
        // A repeated drain changes nothing, and returns the replicas that are left.
        let page = http::post(admin, &path).await?;
        let is_unavailable = page.status == http::SERVICE_UNAVAILABLE;
        if words.wait && is_unavailable && rt::now().since(answered_at) < UNAVAILABLE_MAX {
            rt::sleep(LOOK).await;
            continue;
        }
        answered_at = rt::now();
        let answer = json_of(admin, &path, &page)?;
        let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
        let left: u64 = nodes.iter().filter_map(|node| node["shards"].as_u64()).sum();
        if words.wait && verb == "drain" && left > 0 {
            rt::sleep(LOOK).await;
            continue;
        }
        match words.output.format {
            Format::Json => print_json(&answer)?,
            Format::Table => {
                let columns = [
                    Column::Numbers("ID"),
                    Column::Words("RACK"),
                    Column::Words("STATE"),
                    Column::Numbers("SHARDS LEFT"),
                ];
                let word = |value: &Value| or_nothing(value.as_str().map(str::to_owned).as_ref());
                let row = |node: &Value| {
                    vec![node["id"].to_string(), word(&node["rack"]), word(&node["state"]), node["shards"].to_string()]
                };
                print(&table(&columns, nodes.iter().map(row)))?;
            }
        }
        return Ok(());
    }
}

async fn remove(words: &Remove) -> Result<(), Failure> {
    words.bootstrap.cluster().unregister(words.node).await?;
    match words.output.format {
        Format::Json => print_json(&json!({ "removed": words.node }))?,
        Format::Table => {
            print(&format!("node {}: forgotten as soon as other nodes hold what it holds\n", words.node))?;
        }
    }
    Ok(())
}

/// The facts about a node that only the admin port has.
#[derive(Default)]
struct Told {
    versions: BTreeMap<i64, String>,
    states: BTreeMap<i64, String>,
    since_ms: BTreeMap<i64, i64>,
    leader: Option<i64>,
}

async fn list(words: &List) -> Result<(), Failure> {
    let cluster = words.bootstrap.cluster().describe().await?;
    let told = match &words.admin {
        Some(admin) => told(&page(admin, "/v1/cluster").await?),
        None => Told::default(),
    };
    let version = |broker: &Broker| told.versions.get(&i64::from(broker.id));
    // Kafka's protocol has only whether a broker is fenced.
    let is_fenced = |broker: &Broker| cluster.fenced.contains(broker);
    let state = |broker: &Broker| match told.states.get(&i64::from(broker.id)) {
        Some(state) => state.clone(),
        None => if is_fenced(broker) { "fenced" } else { "active" }.to_owned(),
    };
    let since = |broker: &Broker| told.since_ms.get(&i64::from(broker.id)).map(|ms| units::date(*ms));
    let mut brokers: Vec<_> = cluster.brokers.iter().chain(&cluster.fenced).cloned().collect();
    brokers.sort_by_key(|broker| broker.id);
    let leads = |broker: &Broker| told.leader.map(|leader| leader == i64::from(broker.id));
    match words.output.format {
        Format::Json => {
            let node = |broker: &Broker| {
                json!({
                    "id": broker.id,
                    "rack": broker.rack,
                    "host": broker.address.host,
                    "port": broker.address.port,
                    "state": state(broker),
                    "since": since(broker),
                    "controller": cluster.controller == Some(broker.id),
                    "metadata_leader": leads(broker),
                    "version": version(broker),
                })
            };
            let nodes: Vec<_> = brokers.iter().map(node).collect();
            print_json(&json!({ "cluster_id": cluster.id, "controller": cluster.controller, "nodes": nodes }))?;
        }
        Format::Table => {
            let mut columns = vec![
                Column::Numbers("ID"),
                Column::Words("RACK"),
                Column::Words("HOST"),
                Column::Numbers("PORT"),
                Column::Words("STATE"),
                Column::Words("CONTROLLER"),
            ];
            if words.admin.is_some() {
                columns.extend([Column::Words("SINCE"), Column::Words("METADATA"), Column::Words("VERSION")]);
            }
            let row = |broker: &Broker| {
                let mut row = vec![
                    broker.id.to_string(),
                    or_nothing(broker.rack.as_ref()),
                    broker.address.host.clone(),
                    broker.address.port.to_string(),
                    state(broker),
                    or_nothing(Some("yes").filter(|_| cluster.controller == Some(broker.id))),
                ];
                if words.admin.is_some() {
                    row.push(or_nothing(since(broker)));
                    row.push(or_nothing(Some("leader").filter(|_| leads(broker) == Some(true))));
                    row.push(or_nothing(version(broker)));
                }
                row
            };
            print(&table(&columns, brokers.iter().map(row)))?;
        }
    }
    Ok(())
}

fn told(cluster: &Value) -> Told {
    let nodes = || cluster["nodes"].as_array().into_iter().flatten();
    let state = |node: &Value| Some((node["id"].as_i64()?, node["state"].as_str()?.to_owned()));
    let since_ms = |node: &Value| Some((node["id"].as_i64()?, node["since_ms"].as_i64()?));
    let version = |node: &Value| Some((node["id"].as_i64()?, node["version"].as_str()?.to_owned()));
    Told {
        versions: nodes().filter_map(version).collect(),
        states: nodes().filter_map(state).collect(),
        since_ms: nodes().filter_map(since_ms).collect(),
        leader: cluster["metadata_leader"].as_i64(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_types)] // an admin port

    use std::io::{Read, Write};
    use std::net::TcpListener;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        drain: Drain,
    }

    /// Runs `drain 3` against an admin port that answers so.
    async fn drained(options: &[&str], answers: &'static [(&str, &str)]) -> Result<(), Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = format!("http://{}", listener.local_addr().unwrap());
        rt::spawn_blocking(move || {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1_024]).unwrap();
                let answer = format!("HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let words = [&["drain", "3", "--admin", &admin, "--output", "json"], options].concat();
        drain(&Command::parse_from(words).drain, "drain").await
    }

    const NO_CONTROLLER: (&str, &str) =
        ("503 Service Unavailable", r#"{"error": "This is not the correct controller for this cluster."}"#);
    const NOTHING_LEFT: (&str, &str) = ("200 OK", r#"{"nodes": [{"id": 3, "shards": 0}]}"#);

    #[tokio::test]
    async fn a_drain_that_waits_goes_on_when_there_is_no_controller_for_a_moment() {
        let done = drained(&["--wait"], &[NO_CONTROLLER, NOTHING_LEFT]).await;
        assert!(done.is_ok(), "{done:?}");
        let done = drained(&[], &[NO_CONTROLLER]).await;
        assert!(done.is_err(), "one that does not wait says so");
    }
}
