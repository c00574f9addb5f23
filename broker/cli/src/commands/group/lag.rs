//! `ottla group lag`: lag and status of groups, as their coordinators have measured them. Kafka has no request for it,
//! so the request goes to the admin port of any node.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use ottla_env::rt;
use serde_json::{Value, json};

use crate::client::TopicPartition;
use crate::client::http::escaped;
use crate::commands::common::{Admin, Format, Output};
use crate::commands::failure::Failure;
use crate::commands::output::{Column, all, cell, plain, print, print_json, table};
use crate::commands::shard::page;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ottla group lag\n  ottla group lag billing --watch 5\n  ottla group lag billing -o json"
)]
pub(in crate::commands) struct Words {
    /// Names of groups; without any, all groups are listed with their sums
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
    /// Show it again after so many seconds, until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(words: &Words) -> Result<(), Failure> {
    loop {
        let outcome = once(words).await;
        let Some(seconds) = words.watch else { return outcome };
        outcome?;
        rt::sleep(Duration::from_secs(seconds)).await;
    }
}

async fn once(words: &Words) -> Result<(), Failure> {
    let url = &words.admin.url;
    if words.groups.is_empty() {
        let listed = page(url, "/v1/groups").await?;
        return show(words, &listed, list);
    }
    let (mut groups, mut failed) = (Vec::new(), Vec::new());
    for name in &words.groups {
        match of_group(url, name).await {
            Ok(group) => groups.push(group),
            Err(error) => failed.push(error.to_string()),
        }
    }
    show(words, &json!({ "groups": groups }), describe)?;
    if failed.is_empty() { Ok(()) } else { Err(Failure::Said(failed.join("\n"))) }
}

fn show(words: &Words, value: &Value, in_words: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
    match words.output.format {
        Format::Json => print_json(value)?,
        Format::Table => print(&in_words(value))?,
    }
    Ok(())
}

/// The page of one group at the admin port, with its partitions.
pub(super) async fn of_group(admin: &str, name: &str) -> Result<Value, Failure> {
    page(admin, &format!("/v1/groups/{}", escaped(name))).await
}

/// The partitions on a group's page; none if there is no page.
pub(super) fn partitions_of(page: &Value) -> BTreeMap<TopicPartition, &Value> {
    let index = |partition: &Value| partition["partition"].as_i64().and_then(|index| i32::try_from(index).ok());
    let mut found = BTreeMap::new();
    for topic in all(&page["topics"]) {
        let Some(name) = topic["name"].as_str() else { continue };
        let partitions = all(&topic["partitions"]);
        found.extend(partitions.filter_map(|partition| Some(((name.to_owned(), index(partition)?), partition))));
    }
    found
}

/// The columns of [`lag_cells`].
pub(super) const LAG_COLUMNS: [Column; 8] = [
    Column::Words("TOPIC"),
    Column::Numbers("PARTITION"),
    Column::Numbers("COMMITTED"),
    Column::Numbers("END"),
    Column::Numbers("LAG"),
    Column::Numbers("SECONDS"),
    Column::Numbers("AGE"),
    Column::Words("STATUS"),
];

/// One partition of a group's page as cells of a table.
pub(super) fn lag_cells(topic: &str, index: i32, partition: &Value) -> Vec<String> {
    let fields = ["committed_offset", "end_offset", "lag", "lag_seconds", "age_seconds", "status"];
    let measured = fields.map(|field| cell(&partition[field]));
    [topic.to_owned(), index.to_string()].into_iter().chain(measured).collect()
}

fn list(page: &Value) -> String {
    let columns = [
        Column::Words("GROUP"),
        Column::Words("STATUS"),
        Column::Numbers("LAG"),
        Column::Numbers("SECONDS"),
        Column::Numbers("AGE"),
        Column::Numbers("MEMBERS"),
        Column::Numbers("COORDINATOR"),
    ];
    let fields = ["name", "status", "lag", "lag_seconds", "age_seconds", "members", "coordinator"];
    table(&columns, all(&page["groups"]).map(|group| fields.map(|field| cell(&group[field])).to_vec()))
}

fn describe(page: &Value) -> String {
    all(&page["groups"]).map(describe_one).collect::<Vec<_>>().join("\n")
}

fn describe_one(group: &Value) -> String {
    let head = format!(
        "{}: {}, lag {}, {} s behind, {} members, coordinator {}\n",
        plain(&cell(&group["name"])),
        cell(&group["status"]),
        cell(&group["lag"]),
        cell(&group["lag_seconds"]),
        cell(&group["members"]),
        cell(&group["coordinator"]),
    );
    let rows = partitions_of(group).into_iter().map(|((topic, index), found)| lag_cells(&topic, index, found));
    head + &table(&LAG_COLUMNS, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_shown_by_partition_and_what_is_unknown_as_such() {
        let partition = |index: i32, lag: Value| {
            json!({ "partition": index, "committed_offset": 100, "end_offset": 1000, "lag": lag, "lag_seconds": 1.5,
                "age_seconds": 0.2, "status": "STALL" })
        };
        let group = json!({ "name": "g", "status": "ERR", "lag": 900, "lag_seconds": 1.5, "age_seconds": 0.2, "members": 0,
            "coordinator": 2, "topics": [{ "name": "t", "partitions": [partition(0, 900.into()), partition(1, Value::Null)] }] });
        let page = json!({ "groups": [group] });
        let text = describe(&page);
        assert!(text.starts_with("g: ERR, lag 900, 1.5 s behind, 0 members, coordinator 2\n"), "{text}");
        let words: Vec<Vec<&str>> = text.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["t", "0", "100", "1000", "900", "1.5", "0.2", "STALL"]);
        assert_eq!(words[1], ["t", "1", "100", "1000", "-", "1.5", "0.2", "STALL"]);
        let listed = list(&page);
        assert_eq!(
            listed.lines().nth(1).map(|line| line.split_whitespace().collect()),
            Some(vec!["g", "ERR", "900", "1.5", "0.2", "0", "2"])
        );
    }
}
