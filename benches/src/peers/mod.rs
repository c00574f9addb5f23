//! A broker under comparison: one process with a data directory of its own, started, looked at, stopped and killed.
//!
//! Knows how to run a process and when it serves; what is measured on it is the tables' business.

pub(crate) mod kafka;
pub(crate) mod nats;
pub(crate) mod ottla;

use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{self, Usage};
use crate::wire::{Topic, Wire, batch};

/// How long a peer may take to serve or to end.
const PATIENCE: Duration = Duration::from_secs(300);

/// One broker process and how to start it again.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// Everything that the process writes lies below it. Who made it removes it.
    pub(crate) directory: PathBuf,
    /// Its settings as they are printed: whatever is not at its default.
    pub(crate) settings: Vec<String>,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    topics: u32,
}

/// An address of this machine that nobody listens on.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An empty directory; what was there before is removed.
pub(crate) fn fresh_directory(path: &Path) {
    let _ = std::fs::remove_dir_all(path);
    std::fs::create_dir_all(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

impl Peer {
    fn new(name: &'static str, address: SocketAddr, directory: PathBuf, command: Vec<String>) -> Self {
        let settings = Vec::new();
        Self { name, address, directory, settings, command, environment: Vec::new(), child: None, topics: 0 }
    }

    /// Starts the process and returns at once.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
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

    /// Spawns and waits for the first acknowledged record of a new topic; the time from one to the other.
    pub(crate) fn start(&mut self) -> Duration {
        let began = Instant::now();
        self.spawn();
        self.topics += 1;
        let topic = Topic { name: format!("ready-{}", self.topics), partitions: 1 };
        let mut made = false;
        self.wait(began, |wire| {
            made = made || wire.try_create_topic(&topic);
            made && wire.try_produce(&topic.name, 0, batch(1, 100))
        })
    }

    /// Spawns and waits until a topic that exists takes a record and gives back an old one.
    pub(crate) fn start_again(&mut self, topic: &Topic, offset: i64) -> Duration {
        let began = Instant::now();
        self.spawn();
        self.wait(began, |wire| {
            wire.try_produce(&topic.name, 0, batch(1, 100))
                && wire.try_fetch(&topic.name, 0, offset).is_some_and(|bytes| bytes > 0)
        })
    }

    fn wait(&mut self, began: Instant, mut serves: impl FnMut(&mut Wire) -> bool) -> Duration {
        loop {
            let mut wire = Wire::try_connect(self.address).filter(|_| true);
            if wire.as_mut().is_some_and(Wire::answers) && wire.as_mut().is_some_and(&mut serves) {
                return began.elapsed();
            }
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{} ended ({ended:?}):\n{}", self.name, self.log_tail());
            assert!(began.elapsed() < PATIENCE, "{} does not serve:\n{}", self.name, self.log_tail());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn usage(&self) -> Usage {
        process::usage(self.pid())
    }

    pub(crate) fn resident_mib(&self) -> f64 {
        process::resident(self.pid()) as f64 / f64::from(1 << 20)
    }

    pub(crate) fn wire(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let id = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if began.elapsed() > PATIENCE {
                eprintln!("{} does not end: killed", self.name);
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}
