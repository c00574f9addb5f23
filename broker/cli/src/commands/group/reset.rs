//! `ottla group reset`: sets a group's offsets, as `kafka-consumer-groups --reset-offsets` does. Refused while the
//! group has members: they would read on from their positions and overwrite the commit.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use ottla_protocol::error::ErrorCode;
use serde_json::json;

use super::plan::{Known, Scenario, target};
use crate::client::{ClientError, Cluster, Commit, CommittedOffset, EARLIEST, LATEST, ListedOffset, TopicPartition};
use crate::commands::common::{Bootstrap, Format, Output};
use crate::commands::failure::Failure;
use crate::commands::output::{Column, or_nothing, print, print_json, say, table};
use crate::commands::units;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ottla group reset billing --all-topics --to-earliest\n  ottla group reset billing --topic orders:0,1 --shift-by -100 --execute"
)]
pub(in crate::commands) struct Words {
    /// Name of the group
    group: String,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    scenario: ScenarioWords,
    /// Only show what would be done; so it is without --execute
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
    /// Do it
    #[arg(long)]
    execute: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Choice {
    /// A topic, or partitions of it: TOPIC or TOPIC:0,1; may be given often
    #[arg(short = 't', long = "topic", value_name = "TOPIC[:N,...]", value_parser = topic)]
    topics: Vec<(String, Option<Vec<i32>>)>,
    /// Every partition that the group has committed
    #[arg(long)]
    all_topics: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ScenarioWords {
    /// To the first record that is there
    #[arg(long)]
    to_earliest: bool,
    /// Behind the last record
    #[arg(long)]
    to_latest: bool,
    /// To an offset, or the nearest that is there
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// To the first record of this time or later (2026-11-21T10:30:00; UTC unless it has a zone)
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    to_datetime: Option<i64>,
    /// So many records further, or back if it is negative
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shift_by: Option<i64>,
}

/// Kafka's own form: a topic, or some of its partitions.
fn topic(text: &str) -> Result<(String, Option<Vec<i32>>), String> {
    let Some((name, numbers)) = text.split_once(':') else { return Ok((text.to_owned(), None)) };
    let number = |number: &str| number.parse().ok().filter(|number| *number >= 0);
    let numbers: Option<Vec<i32>> = numbers.split(',').map(number).collect();
    numbers.map(|numbers| (name.to_owned(), Some(numbers))).ok_or_else(|| format!("{text:?} is not TOPIC:0,1"))
}

impl ScenarioWords {
    /// clap lets exactly one through.
    fn chosen(&self) -> Scenario {
        let given = [
            self.to_earliest.then_some(Scenario::Earliest),
            self.to_latest.then_some(Scenario::Latest),
            self.to_offset.map(Scenario::Offset),
            self.to_datetime.map(Scenario::Time),
            self.shift_by.map(Scenario::Shift),
        ];
        given.into_iter().flatten().next().unwrap_or(Scenario::Earliest)
    }
}

impl Words {
    fn executes(&self) -> bool {
        self.execute && !self.dry_run
    }
}

/// The reset of one partition.
struct Move {
    at: TopicPartition,
    from: Option<i64>,
    to: Commit,
}

pub(super) async fn run(words: &Words) -> Result<(), Failure> {
    let mut cluster = words.bootstrap.cluster();
    let group = cluster.group(&words.group).await?;
    if !group.members.is_empty() {
        let message = format!("it has {} members ({}); stop them first", group.members.len(), group.state);
        return Err(refused(&words.group, ErrorCode::NonEmptyGroup, Some(message)).into());
    }
    let committed = cluster.committed(&words.group).await?;
    if words.choice.all_topics && committed.is_empty() {
        return Err(
            refused(&words.group, ErrorCode::GroupIdNotFound, Some("it has committed nothing".to_owned())).into()
        );
    }
    let chosen = choose(&mut cluster, &words.choice, &committed).await?;
    let moves = plan(&mut cluster, chosen, words.scenario.chosen(), &committed).await?;
    let mut failed = Vec::new();
    if words.executes() {
        let offsets = moves.iter().map(|step| (step.at.clone(), step.to)).collect();
        let outcomes = cluster.commit(&words.group, &offsets).await?;
        failed.extend(outcomes.into_values().filter_map(Result::err));
    }
    show(words, &moves, failed.is_empty())?;
    Failure::unless_none(failed)
}

fn refused(group: &str, code: ErrorCode, message: Option<String>) -> ClientError {
    ClientError::Refused { what: format!("group {group}"), code: code.code(), message }
}

/// The selected partitions; one that does not exist is an error.
async fn choose(
    cluster: &mut Cluster,
    choice: &Choice,
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
) -> Result<BTreeSet<TopicPartition>, ClientError> {
    if choice.all_topics {
        return cluster.existing(committed.keys().cloned().collect()).await;
    }
    let mut chosen = BTreeSet::new();
    for (name, numbers) in &choice.topics {
        let topic = cluster.topic(name).await?;
        match numbers {
            Some(numbers) => chosen.extend(numbers.iter().map(|number| (name.clone(), *number))),
            None => chosen.extend(topic.partitions.iter().map(|partition| (name.clone(), partition.index))),
        }
    }
    Ok(chosen)
}

async fn plan(
    cluster: &mut Cluster,
    chosen: BTreeSet<TopicPartition>,
    scenario: Scenario,
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
) -> Result<Vec<Move>, Failure> {
    let earliest = cluster.offsets_at(chosen.iter().cloned(), EARLIEST).await?;
    let latest = cluster.offsets_at(chosen.iter().cloned(), LATEST).await?;
    let at_time = match scenario {
        Scenario::Time(ms) => cluster.offsets_at(chosen.iter().cloned(), ms).await?,
        _ => BTreeMap::new(),
    };
    let offset = |places: &BTreeMap<TopicPartition, ListedOffset>, at: &TopicPartition| {
        places.get(at).and_then(|place| place.offset)
    };
    let mut moves = Vec::new();
    for at in chosen {
        let from = committed.get(&at).map(|committed| committed.offset);
        let (Some(earliest), Some(latest)) = (offset(&earliest, &at), offset(&latest, &at)) else { continue };
        let known = Known { committed: from, earliest, latest, at_time: offset(&at_time, &at) };
        let Some(offset) = target(scenario, known) else {
            let (topic, partition) = at;
            return Err(Failure::Said(format!(
                "topic {topic} partition {partition}: the group has no offset to shift"
            )));
        };
        // No consumer has read up to this offset: its leader epoch is unknown.
        moves.push(Move { at, from, to: Commit { offset, epoch: -1 } });
    }
    Ok(moves)
}

fn show(words: &Words, moves: &[Move], done: bool) -> Result<(), Failure> {
    match words.output.format {
        Format::Json => {
            let partition = |step: &Move| json!({ "topic": step.at.0, "partition": step.at.1, "from": step.from, "to": step.to.offset });
            let partitions: Vec<_> = moves.iter().map(partition).collect();
            print_json(
                &json!({ "group": words.group, "executed": words.executes() && done, "partitions": partitions }),
            )?;
        }
        Format::Table => {
            let columns = [
                Column::Words("TOPIC"),
                Column::Numbers("PARTITION"),
                Column::Numbers("COMMITTED"),
                Column::Numbers("NEW"),
            ];
            let row = |step: &Move| {
                vec![step.at.0.clone(), step.at.1.to_string(), or_nothing(step.from), step.to.offset.to_string()]
            };
            print(&table(&columns, moves.iter().map(row)))?;
            if !words.executes() {
                say("nothing was changed; --execute does it");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_partitions_are_read() {
        assert_eq!(topic("a"), Ok(("a".to_owned(), None)));
        assert_eq!(topic("a:0,12"), Ok(("a".to_owned(), Some(vec![0, 12]))));
        for wrong in ["a:", "a:x", "a:-1", "a:1,,2"] {
            assert!(topic(wrong).is_err(), "{wrong}");
        }
    }
}
