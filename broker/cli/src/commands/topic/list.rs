//! `ottla topic list`: names, partitions, replicas.

use clap::Args;
use serde_json::{Value, json};

use crate::client::TopicView;
use crate::commands::common::{Bootstrap, Format, Output};
use crate::commands::failure::Failure;
use crate::commands::output::{Column, print, print_json, table};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla topic list -b localhost:9092")]
pub(in crate::commands) struct Words {
    /// Show the brokers' own topics too
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(words: &Words) -> Result<(), Failure> {
    let (mut topics, mut failed) = (Vec::new(), Vec::new());
    for topic in words.bootstrap.cluster().topics(None).await? {
        match topic {
            Ok(topic) if topic.internal && !words.internal => {}
            Ok(topic) => topics.push(topic),
            Err(error) => failed.push(error),
        }
    }
    match words.output.format {
        Format::Json => print_json(&json!({ "topics": topics.iter().map(summary).collect::<Vec<_>>() }))?,
        Format::Table => {
            let columns = [Column::Words("NAME"), Column::Numbers("PARTITIONS"), Column::Numbers("REPLICAS")];
            let row = |topic: &TopicView| {
                vec![topic.name.clone(), topic.partitions.len().to_string(), topic.replication_factor().to_string()]
            };
            print(&table(&columns, topics.iter().map(row)))?;
        }
    }
    Failure::unless_none(failed)
}

/// A topic in a list of topics, in JSON.
fn summary(topic: &TopicView) -> Value {
    json!({
        "name": topic.name,
        "id": topic.id.map(|id| id.to_string()),
        "internal": topic.internal,
        "partitions": topic.partitions.len(),
        "replication_factor": topic.replication_factor(),
    })
}
