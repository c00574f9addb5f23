//! `ottla node ...`: the nodes of a cluster.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::common::{Bootstrap, Format, Output};
use super::failure::Failure;
use super::screen::{Column, or_nothing, print, print_json, table};
use super::shard::page;
use crate::client::Broker;

/// What can be done with nodes.
#[derive(Debug, Subcommand)]
pub(super) enum Words {
    /// Lists nodes
    List(List),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla node list\n  ottla node list --admin http://127.0.0.1:9644")]
pub(super) struct List {
    /// Admin port of an Ottla node: it tells versions, and who leads the metadata, which Kafka's protocol does not
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

/// Does what the words say.
pub(super) async fn run(words: Words) -> Result<(), Failure> {
    match words {
        Words::List(words) => list(&words).await,
    }
}

/// What only the admin port tells.
#[derive(Default)]
struct Told {
    versions: BTreeMap<i64, String>,
    leader: Option<i64>,
}

async fn list(words: &List) -> Result<(), Failure> {
    let cluster = words.bootstrap.cluster().describe().await?;
    let told = match &words.admin {
        Some(admin) => told(&page(admin, "/v1/cluster").await?),
        None => Told::default(),
    };
    let version = |broker: &Broker| told.versions.get(&i64::from(broker.id));
    let leads = |broker: &Broker| told.leader.map(|leader| leader == i64::from(broker.id));
    match words.output.format {
        Format::Json => {
            let node = |broker: &Broker| {
                json!({
                    "id": broker.id,
                    "rack": broker.rack,
                    "host": broker.address.host,
                    "port": broker.address.port,
                    "controller": cluster.controller == Some(broker.id),
                    "metadata_leader": leads(broker),
                    "version": version(broker),
                })
            };
            let nodes: Vec<_> = cluster.brokers.iter().map(node).collect();
            print_json(&json!({ "cluster_id": cluster.id, "controller": cluster.controller, "nodes": nodes }))?;
        }
        Format::Table => {
            let mut columns = vec![
                Column::Numbers("ID"),
                Column::Words("RACK"),
                Column::Words("HOST"),
                Column::Numbers("PORT"),
                Column::Words("CONTROLLER"),
            ];
            if words.admin.is_some() {
                columns.extend([Column::Words("METADATA"), Column::Words("VERSION")]);
            }
            let row = |broker: &Broker| {
                let mut row = vec![
                    broker.id.to_string(),
                    or_nothing(broker.rack.as_ref()),
                    broker.address.host.clone(),
                    broker.address.port.to_string(),
                    or_nothing(Some("yes").filter(|_| cluster.controller == Some(broker.id))),
                ];
                if words.admin.is_some() {
                    row.push(or_nothing(Some("leader").filter(|_| leads(broker) == Some(true))));
                    row.push(or_nothing(version(broker)));
                }
                row
            };
            print(&table(&columns, cluster.brokers.iter().map(row)))?;
        }
    }
    Ok(())
}

fn told(cluster: &Value) -> Told {
    let nodes = cluster["nodes"].as_array().into_iter().flatten();
    let version = |node: &Value| Some((node["id"].as_i64()?, node["version"].as_str()?.to_owned()));
    Told { versions: nodes.filter_map(version).collect(), leader: cluster["metadata_leader"].as_i64() }
}
