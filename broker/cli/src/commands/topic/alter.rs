//! `ottla topic alter`: changes configs, and adds partitions.

use clap::Args;
use serde_json::json;

use crate::client::ConfigEdit;
use crate::commands::common::{Bootstrap, Format, Output, pair};
use crate::commands::failure::Failure;
use crate::commands::output::{plain, print, print_json};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ottla topic alter orders --set retention.ms=3600000 --delete segment.ms\n  ottla topic alter orders --partitions 24"
)]
pub(in crate::commands) struct Words {
    /// Name of the topic
    topic: String,
    #[command(flatten)]
    changes: Changes,
    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// How many partitions it is to have; never fewer than it has
    #[arg(short = 'p', long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Sets a config; may be given often
    #[arg(short = 's', long, value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// Puts a config back to its default; may be given often
    #[arg(short = 'd', long, value_name = "NAME")]
    delete: Vec<String>,
}

pub(super) async fn run(words: &Words) -> Result<(), Failure> {
    let mut cluster = words.bootstrap.cluster();
    let set = words.changes.set.iter().map(|(name, value)| ConfigEdit::Set(name.clone(), value.clone()));
    let delete = words.changes.delete.iter().map(|name| ConfigEdit::Delete(name.clone()));
    let edits: Vec<_> = set.chain(delete).collect();
    // An unknown topic is reported before anything is changed.
    cluster.topic(&words.topic).await?;
    if !edits.is_empty() {
        cluster.alter_configs(&words.topic, &edits, words.dry_run).await?;
    }
    if let Some(count) = words.changes.partitions {
        cluster.add_partitions(&words.topic, count, words.dry_run).await?;
    }
    match words.output.format {
        Format::Json => print_json(&json!({ "topic": words.topic, "dry_run": words.dry_run }))?,
        Format::Table => {
            let what = if words.dry_run { "could be altered" } else { "altered" };
            print(&format!("{}: {what}\n", plain(&words.topic)))?;
        }
    }
    Ok(())
}
