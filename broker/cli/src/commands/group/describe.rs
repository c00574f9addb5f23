//! `ottla group describe`: a group's committed offset, lag, status and member by partition.
//!
//! Members and metadata of commits come by Kafka's protocol. Offsets, lag and status are those of the admin port's page
//! `/v1/groups/{name}`, which `ottla group lag` and the metrics show too: all of them give the same numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use ottla_env::rt;
use ottla_protocol::error::ErrorCode;
use serde_json::{Value, json};

use super::lag::{LAG_COLUMNS, lag_cells, of_group, partitions_of};
use crate::client::{ClientError, Cluster, CommittedOffset, GroupMember, GroupView, LATEST, TopicPartition};
use crate::commands::common::{Admin, Bootstrap, Format, Output};
use crate::commands::failure::Failure;
use crate::commands::output::{Column, NOTHING, cell, or_nothing, plain, print, print_json, table};

/// How long the command waits until the page shows what the group had committed when the command began: the
/// coordinator measures about every second.
const MEASURED_WAIT: Duration = Duration::from_secs(3);
/// The time between two looks at the page.
const PAGE_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla group describe billing\n  ottla group describe billing -o json")]
pub(in crate::commands) struct Words {
    /// Names of groups
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

/// A group as both sides show it.
struct Described {
    group: GroupView,
    committed: BTreeMap<TopicPartition, CommittedOffset>,
    /// The group's page at the admin port; null if there is none.
    page: Value,
    /// The end offsets of assigned partitions of which nothing is committed: the page does not list them.
    ends: BTreeMap<TopicPartition, i64>,
}

/// A group's progress in one partition.
struct Row<'a> {
    at: &'a TopicPartition,
    committed: Option<&'a CommittedOffset>,
    /// The partition on the page; `end_offset` alone where nothing is committed, null fields where nothing is known.
    measured: Value,
    member: Option<&'a GroupMember>,
}

pub(super) async fn run(words: &Words) -> Result<(), Failure> {
    let mut cluster = words.bootstrap.cluster();
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for name in &words.groups {
        match describe(&mut cluster, &words.admin.url, name, &mut failed).await {
            Ok(described) => found.push(described),
            Err(error) => failed.push(error.to_string()),
        }
    }
    match words.output.format {
        Format::Json => print_json(&json!({ "groups": found.iter().map(in_json).collect::<Vec<_>>() }))?,
        Format::Table => print(&found.iter().map(in_words).collect::<Vec<_>>().join("\n"))?,
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Said(failed.join("\n"))) }
}

/// Reads the group. What cannot be read beside its members and commits is in `failed`, and is shown as unknown.
async fn describe(
    cluster: &mut Cluster,
    admin: &str,
    name: &str,
    failed: &mut Vec<String>,
) -> Result<Described, ClientError> {
    let group = cluster.group(name).await?;
    let committed = cluster.committed(name).await?;
    if !group.exists() && committed.is_empty() {
        let code = ErrorCode::GroupIdNotFound.code();
        return Err(ClientError::Refused { what: format!("group {name}"), code, message: None });
    }
    let assigned = group.members.iter().flat_map(|member| member.partitions.iter().flatten());
    let wanted: BTreeSet<TopicPartition> = assigned.filter(|at| !committed.contains_key(*at)).cloned().collect();
    let wanted = cluster.existing(wanted).await?;
    let mut ends = BTreeMap::new();
    for (at, place) in cluster.offsets(wanted.into_iter().map(|at| (at, LATEST)).collect()).await? {
        match place {
            Ok(place) => ends.extend(place.offset.map(|offset| (at, offset))),
            Err(error) => failed.push(error.to_string()),
        }
    }
    let page = if committed.is_empty() {
        Value::Null
    } else {
        measured_page(admin, name, &committed).await.unwrap_or_else(|error| {
            failed.push(format!("the lag of group {name} is not shown: {error} (--admin names a node's admin port)"));
            Value::Null
        })
    };
    Ok(Described { group, committed, page, ends })
}

/// The group's page once it shows what was committed before this call, or something newer: a group whose offsets were
/// reset a moment ago is not shown with its old ones.
async fn measured_page(
    admin: &str,
    name: &str,
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
) -> Result<Value, Failure> {
    let begun = rt::now();
    loop {
        let page = of_group(admin, name).await;
        let elapsed = rt::now().since(begun);
        if elapsed >= MEASURED_WAIT || page.as_ref().is_ok_and(|page| shows(page, committed, elapsed)) {
            return page;
        }
        // An admin port that does not answer is not asked again; a group that it does not know yet is.
        if matches!(page, Err(Failure::Http(_))) {
            return page;
        }
        rt::sleep(PAGE_INTERVAL).await;
    }
}

/// True if each partition of the page has the offset in `committed`, or was measured less than `elapsed` ago.
fn shows(page: &Value, committed: &BTreeMap<TopicPartition, CommittedOffset>, elapsed: Duration) -> bool {
    let shown = partitions_of(page);
    committed.iter().all(|(at, committed)| {
        shown.get(at).is_some_and(|partition| {
            let is_newer = partition["age_seconds"].as_f64().is_some_and(|age| age < elapsed.as_secs_f64());
            partition["committed_offset"] == committed.offset || is_newer
        })
    })
}

/// Every partition with a committed offset or an assigned member.
fn rows(described: &Described) -> Vec<Row<'_>> {
    let mut readers: BTreeMap<&TopicPartition, &GroupMember> = BTreeMap::new();
    for member in &described.group.members {
        readers.extend(member.partitions.iter().flatten().map(|at| (at, member)));
    }
    let measured = partitions_of(&described.page);
    let all: BTreeSet<&TopicPartition> = readers.keys().copied().chain(described.committed.keys()).collect();
    let row = |at| {
        let committed = described.committed.get(at);
        let unmeasured =
            || json!({ "committed_offset": committed.map(|found| found.offset), "end_offset": described.ends.get(at) });
        let measured = measured.get(at).map_or_else(unmeasured, |partition| (*partition).clone());
        Row { at, committed, measured, member: readers.get(at).copied() }
    };
    all.into_iter().map(row).collect()
}

fn in_json(described: &Described) -> Value {
    let group = &described.group;
    let member = |member: &GroupMember| {
        let partition = |at: &TopicPartition| json!({ "topic": at.0, "partition": at.1 });
        json!({
            "id": member.id,
            "instance_id": member.instance_id,
            "client_id": member.client_id,
            "host": member.host,
            "partitions": member.partitions.as_ref().map(|all| all.iter().map(partition).collect::<Vec<_>>()),
        })
    };
    let row = |row: &Row<'_>| {
        json!({
            "topic": row.at.0,
            "partition": row.at.1,
            "committed_offset": row.measured["committed_offset"],
            "metadata": row.committed.map(|committed| &committed.metadata),
            "end_offset": row.measured["end_offset"],
            "lag": row.measured["lag"],
            "lag_seconds": row.measured["lag_seconds"],
            "age_seconds": row.measured["age_seconds"],
            "status": row.measured["status"],
            "member": row.member.map(|member| &member.id),
            "client_id": row.member.map(|member| &member.client_id),
            "host": row.member.map(|member| &member.host),
        })
    };
    json!({
        "name": group.name,
        "state": group.state,
        "protocol_type": group.protocol_type,
        "assignor": group.assignor,
        "coordinator": group.coordinator,
        "status": described.page["status"],
        "lag": described.page["lag"],
        "lag_seconds": described.page["lag_seconds"],
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
        "partitions": rows(described).iter().map(row).collect::<Vec<_>>(),
    })
}

fn in_words(described: &Described) -> String {
    let group = &described.group;
    let rows = rows(described);
    let text = format!(
        "{}: {}, {} members, coordinator {}, lag {}, {} s behind, {}\n",
        plain(&group.name),
        plain(&group.state),
        group.members.len(),
        group.coordinator,
        cell(&described.page["lag"]),
        cell(&described.page["lag_seconds"]),
        cell(&described.page["status"]),
    );
    let columns: Vec<Column> =
        LAG_COLUMNS.into_iter().chain([Column::Words("MEMBER"), Column::Words("HOST")]).collect();
    let of_partition = |row: &Row<'_>| {
        let mut cells = lag_cells(&row.at.0, row.at.1, &row.measured);
        cells.push(or_nothing(row.member.map(|member| &member.id)));
        cells.push(or_nothing(row.member.map(|member| &member.host)));
        cells
    };
    // Members without a partition are listed too: they are the ones that an operator looks for.
    let idle = group.members.iter().filter(|member| member.partitions.as_ref().is_none_or(Vec::is_empty));
    let of_member = |member: &GroupMember| {
        let mut row = vec![NOTHING.to_owned(); columns.len() - 2];
        row.extend([member.id.clone(), member.host.clone()]);
        row
    };
    text + &table(&columns, rows.iter().map(of_partition).chain(idle.map(of_member)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described() -> Described {
        let at = |index| ("t".to_owned(), index);
        let member = |id: &str, partitions: &[i32]| GroupMember {
            id: id.to_owned(),
            instance_id: None,
            client_id: "c".to_owned(),
            host: "10.0.0.7".to_owned(),
            partitions: Some(partitions.iter().map(|index| at(*index)).collect()),
        };
        let group = GroupView {
            name: "g".to_owned(),
            state: "Stable".to_owned(),
            assignor: "range".to_owned(),
            protocol_type: "consumer".to_owned(),
            coordinator: 1,
            members: vec![member("m1", &[0, 1]), member("m2", &[])],
        };
        let committed = |offset| CommittedOffset { offset, epoch: 1, metadata: String::new() };
        let committed = BTreeMap::from([(at(0), committed(4)), (at(2), committed(9)), (at(3), committed(8))]);
        let partition = |index: i32, committed: i64, end: i64, age: f64| {
            json!({ "partition": index, "committed_offset": committed, "end_offset": end, "lag": (end - committed).max(0),
                "lag_seconds": 1.5, "age_seconds": age, "status": "OK" })
        };
        let page = json!({ "name": "g", "status": "OK", "lag": 6, "lag_seconds": 1.5,
            "topics": [{ "name": "t", "partitions": [partition(0, 4, 10, 0.5), partition(2, 9, 7, 0.2)] }] });
        Described { group, committed, page, ends: BTreeMap::from([(at(1), 5)]) }
    }

    #[test]
    fn committed_and_assigned_partitions_and_idle_members_are_shown() {
        let text = in_words(&described());
        assert!(text.starts_with("g: Stable, 2 members, coordinator 1, lag 6, 1.5 s behind, OK\n"), "{text}");
        let words: Vec<Vec<&str>> = text.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["t", "0", "4", "10", "6", "1.5", "0.5", "OK", "m1", "10.0.0.7"]);
        assert_eq!(words[1], ["t", "1", "-", "5", "-", "-", "-", "-", "m1", "10.0.0.7"]);
        assert_eq!(words[2], ["t", "2", "9", "7", "0", "1.5", "0.2", "OK", "-", "-"]);
        assert_eq!(words[3], ["t", "3", "8", "-", "-", "-", "-", "-", "-", "-"]);
        assert_eq!(words[4], ["-", "-", "-", "-", "-", "-", "-", "-", "m2", "10.0.0.7"]);
    }

    #[test]
    fn a_page_is_whole_when_it_shows_what_was_committed_before_or_is_newer() {
        let Described { mut committed, page, .. } = described();
        let second = Duration::from_secs(1);
        assert!(!shows(&page, &committed, second), "a partition is missing");
        committed.remove(&("t".to_owned(), 3));
        assert!(shows(&page, &committed, Duration::ZERO), "all are as committed");
        if let Some(found) = committed.get_mut(&("t".to_owned(), 0)) {
            found.offset = 2;
        }
        assert!(!shows(&page, &committed, second / 4), "measured before the offset was committed");
        assert!(shows(&page, &committed, second), "measured after it was read");
    }

    #[test]
    fn json_says_null_where_nothing_is_known() {
        let shown = in_json(&described());
        assert_eq!(shown["partitions"][0]["lag"], 6);
        assert_eq!(shown["partitions"][1]["lag"], Value::Null);
        assert_eq!(shown["partitions"][2]["member"], Value::Null);
        assert_eq!(shown["members"][0]["partitions"][1], json!({ "topic": "t", "partition": 1 }));
    }
}
