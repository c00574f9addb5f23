//! Repeated kill -9 under load: every acknowledged record is there, at its offset, once.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::messages::ProduceRequest;
use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::Raw;

const KILLS: u32 = 50;
const WRITERS: i32 = 6;
const TOPIC: &str = "killed";

/// (partition, offset) -> the value that was acknowledged there.
type Acknowledged = Arc<Mutex<BTreeMap<(i32, i64), Vec<u8>>>>;

/// Writes to one partition, two requests in flight, until the connection breaks.
fn write_until_cut(to: SocketAddr, partition: i32, next: &AtomicU64, acknowledged: &Acknowledged) {
    let Ok(stream) = std::net::TcpStream::connect(to) else { return };
    drop(stream);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut raw = Raw::connect(to);
        let mut waiting = Vec::new();
        loop {
            let first = next.fetch_add(3, Ordering::Relaxed);
            let values: Vec<Vec<u8>> = (first..first + 3).map(|n| format!("value-{n}").into_bytes()).collect();
            let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            let request = Raw::produce_request(TOPIC, partition, -1, Some(TestBatch::of(&slices).encode()));
            waiting.push((raw.ask(9, &request), values));
            if waiting.len() < 2 {
                continue;
            }
            let (correlation, values) = waiting.remove(0);
            let Some(answer) = raw.answer::<ProduceRequest>(9, correlation) else { return };
            let placed = &answer.responses[0].partition_responses[0];
            if placed.error_code == 0 {
                let mut all = acknowledged.lock().unwrap();
                for (offset, value) in (placed.base_offset..).zip(values) {
                    assert!(all.insert((partition, offset), value).is_none(), "offset {offset} was given twice");
                }
            }
        }
    }));
    drop(outcome);
}

/// Reads everything and compares it with what was acknowledged.
fn check(broker: &Broker, acknowledged: &Acknowledged, partitions: i32) {
    let all = acknowledged.lock().unwrap();
    let mut raw = Raw::connect(broker.address());
    for partition in 0..partitions {
        let found = raw.read_all(TOPIC, partition);
        let dense = found.keys().copied().eq(0..i64::try_from(found.len()).unwrap());
        assert!(dense, "offsets of partition {partition} are dense from 0");
        for ((_, offset), value) in all.range((partition, 0)..(partition + 1, 0)) {
            let read = found.get(offset).map(|v| v.to_vec());
            assert_eq!(read.as_ref(), Some(value), "partition {partition}, offset {offset}");
        }
        let values: HashSet<_> = found.values().collect();
        assert_eq!(values.len(), found.len(), "no value is there twice");
    }
}

#[test]
fn every_acknowledged_record_survives_fifty_kills() {
    let settings = [("OTTLA_LOG_SEGMENT_BYTES", "16777216")];
    let mut broker = Broker::start(&settings);
    Raw::connect(broker.address()).create_topic(TOPIC, WRITERS, &[]);
    let acknowledged = Acknowledged::default();
    let next = Arc::new(AtomicU64::new(0));
    std::panic::set_hook(Box::new(|info| {
        // Writers end by panicking when their broker is killed; only other threads have something to say.
        if std::thread::current().name() != Some("writer") {
            eprintln!("{info}");
        }
    }));
    for round in 0..KILLS {
        let writers: Vec<_> = (0..WRITERS)
            .map(|partition| {
                let (to, next, acknowledged) = (broker.address(), next.clone(), acknowledged.clone());
                let run = move || write_until_cut(to, partition, &next, &acknowledged);
                std::thread::Builder::new().name("writer".to_owned()).spawn(run).unwrap()
            })
            .collect();
        let before = acknowledged.lock().unwrap().len();
        let enough = 100 + usize::try_from(round * 37 % 400).unwrap();
        while acknowledged.lock().unwrap().len() < before + enough {
            std::thread::sleep(Duration::from_millis(1));
        }
        broker.kill();
        writers.into_iter().for_each(|w| w.join().unwrap());
        broker.run();
        if round % 10 == 9 {
            check(&broker, &acknowledged, WRITERS);
        }
    }
    let count = acknowledged.lock().unwrap().len();
    println!("{count} acknowledged records survived {KILLS} kills");
    broker.stop();
    broker.run();
    check(&broker, &acknowledged, WRITERS);
}
