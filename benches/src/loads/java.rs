//! The loads of Kafka's own tools: producer-perf-test and consumer-perf-test, each with its defaults.

use std::path::Path;
use std::process::Command;

use crate::peers::{Peer, kafka};
use crate::process;
use crate::wire::Topic;

/// What one client did, and what it cost itself and the broker.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) seconds: f64,
    pub(crate) records: f64,
    pub(crate) bytes: f64,
    pub(crate) errors: f64,
    /// p50, p99, p99.9
    pub(crate) milliseconds: [f64; 3],
    pub(crate) broker_cpu: f64,
    pub(crate) client_cpu: f64,
}

fn java(jars: &Path) -> Command {
    let mut command = kafka::java(jars);
    command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error");
    command
}

/// Its last line, and the CPU seconds of broker and client while it ran.
fn output(mut command: Command, peer: &Peer) -> (String, f64, f64) {
    let (broker, client) = (peer.usage().cpu, process::client_cpu());
    let done = command.output().expect("java");
    let (broker, client) = (peer.usage().cpu - broker, process::client_cpu() - client);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{text}\n{}", String::from_utf8_lossy(&done.stderr));
    (text.lines().last().unwrap_or_default().to_owned(), broker, client)
}

/// The number before a word: `1234.5 records/sec` asked for `records/sec`.
fn before(line: &str, word: &str) -> f64 {
    let head = line.find(word).map(|at| line[..at].trim_end());
    let number = head.and_then(|h| h.rsplit([' ', '(']).next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no number before '{word}' in: {line}"))
}

/// producer-perf-test: so many records as fast as it can (or so many a second), acks=all.
pub(crate) fn produce(jars: &Path, peer: &Peer, topic: &Topic, records: u64, size: usize, rate: Option<f64>) -> Run {
    let mut command = java(jars);
    command.args(["org.apache.kafka.tools.ProducerPerformance", "--topic", &topic.name]);
    command.args(["--num-records", &records.to_string(), "--record-size", &size.to_string()]);
    command.args(["--throughput", &rate.map_or(-1, |r| r as i64).to_string(), "--producer-props", "acks=all"]);
    command.arg(format!("bootstrap.servers={}", peer.bootstrap()));
    let (line, broker_cpu, client_cpu) = output(command, peer);
    let done = before(&line, " records sent");
    Run {
        seconds: done / before(&line, " records/sec"),
        records: done,
        bytes: done * size as f64,
        errors: records as f64 - done,
        milliseconds: [before(&line, " ms 50th"), before(&line, " ms 99th"), before(&line, " ms 99.9th")],
        broker_cpu,
        client_cpu,
    }
}

/// consumer-perf-test: reads so many records from the beginning; its own time of joining the group is left out.
pub(crate) fn consume(jars: &Path, peer: &Peer, topic: &Topic, records: u64) -> Run {
    let mut command = java(jars);
    command.args(["org.apache.kafka.tools.ConsumerPerformance", "--topic", &topic.name, "--hide-header"]);
    command.args(["--messages", &records.to_string(), "--timeout", "60000"]);
    command.args(["--bootstrap-server", &peer.bootstrap()]);
    let (line, broker_cpu, client_cpu) = output(command, peer);
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let number = |at: usize| -> f64 {
        fields.get(at).and_then(|f| f.parse().ok()).unwrap_or_else(|| panic!("consumer-perf-test: {line}"))
    };
    Run {
        seconds: number(7) / 1e3,
        records: number(4),
        bytes: number(2) * f64::from(1 << 20),
        errors: 0.0,
        milliseconds: [0.0; 3],
        broker_cpu,
        client_cpu,
    }
}

#[cfg(test)]
mod tests {
    use super::before;

    #[test]
    fn the_line_of_the_producer_is_understood() {
        let line = "500 records sent, 8230.45 records/sec (78.49 MB/sec), 12.1 ms avg latency, 300.00 ms max latency, \
                    2 ms 50th, 20 ms 95th, 50 ms 99th, 60 ms 99.9th.";
        assert!((before(line, " records sent") - 500.0).abs() < 1e-9);
        assert!((before(line, " records/sec") - 8230.45).abs() < 1e-9);
        assert!((before(line, " ms 99.9th") - 60.0).abs() < 1e-9);
    }
}
