//! The command line as a client: the real binary against a real broker, from the creation of a topic to its deletion,
//! and its error messages.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::{GroupId, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest, UpdateFeaturesRequest};
use ottla_tests::cluster::Cluster;
use ottla_tests::process::{Broker, binary, free_address};
use ottla_tests::raw::{Raw, text};
use serde_json::{Value, json};

/// One run of the binary with standard input, to its end.
fn run(at: &str, line: &str, input: &str) -> Output {
    let words = line.split_whitespace();
    let mut command = Command::new(binary());
    command.args(words).env("KAFKA_BOOTSTRAP_SERVERS", at).stdin(Stdio::piped());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that refuses its arguments does not read its input.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    process.wait_with_output().unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command prints that succeeds.
fn good_with(broker: &Broker, line: &str, input: &str) -> String {
    let output = run(&broker.address().to_string(), line, input);
    assert_eq!(output.status.code(), Some(0), "{line}: {}", said(&output.stderr));
    said(&output.stdout)
}

fn good(broker: &Broker, line: &str) -> String {
    good_with(broker, line, "")
}

fn good_json(broker: &Broker, line: &str) -> Value {
    serde_json::from_str(&good(broker, &format!("{line} -o json"))).unwrap()
}

fn good_lines(broker: &Broker, line: &str, input: &str) -> Vec<Value> {
    let text = good_with(broker, &format!("{line} -o json"), input);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a command says that fails with this exit code.
fn bad(at: &str, line: &str, code: i32) -> String {
    let output = run(at, line, "x\n");
    let error = said(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}: {error}");
    error
}

#[test]
fn a_topic_from_its_creation_to_its_end() {
    let mut broker = Broker::start(&[]);
    let created = good_json(&broker, "topic create t u --partitions 3 --config retention.ms=86400000");
    assert_eq!(created["topics"][0]["name"], "t");
    assert_eq!(created["topics"][0]["partitions"], 3);
    let listed = good_json(&broker, "topic list");
    assert_eq!(listed["topics"].as_array().unwrap().len(), 2);
    assert_eq!(listed["topics"][1]["name"], "u");

    let placed = good_lines(&broker, "topic produce t -p 1 --header a=b", "one\ntwo\nthree\n");
    assert_eq!(placed[2], json!({ "partition": 1, "offset": 2 }));
    good_with(&broker, "topic produce t --key-separator : -z zstd", "k:v1\nk:v2\nl:w\n");
    good_with(&broker, "topic produce u --acks none", "fire\nforget\n");

    assert_eq!(good(&broker, "topic consume t -p 1 --exit-at-end --max-messages 2"), "one\ntwo\n");
    let read = good_lines(&broker, "topic consume t --exit-at-end", "");
    assert_eq!(read.len(), 6);
    let first = read.iter().find(|record| record["value"] == "one").unwrap();
    assert_eq!(first["headers"], json!([{ "key": "a", "value": "b" }]));
    assert_eq!((&first["key"], &first["partition"], &first["offset"]), (&Value::Null, &json!(1), &json!(0)));
    let of_key: Vec<_> = read.iter().filter(|record| record["key"] == "k").collect();
    assert!(of_key.len() == 2 && of_key[0]["partition"] == of_key[1]["partition"], "{of_key:?}");
    let late = first["timestamp"].as_i64().unwrap() + 3_600_000;
    assert!(late > 0 && good_lines(&broker, "topic consume t --from 2100-01-01 --exit-at-end", "").is_empty());
    assert_eq!(good(&broker, "topic consume t -p 1 --from 2020-01-01T00:00:00 -n 1"), "one\n");
    assert_eq!(good(&broker, "topic consume t -p 1 --from 2 -n 1"), "three\n");

    let described = &good_json(&broker, "topic describe t")["topics"][0];
    assert_eq!(described["configs"], json!({ "retention.ms": "86400000" }));
    let partition = &described["partitions"][1];
    assert_eq!((&partition["leader"], &partition["start_offset"]), (&json!(1), &json!(0)));
    assert!(partition["end_offset"].as_i64().unwrap() >= 3 && partition["bytes"].as_i64().unwrap() > 0, "{partition}");
    assert!(good(&broker, "topic describe t").contains("retention.ms = 86400000 (1 d)"));

    good(&broker, "topic alter t --partitions 4 --set retention.ms=3600000 --dry-run");
    assert_eq!(good_json(&broker, "topic describe t")["topics"][0]["partitions"].as_array().unwrap().len(), 3);
    good(&broker, "topic alter t --partitions 4 --delete retention.ms");
    let described = &good_json(&broker, "topic describe t")["topics"][0];
    assert_eq!(described["partitions"].as_array().unwrap().len(), 4);
    assert_eq!(described["configs"], json!({}));

    assert_eq!(good_json(&broker, "topic delete t"), json!({ "deleted": ["t"] }));
    assert_eq!(good_json(&broker, "topic list")["topics"].as_array().unwrap().len(), 1);
    good(&broker, "topic delete t --if-exists");
    good(&broker, "topic create u --if-not-exists");
    broker.stop();
}

/// Joins a group of classic consumers alone and takes two partitions of a topic; its member id.
fn join(raw: &mut Raw, group: &str, topic: &str) -> String {
    let group = GroupId(text(group));
    let mut member = String::new();
    loop {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(&[0, 0, 0, 0, 0, 0]));
        let request = JoinGroupRequest::default()
            .with_group_id(group.clone())
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_member_id(text(&member))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let joined = raw.call(5, &request);
        member = joined.member_id.to_string();
        if joined.error_code == 79 {
            continue;
        }
        assert_eq!(joined.error_code, 0);
        let name = topic.as_bytes();
        let mut assignment = vec![0, 0, 0, 0, 0, 1, 0, u8::try_from(name.len()).unwrap()];
        assignment.extend(name);
        assignment.extend([0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255]);
        let given =
            SyncGroupRequestAssignment::default().with_member_id(text(&member)).with_assignment(assignment.into());
        let request = SyncGroupRequest::default()
            .with_group_id(group)
            .with_generation_id(joined.generation_id)
            .with_member_id(text(&member))
            .with_assignments(vec![given]);
        assert_eq!(raw.call(3, &request).error_code, 0);
        return member;
    }
}

#[test]
fn a_group_is_described_and_reset_only_without_members() {
    let mut broker = Broker::start(&[]);
    let at = broker.address().to_string();
    let describe = format!("group describe g --admin http://{}", broker.admin());
    good(&broker, "topic create t --partitions 2");
    good_with(&broker, "topic produce t -p 0", "a\nb\nc\nd\n");
    good_with(&broker, "topic produce t -p 1", "e\n");
    let error = bad(&at, &describe, 1);
    assert!(error.contains("GROUP_ID_NOT_FOUND"), "{error}");
    let error = bad(&at, "group reset g --all-topics --to-latest", 1);
    assert!(error.contains("GROUP_ID_NOT_FOUND"), "{error}");

    let dry = good_json(&broker, "group reset g --topic t:0 --to-offset 3");
    assert_eq!(dry["executed"], false);
    assert_eq!(dry["partitions"], json!([{ "topic": "t", "partition": 0, "from": null, "to": 3 }]));
    bad(&at, &describe, 1);
    assert_eq!(good_json(&broker, "group reset g --topic t:0 --to-offset 3 --execute")["executed"], true);
    let group = &good_json(&broker, &describe)["groups"][0];
    assert_eq!(group["state"], "Empty");
    let partition = &group["partitions"][0];
    assert_eq!(
        (&partition["committed_offset"], &partition["end_offset"], &partition["lag"]),
        (&json!(3), &json!(4), &json!(1))
    );
    assert_eq!((&group["lag"], &group["status"], &partition["status"]), (&json!(1), &json!("OK"), &json!("OK")));
    let page = broker.http("/v1/groups/g").unwrap().1;
    assert_eq!(serde_json::from_str::<Value>(&page).unwrap()["lag"], 1, "the same number: {page}");
    good(&broker, "group reset g --all-topics --shift-by -2 --execute");
    assert_eq!(good_json(&broker, &describe)["groups"][0]["partitions"][0]["committed_offset"], 1);
    good(&broker, "group reset g --topic t --to-datetime 2100-01-01T00:00:00 --execute");
    assert_eq!(good_json(&broker, &describe)["groups"][0]["partitions"][1]["committed_offset"], 1);
    let error = bad(&at, &format!("group describe g --admin http://{}", free_address()), 1);
    assert!(error.contains("the lag of group g is not shown"), "{error}");
    let error = bad(&at, "group reset g --topic t:7 --to-earliest", 1);
    assert!(error.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{error}");

    let mut raw = Raw::connect(broker.address());
    let member = join(&mut raw, "g", "t");
    let group = &good_json(&broker, &describe)["groups"][0];
    assert_eq!((&group["state"], &group["members"][0]["host"]), (&json!("Stable"), &json!("127.0.0.1")));
    assert_eq!(group["partitions"][1]["member"], json!(member));
    assert!(good(&broker, &describe).contains(&member));
    assert_eq!(good_json(&broker, "group list --state stable")["groups"][0]["name"], "g");
    for line in ["group reset g --topic t --to-earliest", "group reset g --topic t --to-earliest --execute"] {
        let error = bad(&at, line, 1);
        assert!(error.contains("NON_EMPTY_GROUP"), "{error}");
    }
    let leave = LeaveGroupRequest::default().with_group_id(GroupId(text("g"))).with_member_id(text(&member));
    assert_eq!(raw.call(2, &leave).error_code, 0);
    good(&broker, "group reset g --topic t --to-earliest --execute");
    broker.stop();
}

#[test]
fn nodes_and_shards_are_told_of() {
    let mut cluster = Cluster::start(3, &[("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1")]);
    cluster.create_topic("t", 4, 1);
    let broker = &cluster.brokers[1];
    let admin = format!("http://{}", broker.admin());
    // A node answers from what it has applied.
    let list_nodes = || good_json(broker, &format!("node list --admin {admin}"));
    broker.wait_until("three nodes", 30, || list_nodes()["nodes"].as_array().unwrap().len() == 3);
    let nodes = list_nodes();
    let nodes = nodes["nodes"].as_array().unwrap();
    assert_eq!(
        (&nodes[2]["id"], &nodes[2]["rack"], &nodes[2]["version"]),
        (&json!(3), &json!("zone-3"), &json!(env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(nodes.iter().filter(|node| node["metadata_leader"] == true).count(), 1);
    // Shards with one replica are on other nodes too: this node shows what those publish.
    let list = || good_json(broker, &format!("shard list --admin {admin}"));
    let is_whole = |shards: &Value| {
        let shards = shards["shards"].as_array().unwrap();
        let carried: i64 = shards.iter().map(|shard| shard["partitions"].as_i64().unwrap()).sum();
        carried == 4 && shards.iter().all(|shard| shard["leader"].is_i64())
    };
    broker.wait_until("every shard has a leader", 30, || is_whole(&list()));
    let shards = list();
    let shards = shards["shards"].as_array().unwrap();
    assert_eq!((&shards[0]["id"], &shards[0]["kind"]), (&json!(0), &json!("metadata")));
    let leaders = |shard: &Value| {
        shard["replicas"].as_array().unwrap().iter().filter(|replica| replica["role"] == "leader").count()
    };
    assert!(shards.iter().all(|shard| leaders(shard) == 1), "{shards:?}");
    let with_topic = shards.iter().find(|shard| shard["kind"] == "pool" && shard["partitions"] != 0).unwrap();
    let shard = good_json(broker, &format!("shard describe {} --admin {admin}", with_topic["id"]));
    assert_eq!(shard["topics"][0]["name"], "t");
    let here = &good_json(broker, &format!("shard describe 0 --admin {admin}"))["here"];
    assert!(here["applied"].as_i64().unwrap() > 0 && here["voters"][0].as_array().unwrap().len() == 3, "{here}");
    let error = bad("x:1", &format!("shard describe 99999 --admin {admin}"), 1);
    assert!(error.contains("no shard of this number"), "{error}");
    cluster.brokers.iter_mut().for_each(Broker::stop);
}

/// The newest level of this release.
const NEWEST_LEVEL: i16 = 9;

#[test]
fn feature_levels_are_told_and_raised_only_where_all_nodes_understand_them() {
    let mut cluster = Cluster::start(3, &[]);
    for broker in &cluster.brokers {
        let features = good_json(broker, "feature list");
        assert_eq!(
            features,
            json!([
                { "name": "metadata.version", "oldest": 30, "newest": 30, "level": 30 },
                { "name": "ottla.version", "oldest": 1, "newest": NEWEST_LEVEL, "level": NEWEST_LEVEL },
                { "name": "transaction.version", "oldest": 0, "newest": 2, "level": 2 }
            ])
        );
        assert_eq!(good(broker, "feature list").lines().count(), 4);
        // Whichever node is asked, the one that leads the metadata decides.
        let newest = format!("feature upgrade ottla.version={NEWEST_LEVEL}");
        let raised = good(broker, &format!("{newest} --dry-run"));
        assert!(raised.contains(&format!("can be raised to level {NEWEST_LEVEL}")), "{raised}");
        assert_eq!(good_json(broker, &newest)["features"][0]["level"], NEWEST_LEVEL);
        let above = format!("feature upgrade ottla.version={}", NEWEST_LEVEL + 1);
        let unknown = format!("{newest} metadata.version=9 --dry-run");
        for line in [&above, &unknown] {
            let error = bad(&broker.address().to_string(), line, 1);
            assert!(error.contains("INVALID_UPDATE_VERSION") && error.contains("failed for all features"), "{error}");
        }
    }
    let mut raw = Raw::connect(cluster.brokers[0].address());
    let update = |level: i16, kind: i8| {
        let one = FeatureUpdateKey::default().with_feature(text("ottla.version")).with_max_version_level(level);
        let one = one.with_upgrade_type(kind);
        UpdateFeaturesRequest::default().with_timeout_ms(10_000).with_feature_updates(vec![one])
    };
    for version in 0..=2 {
        let answer = raw.call(version, &update(NEWEST_LEVEL, 1));
        let named: Vec<_> = answer.results.iter().map(|one| (one.feature.to_string(), one.error_code)).collect();
        let expected = if version < 2 { vec![("ottla.version".to_owned(), 0)] } else { Vec::new() };
        assert_eq!((answer.error_code, named), (0, expected), "version {version}");
        let answer = raw.call(version, &update(NEWEST_LEVEL + 1, 1));
        assert_eq!((answer.error_code, answer.results.len()), (95, 0), "version {version}: {answer:?}");
    }
    assert_eq!(raw.call(2, &update(NEWEST_LEVEL, 7)).error_code, 95, "no such kind of a change");
    for broker in &mut cluster.brokers {
        broker.stop();
    }
}

#[test]
fn what_is_wrong_is_said_in_words_with_kafkas_name() {
    let mut broker = Broker::start(&[]);
    let at = broker.address().to_string();
    good(&broker, "topic create t");
    for (line, name) in [
        (
            "topic describe nowhere",
            "topic nowhere: the topic or partition does not exist here (UNKNOWN_TOPIC_OR_PARTITION)",
        ),
        ("topic produce nowhere", "UNKNOWN_TOPIC_OR_PARTITION"),
        ("topic consume nowhere -e", "UNKNOWN_TOPIC_OR_PARTITION"),
        ("topic consume t -p 9 -e", "topic t partition 9"),
        ("topic consume t --from 5 -n 1", "OFFSET_OUT_OF_RANGE"),
        ("topic produce t -p 9", "UNKNOWN_TOPIC_OR_PARTITION"),
        ("topic produce t --key-separator :", "line 1 has no key separator"),
        ("topic delete nowhere", "UNKNOWN_TOPIC_OR_PARTITION"),
        ("topic create t", "TOPIC_ALREADY_EXISTS"),
        ("topic create v --replication-factor 3", "INVALID_REPLICATION_FACTOR"),
        ("topic alter t --partitions 1 --set no.such.config=1", "INVALID_CONFIG"),
    ] {
        let error = bad(&at, line, 1);
        assert!(error.contains(name) && error.starts_with("ottla: ") && error.lines().count() == 1, "{line}: {error}");
    }
    for line in
        ["topic", "topic create", "topic consume t --from soon", "topic list -b a:b", "group reset g --to-latest"]
    {
        let error = bad(&at, line, 2);
        assert!(error.contains("Usage") || error.contains("--help"), "{line}: {error}");
    }
    let (nobody, neither) = (free_address(), free_address());
    let error = bad(&format!("{nobody},{neither}"), "topic list", 1);
    assert!(error.contains(&nobody.to_string()) && error.contains(&neither.to_string()), "{error}");
    let error = bad(&nobody.to_string(), &format!("shard list --admin http://{nobody}"), 1);
    assert!(error.contains(&nobody.to_string()), "{error}");
    let error = bad(&broker.admin().to_string(), "topic list", 1);
    assert!(error.contains("does not speak Kafka's protocol"), "{error}");
    // One that answers is enough.
    let output = run(&format!("{nobody},{at}"), "topic list", "");
    assert_eq!(said(&output.stdout).lines().count(), 2);
    broker.stop();
}

#[test]
fn what_is_written_while_its_leader_dies_is_there_once() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.create_topic("t", 1, 3);
    let at = cluster.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new(binary());
    command.args(["topic", "produce", "t", "-o", "json"]).env("KAFKA_BOOTSTRAP_SERVERS", &at);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut out) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
    let mut write = |line: &str| {
        writeln!(input, "{line}").unwrap();
        let mut answer = String::new();
        out.read_line(&mut answer).unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    assert_eq!(write("one"), json!({ "partition": 0, "offset": 0 }));
    let leader = cluster.leader("t", 0).unwrap();
    cluster.brokers[leader - 1].kill();
    assert_eq!(write("two"), json!({ "partition": 0, "offset": 1 }));
    drop(input);
    assert_eq!(process.wait().unwrap().code(), Some(0));
    let read = run(&at, "topic consume t --exit-at-end", "");
    assert_eq!((read.status.code(), said(&read.stdout)), (Some(0), "one\ntwo\n".to_owned()), "{}", said(&read.stderr));
}

#[test]
fn whoever_stops_reading_ends_it_quietly_and_so_does_an_interrupt() {
    let mut broker = Broker::start(&[]);
    good(&broker, "topic create t --partitions 1");
    let lines: String = (0..50_000).map(|number| format!("a line to be read {number}\n")).collect();
    good_with(&broker, "topic produce t", &lines);
    let start = || {
        let mut command = Command::new(binary());
        command.args(["topic", "consume", "t"]).env("KAFKA_BOOTSTRAP_SERVERS", broker.address().to_string());
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "a line to be read 0\n");
        (process, out)
    };
    let (process, out) = start();
    drop(out);
    let output = process.wait_with_output().unwrap();
    assert_eq!((output.status.code(), said(&output.stderr)), (Some(0), String::new()));
    let (process, out) = start();
    let rest =
        std::thread::spawn(move || out.lines().map_while(Result::ok).find(|line| line.ends_with(" 49999")).map(|_| ()));
    rest.join().unwrap().unwrap();
    interrupt(process.id());
    let output = process.wait_with_output().unwrap();
    assert_eq!((output.status.code(), said(&output.stderr)), (Some(0), String::new()));
    broker.stop();
}

#[allow(unsafe_code)]
fn interrupt(process: u32) {
    // SAFETY: `kill` only takes numbers; the process is our child and not yet reaped.
    assert_eq!(unsafe { libc::kill(i32::try_from(process).unwrap(), libc::SIGINT) }, 0);
}
