//! `ottla topic create`: creates topics.

use clap::Args;
use ottla_protocol::error::ErrorCode;
use serde_json::json;

use crate::client::{Created, NewTopic};
use crate::commands::common::{Bootstrap, Format, Output, pair};
use crate::commands::failure::Failure;
use crate::commands::output::{Column, or_nothing, print, print_json, table};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla topic create orders --partitions 12 --config retention.ms=86400000")]
pub(in crate::commands) struct Words {
    /// Names of topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// How many partitions [default: the broker's, num.partitions]
    #[arg(short = 'p', long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// How many replicas [default: the broker's, default.replication.factor]
    #[arg(short = 'r', long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A config by Kafka's name; may be given often
    #[arg(short = 'c', long = "config", value_name = "NAME=VALUE", value_parser = pair)]
    configs: Vec<(String, String)>,
    /// A topic that exists is no error
    #[arg(long)]
    if_not_exists: bool,
    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(words: &Words) -> Result<(), Failure> {
    let topic = |name: &String| NewTopic {
        name: name.clone(),
        partitions: words.partitions,
        replication_factor: words.replication_factor,
        configs: words.configs.clone(),
    };
    let topics: Vec<_> = words.topics.iter().map(topic).collect();
    let (mut created, mut failed) = (Vec::new(), Vec::new());
    for outcome in words.bootstrap.cluster().create_topics(&topics, words.dry_run).await? {
        match outcome {
            Ok(topic) => created.push(topic),
            Err(error) if words.if_not_exists && error.code() == Some(ErrorCode::TopicAlreadyExists) => {}
            Err(error) => failed.push(error),
        }
    }
    match words.output.format {
        Format::Json => {
            let topic = |topic: &Created| {
                json!({
                    "name": topic.name,
                    "id": topic.id.map(|id| id.to_string()),
                    "partitions": topic.partitions,
                    "replication_factor": topic.replication_factor,
                })
            };
            let topics: Vec<_> = created.iter().map(topic).collect();
            print_json(&json!({ "dry_run": words.dry_run, "topics": topics }))?;
        }
        Format::Table if created.is_empty() => {}
        Format::Table => {
            let name = if words.dry_run { "WOULD CREATE" } else { "CREATED" };
            let columns = [Column::Words(name), Column::Numbers("PARTITIONS"), Column::Numbers("REPLICAS")];
            let row = |topic: &Created| {
                vec![topic.name.clone(), or_nothing(topic.partitions), or_nothing(topic.replication_factor)]
            };
            print(&table(&columns, created.iter().map(row)))?;
        }
    }
    Failure::unless_none(failed)
}
