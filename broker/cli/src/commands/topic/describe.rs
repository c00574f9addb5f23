//! `ottla topic describe`: a topic's partitions with leaders, offsets and sizes, and its configs.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use crate::client::{ClientError, Cluster, ConfigEntry, EARLIEST, LATEST, TopicPartition, TopicView};
use crate::commands::common::{Bootstrap, Format, Output};
use crate::commands::failure::Failure;
use crate::commands::output::{Column, list, or_nothing, plain, print, print_json, table};
use crate::commands::units;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla topic describe orders\n  ottla topic describe orders -o json --all-configs")]
pub(in crate::commands) struct Words {
    /// Names of topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Show configs that have their default too
    #[arg(long)]
    all_configs: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

/// A topic with its offsets, sizes and configs.
struct Described {
    topic: TopicView,
    configs: Vec<ConfigEntry>,
    starts: BTreeMap<TopicPartition, i64>,
    ends: BTreeMap<TopicPartition, i64>,
    bytes: BTreeMap<TopicPartition, i64>,
}

pub(super) async fn run(words: &Words) -> Result<(), Failure> {
    let mut cluster = words.bootstrap.cluster();
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for name in &words.topics {
        match describe(&mut cluster, name, words.all_configs, &mut failed).await {
            Ok(described) => found.push(described),
            Err(error) => failed.push(error),
        }
    }
    match words.output.format {
        Format::Json => print_json(&json!({ "topics": found.iter().map(in_json).collect::<Vec<_>>() }))?,
        Format::Table => print(&found.iter().map(in_words).collect::<Vec<_>>().join("\n"))?,
    }
    Failure::unless_none(failed)
}

/// Values that are unknown without a leader are left out, and the error is reported.
async fn describe(
    cluster: &mut Cluster,
    name: &str,
    all_configs: bool,
    failed: &mut Vec<ClientError>,
) -> Result<Described, ClientError> {
    let topic = cluster.topic(name).await?;
    let mut configs = cluster.topic_configs(name).await?;
    configs.retain(|config| config.is_own || all_configs);
    let led = topic.partitions.iter().filter(|partition| partition.leader.is_some());
    let led: Vec<TopicPartition> = led.map(|partition| (name.to_owned(), partition.index)).collect();
    let starts = known(cluster, &led, EARLIEST, failed).await?;
    let still: Vec<TopicPartition> = starts.keys().cloned().collect();
    let ends = known(cluster, &still, LATEST, failed).await?;
    let bytes = cluster.sizes(&topic).await;
    Ok(Described { topic, configs, starts, ends, bytes })
}

async fn known(
    cluster: &mut Cluster,
    partitions: &[TopicPartition],
    timestamp: i64,
    failed: &mut Vec<ClientError>,
) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
    let mut known = BTreeMap::new();
    for (at, place) in cluster.offsets(partitions.iter().map(|at| (at.clone(), timestamp)).collect()).await? {
        match place {
            Ok(place) => known.extend(place.offset.map(|offset| (at, offset))),
            Err(error) => failed.push(error),
        }
    }
    Ok(known)
}

fn in_json(described: &Described) -> Value {
    let Described { topic, configs, starts, ends, bytes } = described;
    let partition = |partition: &crate::client::PartitionView| {
        let at = (topic.name.clone(), partition.index);
        json!({
            "partition": partition.index,
            "leader": partition.leader,
            "leader_epoch": partition.epoch,
            "replicas": partition.replicas,
            "in_sync": partition.in_sync,
            "start_offset": starts.get(&at),
            "end_offset": ends.get(&at),
            "bytes": bytes.get(&at),
        })
    };
    let configs: serde_json::Map<String, Value> =
        configs.iter().map(|config| (config.name.clone(), json!(config.value))).collect();
    json!({
        "name": topic.name,
        "id": topic.id.map(|id| id.to_string()),
        "internal": topic.internal,
        "replication_factor": topic.replication_factor(),
        "configs": configs,
        "partitions": topic.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn in_words(described: &Described) -> String {
    let Described { topic, configs, starts, ends, bytes } = described;
    let mut text = format!(
        "{}: {} partitions, replication factor {}, {}{}\n",
        plain(&topic.name),
        topic.partitions.len(),
        topic.replication_factor(),
        units::bytes(bytes.values().sum()),
        topic.id.map_or_else(String::new, |id| format!(", id {id}")),
    );
    for config in configs {
        let value = config.value.as_deref().map_or_else(|| "-".to_owned(), |value| units::config(&config.name, value));
        text.push_str(&format!("  {} = {}\n", plain(&config.name), plain(&value)));
    }
    let columns = [
        Column::Numbers("PARTITION"),
        Column::Numbers("LEADER"),
        Column::Numbers("EPOCH"),
        Column::Words("REPLICAS"),
        Column::Words("IN SYNC"),
        Column::Numbers("START"),
        Column::Numbers("END"),
        Column::Numbers("SIZE"),
    ];
    let rows = topic.partitions.iter().map(|partition| {
        let at = (topic.name.clone(), partition.index);
        vec![
            partition.index.to_string(),
            or_nothing(partition.leader),
            or_nothing(Some(partition.epoch).filter(|epoch| *epoch >= 0)),
            list(&partition.replicas),
            list(&partition.in_sync),
            or_nothing(starts.get(&at)),
            or_nothing(ends.get(&at)),
            or_nothing(bytes.get(&at).map(|bytes| units::bytes(*bytes))),
        ]
    });
    text + &table(&columns, rows)
}
