//! The metrics pages of real nodes: promtool accepts them, docs/metrics.md lists every family, they stay small however
//! many partitions there are, and over all nodes of a cluster they add up to what was written.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{FindCoordinatorRequest, GroupId, OffsetCommitRequest};
use ottla_tests::batch::TestBatch;
use ottla_tests::cluster::{Cluster, try_at, until};
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};

const PAGES: [&str; 4] = ["/metrics", "/metrics/groups", "/metrics/partitions", "/metrics/topics"];
/// What a page may have by default, whatever the number of partitions and topics.
const PAGE_BYTES_MAX: usize = 5_000_000;

fn page(broker: &Broker, path: &str) -> String {
    let (status, body) = broker.http(path).expect("the admin port answers");
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// The value of the sample `name{labels}`.
fn sample(page: &str, series: &str) -> Option<i64> {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// A node on which every family has a sample.
fn busy() -> Broker {
    let broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", 2, &[]);
    raw.produce("t", 1, TestBatch::of(&[b"a", b"b"]).encode());
    raw.fetch("t", 1, 0, 0);
    let find = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![text("g")]);
    assert_eq!(raw.call(4, &find).coordinators[0].error_code, 0);
    let partition = OffsetCommitRequestPartition::default().with_partition_index(1).with_committed_offset(1);
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
    let commit = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    until("an offset is committed", || raw.call(7, &commit).topics[0].partitions[0].error_code == 0);
    drop(raw);
    // One connection was closed in order, another is refused for what comes over it.
    let mut bad = Raw::connect(broker.address());
    bad.send(&[0xff; 16]);
    assert!(bad.is_closed());
    until("both are counted", || {
        let told = page(&broker, "/metrics");
        told.contains("\nottla_connections_refused_total{") && told.contains("\nottla_connections_closed_total{")
    });
    // The groups' part of the page is what their sampler found in its last round.
    until("the group's lag is known", || page(&broker, "/metrics").contains("\nottla_consumergroup_lag_seconds{"));
    broker
}

#[test]
fn promtool_finds_no_fault() {
    let mut broker = busy();
    for path in PAGES {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is missing: run tests/setup");
        promtool.stdin.take().unwrap().write_all(page(&broker, path).as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{path}:\n{}", String::from_utf8_lossy(&said));
    }
    broker.stop();
}

/// What a page or the documentation says of a family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Told {
    kind: String,
    labels: BTreeSet<String>,
    help: String,
}

/// The families of a page.
fn families(page: &str) -> BTreeMap<String, Told> {
    let mut found: BTreeMap<String, Told> = BTreeMap::new();
    for line in page.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => found.entry(name.to_owned()).or_default().help = help.to_owned(),
            ["#", "TYPE", name, kind] => found.entry(name.to_owned()).or_default().kind = kind.to_owned(),
            _ => {
                let (series, _) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                let ends = ["", "_bucket", "_sum", "_count"];
                let of = ends.iter().find_map(|end| found.contains_key(name.strip_suffix(end)?).then_some(end));
                let name = name.strip_suffix(of.expect("a sample under its head")).unwrap();
                let told = found.get_mut(name).unwrap();
                // No value of a label in these tests has a quote or a comma in it.
                let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
                told.labels.extend(names.filter(|label| label != "le"));
            }
        }
    }
    found
}

/// The rows of docs/metrics.md: name, type, labels, since, stability, meaning. What follows the help text of a family
/// is more than the page says.
fn documented() -> BTreeMap<String, Told> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `kafka_") || line.starts_with("| `ottla_")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, since, stability, help] = cells[..] else { panic!("six cells: {line}") };
        let name = name.trim_matches('`').to_owned();
        let stable = if name.starts_with("kafka_") { "exporter" } else { "stable" };
        assert_eq!(stability, stable, "{name}");
        assert_eq!(since.split('.').filter(|part| part.parse::<u32>().is_ok()).count(), 3, "{name}: since {since}");
        let labels = labels.split(", ").map(|label| label.trim_matches('`').to_owned()).filter(|l| !l.is_empty());
        let told = Told { kind: kind.to_owned(), labels: labels.collect(), help: help.to_owned() };
        assert!(found.insert(name, told).is_none(), "twice: {line}");
    }
    found
}

#[test]
fn the_documentation_tells_of_every_family_and_of_no_other() {
    let mut broker = busy();
    let documented = documented();
    let told = families(&page(&broker, "/metrics"));
    let mut complaints = Vec::new();
    for (name, told) in &told {
        assert!(
            !told.labels.is_empty() || page(&broker, "/metrics").contains(&format!("\n{name} ")),
            "{name}: no sample"
        );
        let known = documented.get(name);
        let fits = known.is_some_and(|known| {
            known.kind == told.kind && known.labels == told.labels && known.help.starts_with(&told.help)
        });
        if !fits {
            let labels: Vec<_> = told.labels.iter().map(|label| format!("`{label}`")).collect();
            let stability = if name.starts_with("kafka_") { "exporter" } else { "stable" };
            let version = env!("CARGO_PKG_VERSION");
            let (kind, labels, help) = (&told.kind, labels.join(", "), &told.help);
            complaints.push(format!("| `{name}` | {kind} | {labels} | {version} | {stability} | {help} |"));
        }
    }
    assert!(complaints.is_empty(), "docs/metrics.md does not have, or not so:\n{}", complaints.join("\n"));
    let gone: Vec<_> = documented.keys().filter(|name| !told.contains_key(*name)).collect();
    assert!(gone.is_empty(), "docs/metrics.md has what no page has: {gone:?}");
    for path in &PAGES[1..] {
        for (name, more) in families(&page(&broker, path)) {
            assert_eq!(told.get(&name), Some(&more), "{path}: {name}");
        }
    }
    broker.stop();
}

/// Changes settings of all nodes while they run.
fn alter(raw: &mut Raw, settings: &[(&str, &str)]) {
    let answer = raw.set_configs(4, "", settings);
    assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
}

#[test]
fn single_partitions_leave_the_page_when_there_are_many() {
    let settings = [("OTTLA_METRICS_PARTITIONS_MAX", "10"), ("OTTLA_METRICS_TOPICS_MAX", "3")];
    let mut broker = Broker::start(&settings);
    let mut raw = Raw::connect(broker.address());
    for (name, partitions) in [("a", 2), ("b", 3), ("c", 5)] {
        raw.create_topic(name, partitions, &[]);
        raw.produce(name, partitions - 1, TestBatch::of(&[b"1", b"2"]).encode());
    }
    let told = page(&broker, "/metrics");
    assert_eq!(sample(&told, "kafka_topic_partition_current_offset{partition=\"4\",topic=\"c\"}"), Some(2));
    assert_eq!(sample(&told, "ottla_metrics_partitions_omitted"), Some(0));
    assert_eq!(sample(&told, "ottla_metrics_topics_omitted"), Some(0));

    raw.create_topic("d", 1, &[]);
    raw.produce("d", 0, TestBatch::of(&[b"1"]).encode());
    let told = page(&broker, "/metrics");
    assert!(!told.contains("partition=\""), "no partition is shown by itself:\n{told}");
    assert_eq!(sample(&told, "ottla_metrics_partitions_omitted"), Some(11));
    assert_eq!(sample(&told, "ottla_partitions"), Some(11));
    assert_eq!(sample(&told, "ottla_partitions_led"), Some(11));
    // Three topics have series of their own, the fourth is in the sum of the others.
    assert_eq!(sample(&told, "ottla_metrics_topics_omitted"), Some(1));
    for (topic, partitions, records) in [("a", 2, 2), ("b", 3, 2), ("c", 5, 2), ("(other)", 1, 1)] {
        assert_eq!(sample(&told, &format!("kafka_topic_partitions{{topic=\"{topic}\"}}")), Some(partitions));
        assert_eq!(sample(&told, &format!("ottla_topic_partitions_led{{topic=\"{topic}\"}}")), Some(partitions));
        assert_eq!(sample(&told, &format!("ottla_topic_high_watermarks{{topic=\"{topic}\"}}")), Some(records));
        assert_eq!(sample(&told, &format!("ottla_topic_records{{topic=\"{topic}\"}}")), Some(records));
        assert_eq!(sample(&told, &format!("ottla_topic_records_in_total{{topic=\"{topic}\"}}")), Some(records));
        assert!(sample(&told, &format!("ottla_topic_log_bytes{{topic=\"{topic}\"}}")).unwrap() > 0);
    }

    // What is included is shown although there are many; the setting takes effect while the node runs.
    alter(&mut raw, &[("ottla.metrics.topics.include", "b|d")]);
    let told = page(&broker, "/metrics");
    assert_eq!(sample(&told, "kafka_topic_partition_current_offset{partition=\"2\",topic=\"b\"}"), Some(2));
    assert_eq!(sample(&told, "kafka_topic_partition_current_offset{partition=\"0\",topic=\"d\"}"), Some(1));
    assert!(!told.contains("partition=\"0\",topic=\"a\"") && !told.contains("partition=\"0\",topic=\"c\""));
    assert_eq!(sample(&told, "ottla_metrics_partitions_omitted"), Some(7));
    assert_eq!(sample(&told, "ottla_topic_records{topic=\"d\"}"), Some(1), "it goes before others");
    assert_eq!(sample(&told, "ottla_topic_records{topic=\"(other)\"}"), Some(2), "c");

    // What is excluded is not counted: the rest is few enough.
    alter(&mut raw, &[("ottla.metrics.topics.include", ""), ("ottla.metrics.topics.exclude", "c")]);
    let told = page(&broker, "/metrics");
    assert_eq!(sample(&told, "kafka_topic_partition_current_offset{partition=\"1\",topic=\"a\"}"), Some(2));
    assert!(!told.contains("partition=\"0\",topic=\"c\""));
    assert_eq!(sample(&told, "ottla_metrics_partitions_omitted"), Some(5));
    assert_eq!(sample(&told, "ottla_topic_records{topic=\"c\"}"), Some(2));
    broker.stop();
}

#[test]
fn single_partitions_and_topics_have_pages_with_filters() {
    let settings = [("OTTLA_METRICS_PARTITIONS_MAX", "0"), ("OTTLA_METRICS_TOPICS_MAX", "0")];
    let mut broker = Broker::start(&settings);
    let mut raw = Raw::connect(broker.address());
    for name in ["orders", "orders-2", "payments"] {
        raw.create_topic(name, 2, &[]);
        raw.produce(name, 1, TestBatch::of(&[b"1"]).encode());
    }
    let offset = |page: &str, topic: &str| {
        sample(page, &format!("kafka_topic_partition_current_offset{{partition=\"1\",topic=\"{topic}\"}}"))
    };
    let all = page(&broker, "/metrics/partitions");
    assert!(["orders", "orders-2", "payments"].iter().all(|topic| offset(&all, topic) == Some(1)), "{all}");
    let some = page(&broker, "/metrics/partitions?topic=orders");
    assert_eq!((offset(&some, "orders"), offset(&some, "orders-2")), (Some(1), None), "names are matched whole");
    let some = page(&broker, "/metrics/partitions?topic=orders-%5B0-9%5D%2B%7Cpay.*");
    assert_eq!(
        (offset(&some, "orders"), offset(&some, "orders-2"), offset(&some, "payments")),
        (None, Some(1), Some(1))
    );
    let topics = page(&broker, "/metrics/topics?topic=orders.*");
    assert_eq!(sample(&topics, "ottla_topic_records{topic=\"orders-2\"}"), Some(1));
    assert!(!topics.contains("payments") && !topics.contains("(other)"));
    for bad in ["/metrics/partitions?topic=(", "/metrics/partitions?topics=orders", "/metrics/topics?topic=("] {
        assert_eq!(broker.http(bad).unwrap().0, 400, "{bad}");
    }
    broker.stop();
}

/// The sum over nodes of a sample, which no node needs to have.
fn over_all(cluster: &Cluster, series: &str) -> i64 {
    let alive = cluster.brokers.iter().filter_map(|broker| broker.http("/metrics"));
    alive.filter_map(|(_, page)| sample(&page, series)).sum()
}

#[test]
fn nodes_add_up_to_what_was_written_also_when_one_is_dead() {
    const PARTITIONS: i32 = 12;
    let mut cluster =
        Cluster::start(3, &[("OTTLA_METRICS_PARTITIONS_MAX", "0"), ("KAFKA_REPLICA_LAG_TIME_MAX_MS", "2000")]);
    cluster.create_topic("t", PARTITIONS, 3);
    let produce = |cluster: &Cluster, partition: i32| {
        until("a record is acknowledged", || {
            let Some(leader) = cluster.leader("t", partition) else { return false };
            let records = TestBatch::of(&[b"value"]).encode();
            let answer =
                try_at(cluster.brokers[leader - 1].address(), |raw| raw.produce("t", partition, records).error_code);
            answer == Some(0)
        });
    };
    (0..PARTITIONS).for_each(|partition| (0..=partition).for_each(|_| produce(&cluster, partition)));
    let written = i64::from(PARTITIONS * (PARTITIONS + 1) / 2);
    let partitions = i64::from(PARTITIONS);
    let adds_up = |cluster: &Cluster, written: i64, under_replicated: i64| {
        until("the nodes' pages add up", || {
            over_all(cluster, "ottla_topic_partitions_led{topic=\"t\"}") == partitions
                && over_all(cluster, "ottla_topic_high_watermarks{topic=\"t\"}") == written
                && over_all(cluster, "ottla_topic_records{topic=\"t\"}") == written
                && over_all(cluster, "ottla_topic_partitions_offline{topic=\"t\"}") == 0
                && over_all(cluster, "ottla_topic_partitions_under_replicated{topic=\"t\"}") == under_replicated
        });
    };
    adds_up(&cluster, written, 0);
    cluster.brokers[2].kill();
    (0..PARTITIONS).for_each(|partition| produce(&cluster, partition));
    // The dead node's replica leaves the in-sync replicas when it has lagged for long enough.
    adds_up(&cluster, written + partitions, partitions);
    cluster.brokers[2].run();
    adds_up(&cluster, written + partitions, 0);
}

#[test]
fn the_page_stays_small_with_a_hundred_thousand_partitions() {
    const TOPICS: usize = 10;
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    for topic in 0..TOPICS {
        raw.create_topic(&format!("many-{topic}"), 10_000, &[]);
    }
    raw.produce("many-7", 9_999, TestBatch::of(&[b"1"]).encode());
    // A shard adopts its partitions after the metadata has them.
    until("all are led", || sample(&page(&broker, "/metrics"), "ottla_partitions_led") == Some(100_000));
    let told = page(&broker, "/metrics");
    assert!(told.len() < PAGE_BYTES_MAX / 10, "{} bytes", told.len());
    assert_eq!(sample(&told, "ottla_metrics_partitions_omitted"), Some(100_000));
    assert_eq!(sample(&told, "ottla_topic_records{topic=\"many-7\"}"), Some(1));
    let one = page(&broker, "/metrics/partitions?topic=many-7");
    assert_eq!(sample(&one, "kafka_topic_partition_current_offset{partition=\"9999\",topic=\"many-7\"}"), Some(1));
    broker.stop();
}

#[test]
fn the_page_stays_small_with_thousands_of_topics_and_as_many_partitions_as_it_shows() {
    // As many as are shown by default: one more of either makes the page smaller, or adds to the sum of the others.
    const TOPICS: usize = 5_000;
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    for topic in 0..TOPICS {
        raw.create_topic(&format!("topic-{topic:06}"), 1, &[]);
    }
    until("all are led", || sample(&page(&broker, "/metrics"), "ottla_partitions_led") == Some(5_000));
    let told = page(&broker, "/metrics");
    println!("{} bytes", told.len());
    assert!(told.len() < PAGE_BYTES_MAX, "{} bytes", told.len());
    assert_eq!(sample(&told, "ottla_metrics_topics_omitted"), Some(3_000));
    assert_eq!(sample(&told, "ottla_metrics_partitions_omitted"), Some(0));
    assert_eq!(sample(&told, "kafka_topic_partitions{topic=\"(other)\"}"), Some(3_000));
    assert_eq!(sample(&told, "kafka_topic_partition_leader{partition=\"0\",topic=\"topic-004999\"}"), Some(1));
    broker.stop();
}
