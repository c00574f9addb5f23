//! One process of a peer: a directory of its own, started, looked at, paused, stopped and killed.
//!
//! Knows how to run a process; when it serves, and what it is a part of, is the peer's business.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, fresh_directory};
use crate::process::{self, Memory, Usage};
use crate::wire::Wire;

/// One process and how to start it again.
pub(crate) struct Node {
    pub(crate) id: i32,
    pub(crate) address: SocketAddr,
    /// Where it answers over HTTP, if it does.
    pub(crate) admin: Option<SocketAddr>,
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    /// What makes an empty data directory ready; empty where the process does that itself.
    pub(super) format: Vec<String>,
    directory: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// A node with an empty directory, not started yet.
    pub(super) fn new(id: i32, address: SocketAddr, directory: PathBuf, command: Vec<String>) -> Self {
        fresh_directory(&directory);
        let (environment, format) = (Vec::new(), Vec::new());
        Self { id, address, admin: None, command, environment, format, directory, child: None }
    }

    /// Starts the process and returns at once.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.command[0]);
        let log = || OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).current_dir(&self.directory);
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        let started = command.stdin(Stdio::null()).stdout(log()).stderr(log()).spawn();
        self.child = Some(started.unwrap_or_else(|e| panic!("{}: {e}", self.command[0])));
    }

    fn log(&self) -> PathBuf {
        self.directory.join("broker.log")
    }

    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Where the process keeps what it must not lose.
    pub(super) fn data(&self) -> PathBuf {
        data_below(&self.directory)
    }

    /// Makes the data directory ready.
    pub(super) fn format(&self) {
        let Some((program, arguments)) = self.format.split_first() else { return };
        let done = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// An empty disk in the place of the old one, while nothing runs.
    pub(crate) fn wipe(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.command[0]);
        let _ = std::fs::remove_dir_all(self.data());
        self.format();
    }

    /// How the process ended, if it was started and nobody ended it.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }

    /// What it has used; nothing while it does not run.
    pub(super) fn usage(&self) -> Usage {
        self.child.as_ref().map(|child| process::usage(child.id())).unwrap_or_default()
    }

    /// Its memory in bytes; none while it does not run.
    pub(super) fn memory(&self, memory: Memory) -> u64 {
        self.child.as_ref().map_or(0, |child| process::memory(child.id(), memory))
    }

    pub(crate) fn try_wire(&self) -> Option<Wire> {
        Wire::try_connect(self.address)
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        let Some(child) = &self.child else { return };
        let _ = kill_process(Pid::from_child(child), signal);
    }

    /// SIGSTOP: it holds its connections and says nothing.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let Some(mut child) = self.child.take() else { return };
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if began.elapsed() > PATIENCE {
                eprintln!("{} does not end: killed", self.command[0]);
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The data directory of a node with that directory.
pub(super) fn data_below(directory: &Path) -> PathBuf {
    directory.join("data")
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
