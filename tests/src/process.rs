//! A real broker process on 127.0.0.1 with its own data directory: started, killed, stopped and inspected.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a broker may take to become ready or to stop before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker process. Dropping it kills the process and removes the data directory.
pub struct Broker {
    directory: tempfile::TempDir,
    data: PathBuf,
    kafka: SocketAddr,
    admin: SocketAddr,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    arguments: Vec<String>,
    process: Option<Child>,
}

/// The `ottla` binary of this build (or `TEST_BROKER`); `cargo build` makes it.
pub fn binary() -> PathBuf {
    if let Ok(given) = std::env::var("TEST_BROKER") {
        return PathBuf::from(given);
    }
    // A test lies one folder below the binaries, a benchmark beside them.
    let own = std::env::current_exe().unwrap();
    let near = own.ancestors().skip(1).take(2).map(|folder| folder.join("ottla"));
    near.into_iter().find(|path| path.is_file()).expect("the broker is missing: run `cargo build` first")
}

/// Where `free_address` looks, unless `TEST_PORTS` says otherwise: below the ports that the system gives to connections.
const PORTS: Range<u32> = 10_000..30_000;

/// An address of this machine without a listener. It stays free while its broker is down: the port is none of those that
/// the system gives to connections, one of which would keep the broker from starting again.
pub fn free_address() -> SocketAddr {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    // Two test binaries that run at once get ports apart (`tests/processes`): a port is only taken when its broker starts.
    let ports = std::env::var("TEST_PORTS").map_or(PORTS, |given| {
        let (first, end) = given.split_once("..").expect("TEST_PORTS is FIRST..END");
        first.parse().unwrap()..end.parse().unwrap()
    });
    let count = ports.end - ports.start;
    // Another run of tests begins elsewhere.
    let begin = std::process::id().wrapping_mul(997);
    let next = || ports.start + begin.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % count;
    let listen = |port| TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).ok();
    let free = (0..count).find_map(|_| listen(next())).expect("a port that is free");
    free.local_addr().unwrap()
}

impl Broker {
    /// Starts a broker with settings (`KAFKA_...`, `OTTLA_...`) and waits until it serves.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let mut broker = Self::prepare(settings);
        broker.run();
        broker
    }

    /// A broker that has not been started yet.
    pub fn prepare(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let (kafka, admin) = (free_address(), free_address());
        let mut environment = vec![
            ("KAFKA_NODE_ID".to_owned(), "1".to_owned()),
            ("KAFKA_LISTENERS".to_owned(), format!("PLAINTEXT://{kafka}")),
            ("KAFKA_LOG_DIRS".to_owned(), data.display().to_string()),
            ("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS".to_owned(), "50".to_owned()),
            ("OTTLA_ADMIN_LISTENER".to_owned(), admin.to_string()),
        ];
        environment.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        Self { directory, data, kafka, admin, environment, wrapper: Vec::new(), arguments: Vec::new(), process: None }
    }

    /// Keeps the data somewhere else than in the broker's temporary directory (a small file system, say).
    pub fn with_data(&mut self, path: &Path) {
        self.data = path.to_path_buf();
        self.set("KAFKA_LOG_DIRS", &path.display().to_string());
    }

    /// Runs the broker under another program (`strace -f ...`).
    pub fn with_wrapper(&mut self, command: &[&str]) {
        self.wrapper = command.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Further arguments of `ottla start`.
    pub fn with_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Changes a setting for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the process and waits until `/readyz` answers 200.
    pub fn run(&mut self) {
        self.spawn();
        self.wait_until_ready();
    }

    /// Waits until `/readyz` answers 200.
    pub fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.http("/readyz").is_none_or(|(status, _)| status != 200) {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the broker ended ({ended:?}):\n{}", self.log_tail());
            assert!(Instant::now() < deadline, "the broker is not ready:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for something that the broker does by itself in time; fails with its log after `seconds_max`.
    pub fn wait_until(&self, what: &str, seconds_max: u64, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(seconds_max);
        while !condition() {
            assert!(Instant::now() < deadline, "waited {seconds_max} s for {what}:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts the process and returns at once.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the broker runs already");
        let log = || OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let mut words = self.wrapper.clone();
        words.extend([binary().display().to_string(), "start".to_owned()]);
        words.extend(self.arguments.clone());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.directory.path());
        command.envs(self.environment.iter().map(|(k, v)| (k, v))).env("RUST_BACKTRACE", "1");
        command.process_group(0);
        self.process = Some(command.stdin(Stdio::null()).stdout(log()).stderr(log()).spawn().unwrap());
    }

    /// Runs the program with other words than `start`, configured as this broker, and waits for it: its exit code and output.
    pub fn command(&self, words: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(binary());
        command.args(words).current_dir(self.directory.path());
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        let output = command.output().unwrap();
        let told = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code(), String::from_utf8_lossy(&told).into_owned())
    }

    /// kill -9, also of a broker that runs under another program.
    #[allow(unsafe_code)]
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let group = i32::try_from(process.id()).unwrap();
            // SAFETY: `kill` only takes numbers; the group is that of our child, which is not yet reaped.
            unsafe { libc::kill(-group, libc::SIGKILL) };
            let _ = process.wait();
        }
    }

    /// SIGTERM; the process has to end with exit code 0.
    pub fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        assert_eq!(self.wait_for_exit(), Some(0), "exit code after SIGTERM:\n{}", self.log_tail());
    }

    /// Sends a signal to the process.
    #[allow(unsafe_code)]
    pub fn signal(&self, signal: i32) {
        let id = i32::try_from(self.pid()).unwrap();
        // SAFETY: `kill` only takes numbers; the process is our child and not yet reaped.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    }

    /// Waits for the process to end; its exit code, `None` if a signal ended it.
    pub fn wait_for_exit(&mut self) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status.code();
            }
            if Instant::now() >= deadline {
                let _ = process.kill();
                panic!("the broker did not end:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// True while the process lives.
    pub fn is_alive(&mut self) -> bool {
        self.process.as_mut().is_some_and(|p| p.try_wait().unwrap().is_none())
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// Where Kafka clients connect.
    pub fn address(&self) -> SocketAddr {
        self.kafka
    }

    /// Where health, metrics and the JSON API are.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A directory of this test that is removed with the broker.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("broker.log")
    }

    /// Everything the process has printed.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        File::open(self.log_path()).unwrap().read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The last lines that the process has printed.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// GET on the admin port: status and body, `None` if there is no answer.
    pub fn http(&self, path: &str) -> Option<(u16, String)> {
        self.ask_admin("GET", path)
    }

    /// POST without a body.
    pub fn http_post(&self, path: &str) -> Option<(u16, String)> {
        self.ask_admin("POST", path)
    }

    fn ask_admin(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.admin, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        // Version 1.0, in which no answer comes in chunks.
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: ottla\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The sum of a metric over all its labels that contain `labels`, 0 if it is not there.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let (status, body) = self.http("/metrics").expect("metrics");
        assert_eq!(status, 200);
        let is_wanted = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|r| r.starts_with(['{', ' '])) && line.contains(labels)
        };
        body.lines().filter(is_wanted).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() && self.log_path().exists() {
            eprintln!("--- the broker's last lines\n{}", self.log_tail());
        }
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ_and_are_none_that_the_kernel_gives_out() {
        let (one, other) = (free_address(), free_address());
        assert_ne!(one, other);
        let given = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let first: u16 = given.split_whitespace().next().unwrap().parse().unwrap();
        assert!(one.port() < first && other.port() < first);
    }
}
