//! The load by librdkafka: a program of its own (benches/librdkafka), since building librdkafka takes minutes and only a
//! comparison needs it. It says when its measured window opens and closes.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::java::Run;
use crate::peers::Peer;
use crate::process;

/// The program, built now if this is the first time.
pub(crate) fn build() -> PathBuf {
    let manifest = crate::root().join("benches/librdkafka/Cargo.toml");
    let target = crate::target().join("librdkafka");
    println!("building the load by librdkafka (the first time takes a minute or two)");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--quiet", "--manifest-path"]).arg(manifest);
    let done = cargo.env("CARGO_TARGET_DIR", &target).status();
    assert!(done.is_ok_and(|s| s.success()), "the load by librdkafka could not be built");
    target.join("release/librdkafka-load")
}

/// Runs the program against a peer; everything is measured between its two lines.
pub(crate) fn run(program: &PathBuf, peer: &Peer, what: &str, options: &[String]) -> Run {
    let mut command = Command::new(program);
    command.arg(what).arg(format!("to={}", peer.address)).args(options);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the load by librdkafka");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("begin"), "the load by librdkafka: {what} {options:?}");
    let (broker, client) = (peer.usage().cpu, process::usage(child.id()).cpu);
    let line = lines.next().unwrap_or_default();
    let (broker, client) = (peer.usage().cpu - broker, process::usage(child.id()).cpu - client);
    assert!(child.wait().is_ok_and(|s| s.success()), "the load by librdkafka failed");
    let of = |name: &str| {
        let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("{name} in: {line}"))
    };
    Run {
        seconds: of("seconds"),
        records: of("records"),
        bytes: of("bytes"),
        errors: of("errors"),
        milliseconds: [of("p50"), of("p99"), of("p999")],
        broker_cpu: broker,
        client_cpu: client,
    }
}
