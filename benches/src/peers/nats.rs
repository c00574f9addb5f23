//! NATS JetStream as a second peer: a server that syncs each message before it acknowledges it (`sync_interval: always`),
//! as Ottla does. Fetched and built by Go's own tool chain; left out where there is none.
//!
//! Its protocol is lines of text, so that the raw load can speak it, too: no client library stands between.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ottla_tests::process::free_address;

use super::Peer;
use super::node::{Node, data_below};

const MODULE: &str = "github.com/nats-io/nats-server/v2";
const VERSION: &str = "v2.15.2";

/// The server's binary, installed now if this is the first time; `None` where it cannot be had.
pub(crate) fn binary() -> Option<PathBuf> {
    let folder = crate::target().join("nats");
    let binary = folder.join("nats-server");
    if !binary.is_file() {
        println!("building NATS {VERSION} (go install {MODULE}@{VERSION})");
        let done = Command::new("go").args(["install", &format!("{MODULE}@{VERSION}")]).env("GOBIN", &folder).status();
        if !done.is_ok_and(|s| s.success()) {
            println!("NATS cannot be had: no Go, or too old a one, or no way to its module proxy");
            return None;
        }
    }
    Some(binary)
}

/// A server that has not been started yet.
pub(crate) fn prepare(binary: &Path, directory: PathBuf) -> Peer {
    let address = free_address();
    let lines = vec![
        format!("listen: \"{address}\""),
        "jetstream {".to_owned(),
        format!("  store_dir: \"{}\"", data_below(&directory).display()),
        "  sync_interval: always".to_owned(),
        "  max_file_store: 64GB".to_owned(),
        "}".to_owned(),
    ];
    let file = directory.join("nats.conf");
    let command = vec![binary.display().to_string(), "-c".to_owned(), file.display().to_string()];
    let node = Node::new(1, address, directory.clone(), command);
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    let mut peer = Peer::new("nats", directory, vec![node]);
    peer.settings = vec![format!("NATS {VERSION}")];
    peer.settings.extend(lines);
    peer
}

/// Streams, one subject each: a stream syncs its messages one after the other, as an Ottla without group commit would.
const STREAMS: usize = 16;

/// Starts the server and creates its streams on disk.
pub(crate) fn start(peer: &mut Peer) {
    peer.nodes[0].spawn();
    let deadline = Instant::now() + Duration::from_secs(30);
    let stream = loop {
        match TcpStream::connect(peer.address()) {
            Ok(stream) => break stream,
            Err(_) => assert!(Instant::now() < deadline, "NATS does not answer:\n{}", peer.log_tail()),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut wire = Wire::new(stream);
    for n in 0..STREAMS {
        let config = format!(
            "{{\"name\":\"LOAD{n}\",\"subjects\":[\"load.{n}\"],\"storage\":\"file\",\"num_replicas\":1,\
             \"retention\":\"limits\",\"discard\":\"old\"}}"
        );
        let answer = wire.request(&format!("$JS.API.STREAM.CREATE.LOAD{n}"), &config);
        assert!(!answer.contains("\"error\""), "a stream of NATS: {answer}");
    }
}

struct Wire {
    lines: BufReader<TcpStream>,
}

impl Wire {
    fn new(mut stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(greeting(0).as_bytes()).unwrap();
        Self { lines: BufReader::new(stream) }
    }

    fn request(&mut self, subject: &str, body: &str) -> String {
        let text = format!("PUB {subject} _INBOX.0 {}\r\n{body}\r\n", body.len());
        self.lines.get_mut().write_all(text.as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "NATS closed the connection");
            if let Some(length) = message_length(line.as_bytes()) {
                let mut payload = vec![0; length + 2];
                self.lines.read_exact(&mut payload).unwrap();
                return String::from_utf8_lossy(&payload).into_owned();
            }
        }
    }
}

/// What a connection says first: who it is, and where it wants its answers.
pub(crate) fn greeting(number: usize) -> String {
    format!(
        "CONNECT {{\"verbose\":false,\"pedantic\":false,\"lang\":\"raw\",\"version\":\"1\"}}\r\nSUB _INBOX.{number} 1\r\n"
    )
}

/// The head of publishing `size` bytes on connection `number`.
pub(crate) fn publish_head(number: usize, size: usize) -> String {
    format!("PUB load.{} _INBOX.{number} {size}\r\n", number % STREAMS)
}

/// The length of the payload that a line `MSG subject sid [reply] length` announces.
pub(crate) fn message_length(line: &[u8]) -> Option<usize> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix("MSG ")?;
    line.trim_end().rsplit(' ').next()?.parse().ok()
}

/// Connects to a server for a load.
pub(crate) fn connect(to: SocketAddr, number: usize) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(greeting(number).as_bytes())?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::message_length;

    #[test]
    fn announced_lengths_are_found() {
        assert_eq!(message_length(b"MSG _INBOX.3 1 27\r\n"), Some(27));
        assert_eq!(message_length(b"MSG _INBOX.3 1 reply 27"), Some(27));
        assert_eq!(message_length(b"INFO {}"), None);
    }
}
