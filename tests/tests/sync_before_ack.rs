//! A system-call trace shows that no acknowledgement precedes the sync of its records.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::process::Command;

use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::Raw;

const RECORDS: usize = 50;

/// What the trace shows, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// The log file took the bytes of record n.
    Written(usize),
    /// A sync of the log file was started / has succeeded.
    SyncStarted,
    SyncDone,
    /// Bytes went to a client's socket.
    Answered,
}

fn marker(n: usize) -> String {
    format!("traced-record-{n:04}")
}

fn events(trace: &str) -> Vec<Event> {
    let mut found = Vec::new();
    for line in trace.lines() {
        let is_log = line.contains(".log>");
        if line.contains("pwrite64(") || line.contains("pwritev") {
            found.extend((0..RECORDS).filter(|n| line.contains(&marker(*n))).map(Event::Written));
        } else if line.contains("fdatasync(") && is_log {
            found.push(Event::SyncStarted);
            if line.contains("= 0") {
                found.push(Event::SyncDone);
            }
        } else if line.contains("<... fdatasync resumed>") && line.contains("= 0") {
            found.push(Event::SyncDone);
        } else if line.contains("TCP:[") {
            found.push(Event::Answered);
        }
    }
    found
}

/// For each record: written, then a sync begun and done, and only then the answer.
fn first_violation(events: &[Event]) -> Option<usize> {
    (0..RECORDS).find(|n| {
        let written = events.iter().position(|e| *e == Event::Written(*n)).unwrap_or(usize::MAX);
        let Some(rest) = events.get(written..) else { return true };
        let started = rest.iter().position(|e| *e == Event::SyncStarted).unwrap_or(usize::MAX);
        let done = started.saturating_add(
            rest.get(started..).map_or(0, |r| r.iter().position(|e| *e == Event::SyncDone).unwrap_or(0)),
        );
        let answered = rest.iter().position(|e| *e == Event::Answered).unwrap_or(usize::MAX);
        started == usize::MAX || done >= answered
    })
}

#[test]
fn the_check_itself_can_fail() {
    let good = [Event::SyncStarted, Event::SyncDone, Event::Answered];
    let all = |order: &[Event]| {
        (0..RECORDS).flat_map(|n| std::iter::once(Event::Written(n)).chain(order.iter().copied())).collect::<Vec<_>>()
    };
    assert_eq!(first_violation(&all(&good)), None);
    assert_eq!(first_violation(&all(&[Event::Answered, Event::SyncStarted, Event::SyncDone])), Some(0));
    assert_eq!(first_violation(&all(&[Event::SyncStarted, Event::Answered, Event::SyncDone])), Some(0));
    assert_eq!(first_violation(&all(&[Event::Answered])), Some(0));
}

#[test]
fn no_acknowledgement_precedes_its_sync() {
    if Command::new("strace").arg("-V").output().is_err() {
        panic!("strace is missing: run tests/setup");
    }
    let mut broker = Broker::prepare(&[]);
    let trace = broker.directory().join("trace");
    let path = trace.display().to_string();
    broker.with_wrapper(&[
        "strace",
        "-f",
        "-yy",
        "-s",
        "65536",
        "-e",
        "trace=pwrite64,pwritev,pwritev2,fdatasync,fsync,sendto,sendmsg,write,writev",
        "-o",
        &path,
    ]);
    broker.run();
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("traced", 1, &[]);
    // What came before is not of interest; strace goes on writing to the file that it has open.
    let skip = std::fs::metadata(&trace).unwrap().len();
    for n in 0..RECORDS {
        assert_eq!(raw.produce("traced", 0, TestBatch::of(&[marker(n).as_bytes()]).encode()).error_code, 0);
    }
    broker.kill();
    let text = String::from_utf8_lossy(&std::fs::read(&trace).unwrap()[usize::try_from(skip).unwrap()..]).into_owned();
    let found = events(&text);
    assert!(found.contains(&Event::Written(RECORDS - 1)), "the trace shows the writes");
    assert_eq!(first_violation(&found), None, "an answer went out before the sync of its record");
}
