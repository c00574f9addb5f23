//! `ottla topic resize`: how many shards a topic has for itself.
//!
//! Sets `ottla.shard.count`; the cluster splits, merges and moves shards until it is so, while clients go on.

use clap::Args;
use serde_json::json;

use crate::client::ConfigEdit;
use crate::commands::common::{Bootstrap, Format, Output};
use crate::commands::failure::Failure;
use crate::commands::output::{plain, print, print_json};

/// The topic's setting.
const SHARD_COUNT: &str = "ottla.shard.count";

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ottla topic resize orders --shards 8\n  ottla topic resize orders --shards 0\n  ottla shard list"
)]
pub(in crate::commands) struct Words {
    /// Name of the topic
    topic: String,
    /// Shards for this topic alone, at most one for each partition; 0: the shards that all topics share
    #[arg(short = 's', long, value_name = "N", value_parser = clap::value_parser!(u32))]
    shards: u32,
    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

/// Returns when it is recorded; `ottla shard list` shows how far it is.
pub(super) async fn run(words: &Words) -> Result<(), Failure> {
    let mut cluster = words.bootstrap.cluster();
    let edit = ConfigEdit::Set(SHARD_COUNT.to_owned(), words.shards.to_string());
    cluster.topic(&words.topic).await?;
    cluster.alter_configs(&words.topic, &[edit], words.dry_run).await?;
    match words.output.format {
        Format::Json => {
            print_json(&json!({ "topic": words.topic, "shards": words.shards, "dry_run": words.dry_run }))?;
        }
        Format::Table => {
            let what = if words.dry_run { "could be resized" } else { "is resized" };
            let to = match words.shards {
                0 => "the shards that all topics share".to_owned(),
                1 => "a shard of its own".to_owned(),
                count => format!("{count} shards of its own"),
            };
            print(&format!("{}: {what} to {to}\n", plain(&words.topic)))?;
        }
    }
    Ok(())
}
