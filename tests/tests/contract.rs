//! The contract of the binary: settings and their precedence, errors at start, health, clean stop, one process per
//! directory.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::process::{Command, Output};

use kafka_protocol::messages::DescribeConfigsRequest;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ottla_tests::batch::TestBatch;
use ottla_tests::process::{Broker, binary};
use ottla_tests::raw::{Raw, text};

const BROKER_RESOURCE: i8 = 4;

/// Runs the binary to its end with arguments and environment, in a directory of its own.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Output, String) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(directory.path()).envs(environment.iter().copied());
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

#[test]
fn help_and_version_say_what_one_needs() {
    let (output, said) = run(&["start", "--help"], &[]);
    assert!(output.status.success() && said.contains("--config"), "{said}");
    let (output, said) = run(&["--version"], &[]);
    assert!(output.status.success() && said.contains(env!("CARGO_PKG_VERSION")), "{said}");
}

#[test]
fn a_mistyped_flag_or_own_setting_names_the_nearest_known_one() {
    let (output, said) = run(&["start", "--confg", "x"], &[]);
    assert!(!output.status.success() && said.contains("--config"), "{said}");
    let (output, said) = run(&["start"], &[("OTTLA_ADMIN_LISTENR", "127.0.0.1:1")]);
    assert!(!output.status.success() && said.contains("ottla.admin.listener"), "{said}");
    let (output, said) = run(&["start"], &[("KAFKA_LISTENERS", "nonsense")]);
    assert!(!output.status.success() && said.contains("listeners"), "{said}");
}

#[test]
fn unknown_or_meaningless_kafka_settings_are_one_warning_line_each() {
    let settings = [
        ("KAFKA_NO_SUCH_SETTING", "1"),
        ("KAFKA_PROCESS_ROLES", "broker,controller"),
        ("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@127.0.0.1:9093"),
        ("KAFKA_HEAP_OPTS", "-Xmx1g"),
    ];
    let mut broker = Broker::start(&settings);
    let log = broker.log();
    for name in ["no.such.setting", "process.roles", "KAFKA_HEAP_OPTS"] {
        assert_eq!(log.lines().filter(|l| l.contains(name)).count(), 1, "one line about {name}:\n{log}");
    }
    broker.stop();
}

fn described(broker: &Broker, name: &str) -> Option<String> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(BROKER_RESOURCE)
        .with_resource_name(text("1"))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = Raw::connect(broker.address()).call(4, &request);
    let found = answer.results[0].configs.iter().find(|c| c.name.as_str() == name)?;
    found.value.as_ref().map(ToString::to_string)
}

#[test]
fn environment_beats_file_and_file_beats_default() {
    let mut broker = Broker::prepare(&[("KAFKA_NUM_PARTITIONS", "7")]);
    let file = broker.directory().join("server.properties");
    std::fs::write(&file, "# a comment\nnum.partitions=5\nlog.retention.hours = 24\n").unwrap();
    broker.with_arguments(&["--config", &file.display().to_string()]);
    broker.run();
    assert_eq!(described(&broker, "num.partitions").as_deref(), Some("7"), "environment beats file");
    assert_eq!(described(&broker, "log.retention.hours").as_deref(), Some("24"), "file beats default");
    assert_eq!(described(&broker, "auto.create.topics.enable").as_deref(), Some("true"), "default");
    broker.stop();
}

#[test]
fn it_says_what_clients_should_use_and_answers_health_and_metrics() {
    let mut broker = Broker::start(&[]);
    let log = broker.log();
    assert!(log.contains(&broker.address().to_string()), "the address for clients:\n{log}");
    assert_eq!(broker.http("/healthz").unwrap().0, 200);
    assert_eq!(broker.http("/readyz").unwrap().0, 200);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", 2, &[]);
    raw.produce("t", 1, TestBatch::of(&[b"a", b"b"]).encode());
    assert!((broker.metric("kafka_brokers", "") - 1.0).abs() < f64::EPSILON);
    assert!((broker.metric("kafka_topic_partition_current_offset", "topic=\"t\"") - 2.0).abs() < f64::EPSILON);
    broker.stop();
}

#[test]
fn a_clean_stop_is_quick_and_everything_is_there_afterwards() {
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", 1, &[("retention.ms", "123456789")]);
    raw.produce("t", 0, TestBatch::of(&[b"kept"]).encode());
    let cluster = raw.metadata(&[]).cluster_id;
    let started = std::time::Instant::now();
    broker.stop();
    assert!(started.elapsed().as_secs() < 10, "SIGTERM ends it within seconds");
    broker.run();
    let mut raw = Raw::connect(broker.address());
    assert_eq!(raw.metadata(&[]).cluster_id, cluster, "the cluster id is stable");
    assert_eq!(raw.read_all("t", 0).len(), 1);
    broker.stop();
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let mut broker = Broker::start(&[]);
    let data = broker.data().display().to_string();
    let (output, said) = run(
        &["start"],
        &[
            ("KAFKA_LOG_DIRS", &data),
            ("KAFKA_LISTENERS", "PLAINTEXT://127.0.0.1:0"),
            ("OTTLA_ADMIN_LISTENER", "127.0.0.1:0"),
        ],
    );
    assert!(!output.status.success() && said.contains(&data), "{said}");
    assert!(broker.is_alive());
    broker.stop();
}

#[test]
fn data_of_a_newer_format_is_refused_and_left_alone() {
    let mut broker = Broker::start(&[]);
    broker.stop();
    let path = broker.data().join("node.json");
    let mut node: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let version = node.as_object().unwrap().keys().find(|k| k.contains("version")).unwrap().clone();
    node[&version] = serde_json::json!(9999);
    std::fs::write(&path, serde_json::to_vec(&node).unwrap()).unwrap();
    broker.spawn();
    assert_eq!(broker.wait_for_exit(), Some(1), "{}", broker.log_tail());
    assert!(broker.log_tail().contains("9999"), "the message names the format:\n{}", broker.log_tail());
}

#[test]
fn a_directory_that_belongs_to_another_node_is_refused() {
    let mut broker = Broker::start(&[]);
    broker.stop();
    broker.set("KAFKA_NODE_ID", "2");
    broker.spawn();
    assert_eq!(broker.wait_for_exit(), Some(1), "{}", broker.log_tail());
}
