//! Consumer lag compared with what the test itself has produced and committed: complete and exact, from any node,
//! through elections and with a dead node.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{FindCoordinatorRequest, GroupId, OffsetCommitRequest, ProduceRequest};
use ottla_tests::batch::{TestBatch, now_ms};
use ottla_tests::cluster::{Cluster, leader_at, try_at, until};
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};
use serde_json::Value;

const TOPIC: &str = "measured";
const GROUP: &str = "lagged";
const RECORDS: usize = 1_000;
const COMMITTED: i64 = 100;
const PARTITIONS: i32 = 12;

fn coordinator(addresses: &[SocketAddr], group: &str) -> Option<SocketAddr> {
    let find = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![text(group)]);
    let found = addresses.iter().find_map(|to| {
        let answer = try_at(*to, |raw| raw.call(4, &find))?;
        let found = answer.coordinators.first().filter(|found| found.error_code == 0)?;
        Some(found.node_id.0)
    })?;
    addresses.get(usize::try_from(found).ok()?.checked_sub(1)?).copied()
}

fn commit_request(group: &str, offsets: &[(i32, i64)]) -> OffsetCommitRequest {
    let part = |(index, offset): &(i32, i64)| {
        OffsetCommitRequestPartition::default().with_partition_index(*index).with_committed_offset(*offset)
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name(TOPIC))
        .with_partitions(offsets.iter().map(part).collect());
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

/// Commits at the group's coordinator; true if it took everything.
fn commit(addresses: &[SocketAddr], group: &str, offsets: &[(i32, i64)]) -> bool {
    let Some(to) = coordinator(addresses, group) else { return false };
    let answer = try_at(to, |raw| raw.call(7, &commit_request(group, offsets)));
    answer.is_some_and(|answer| answer.topics[0].partitions.iter().all(|p| p.error_code == 0))
}

/// The samples of a family: labels and value.
fn samples(page: &str, family: &str, group: &str) -> Vec<(String, f64)> {
    let of_group = format!("consumergroup=\"{group}\"");
    let lines = page.lines().filter_map(|line| line.strip_prefix(family)?.strip_prefix('{'));
    let sample = |line: &str| {
        let (labels, value) = line.rsplit_once("} ").unwrap();
        (labels.to_owned(), value.parse().unwrap())
    };
    lines.map(sample).filter(|(labels, _)| labels.contains(&of_group)).collect()
}

fn page(broker: &Broker, path: &str) -> String {
    let (status, body) = broker.http(path).unwrap_or_else(|| panic!("{path} is answered"));
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// What a page says of the group, if it has it: its series of lag, and whether all of it is as it should be.
fn whole(page: &str) -> (usize, bool) {
    let (lag, current) =
        (samples(page, "kafka_consumergroup_lag", GROUP), samples(page, "kafka_consumergroup_current_offset", GROUP));
    let left = f64::from(i32::try_from(RECORDS).unwrap()) - COMMITTED as f64;
    let sum = samples(page, "kafka_consumergroup_lag_sum", GROUP);
    let current_sum = samples(page, "kafka_consumergroup_current_offset_sum", GROUP);
    let seconds = samples(page, "ottla_consumergroup_lag_seconds", GROUP);
    let is_whole = lag.len() == 12
        && current.len() == 12
        && seconds.len() == 12
        && lag.iter().all(|(_, value)| *value == left)
        && seconds.iter().all(|(_, value)| *value > 0.0)
        && sum.iter().map(|(_, value)| *value).eq([left * 12.0])
        && current_sum.iter().map(|(_, value)| *value).eq([1_200.0]);
    (lag.len(), is_whole)
}

/// Three nodes, a topic with records that all of them lead some of, and a group that has committed a part of them.
fn lagging_group() -> Cluster {
    let cluster = Cluster::start(3, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let addresses = cluster.addresses();
    let values = vec![&b"value"[..]; RECORDS];
    for partition in 0..PARTITIONS {
        until("a partition is written to", || {
            let Some(leader) = cluster.leader(TOPIC, partition) else { return false };
            let batch = TestBatch::of(&values).encode();
            let code = try_at(addresses[leader - 1], |raw| raw.produce(TOPIC, partition, batch).error_code);
            assert_ne!(code, None, "no node is gone");
            code == Some(0)
        });
    }
    let offsets: Vec<_> = (0..PARTITIONS).map(|index| (index, COMMITTED)).collect();
    until("offsets are committed", || commit(&addresses, GROUP, &offsets));
    let leaders: std::collections::BTreeSet<_> = (0..PARTITIONS).map(|p| cluster.leader(TOPIC, p)).collect();
    assert_eq!(leaders.len(), 3, "each node leads some of it");
    cluster
}

#[test]
fn a_group_is_whole_at_its_coordinator_and_from_any_node_and_with_one_dead() {
    let mut cluster = lagging_group();
    let addresses = cluster.addresses();
    until("one node shows the group whole, the others not at all", || {
        let mut shown: Vec<_> = cluster.brokers.iter().map(|broker| whole(&page(broker, "/metrics"))).collect();
        shown.sort_unstable();
        shown == [(0, false), (0, false), (12, true)]
    });
    for broker in &cluster.brokers {
        for path in ["/metrics?scope=cluster", "/metrics/groups?scope=cluster&group=lag.*&topic=meas.*"] {
            assert_eq!(whole(&page(broker, path)), (12, true), "{path}: {}", page(broker, path));
        }
        assert_eq!(whole(&page(broker, "/metrics/groups?scope=cluster&topic=other")).0, 0);
        let group: Value = serde_json::from_str(&page(broker, "/v1/groups/lagged")).unwrap();
        assert_eq!((&group["lag"], &group["status"]), (&Value::from(10_800), &Value::from("OK")));
        // The coordinator of that group may have to look through its partition first.
        until("a group that does not exist is unknown", || broker.http("/v1/groups/unknown").unwrap().0 == 404);
        let (status, _) = broker.http("/metrics/groups?group=(").unwrap();
        assert_eq!(status, 400);
    }

    until("all replicas of all groups have measured them", || {
        cluster.brokers.iter().all(|broker| {
            let page = page(broker, "/metrics/groups?scope=replica");
            whole(&page).1 && page.contains("ottla_consumergroup_missing_offsets_partitions 0\n")
        })
    });
    let dead = coordinator(&addresses, GROUP).unwrap();
    let dead = addresses.iter().position(|address| *address == dead).unwrap();
    cluster.brokers[dead].kill();
    let alive: Vec<_> = (0..3).filter(|node| *node != dead).collect();
    // From the first moment on: the group has no coordinator yet, and a third of its partitions have no leader.
    until("another node coordinates the group", || {
        for node in &alive {
            let page = page(&cluster.brokers[*node], "/metrics/groups?scope=cluster");
            assert_eq!(whole(&page), (12, true), "{page}");
            assert!(page.contains("ottla_consumergroup_missing_offsets_partitions 0\n"), "{page}");
        }
        let mut shown: Vec<_> = alive.iter().map(|node| whole(&page(&cluster.brokers[*node], "/metrics"))).collect();
        shown.sort_unstable();
        shown == [(0, false), (12, true)]
    });
    for node in alive {
        let broker = &cluster.brokers[node];
        let (bootstrap, admin) = (addresses[node].to_string(), format!("http://{}", broker.admin()));
        for command in [&["describe", GROUP, "--bootstrap-server", &bootstrap][..], &["lag", GROUP]] {
            let words = [&["group"], command, &["--admin", &admin, "-o", "json"]].concat();
            let (code, shown) = broker.command(&words);
            assert_eq!(code, Some(0), "{words:?}: {shown}");
            let group = &serde_json::from_str::<Value>(&shown).unwrap()["groups"][0];
            assert_eq!((&group["lag"], &group["status"]), (&Value::from(10_800), &Value::from("OK")), "{words:?}");
        }
    }
}

/// A batch that was acknowledged.
struct Produced {
    created_ms: i64,
    sent: Instant,
    acked: Instant,
    base: i64,
    count: i64,
}

/// A commit, acknowledged or not.
struct Commit {
    sent: Instant,
    acked: Option<Instant>,
    offset: i64,
}

/// What was done to one partition.
#[derive(Default)]
struct History {
    produced: Vec<Produced>,
    commits: Vec<Commit>,
}

type Histories = Arc<Vec<Mutex<History>>>;

/// What a node has shown of one partition.
struct Shown {
    partition: usize,
    asked: (Instant, i64),
    answered: (Instant, i64),
    committed: i64,
    end: i64,
    lag: i64,
    lag_ms: i64,
    age: Duration,
}

fn quiet_clients() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some("client") {
                told(info);
            }
        }));
    });
}

fn client(stop: &Arc<AtomicBool>, work: impl Fn() + Send + 'static) -> JoinHandle<()> {
    let stop = stop.clone();
    let run = move || {
        while !stop.load(Ordering::Relaxed) {
            work();
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    std::thread::Builder::new().name("client".to_owned()).spawn(run).unwrap()
}

/// Writes to a partition at its leader until that refuses.
fn write(addresses: &[SocketAddr], partition: i32, history: &Mutex<History>, stop: &AtomicBool) {
    let leader = addresses.iter().find_map(|to| leader_at(*to, TOPIC, partition));
    let to = leader.and_then(|leader| addresses.get(usize::try_from(leader).ok()?.checked_sub(1)?));
    let Some(to) = to else { return };
    try_at(*to, |raw: &mut Raw| {
        while !stop.load(Ordering::Relaxed) {
            let (created_ms, sent) = (now_ms(), Instant::now());
            let mut batch = TestBatch::of(&[b"a", b"b", b"c"]);
            (batch.base_timestamp, batch.max_timestamp) = (created_ms, created_ms);
            let asked = raw.ask(9, &Raw::produce_request(TOPIC, partition, -1, Some(batch.encode())));
            let Some(answer) = raw.answer::<ProduceRequest>(9, asked) else { return };
            let placed = &answer.responses[0].partition_responses[0];
            if placed.error_code != 0 {
                return;
            }
            let produced = Produced { created_ms, sent, acked: Instant::now(), base: placed.base_offset, count: 3 };
            history.lock().unwrap().produced.push(produced);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

/// Commits three quarters of what is acknowledged, of all partitions.
fn commit_some(addresses: &[SocketAddr], histories: &Histories) {
    let sent = Instant::now();
    let mut offsets = Vec::new();
    for (partition, history) in histories.iter().enumerate() {
        let mut history = history.lock().unwrap();
        let end = history.produced.last().map_or(0, |last| last.base + last.count);
        let before = history.commits.last().map_or(0, |commit| commit.offset);
        let offset = before.max(end * 3 / 4);
        history.commits.push(Commit { sent, acked: None, offset });
        offsets.push((i32::try_from(partition).unwrap(), offset));
    }
    if commit(addresses, GROUP, &offsets) {
        let acked = Instant::now();
        for history in histories.iter() {
            history.lock().unwrap().commits.last_mut().unwrap().acked = Some(acked);
        }
    }
}

/// True if a node's own replica knows the lag of all partitions of the group, in offsets and in seconds.
fn has_measured(broker: &Broker) -> bool {
    let page: Value =
        serde_json::from_str(&page(broker, "/v1/groups?scope=replica&group=lagged&partitions=true")).unwrap();
    let partitions = page["groups"][0]["topics"][0]["partitions"].as_array().map_or(&[][..], Vec::as_slice);
    let is_known = |partition: &Value| partition["lag"].is_i64() && partition["lag_seconds"].is_number();
    partitions.len() == usize::try_from(PARTITIONS).unwrap() && partitions.iter().all(is_known)
}

/// Asks a node for the group: everything has to be there, and the sum to be one.
fn look(broker: &Broker) -> Vec<Shown> {
    let asked = (Instant::now(), now_ms());
    let body = page(broker, "/v1/groups/lagged");
    let answered = (Instant::now(), now_ms());
    let group: Value = serde_json::from_str(&body).unwrap();
    let partitions = group["topics"][0]["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), usize::try_from(PARTITIONS).unwrap(), "{body}");
    let shown: Vec<Shown> = partitions
        .iter()
        .map(|known| {
            let number = |name: &str| known[name].as_i64().unwrap_or_else(|| panic!("{name} is unknown: {body}"));
            let seconds = |name: &str| known[name].as_f64().unwrap_or_else(|| panic!("{name} is unknown: {body}"));
            Shown {
                partition: usize::try_from(number("partition")).unwrap(),
                asked,
                answered,
                committed: number("committed_offset"),
                end: number("end_offset"),
                lag: number("lag"),
                lag_ms: (seconds("lag_seconds") * 1_000.0).round() as i64,
                age: Duration::from_secs_f64(seconds("age_seconds")),
            }
        })
        .collect();
    assert_eq!(group["lag"].as_i64(), Some(shown.iter().map(|known| known.lag).sum()), "{body}");
    shown
}

/// Holds what was shown against what was done: nothing older than its age says, and nothing that was not there yet.
fn judge(shown: &Shown, history: &History) {
    let partition = shown.partition;
    // Ages are in whole milliseconds.
    let as_of = shown.asked.0.checked_sub(shown.age + Duration::from_millis(1)).unwrap();
    let acked = history.produced.iter().filter(|batch| batch.acked < as_of).map(|batch| batch.base + batch.count).max();
    assert!(Some(shown.end) >= acked, "partition {partition}: end {} below the acknowledged {acked:?}", shown.end);
    let later = history.produced.iter().filter(|batch| batch.sent > shown.answered.0).map(|batch| batch.base).min();
    assert!(later.is_none_or(|later| shown.end <= later), "partition {partition}: end {} beyond {later:?}", shown.end);
    let committed = history.commits.iter().filter(|commit| commit.acked.is_some_and(|at| at < as_of));
    let committed = committed.map(|commit| commit.offset).max();
    let (is, was) = (shown.committed, committed);
    assert!(Some(is) >= was, "partition {partition}: committed {is} below {was:?} of {:?} ago", shown.age);
    let sent = history.commits.iter().any(|commit| commit.offset == is && commit.sent < shown.answered.0);
    assert!(sent, "partition {partition}: {is} was not committed");
    assert_eq!(shown.lag, (shown.end - is).max(0), "partition {partition}");
    let first = history.produced.iter().find(|batch| (batch.base..batch.base + batch.count).contains(&is));
    match first {
        _ if shown.lag == 0 => assert_eq!(shown.lag_ms, 0, "partition {partition}"),
        Some(first) => {
            let ages = shown.asked.1 - first.created_ms..=shown.answered.1 - first.created_ms;
            assert!(ages.contains(&shown.lag_ms), "partition {partition}: {} ms behind, not {ages:?}", shown.lag_ms);
        }
        // The answer to what was written there was lost.
        None => {}
    }
}

#[test]
fn through_elections_lag_is_what_was_produced_and_committed() {
    quiet_clients();
    let mut cluster = Cluster::start(3, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let (addresses, stop) = (cluster.addresses(), Arc::new(AtomicBool::new(false)));
    let histories: Histories = Arc::new((0..PARTITIONS).map(|_| Mutex::default()).collect());
    let mut clients: Vec<_> = (0..PARTITIONS)
        .map(|partition| {
            let (addresses, histories, stopped) = (addresses.clone(), histories.clone(), stop.clone());
            let history = usize::try_from(partition).unwrap();
            client(&stop, move || write(&addresses, partition, &histories[history], &stopped))
        })
        .collect();
    {
        let (addresses, histories) = (addresses.clone(), histories.clone());
        clients.push(client(&stop, move || commit_some(&addresses, &histories)));
    }
    // A new coordinator shows what it measured as a follower, which it does seconds after the first commit.
    until("every replica has measured the group", || cluster.brokers.iter().all(has_measured));

    let mut shown = Vec::new();
    let mut turn = 0;
    for round in 0..6 {
        let down = round % 3;
        match round % 2 {
            0 => cluster.brokers[down].kill(),
            _ => cluster.brokers[down].stop(),
        }
        for is_down in [true, false] {
            if !is_down {
                cluster.brokers[down].run();
            }
            let until = Instant::now() + Duration::from_secs(5);
            while Instant::now() < until {
                turn += 1;
                let asked = turn % 3;
                if !is_down || asked != down {
                    shown.extend(look(&cluster.brokers[asked]));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    for known in &shown {
        judge(known, &histories[known.partition].lock().unwrap());
    }
    let records: i64 = histories.iter().map(|h| h.lock().unwrap().produced.iter().map(|b| b.count).sum::<i64>()).sum();
    let oldest = shown.iter().map(|known| known.age).max().unwrap();
    println!("{} values over {records} records, the oldest {oldest:?}", shown.len());
    assert!(shown.len() > 1_000, "{} values were looked at", shown.len());
}
