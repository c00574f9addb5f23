//! Producers of records with keys, which differ from request to request: what a compacted topic is for. One thread each, which
//! waits for every answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::engine::Span;
use super::{Done, Window};
use crate::wire::{Topic, frame, keyed_batch, produce_request, produced_error_at};

/// Keys that are looked for in an encoded request begin here.
const MARK: u64 = 0x5ca1_ab1e_0dd0_0000;
/// Where the checksum of a batch lies, and where what it is of begins.
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;

/// What is produced: batches of `records` records of `size` bytes with one of `keys` keys each.
pub(crate) struct Load {
    pub(crate) topic: Topic,
    pub(crate) producers: usize,
    pub(crate) records: usize,
    pub(crate) size: usize,
    pub(crate) keys: u64,
}

/// A produce request whose keys are patched before each use.
struct KeyedFrame {
    bytes: Vec<u8>,
    batch: std::ops::Range<usize>,
    keys_at: Vec<usize>,
    /// Bytes of an answer before its error code.
    error_at: usize,
}

impl KeyedFrame {
    fn new(load: &Load, partition: i32) -> Self {
        let marks: Vec<u64> = (MARK..).take(load.records).collect();
        let batch = keyed_batch(&marks, load.size);
        let bytes = frame(9, &produce_request(&load.topic.name, &[partition], &batch)).to_vec();
        let find = |wanted: &[u8]| bytes.windows(wanted.len()).position(|w| w == wanted).expect("what was encoded");
        let keys_at = marks.iter().map(|mark| find(&mark.to_be_bytes())).collect();
        let from = find(&batch);
        let error_at = produced_error_at(&load.topic.name);
        Self { batch: from..from + batch.len(), keys_at, error_at, bytes }
    }

    fn with(&mut self, mut key: impl FnMut() -> u64) -> &[u8] {
        for at in &self.keys_at {
            self.bytes[*at..at + 8].copy_from_slice(&key().to_be_bytes());
        }
        let checked = &self.bytes[self.batch.start + CRC_FROM..self.batch.end];
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, checked) as u32;
        let at = self.batch.start + CRC_AT;
        self.bytes[at..at + 4].copy_from_slice(&crc.to_be_bytes());
        &self.bytes
    }
}

struct Producer {
    stream: TcpStream,
    frame: KeyedFrame,
    answer: Vec<u8>,
}

impl Producer {
    fn new(to: SocketAddr, load: &Load, number: usize) -> Self {
        let stream = TcpStream::connect(to).expect("a connection");
        stream.set_nodelay(true).unwrap();
        let partition = i32::try_from(number).unwrap() % load.topic.partitions;
        Self { stream, frame: KeyedFrame::new(load, partition), answer: Vec::new() }
    }

    /// One request and its answer; true if it was acknowledged.
    fn produce(&mut self, key: impl FnMut() -> u64) -> bool {
        self.stream.write_all(self.frame.with(key)).expect("a request is sent");
        self.answer.resize(4, 0);
        self.stream.read_exact(&mut self.answer).expect("an answer");
        let length = u32::from_be_bytes(self.answer[..4].try_into().unwrap()) as usize;
        self.answer.resize(4 + length, 0);
        self.stream.read_exact(&mut self.answer[4..]).expect("a whole answer");
        self.answer[self.frame.error_at..self.frame.error_at + 2] == [0, 0]
    }
}

/// Any of so many keys, one after the other.
fn any_of(keys: u64, seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % keys
    }
}

/// Produces any of the keys for ramp and window: as fast as the answers come, or at so many requests a second of all producers
/// together, where latency counts from the intended time of sending. `edge` is called at both ends of the window.
pub(crate) fn run(
    to: SocketAddr,
    load: &Load,
    rate: Option<f64>,
    span: Span,
    edge: &mut dyn FnMut(),
) -> (Done, Duration) {
    let producers: Vec<Producer> = (0..load.producers).map(|number| Producer::new(to, load, number)).collect();
    let window = Window::after(span);
    let Window { began, from, end } = window;
    let lasts = |number: usize, mut producer: Producer| {
        let mut key = any_of(load.keys, number as u64 + 1);
        let (mut done, mut sent) = (Done::new(), number);
        while Instant::now() < end {
            let intended = rate.map(|rate| began + Duration::from_secs_f64(sent as f64 / rate));
            thread::sleep(intended.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now())));
            let intended = intended.unwrap_or_else(Instant::now);
            sent += load.producers;
            let good = producer.produce(&mut key);
            let now = Instant::now();
            if !(from..end).contains(&now) {
                continue;
            }
            done.errors += u64::from(!good);
            if good {
                done.record(now.saturating_duration_since(intended).as_nanos() as u64);
                done.requests += 1;
                done.records += load.records as u64;
                done.bytes += (load.records * load.size) as u64;
            }
        }
        done
    };
    let lasts = &lasts;
    let threads = producers.into_iter().enumerate().map(|(number, one)| move || lasts(number, one));
    let mut all = Done::new();
    for done in window.threads(threads, edge) {
        all.latency.add(&done.latency).unwrap();
        all.requests += done.requests;
        all.records += done.records;
        all.bytes += done.bytes;
        all.errors += done.errors;
    }
    (all, span.window)
}

/// Produces every key so many times, all of them once before one comes again.
pub(crate) fn fill(to: SocketAddr, load: &Load, times: u64) {
    thread::scope(|scope| {
        for number in 0..load.producers {
            scope.spawn(move || {
                let mut producer = Producer::new(to, load, number);
                let mut next = (0..).map(|n| (n * load.producers + number) as u64);
                let each = load.keys.div_ceil((load.producers * load.records) as u64);
                for _ in 0..each * times {
                    assert!(producer.produce(|| next.next().expect("a key") % load.keys), "a record is refused");
                }
            });
        }
    });
}
