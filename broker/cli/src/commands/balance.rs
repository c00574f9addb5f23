//! `ottla balance ...`: how load is spread over the nodes. Any node's admin port answers for the controller, which makes the plan.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::common::{Admin, Output};
use super::failure::Failure;
use super::output::{Column, all, cell, table};
use super::shard::{json_of, page, show};
use super::units;
use crate::client::http;

/// What can be done with the balance.
#[derive(Debug, Subcommand)]
pub(super) enum Words {
    /// Shows what each node has of the whole, what is to be moved, and why; changes nothing
    Plan(Asked),
    /// Carries the plan out, also while the balancer is paused
    Apply(Asked),
    /// Moves nothing any more by itself (ottla.balance.enable=false)
    Pause(Asked),
    /// Spreads load by itself again (ottla.balance.enable=true)
    Resume(Asked),
    /// Shows what was moved, split and merged, and why: the last 200 steps
    History(Asked),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ottla balance plan\n  ottla balance pause\n  ottla balance apply\n  ottla balance history\n  ottla balance resume"
)]
pub(super) struct Asked {
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub(super) async fn run(words: Words) -> Result<(), Failure> {
    match words {
        Words::Plan(asked) => {
            let status = page(&asked.admin.url, "/v1/balance").await?;
            show(&asked.output, &status, |status| plan(status, &status["plan"]))
        }
        Words::Apply(asked) => {
            let status = post(&asked, "apply").await?;
            show(&asked.output, &status, |status| plan(status, &status["applying"]))
        }
        Words::Pause(asked) => {
            let answer = post(&asked, "pause").await?;
            show(&asked.output, &answer, |_| "nothing is moved by itself any more\n".to_owned())
        }
        Words::Resume(asked) => {
            let answer = post(&asked, "resume").await?;
            show(&asked.output, &answer, |_| "load is spread by itself again\n".to_owned())
        }
        Words::History(asked) => {
            let status = page(&asked.admin.url, "/v1/balance").await?;
            show(&asked.output, &status, history)
        }
    }
}

async fn post(asked: &Asked, word: &str) -> Result<Value, Failure> {
    let path = format!("/api/balance/{word}");
    json_of(&asked.admin.url, &path, &http::post(&asked.admin.url, &path).await?)
}

fn plan(status: &Value, steps: &Value) -> String {
    let columns =
        [Column::Numbers("NODE"), Column::Numbers("REPLICAS"), Column::Numbers("LEADERS"), Column::Numbers("BYTES/S")];
    let nodes = all(&status["nodes"]).map(|node| {
        let rate = units::bytes(node["bytes_per_second"].as_i64().unwrap_or(0));
        vec![cell(&node["node"]), cell(&node["replicas"]), cell(&node["leaders"]), rate]
    });
    let mut text = table(&columns, nodes);
    text.push('\n');
    if status["enabled"] == false {
        text.push_str("paused: nothing is moved by itself\n");
    }
    if status["complete"] == false {
        text.push_str("no plan yet: not all nodes have reported their load\n");
    } else if all(steps).next().is_none() {
        text.push_str("nothing is to be moved\n");
    }
    for (number, step) in (1..).zip(all(steps)) {
        text.push_str(&format!("{number:>3}. {}\n", cell(&step["reason"])));
    }
    text
}

fn history(status: &Value) -> String {
    let columns = [Column::Words("TIME"), Column::Numbers("SHARD"), Column::Words("WHY")];
    let done = all(&status["history"]).map(|step| {
        vec![units::date(step["at_ms"].as_i64().unwrap_or(0)), cell(&step["shard"]), cell(&step["reason"])]
    });
    table(&columns, done)
}
