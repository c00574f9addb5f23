//! The load by librdkafka: a program of its own (benches/librdkafka), since building librdkafka takes minutes and only a
//! comparison needs it. It says when its measured window opens and closes, or is asked for figures while it runs.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::java::Run;
use crate::peers::Peer;
use crate::process;
use crate::wire::Topic;

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

/// The program while it runs; it ends with this, or when its input does.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Starts it and waits until its measured window opens.
    fn start(program: &Path, peer: &Peer, what: &str, options: &[String]) -> Self {
        let mut command = Command::new(program);
        command.arg(what).arg(format!("to={}", peer.bootstrap())).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the load by librdkafka");
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut program = Self { child, input, lines };
        assert_eq!(program.line(), "begin", "the load by librdkafka: {what} {options:?}");
        program
    }

    fn line(&mut self) -> String {
        self.lines.next().and_then(Result::ok).unwrap_or_default()
    }

    fn figures(&mut self) -> Figures {
        Figures(self.line())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line that the program printed.
pub(crate) struct Figures(String);

impl Figures {
    pub(crate) fn of(&self, name: &str) -> f64 {
        let found = self.0.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("{name} in: {}", self.0))
    }
}

/// For a producer with acks=all and its other defaults; without its `set.` also for a consumer.
pub(crate) fn options(topic: &Topic, size: usize, seconds: f64) -> Vec<String> {
    vec![
        format!("topic={}", topic.name),
        format!("size={size}"),
        format!("seconds={seconds}"),
        format!("partitions={}", topic.partitions),
        "set.acks=all".to_owned(),
    ]
}

/// Runs the program against a peer; everything is measured between its two lines.
pub(crate) fn run(program: &Path, peer: &Peer, what: &str, options: &[String]) -> Run {
    let mut program = Program::start(program, peer, what, options);
    let id = program.child.id();
    let (broker, client) = (peer.usage().cpu, process::usage(id).cpu);
    let figures = program.figures();
    let (broker, client) = (peer.usage().cpu - broker, process::usage(id).cpu - client);
    assert!(program.child.wait().is_ok_and(|s| s.success()), "the load by librdkafka failed");
    Run {
        seconds: figures.of("seconds"),
        records: figures.of("records"),
        bytes: figures.of("bytes"),
        errors: figures.of("errors"),
        milliseconds: ["p50", "p99", "p999"].map(|name| figures.of(name)),
        broker_cpu: broker,
        client_cpu: client,
    }
}

/// A producer at a fixed rate, or a consumer of a group, that goes on, whatever happens to the peer, until it is ended.
pub(crate) struct Watch(Program);

impl Watch {
    /// Starts it; every partition that it watches has taken a record when this returns.
    pub(crate) fn start(program: &Path, peer: &Peer, options: &[String]) -> Self {
        Self(Program::start(program, peer, "watch", options))
    }

    /// The same with a consumer; something of every partition has been read when this returns.
    pub(crate) fn start_group(program: &Path, peer: &Peer, options: &[String]) -> Self {
        Self(Program::start(program, peer, "group", options))
    }

    /// What happened since the last look.
    pub(crate) fn look(&mut self) -> Figures {
        let asked = self.0.input.as_mut().is_some_and(|input| input.write_all(b"look\n").is_ok());
        assert!(asked, "the load by librdkafka has ended");
        self.0.figures()
    }

    /// Waits for all that was sent, and what happened since the last look.
    pub(crate) fn end(mut self) -> Figures {
        self.0.input = None;
        let figures = self.0.figures();
        assert!(self.0.child.wait().is_ok_and(|s| s.success()), "the load by librdkafka failed");
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::Figures;

    #[test]
    fn a_figure_is_found_by_its_whole_name() {
        let figures = Figures("end records=7 p50=1.5 p99=20 p999=300.25 longest=0".to_owned());
        assert!((figures.of("p99") - 20.0).abs() < 1e-9);
        assert!((figures.of("p999") - 300.25).abs() < 1e-9);
    }
}
