//! Compaction of a topic, from the decision of a shard's leader to what a consumer finds, over the log of a simulated disk.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_env::rt;
use ottla_env::sim::disk::{Crash, SimDisk, SimDiskOptions};
use ottla_env::sim::{self, SimNode};
use ottla_protocol::batch::{BatchBuilder, NewRecord, split_batches};
use ottla_protocol::compression::Codec;
use ottla_protocol::ids::Offset;
use uuid::Uuid;

use super::node_record;
use super::restart::{NAME, Node, committed, enter, mark, options_of, placed, reads_at, start_in};
use crate::config::{CleanupPolicy, TopicConfig};
use crate::levels::{COMPACTION, FeatureLevel};
use crate::metadata::{MetadataImage, ShardKind};
use crate::partition::{FetchedRecords, Partition};
use crate::shard::LeaderTaskSettings;
use crate::shard::fake::NODE;

const CHECK: Duration = Duration::from_secs(1);
const DELETE_RETENTION_MS: i64 = 30_000;

fn upkeep() -> LeaderTaskSettings {
    LeaderTaskSettings { compaction_check: CHECK, ..LeaderTaskSettings::default() }
}

fn compacted() -> TopicConfig {
    TopicConfig {
        cleanup_policy: CleanupPolicy { delete: false, compact: true },
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: DELETE_RETENTION_MS,
        segment_ms: 1,
        ..TopicConfig::default()
    }
}

fn image(level: FeatureLevel, config: TopicConfig) -> impl FnOnce(Uuid) -> MetadataImage {
    move |directory| {
        let mut image = placed(directory, config, ShardKind::Pool { factor: 1, pinned: false });
        image.level = level;
        // The clock of the only node counts.
        image.nodes = Arc::new([(NODE, node_record(NODE, false))].into_iter().collect());
        image
    }
}

fn record(key: &str, value: Option<&str>) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    let (key, value) = (Some(key.as_bytes()), value.map(str::as_bytes));
    builder.push(&NewRecord { timestamp: rt::wall_clock_ms(), key, value, headers: &[] });
    builder.build().unwrap()
}

async fn write(partition: &Partition, key: &str, value: Option<&str>) -> Offset {
    partition.append(record(key, value), &options_of(1)).await.unwrap().base_offset
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

/// What a consumer finds from the beginning: by offset, key and value.
async fn found(partition: &Partition) -> BTreeMap<i64, String> {
    let (mut all, mut from) = (BTreeMap::new(), Offset(0));
    let end = partition.watermarks().high_watermark;
    while from < end {
        let fetched = partition.read(reads_at(partition, from)).await.unwrap();
        let FetchedRecords::Copied(records) = fetched.records else { panic!("nothing at {from}") };
        for view in split_batches(&records) {
            let view = view.unwrap();
            for record in &ottla_protocol::records::open(&view.header, &view.bytes, 1 << 20).unwrap() {
                let record = record.unwrap();
                let at = view.header.base_offset.0 + i64::from(record.offset_delta);
                all.insert(at, format!("{}={}", text(record.key), text(record.value)));
            }
            from = view.header.next_offset();
        }
    }
    all
}

async fn partition_of(node: &Node) -> Partition {
    node.partitions.find(NAME, 0).await.unwrap()
}

/// Ten values of each of three keys, of which one is deleted then.
async fn fill(partition: &Partition) {
    for number in 0..10 {
        for key in ["a", "b", "c"] {
            write(partition, key, Some(&number.to_string())).await;
        }
    }
    write(partition, "b", None).await;
}

#[test]
fn a_compacted_topic_keeps_the_last_value_of_each_key_and_a_tombstone_for_its_time() {
    sim::run(41, || async {
        let disk = SimDisk::new(41, SimDiskOptions::default());
        let node = start_in(disk, image(COMPACTION, compacted()), upkeep()).await;
        let partition = partition_of(&node).await;
        fill(&partition).await;
        rt::sleep(CHECK * 8).await;
        let kept = |lines: &[(i64, &str)]| lines.iter().map(|(at, line)| (*at, (*line).to_owned())).collect();
        let first: BTreeMap<i64, String> = kept(&[(27, "a=9"), (29, "c=9"), (30, "b=-")]);
        assert_eq!(found(&partition).await, first);
        assert_eq!(partition.watermarks().log_start, Offset(0));
        write(&partition, "a", Some("x")).await;
        rt::sleep(CHECK * 8).await;
        assert_eq!(found(&partition).await, kept(&[(29, "c=9"), (30, "b=-"), (31, "a=x")]));
        rt::sleep(Duration::from_millis(u64::try_from(DELETE_RETENTION_MS).unwrap())).await;
        write(&partition, "c", Some("y")).await;
        rt::sleep(CHECK * 8).await;
        assert_eq!(found(&partition).await, kept(&[(31, "a=x"), (32, "c=y")]), "the deleted key is gone");
    });
}

#[test]
fn nothing_is_compacted_below_the_level_of_the_cluster_at_which_all_nodes_can() {
    sim::run(42, || async {
        let disk = SimDisk::new(42, SimDiskOptions::default());
        let below = FeatureLevel(COMPACTION.0 - 1);
        let node = start_in(disk, image(below, compacted()), upkeep()).await;
        let partition = partition_of(&node).await;
        fill(&partition).await;
        rt::sleep(CHECK * 8).await;
        assert_eq!(found(&partition).await.len(), 31);
    });
}

#[test]
fn min_compaction_lag_spares_what_is_young_and_max_compaction_lag_overrides_the_ratio() {
    sim::run(43, || async {
        let disk = SimDisk::new(43, SimDiskOptions::default());
        let config = TopicConfig {
            min_compaction_lag_ms: 20_000,
            max_compaction_lag_ms: 60_000,
            min_cleanable_dirty_ratio: 1.0,
            ..compacted()
        };
        let node = start_in(disk, image(COMPACTION, config), upkeep()).await;
        let partition = partition_of(&node).await;
        fill(&partition).await;
        rt::sleep(Duration::from_secs(50)).await;
        assert_eq!(found(&partition).await.len(), 31, "the ratio is never above 1");
        write(&partition, "a", Some("young")).await;
        rt::sleep(Duration::from_secs(15)).await;
        let lines: Vec<String> = found(&partition).await.into_values().collect();
        assert_eq!(lines, ["a=9", "c=9", "b=-", "a=young"]);
    });
}

/// What a consumer finds of what `fill` has written, after some passes that were due.
async fn found_with(segment_bytes: i32, segment_ms: i64, max_compaction_lag_ms: i64) -> Vec<String> {
    let disk = SimDisk::new(47, SimDiskOptions::default());
    let config = TopicConfig { segment_bytes, segment_ms, max_compaction_lag_ms, ..compacted() };
    let node = start_in(disk, image(COMPACTION, config), upkeep()).await;
    let partition = partition_of(&node).await;
    fill(&partition).await;
    rt::sleep(CHECK * 40).await;
    found(&partition).await.into_values().collect()
}

#[test]
fn what_would_be_the_active_segment_is_spared() {
    sim::run(47, || async {
        const DAY_MS: i64 = 86_400_000;
        assert_eq!(found_with(1 << 30, DAY_MS, i64::MAX).await.len(), 31, "all of it is young and little");
        let compacted = ["a=9", "c=9", "b=-"];
        assert_eq!(found_with(1 << 30, 20_000, i64::MAX).await, compacted, "it is old");
        assert_eq!(found_with(1 << 30, DAY_MS, 20_000).await, compacted, "it may not stay so long");
        // A batch has 61 bytes and those of its record, about seventy together: the last five are spared.
        let some = found_with(300, DAY_MS, i64::MAX).await;
        let spared = ["c=8", "a=9", "b=9", "c=9", "b=-"];
        assert_eq!(some, [&["c=7", "a=8", "b=8"][..], &spared].concat(), "of what is not spared the last of each key");
    });
}

#[test]
fn a_pass_that_was_decided_is_done_after_a_restart() {
    sim::run(44, || async {
        let disk = SimDisk::new(44, SimDiskOptions::default());
        let (first, second) = (disk.clone(), disk.clone());
        let lived = sim::spawn_on(SimNode(1), async move {
            let node = start_in(first, image(COMPACTION, compacted()), upkeep()).await;
            let partition = partition_of(&node).await;
            fill(&partition).await;
            let decided = async {
                let shard = node.partitions.shards().remove(0);
                let is_decided = || shard.state().lock().partitions.values().any(|one| one.compaction.number > 0);
                while !is_decided() {
                    rt::sleep(Duration::from_millis(1)).await;
                }
            };
            rt::timeout(CHECK * 5, decided).await.unwrap();
        });
        lived.await.unwrap();
        sim::crash(SimNode(1));
        disk.crash(Crash::Power);
        let after = sim::spawn_on(SimNode(2), async move {
            let node = start_in(second, image(COMPACTION, compacted()), upkeep()).await;
            let partition = partition_of(&node).await;
            rt::sleep(CHECK * 8).await;
            let lines: Vec<String> = found(&partition).await.into_values().collect();
            assert_eq!(lines, ["a=9", "c=9", "b=-"]);
        });
        after.await.unwrap();
    });
}

#[test]
fn a_topic_with_both_policies_also_loses_what_is_too_much() {
    sim::run(45, || async {
        let disk = SimDisk::new(45, SimDiskOptions::default());
        let cleanup_policy = CleanupPolicy { delete: true, compact: true };
        let config = TopicConfig { cleanup_policy, retention_bytes: Some(1_000), ..TopicConfig::default() };
        let upkeep = LeaderTaskSettings { retention_check: CHECK, ..LeaderTaskSettings::default() };
        let node = start_in(disk, image(FeatureLevel::FIRST, config), upkeep).await;
        let partition = partition_of(&node).await;
        fill(&partition).await;
        rt::sleep(CHECK * 3).await;
        assert!(partition.watermarks().log_start > Offset(0));
    });
}

/// A reader takes whatever follows of the producer for a part of an aborted transaction until it comes to the marker of that.
#[test]
fn a_reader_of_committed_data_is_not_told_of_aborted_transactions_whose_markers_are_gone() {
    sim::run(46, || async {
        let disk = SimDisk::new(46, SimDiskOptions::default());
        let node = start_in(disk, image(COMPACTION, compacted()), upkeep()).await;
        let partition = partition_of(&node).await;
        enter(&partition, 1, 0, &[1]).await.unwrap();
        mark(&partition, 1, false).await;
        assert_eq!(enter(&partition, 1, 1, &[2]).await.unwrap().base_offset, Offset(2));
        mark(&partition, 1, true).await;
        rt::sleep(CHECK * 8).await;
        assert_eq!(committed(&partition, 0).await, (vec![1, 2, 3], vec![(1, 0)]), "its marker is there");
        rt::sleep(Duration::from_millis(u64::try_from(DELETE_RETENTION_MS).unwrap())).await;
        write(&partition, "a", Some("x")).await;
        rt::sleep(CHECK * 8).await;
        assert_eq!(committed(&partition, 0).await, (vec![2, 4], vec![]));
    });
}
