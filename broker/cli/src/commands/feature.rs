//! `ottla feature ...`: the feature levels of a cluster.

use clap::{Args, Subcommand};
use serde_json::json;

use super::common::{Bootstrap, Format, Output, pair};
use super::failure::Failure;
use super::output::{Column, or_nothing, print, print_json, table};

/// What can be done with features.
#[derive(Debug, Subcommand)]
pub(super) enum Words {
    /// Lists features: which levels the broker that answers understands, and which is in force
    List(List),
    /// Raises levels when every node has the release that brought them; there is no way back
    Upgrade(Upgrade),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla feature list")]
pub(super) struct List {
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ottla feature upgrade ottla.version=2 --dry-run\n  ottla feature upgrade ottla.version=2"
)]
pub(super) struct Upgrade {
    /// Features and their levels
    #[arg(required = true, value_name = "NAME=LEVEL", value_parser = level)]
    levels: Vec<(String, i16)>,
    /// Changes nothing; tells whether it could be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

fn level(text: &str) -> Result<(String, i16), String> {
    let (name, level) = pair(text)?;
    let level = level.parse().map_err(|_| format!("{level:?} is no level"))?;
    Ok((name, level))
}

/// Runs the command.
pub(super) async fn run(words: Words) -> Result<(), Failure> {
    match words {
        Words::List(words) => list(&words).await,
        Words::Upgrade(words) => upgrade(&words).await,
    }
}

async fn list(words: &List) -> Result<(), Failure> {
    let features = words.bootstrap.cluster().features().await?;
    match words.output.format {
        Format::Json => {
            let all = features.iter().map(|(name, feature)| {
                let (oldest, newest) = feature.supported.unzip();
                json!({ "name": name, "oldest": oldest, "newest": newest, "level": feature.level })
            });
            print_json(&all.collect())?;
        }
        Format::Table => {
            let columns = [Column::Words("FEATURE"), Column::Words("UNDERSTOOD"), Column::Numbers("LEVEL")];
            let rows = features.into_iter().map(|(name, feature)| {
                let understood = feature.supported.map(|(oldest, newest)| format!("{oldest}-{newest}"));
                vec![name, or_nothing(understood), or_nothing(feature.level)]
            });
            print(&table(&columns, rows))?;
        }
    }
    Ok(())
}

async fn upgrade(words: &Upgrade) -> Result<(), Failure> {
    words.bootstrap.cluster().upgrade_features(&words.levels, words.dry_run).await?;
    match words.output.format {
        Format::Json => {
            let all = words.levels.iter().map(|(name, level)| json!({ "name": name, "level": level }));
            print_json(&json!({ "dry_run": words.dry_run, "features": all.collect::<Vec<_>>() }))?;
        }
        Format::Table => {
            let said = if words.dry_run { "can be raised to" } else { "is at" };
            for (name, level) in &words.levels {
                print(&format!("{name} {said} level {level}\n"))?;
            }
        }
    }
    Ok(())
}
