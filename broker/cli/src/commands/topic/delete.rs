//! `ottla topic delete`: deletes topics.

use clap::Args;
use ottla_protocol::error::ErrorCode;
use serde_json::json;

use crate::commands::common::{Bootstrap, Format, Output};
use crate::commands::failure::Failure;
use crate::commands::output::{plain, print, print_json};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla topic delete orders --if-exists")]
pub(in crate::commands) struct Words {
    /// Names of topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// A topic that does not exist is no error
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(words: &Words) -> Result<(), Failure> {
    let (mut deleted, mut failed) = (Vec::new(), Vec::new());
    for (name, outcome) in words.bootstrap.cluster().delete_topics(&words.topics).await? {
        match outcome {
            Ok(()) => deleted.push(name),
            Err(error) if words.if_exists && error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {}
            Err(error) => failed.push(error),
        }
    }
    match words.output.format {
        Format::Json => print_json(&json!({ "deleted": deleted }))?,
        Format::Table => {
            let lines: Vec<_> = deleted.iter().map(|name| format!("{}: deleted\n", plain(name))).collect();
            print(&lines.concat())?;
        }
    }
    Failure::unless_none(failed)
}
