//! `ottla group describe`: a group's committed offset, lag and member by partition.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use ottla_protocol::error::ErrorCode;
use serde_json::{Value, json};

use crate::client::{ClientError, Cluster, CommittedOffset, GroupMember, GroupView, LATEST, TopicPartition};
use crate::commands::common::{Bootstrap, Format, Output};
use crate::commands::failure::Failure;
use crate::commands::output::{Column, NOTHING, or_nothing, plain, print, print_json, table};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla group describe billing\n  ottla group describe billing -o json")]
pub(in crate::commands) struct Words {
    /// Names of groups
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

/// A group with its committed offsets and the end offsets.
struct Described {
    group: GroupView,
    committed: BTreeMap<TopicPartition, CommittedOffset>,
    ends: BTreeMap<TopicPartition, i64>,
}

/// A group's progress in one partition.
struct Row<'a> {
    at: &'a TopicPartition,
    committed: Option<&'a CommittedOffset>,
    end: Option<i64>,
    member: Option<&'a GroupMember>,
}

impl Row<'_> {
    /// Records that the group has not committed.
    fn lag(&self) -> Option<i64> {
        Some((self.end? - self.committed?.offset).max(0))
    }
}

pub(super) async fn run(words: &Words) -> Result<(), Failure> {
    let mut cluster = words.bootstrap.cluster();
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for name in &words.groups {
        match describe(&mut cluster, name, &mut failed).await {
            Ok(described) => found.push(described),
            Err(error) => failed.push(error),
        }
    }
    match words.output.format {
        Format::Json => print_json(&json!({ "groups": found.iter().map(in_json).collect::<Vec<_>>() }))?,
        Format::Table => print(&found.iter().map(in_words).collect::<Vec<_>>().join("\n"))?,
    }
    Failure::unless_none(failed)
}

async fn describe(cluster: &mut Cluster, name: &str, failed: &mut Vec<ClientError>) -> Result<Described, ClientError> {
    let group = cluster.group(name).await?;
    let committed = cluster.committed(name).await?;
    if !group.exists() && committed.is_empty() {
        let code = ErrorCode::GroupIdNotFound.code();
        return Err(ClientError::Refused { what: format!("group {name}"), code, message: None });
    }
    let assigned = group.members.iter().flat_map(|member| member.partitions.iter().flatten());
    let wanted: BTreeSet<TopicPartition> = assigned.chain(committed.keys()).cloned().collect();
    let wanted = cluster.existing(wanted).await?;
    let mut ends = BTreeMap::new();
    for (at, place) in cluster.offsets(wanted.into_iter().map(|at| (at, LATEST)).collect()).await? {
        match place {
            Ok(place) => ends.extend(place.offset.map(|offset| (at, offset))),
            Err(error) => failed.push(error),
        }
    }
    Ok(Described { group, committed, ends })
}

/// Every partition with a committed offset or an assigned member.
fn rows(described: &Described) -> Vec<Row<'_>> {
    let mut readers: BTreeMap<&TopicPartition, &GroupMember> = BTreeMap::new();
    for member in &described.group.members {
        readers.extend(member.partitions.iter().flatten().map(|at| (at, member)));
    }
    let all: BTreeSet<&TopicPartition> = readers.keys().copied().chain(described.committed.keys()).collect();
    let row = |at| Row {
        at,
        committed: described.committed.get(at),
        end: described.ends.get(at).copied(),
        member: readers.get(at).copied(),
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
            "committed_offset": row.committed.map(|committed| committed.offset),
            "metadata": row.committed.map(|committed| &committed.metadata),
            "end_offset": row.end,
            "lag": row.lag(),
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
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
        "partitions": rows(described).iter().map(row).collect::<Vec<_>>(),
    })
}

fn in_words(described: &Described) -> String {
    let group = &described.group;
    let rows = rows(described);
    let lag: i64 = rows.iter().filter_map(Row::lag).sum();
    let text = format!(
        "{}: {}, {} members, coordinator {}, lag {lag}\n",
        plain(&group.name),
        plain(&group.state),
        group.members.len(),
        group.coordinator
    );
    let columns = [
        Column::Words("TOPIC"),
        Column::Numbers("PARTITION"),
        Column::Numbers("COMMITTED"),
        Column::Numbers("END"),
        Column::Numbers("LAG"),
        Column::Words("MEMBER"),
        Column::Words("HOST"),
    ];
    let of_partition = |row: &Row<'_>| {
        vec![
            row.at.0.clone(),
            row.at.1.to_string(),
            or_nothing(row.committed.map(|committed| committed.offset)),
            or_nothing(row.end),
            or_nothing(row.lag()),
            or_nothing(row.member.map(|member| &member.id)),
            or_nothing(row.member.map(|member| &member.host)),
        ]
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
        let committed = BTreeMap::from([(at(0), committed(4)), (at(2), committed(9))]);
        Described { group, committed, ends: BTreeMap::from([(at(0), 10), (at(1), 5), (at(2), 7)]) }
    }

    #[test]
    fn committed_and_assigned_partitions_and_idle_members_are_shown() {
        let text = in_words(&described());
        assert!(text.starts_with("g: Stable, 2 members, coordinator 1, lag 6\n"), "{text}");
        let words: Vec<Vec<&str>> = text.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["t", "0", "4", "10", "6", "m1", "10.0.0.7"]);
        assert_eq!(words[1], ["t", "1", "-", "5", "-", "m1", "10.0.0.7"]);
        assert_eq!(words[2], ["t", "2", "9", "7", "0", "-", "-"]);
        assert_eq!(words[3], ["-", "-", "-", "-", "-", "m2", "10.0.0.7"]);
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
