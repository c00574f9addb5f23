//! A real Apache Kafka from Maven Central: nodes in KRaft combined mode with the settings, the heap and the collector
//! that its own scripts and its own `config/server.properties` give it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use ottla_tests::process::free_address;

use super::node::{Node, data_below};
use super::{Peer, Surroundings, fresh_directory, rack};

/// What `kafka-server-start.sh` and `kafka-run-class.sh` pass to the JVM.
const JVM: &[&str] = &[
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
    "-Djava.awt.headless=true",
];

const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qg";

/// What a node alone needs, as its own `config/server.properties` has it: by default Kafka wants three copies of its internal
/// topics.
const ALONE: &[&str] = &[
    "offsets.topic.replication.factor=1",
    "share.coordinator.state.topic.replication.factor=1",
    "share.coordinator.state.topic.min.isr=1",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
];

/// The folder of Kafka's jars: given, or that of the client tests, or pulled now by Maven.
pub(crate) fn jars(given: Option<&Path>) -> PathBuf {
    if let Some(path) = given {
        return path.to_path_buf();
    }
    let clients = std::env::var_os("TEST_CLIENTS_DIR").map_or(crate::root().join("target/clients"), PathBuf::from);
    let jars = clients.join("jars");
    let is_there = |name: &str| {
        let mut files = std::fs::read_dir(&jars).into_iter().flatten().flatten();
        files.any(|f| f.file_name().to_string_lossy().starts_with(name))
    };
    if !is_there("kafka_2.13-") || !is_there("kafka-tools-") {
        println!("fetching Apache Kafka with Maven");
        let pom = crate::root().join("tests/clients/java/pom.xml");
        let mut maven = Command::new("mvn");
        maven.args(["-q", "-B", "-f"]).arg(pom).arg("dependency:copy-dependencies");
        maven.arg(format!("-DoutputDirectory={}", jars.display()));
        assert!(maven.status().is_ok_and(|s| s.success()), "Maven could not fetch Apache Kafka");
    }
    jars
}

/// The version, from the broker's jar.
pub(crate) fn version(jars: &Path) -> String {
    let names = std::fs::read_dir(jars).into_iter().flatten().flatten().map(|f| f.file_name());
    let mut names = names.map(|n| n.to_string_lossy().into_owned());
    let broker = names.find(|n| n.starts_with("kafka_2.13-")).unwrap_or_default();
    let java = Command::new("java").arg("-version").output();
    let java = java.map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).unwrap_or_default();
    let version = broker.trim_start_matches("kafka_2.13-").trim_end_matches(".jar");
    format!("Apache Kafka {version}, {}", java.lines().next().unwrap_or_default())
}

/// A `java` command with Kafka's jars.
pub(crate) fn java(jars: &Path) -> Command {
    let mut command = Command::new("java");
    command.arg("-cp").arg(format!("{}/*", jars.display()));
    command
}

/// So many nodes with formatted directories that have not been started yet: one alone, or a cluster.
pub(crate) fn prepare(jars: &Path, directory: PathBuf, count: usize, surroundings: &Surroundings) -> Peer {
    fresh_directory(&directory);
    let controllers: Vec<SocketAddr> = (0..count).map(|_| free_address()).collect();
    let ways = controllers.iter().map(|controller| surroundings.way_to(*controller));
    let voters: Vec<String> = ways.enumerate().map(|(at, way)| format!("{}@{way}", at + 1)).collect();
    let mut shown = Vec::new();
    let nodes = controllers.iter().enumerate().map(|(at, controller)| {
        let (id, address) = (at + 1, free_address());
        let own = directory.join(format!("node-{id}"));
        let mut lines = vec![
            "process.roles=broker,controller".to_owned(),
            format!("node.id={id}"),
            format!("controller.quorum.voters={}", voters.join(",")),
            "controller.listener.names=CONTROLLER".to_owned(),
            format!("log.dirs={}", data_below(&own).display()),
        ];
        if surroundings.round_trip.is_zero() {
            lines.push(format!("listeners=PLAINTEXT://{address},CONTROLLER://{controller}"));
            lines.push(format!("advertised.listeners=PLAINTEXT://{address}"));
        } else {
            // Clients stand beside the nodes, the nodes apart from each other.
            let own = free_address();
            let way = surroundings.way_to(own);
            lines.push(format!("listeners=PLAINTEXT://{address},INTERNAL://{own},CONTROLLER://{controller}"));
            lines.push(format!("advertised.listeners=PLAINTEXT://{address},INTERNAL://{way}"));
            lines.push("inter.broker.listener.name=INTERNAL".to_owned());
            let plain = ["PLAINTEXT", "INTERNAL", "CONTROLLER"].map(|name| format!("{name}:PLAINTEXT"));
            lines.push(format!("listener.security.protocol.map={}", plain.join(",")));
        }
        if count > 1 {
            lines.push(format!("broker.rack={}", rack(at)));
        } else {
            lines.extend(ALONE.iter().map(|line| (*line).to_owned()));
        }
        let file = own.join("server.properties");
        let text = lines.join("\n") + "\n";
        if at == 0 {
            shown = lines;
        }
        let jars = format!("{}/*", jars.display());
        let mut command = vec!["java".to_owned()];
        command.extend(JVM.iter().map(|flag| (*flag).to_owned()));
        command.extend(["-cp", &jars, "kafka.Kafka", &file.display().to_string()].map(str::to_owned));
        let mut node = Node::new(i32::try_from(id).unwrap(), address, own, surroundings.around(command));
        std::fs::write(&file, text).unwrap();
        let format = ["java", "-cp", &jars, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"];
        node.format = format.map(str::to_owned).into();
        node.format.push(file.display().to_string());
        node.format();
        node
    });
    let nodes = nodes.collect();
    let mut peer = Peer::new("kafka", directory, nodes);
    peer.settings = shown;
    peer.settings.push(format!("heap and JVM: {}", JVM.join(" ")));
    peer.settings.extend(surroundings.shown());
    peer
}
