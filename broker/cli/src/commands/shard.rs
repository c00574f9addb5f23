//! `ottla shard ...`: shards, the units of replication. Kafka's protocol has no shards, so requests go to the admin
//! port of a node; any node answers from its local state, and forwards a change of a shard's clock to the shard's
//! leader.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::common::{Admin, Format, Output};
use super::failure::Failure;
use super::output::{Column, NOTHING, all, cell, plain, print, print_json, table};
use super::units;
use crate::client::http;

/// What can be done with shards.
#[derive(Debug, Subcommand)]
pub(super) enum Words {
    /// Lists shards with their leaders and replicas
    List(List),
    /// Shows a shard from near: replicas, what this node has of it, its partitions
    Describe(Describe),
    /// Sets the clock of a shard, by which records, producers and offsets expire, where a wrong clock has set it
    SetClock(SetClock),
    /// Makes partitions of a shard a shard of their own, on the same nodes, while clients go on
    Split(Split),
    /// Merges a shard into another one on the same nodes, while clients go on
    Merge(Merge),
    /// Moves a shard to other nodes, with all its partitions, while clients go on
    Move(Move),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla shard list --admin http://127.0.0.1:9644")]
pub(super) struct List {
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla shard describe 3\n  ottla shard describe 0 -o json")]
pub(super) struct Describe {
    /// Number of the shard; 0 is the metadata
    shard: u64,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla shard set-clock 3\n  ottla shard set-clock --all\n  \
                        ottla shard set-clock 3 --to 2026-11-21T10:00:00")]
pub(super) struct SetClock {
    /// Number of the shard
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    shard: Option<u64>,
    /// All shards
    #[arg(long)]
    all: bool,
    /// The time [default: the clock of the shard's leader, if most nodes' clocks agree with it]
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    to: Option<i64>,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ottla shard split 3\n  ottla shard split 3 --partition trips:0 --partition trips:4"
)]
pub(super) struct Split {
    /// Number of the shard
    shard: u64,
    /// A partition that moves; may be given several times [default: every second one of the shard]
    #[arg(long = "partition", value_name = "TOPIC:NUMBER")]
    partitions: Vec<String>,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla shard merge 9 --into 3\n  ottla shard describe 9\n  \
                        ottla shard merge 9 --cancel")]
pub(super) struct Merge {
    /// Number of the shard, which ends with this
    shard: u64,
    /// The shard that takes over all its partitions
    #[arg(long, value_name = "SHARD", required_unless_present = "cancel")]
    into: Option<u64>,
    /// Takes the merge that is under way back
    #[arg(long, conflicts_with = "into")]
    cancel: bool,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla shard move 9 --to 2,3,4\n  ottla shard describe 9\n  \
                        ottla shard move 9 --cancel")]
pub(super) struct Move {
    /// Number of the shard
    shard: u64,
    /// The nodes that are to have its replicas, the preferred leader first
    #[arg(long, value_name = "NODE,...", value_delimiter = ',', required_unless_present = "cancel")]
    to: Vec<i32>,
    /// Takes the move that is under way back
    #[arg(long, conflicts_with = "to")]
    cancel: bool,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub(super) async fn run(words: Words) -> Result<(), Failure> {
    match words {
        Words::List(words) => {
            let shards = page(&words.admin.url, "/v1/shards").await?;
            show(&words.output, &shards, list)
        }
        Words::Describe(words) => {
            let shard = page(&words.admin.url, &format!("/v1/shards/{}", words.shard)).await?;
            show(&words.output, &shard, describe)
        }
        Words::SetClock(words) => set_clock(&words).await,
        Words::Split(words) => split(&words).await,
        Words::Merge(words) => merge(&words).await,
        Words::Move(words) => move_to(&words).await,
    }
}

/// Sets every clock that can be set, also if the leader of another shard refuses.
async fn set_clock(words: &SetClock) -> Result<(), Failure> {
    let admin = &words.admin.url;
    let shards: Vec<u64> = match words.shard {
        Some(shard) => vec![shard],
        // The metadata group has no such clock.
        None => {
            let page = page(admin, "/v1/shards").await?;
            all(&page["shards"]).filter_map(|shard| shard["id"].as_u64()).filter(|shard| *shard != 0).collect()
        }
    };
    let (mut set, mut failure) = (Vec::new(), None);
    for shard in shards {
        let to = words.to.map_or_else(String::new, |to_ms| format!("/{to_ms}"));
        let path = format!("/api/shards/{shard}/set-clock{to}");
        match json_of(admin, &path, &http::post(admin, &path).await?) {
            Ok(answer) => set.push(answer),
            Err(why) => failure = Some(why),
        }
    }
    show(&words.output, &json!({ "shards": set }), |set| {
        let row = |shard: &Value| {
            vec![cell(&shard["id"]), shard["clock_ms"].as_i64().map_or_else(|| NOTHING.to_owned(), units::date)]
        };
        table(&[Column::Numbers("ID"), Column::Words("CLOCK")], all(&set["shards"]).map(row))
    })?;
    failure.map_or(Ok(()), Err)
}

/// Returns when the split is recorded; the shard's leader carries it out.
async fn split(words: &Split) -> Result<(), Failure> {
    let admin = &words.admin.url;
    let partitions = words.partitions.iter().map(|partition| http::escaped(partition)).collect::<Vec<_>>().join(",");
    let named = if partitions.is_empty() { String::new() } else { format!("?partitions={partitions}") };
    let path = format!("/api/shards/{}/split{named}", words.shard);
    let answer = json_of(admin, &path, &http::post(admin, &path).await?)?;
    show(&words.output, &answer, |answer| {
        format!(
            "shard {}: {} partitions move to shard {}\n",
            cell(&answer["id"]),
            cell(&answer["partitions"]),
            cell(&answer["child"])
        )
    })
}

/// Returns when the merge is recorded; the leaders of both shards carry it out.
async fn merge(words: &Merge) -> Result<(), Failure> {
    let admin = &words.admin.url;
    let target = words.into.map_or_else(|| "cancel=true".to_owned(), |into| format!("into={into}"));
    let path = format!("/api/shards/{}/merge?{target}", words.shard);
    let answer = json_of(admin, &path, &http::post(admin, &path).await?)?;
    show(&words.output, &answer, |answer| {
        let (id, partitions) = (cell(&answer["id"]), cell(&answer["partitions"]));
        match answer["into"].is_null() {
            true => format!("shard {id}: is not merged; it keeps its {partitions} partitions\n"),
            false => format!("shard {id}: {partitions} partitions move to shard {}\n", cell(&answer["into"])),
        }
    })
}

/// Returns when the move is recorded; the shard's leader carries it out.
async fn move_to(words: &Move) -> Result<(), Failure> {
    let admin = &words.admin.url;
    let target = match words.cancel {
        true => "cancel=true".to_owned(),
        false => format!("nodes={}", words.to.iter().map(i32::to_string).collect::<Vec<_>>().join(",")),
    };
    let path = format!("/api/shards/{}/move?{target}", words.shard);
    let answer = json_of(admin, &path, &http::post(admin, &path).await?)?;
    show(&words.output, &answer, |answer| {
        let nodes = all(&answer["nodes"]).map(cell).collect::<Vec<_>>().join(", ");
        format!("shard {}: is moved to the nodes {nodes}\n", cell(&answer["id"]))
    })
}

pub(super) fn show(output: &Output, value: &Value, in_words: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
    match output.format {
        Format::Json => print_json(value)?,
        Format::Table => print(&in_words(value))?,
    }
    Ok(())
}

/// A JSON page of the admin port.
pub(super) async fn page(admin: &str, path: &str) -> Result<Value, Failure> {
    json_of(admin, path, &http::get(admin, path).await?)
}

/// The admin port's response.
pub(super) fn json_of(admin: &str, path: &str, page: &http::Page) -> Result<Value, Failure> {
    let read = serde_json::from_str::<Value>(&page.body);
    match (page.status, read) {
        (200, Ok(value)) => Ok(value),
        (200, Err(_)) => Err(Failure::Said(format!("{admin}{path}: not the page of an Ottla node"))),
        (status, Ok(value)) if status == http::NOT_FOUND || value["error"].is_string() => {
            let why = value["error"].as_str().map_or_else(|| "not found".to_owned(), plain);
            Err(Failure::Said(format!("{admin}{path}: {why}")))
        }
        (http::NOT_FOUND, Err(_)) => {
            Err(Failure::Said(format!("{admin} has no page {path}: is it an Ottla node of this release?")))
        }
        (status, _) => {
            let said = page.body.lines().next().unwrap_or_default();
            Err(Failure::Said(format!("{admin}{path}: status {status}: {}", plain(said))))
        }
    }
}

fn list(shards: &Value) -> String {
    let columns = [
        Column::Numbers("ID"),
        Column::Words("KIND"),
        Column::Numbers("LEADER"),
        Column::Numbers("TERM"),
        Column::Words("REPLICAS (NODE:ROLE)"),
        Column::Numbers("PARTITIONS"),
    ];
    let row = |shard: &Value| {
        let replica = |replica: &Value| format!("{}:{}", cell(&replica["node"]), cell(&replica["role"]));
        vec![
            cell(&shard["id"]),
            cell(&shard["kind"]),
            cell(&shard["leader"]),
            cell(&shard["term"]),
            all(&shard["replicas"]).map(replica).collect::<Vec<_>>().join(" "),
            cell(&shard["partitions"]),
        ]
    };
    table(&columns, all(&shards["shards"]).map(row))
}

fn describe(shard: &Value) -> String {
    let mut text = format!(
        "shard {}: {}, leader {}, term {}, {} partitions\n",
        cell(&shard["id"]),
        plain(&cell(&shard["kind"])),
        cell(&shard["leader"]),
        cell(&shard["term"]),
        cell(&shard["partitions"]),
    );
    let columns =
        [Column::Numbers("REPLICA"), Column::Numbers("NODE"), Column::Words("ROLE"), Column::Words("DIRECTORY")];
    let row = |replica: &Value| ["id", "node", "role", "directory"].map(|name| cell(&replica[name])).to_vec();
    text.push_str(&table(&columns, all(&shard["replicas"]).map(row)));
    let here = &shard["here"];
    if here.is_object() {
        let ids = |value: &Value| all(value).map(cell).collect::<Vec<_>>().join(",");
        let voters = all(&here["voters"]).map(ids).collect::<Vec<_>>().join(" and ");
        text.push_str(&format!(
            "\non node {}: replica {}, applied {} in term {}, {} bytes waiting, voters {}, learners {}{}\n",
            cell(&here["node"]),
            cell(&here["replica"]),
            cell(&here["applied"]),
            cell(&here["applied_term"]),
            cell(&here["waiting_bytes"]),
            plain(&voters),
            plain(&ids(&here["learners"])),
            if here["stopped"] == true { ", stopped" } else { "" },
        ));
    }
    if let Some(why) = shard["closed"].as_str() {
        text.push_str(&format!("\nclosed on this node: {}\n", plain(why)));
    }
    let columns = [Column::Words("TOPIC"), Column::Words("PARTITIONS")];
    let row = |topic: &Value| vec![cell(&topic["name"]), ranges(all(&topic["partitions"]).filter_map(Value::as_i64))];
    let topics: Vec<_> = all(&shard["topics"]).map(row).collect();
    if !topics.is_empty() {
        text.push('\n');
        text.push_str(&table(&columns, topics));
    }
    text
}

/// Ascending numbers as ranges: `0-3,7`.
fn ranges(numbers: impl Iterator<Item = i64>) -> String {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let shown = |(first, last): &(i64, i64)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    runs.iter().map(shown).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_shown_a_line_each() {
        let replicas = json!([{ "id": 7, "node": 1, "role": "leader", "directory": "d" }, { "id": 8, "node": 2, "role": "follower" }]);
        let shard = json!({ "id": 3, "kind": "pool", "leader": 1, "term": 4, "replicas": replicas, "partitions": 12 });
        let text = list(&json!({ "shards": [shard] }));
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["3", "pool", "1", "4", "1:leader", "2:follower", "12"]);
    }

    #[test]
    fn a_shard_from_near_shows_what_the_node_has_of_it() {
        let here = json!({
            "node": 1, "replica": 7, "applied": 41, "applied_term": 4, "waiting_bytes": 0,
            "voters": [[7, 8], [7, 9]], "learners": [], "stopped": false,
        });
        let topics = json!([{ "name": "t", "partitions": [0, 1, 2, 5] }]);
        let shard = json!({ "id": 3, "kind": "pool", "leader": null, "term": null, "replicas": [], "partitions": 4, "topics": topics, "here": here });
        let text = describe(&shard);
        assert!(text.starts_with("shard 3: pool, leader -, term -, 4 partitions\n"), "{text}");
        assert!(
            text.contains("replica 7, applied 41 in term 4, 0 bytes waiting, voters 7,8 and 7,9, learners -\n"),
            "{text}"
        );
        assert!(text.ends_with("t      0-2,5\n"), "{text}");
    }
}
