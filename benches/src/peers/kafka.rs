//! A real Apache Kafka from Maven Central: one node in KRaft combined mode with the settings, the heap and the collector
//! that its own scripts and its own `config/server.properties` give it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Peer, free_address, fresh_directory};

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

/// A node with a formatted directory that has not been started yet.
pub(crate) fn prepare(jars: &Path, directory: PathBuf) -> Peer {
    fresh_directory(&directory);
    let (address, controller) = (free_address(), free_address());
    let lines = vec![
        "process.roles=broker,controller".to_owned(),
        "node.id=1".to_owned(),
        format!("controller.quorum.voters=1@{controller}"),
        format!("listeners=PLAINTEXT://{address},CONTROLLER://{controller}"),
        format!("advertised.listeners=PLAINTEXT://{address}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        format!("log.dirs={}", directory.join("data").display()),
        "offsets.topic.replication.factor=1".to_owned(),
        "share.coordinator.state.topic.replication.factor=1".to_owned(),
        "share.coordinator.state.topic.min.isr=1".to_owned(),
        "transaction.state.log.replication.factor=1".to_owned(),
        "transaction.state.log.min.isr=1".to_owned(),
    ];
    let file = directory.join("server.properties");
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    let mut format = java(jars);
    format.args(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"]).arg(&file);
    let done = format.output().expect("java");
    assert!(done.status.success(), "Kafka's format: {}", String::from_utf8_lossy(&done.stderr));
    let mut command = vec!["java".to_owned()];
    command.extend(JVM.iter().map(|flag| (*flag).to_owned()));
    command.extend(["-cp".to_owned(), format!("{}/*", jars.display()), "kafka.Kafka".to_owned()]);
    command.push(file.display().to_string());
    let mut peer = Peer::new("kafka", address, directory, command);
    peer.settings = lines;
    peer.settings.push(format!("heap and JVM: {}", JVM.join(" ")));
    peer
}
