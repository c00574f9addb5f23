//! Shards that are split by the command line while clients write: what was acknowledged stays, over the death of a leader and
//! a restart of all nodes.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::time::Duration;

use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, BrokerId, OffsetForLeaderEpochRequest};
use ottla_tests::batch::TestBatch;
use ottla_tests::cluster::{Cluster, Writers, check, keeps_all, until};
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, topic_name};
use serde_json::Value;

const TOPIC: &str = "split";
const PARTITIONS: i32 = 8;
const FENCED_LEADER_EPOCH: i16 = 74;

fn json(broker: &Broker, words: &[&str]) -> Value {
    let admin = format!("http://{}", broker.admin());
    let (code, told) = broker.command(&[words, &["--admin", &admin, "-o", "json"]].concat());
    assert_eq!(code, Some(0), "{words:?}: {told}");
    serde_json::from_str(&told).unwrap()
}

/// The shards that carry partitions of the topic, with their numbers of them.
fn carrying(broker: &Broker) -> Vec<(u64, u64)> {
    let shards = json(broker, &["shard", "list"]);
    let shards = shards["shards"].as_array().unwrap().iter();
    let numbers = shards
        .filter(|shard| shard["kind"] == "pool")
        .map(|shard| (shard["id"].as_u64().unwrap(), shard["partitions"].as_u64().unwrap()));
    numbers.filter(|(_, partitions)| *partitions > 0).collect()
}

/// Splits a shard in two halves, and waits until both have what is theirs and a leader.
fn split(broker: &Broker, shard: u64) {
    split_off(broker, shard, &[]);
}

/// The same where words name what leaves; gives the new shard.
fn split_off(broker: &Broker, shard: u64, what: &[&str]) -> u64 {
    let made = json(broker, &[&["shard", "split", &shard.to_string()], what].concat());
    let made = made["child"].as_u64().unwrap();
    let child = made.to_string();
    until("the split is carried out, and its child is led", || {
        let described = json(broker, &["shard", "describe", &child]);
        described["split"]["done"] == true && described["leader"].is_number()
    });
    made
}

fn split_all(cluster: &Cluster) {
    let broker = &cluster.brokers[0];
    while let Some((shard, _)) = carrying(broker).into_iter().find(|(_, partitions)| *partitions > 1) {
        split(broker, shard);
    }
}

#[test]
fn shards_are_split_until_each_partition_has_its_own_while_clients_write() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let writers = Writers::start(&cluster.addresses(), TOPIC, PARTITIONS);
    writers.wait_for(200);
    let refused_before = writers.refused();
    split_all(&cluster);
    assert_eq!(writers.refused(), refused_before, "clients are told nothing of a split");
    let shards = carrying(&cluster.brokers[0]);
    assert_eq!(shards.iter().map(|(_, partitions)| *partitions).collect::<BTreeSet<_>>(), [1].into());
    assert_eq!(shards.len(), 8);
    writers.wait_for(200);

    keeps_all(&mut cluster, TOPIC, PARTITIONS, writers);
}

/// The nodes of each partition's replicas.
fn replicas(cluster: &Cluster) -> Vec<Vec<i32>> {
    let metadata = Raw::connect(cluster.brokers[0].address()).metadata(&[TOPIC]);
    let mut partitions = metadata.topics[0].partitions.clone();
    partitions.sort_by_key(|partition| partition.partition_index);
    let nodes = |partition: &MetadataResponsePartition| partition.replica_nodes.iter().map(|node| node.0).collect();
    partitions.iter().map(nodes).collect()
}

/// As `kafka-reassign-partitions.sh` asks for it: any partitions, each with a list of its own.
#[test]
fn partitions_are_reassigned_one_by_one_whatever_shares_their_shards() {
    let cluster = Cluster::start(4, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let writers = Writers::start(&cluster.addresses(), TOPIC, PARTITIONS);
    writers.wait_for(100);
    // Every second one goes to the node that does not have it.
    let elsewhere = |nodes: &[i32]| (1..=4).find(|node| !nodes.contains(node)).unwrap();
    let wanted: Vec<Vec<i32>> = replicas(&cluster)
        .into_iter()
        .enumerate()
        .map(|(index, nodes)| if index % 2 == 0 { vec![elsewhere(&nodes), nodes[0], nodes[1]] } else { nodes })
        .collect();
    let one = |(index, nodes): (i32, &Vec<i32>)| {
        let nodes = nodes.iter().copied().map(BrokerId).collect();
        ReassignablePartition::default().with_partition_index(index).with_replicas(Some(nodes))
    };
    let topic = ReassignableTopic::default().with_name(topic_name(TOPIC));
    let topic = topic.with_partitions((0..).zip(&wanted).map(one).collect());
    let request = AlterPartitionReassignmentsRequest::default().with_timeout_ms(60_000).with_topics(vec![topic]);
    let answer = Raw::connect(cluster.brokers[1].address()).call(1, &request);
    for part in answer.responses.iter().flat_map(|topic| &topic.partitions) {
        assert_eq!(part.error_code, 0, "partition {}: {:?}", part.partition_index, part.error_message);
    }
    until("all are where they were sent", || replicas(&cluster) == wanted);
    writers.wait_for(100);
    check(&cluster, TOPIC, PARTITIONS, &writers.stop());
}

#[test]
fn a_shard_is_moved_by_the_command_line_and_a_move_is_taken_back() {
    let mut cluster = Cluster::start(4, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let (shard, _) = carrying(&cluster.brokers[0])[0];
    let nodes = |cluster: &Cluster| -> Vec<i64> {
        let described = json(&cluster.brokers[0], &["shard", "describe", &shard.to_string()]);
        described["replicas"].as_array().unwrap().iter().map(|replica| replica["node"].as_i64().unwrap()).collect()
    };
    let before = nodes(&cluster);
    let fourth = (1..=4).find(|node| !before.contains(node)).unwrap();
    let target = [before[1], fourth, before[2]];
    let move_to = |cluster: &Cluster, to: &[i64]| {
        let to = to.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        json(&cluster.brokers[0], &["shard", "move", &shard.to_string(), "--to", &to])
    };
    assert_eq!(move_to(&cluster, &target)["nodes"], serde_json::json!(target));
    until("it is moved", || nodes(&cluster) == target);

    // Where the new replica cannot come, the move waits, and is taken back.
    let back = before[0];
    cluster.brokers[usize::try_from(back).unwrap() - 1].kill();
    let here = cluster.brokers.iter_mut().position(Broker::is_alive).unwrap();
    let admin = format!("http://{}", cluster.brokers[here].admin());
    let run =
        |words: &[&str]| cluster.brokers[here].command(&[&["shard", "move"], words, &["--admin", &admin]].concat());
    let (number, node) = (shard.to_string(), back.to_string());
    let to = format!("{},{node},{}", target[0], target[2]);
    let (code, told) = run(&[&number, "--to", &to]);
    assert!(code == Some(0) && told.contains(&format!("shard {number}: is moved to the nodes")), "{told}");
    let (code, told) = run(&[&number, "--cancel"]);
    assert!(code == Some(0), "{told}");
    let is_over = || run(&[&number, "--cancel"]).1.contains("No partition reassignment is in progress");
    until("nothing is under way", is_over);
    for (words, why) in [
        (vec!["0", "--to", "1"], "no shard of this number"),
        (vec![&*number, "--to", "1,9"], "no such broker is registered"),
        (vec![&*number, "--to", "1,1"], "more than once"),
        (vec![&*number, "--to", "a"], "invalid value 'a'"),
    ] {
        let (code, told) = run(&words);
        assert!(code != Some(0) && told.contains(why), "{words:?}: {told}");
    }
}

/// What a process has read from and written to files, whether the cache had it or not.
fn moved_bytes(broker: &Broker) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", broker.pid())).unwrap();
    let number = |name: &str| -> u64 {
        let line = io.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    number("rchar:") + number("wchar:")
}

/// Else nobody would split a shard that is busy because it is large.
#[test]
fn a_split_neither_reads_nor_writes_what_the_shard_holds() {
    const RECORD_BYTES: usize = 512 << 10;
    const RECORDS: usize = 16;
    let cluster = Cluster::start(3, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let value = vec![7; RECORD_BYTES];
    for index in 0..PARTITIONS {
        let leader = cluster.leader(TOPIC, index).unwrap();
        let mut raw = Raw::connect(cluster.brokers[leader - 1].address());
        for _ in 0..RECORDS {
            assert_eq!(raw.produce(TOPIC, index, TestBatch::of(&[&value]).encode()).error_code, 0);
        }
    }
    let broker = &cluster.brokers[0];
    let (shard, partitions) = carrying(broker).into_iter().max_by_key(|(_, partitions)| *partitions).unwrap();
    let held = usize::try_from(partitions).unwrap() * RECORDS * RECORD_BYTES;
    let all = || cluster.brokers.iter().map(moved_bytes).collect::<Vec<_>>();
    until("what was written is where it belongs", || {
        let before = all();
        std::thread::sleep(Duration::from_millis(500));
        all().iter().zip(&before).all(|(now, before)| now - before < 64 << 10)
    });
    let before = all();
    split(broker, shard);
    for (broker, before) in cluster.brokers.iter().zip(before) {
        let moved = usize::try_from(moved_bytes(broker) - before).unwrap();
        assert!(moved < held / 8, "{moved} bytes were moved, and the shard holds {held}");
    }
}

/// The index of the broker that leads partition 1.
fn leader(cluster: &Cluster) -> usize {
    let mut found = None;
    until("the partition is led", || {
        found = cluster.leader(TOPIC, 1);
        found.is_some()
    });
    found.unwrap() - 1
}

/// The shard that carries partition 1.
fn carrier(broker: &Broker) -> u64 {
    let has_it = |shard: &u64| {
        let topics = json(broker, &["shard", "describe", &shard.to_string()])["topics"].clone();
        topics.as_array().unwrap().iter().any(|topic| topic["partitions"].as_array().unwrap().contains(&1.into()))
    };
    carrying(broker).into_iter().map(|(shard, _)| shard).find(has_it).unwrap()
}

/// A connection to the leader of partition 1.
fn at(cluster: &Cluster) -> Raw {
    Raw::connect(cluster.brokers[leader(cluster)].address())
}

/// Error code, epoch and end that its leader tells of an epoch.
fn end_of(cluster: &Cluster, epoch: i32) -> (i16, i32, i64) {
    let partition = OffsetForLeaderPartition::default().with_partition(1).with_leader_epoch(epoch);
    let topic = OffsetForLeaderTopic::default().with_topic(topic_name(TOPIC)).with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let answer = at(cluster).call(4, &request);
    let end = &answer.topics[0].partitions[0];
    (end.error_code, end.leader_epoch, end.end_offset)
}

/// Error code, and whether there are records, of a fetch by a client that believes in this epoch.
fn read(cluster: &Cluster, believed: i32, offset: i64) -> (i16, bool) {
    let answer = at(cluster).fetch_in(believed, TOPIC, 1, offset, 0);
    let partition = &answer.responses[0].partitions[0];
    (partition.error_code, partition.records.as_ref().is_some_and(|records| !records.is_empty()))
}

/// Where an epoch ends, as a consumer asks before it goes on: it takes less than it has read for a truncation, and reads that again.
/// While a consumer waits for the answer, records of the epoch after a split may reach it; as long as no other node led, none were truncated.
#[test]
fn an_epoch_goes_on_over_splits_and_merges_and_ends_with_another_leadership() {
    let settings = [("KAFKA_AUTO_LEADER_REBALANCE_ENABLE", "false"), ("KAFKA_OTTLA_BALANCE_ENABLE", "false")];
    let mut cluster = Cluster::start(3, &settings);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let epoch = |cluster: &Cluster| {
        let metadata = at(cluster).metadata(&[TOPIC]);
        metadata.topics[0].partitions.iter().find(|partition| partition.partition_index == 1).unwrap().leader_epoch
    };
    let append = |cluster: &Cluster| {
        assert_eq!(at(cluster).produce(TOPIC, 1, TestBatch::of(&[b"one", b"two"]).encode()).error_code, 0);
    };
    append(&cluster);
    let (before, led_by) = (epoch(&cluster), leader(&cluster));
    let broker = &cluster.brokers[0];
    let shard = carrier(broker);
    let child = split_off(broker, shard, &["--partition", "split:1"]);
    append(&cluster);
    let after = epoch(&cluster);
    assert!(after > before && leader(&cluster) == led_by, "{after} after {before}, led by {led_by}");
    assert_eq!(end_of(&cluster, before), (0, before, 4));
    assert_eq!(end_of(&cluster, after), (0, after, 4));

    let words = ["shard", "merge", &child.to_string(), "--into", &shard.to_string()];
    json(broker, &words);
    until("it is merged again", || carrying(broker).iter().all(|(shard, _)| *shard != child));
    append(&cluster);
    let merged = epoch(&cluster);
    assert!(merged > after && leader(&cluster) == led_by, "{merged} after {after}, led by {led_by}");
    for known in [before, after, merged] {
        assert_eq!(end_of(&cluster, known), (0, known, 6));
    }

    cluster.brokers[led_by].stop();
    until("another one leads", || leader(&cluster) != led_by);
    append(&cluster);
    let newest = epoch(&cluster);
    assert!(newest > merged, "{newest} after {merged}");
    for (known, end) in [(before, 2), (after, 4), (merged, 6), (newest, 8)] {
        assert_eq!(end_of(&cluster, known), (0, known, end));
    }

    // What was last read may be of the leader before: a split and its records come while a consumer validates that.
    let (broker, led_by) = (&cluster.brokers[leader(&cluster)], leader(&cluster));
    split_off(broker, carrier(broker), &["--partition", "split:1"]);
    append(&cluster);
    let last = epoch(&cluster);
    assert!(last > newest && leader(&cluster) == led_by, "{last} after {newest}, led by {led_by}");
    for (known, end) in [(before, 2), (after, 4), (merged, 10), (newest, 10), (last, 10)] {
        assert_eq!(end_of(&cluster, known), (0, known, end));
    }
    // Who still believes in the epoch before the split is served what this node has appended, and no older records: of those, one that
    // asks meanwhile where an older epoch ended would be told a true end behind which it has read.
    for offset in [0, 2, 4] {
        assert_eq!(read(&cluster, newest, offset), (FENCED_LEADER_EPOCH, false), "from {offset} on");
        assert_eq!(read(&cluster, last, offset), (0, true), "from {offset} on");
    }
    for offset in [6, 8] {
        assert_eq!(read(&cluster, newest, offset), (0, true), "from {offset} on");
    }
}

#[test]
fn a_split_that_makes_no_sense_is_refused() {
    let cluster = Cluster::start(1, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 1);
    let broker = &cluster.brokers[0];
    let admin = format!("http://{}", broker.admin());
    let (shard, _) = carrying(broker)[0];
    for (words, why) in [
        (vec!["0"], "no shard of this number"),
        (vec!["999"], "no shard of this number"),
        (vec!["1", "--partition", "nowhere:0"], "no topic 'nowhere'"),
        (vec!["1", "--partition", "split"], "'split' is not <topic>:<number>"),
        (vec!["1", "--partition", "split:99"], "does not carry partition 99 of topic 'split'"),
    ] {
        let words = words.into_iter().map(|word| if word == "1" { shard.to_string() } else { word.to_owned() });
        let words: Vec<_> = ["shard", "split"].map(str::to_owned).into_iter().chain(words).collect();
        let words: Vec<_> = words.iter().map(String::as_str).chain(["--admin", &admin]).collect();
        let (code, told) = broker.command(&words);
        assert!(code == Some(1) && told.contains(why), "{words:?}: {told}");
    }
}
