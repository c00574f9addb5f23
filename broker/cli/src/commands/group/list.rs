//! `ottla group list`: the groups of all coordinators.

use clap::Args;
use serde_json::{Value, json};

use crate::client::{ClientError, ListedGroup};
use crate::commands::common::{Bootstrap, Format, Output};
use crate::commands::failure::Failure;
use crate::commands::output::{Column, print, print_json, table};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla group list --state Stable")]
pub(in crate::commands) struct Words {
    /// Show only groups in these states, by comma: Stable, Empty, PreparingRebalance, CompletingRebalance, Dead
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',')]
    states: Vec<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(words: &Words) -> Result<(), Failure> {
    let (mut groups, failed) = words.bootstrap.cluster().groups().await?;
    let is_wanted = |group: &ListedGroup| words.states.iter().any(|state| state.eq_ignore_ascii_case(&group.state));
    groups.retain(|group| words.states.is_empty() || is_wanted(group));
    match words.output.format {
        Format::Json => print_json(&json!({ "groups": groups.iter().map(in_json).collect::<Vec<_>>() }))?,
        Format::Table => {
            let columns = [
                Column::Words("NAME"),
                Column::Words("STATE"),
                Column::Words("TYPE"),
                Column::Words("PROTOCOL"),
                Column::Numbers("COORDINATOR"),
            ];
            let row = |group: &ListedGroup| {
                let ListedGroup { name, state, kind, protocol_type, coordinator } = group.clone();
                vec![name, state, kind, protocol_type, coordinator.to_string()]
            };
            print(&table(&columns, groups.iter().map(row)))?;
        }
    }
    let incomplete = |error: &ClientError| format!("{error}; groups that are coordinated there are not listed");
    let failed: Vec<_> = failed.iter().map(incomplete).collect();
    if failed.is_empty() { Ok(()) } else { Err(Failure::Said(failed.join("\n"))) }
}

fn in_json(group: &ListedGroup) -> Value {
    json!({
        "name": group.name,
        "state": group.state,
        "type": group.kind,
        "protocol_type": group.protocol_type,
        "coordinator": group.coordinator,
    })
}
