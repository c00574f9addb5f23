//! Pre-encoded loads over raw connections: produce with a pipeline depth, fetch by one request after the other.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};
use ottla_tests::batch::TestBatch;
use ottla_tests::raw::{Raw, frame, topic_name};

/// One load: what each connection sends, and for how long.
pub(crate) struct Load {
    /// One request frame per partition.
    frames: Vec<Bytes>,
    /// Payload bytes that one request moves; 0 means: count what the answers bring.
    bytes_per_request: u64,
    connections: usize,
    depth: usize,
    duration: Duration,
}

/// What a load did.
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    latencies_us: Vec<u32>,
}

impl Outcome {
    pub(crate) fn percentile_us(&self, percent: f64) -> u32 {
        let at = (self.latencies_us.len() as f64 * percent / 100.0) as usize;
        self.latencies_us.get(at.min(self.latencies_us.len().saturating_sub(1))).copied().unwrap_or(0)
    }
}

impl Load {
    pub(crate) fn produce(
        topic: &str,
        partitions: i32,
        size: usize,
        connections: usize,
        depth: usize,
        duration: Duration,
    ) -> Self {
        let records = TestBatch::of(&[&vec![b'x'; size]]).encode();
        let request = |p| frame(9, 0, &Raw::produce_request(topic, p, -1, Some(records.clone())));
        let frames = (0..partitions).map(request).collect();
        Self { frames, bytes_per_request: size as u64, connections, depth, duration }
    }

    pub(crate) fn fetch(topic: &str, partitions: i32, max_bytes: i32, connections: usize, duration: Duration) -> Self {
        let request = |p| {
            let part = FetchPartition::default()
                .with_partition(p)
                .with_current_leader_epoch(-1)
                .with_partition_max_bytes(max_bytes);
            let wanted = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![part]);
            let request =
                FetchRequest::default().with_replica_id(BrokerId(-1)).with_min_bytes(1).with_session_epoch(-1);
            frame(11, 0, &request.with_max_bytes(max_bytes).with_topics(vec![wanted]))
        };
        Self { frames: (0..partitions).map(request).collect(), bytes_per_request: 0, connections, depth: 1, duration }
    }

    pub(crate) fn run(&self, to: SocketAddr) -> Outcome {
        let started = Instant::now();
        let parts: Vec<Outcome> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections).map(|n| scope.spawn(move || self.drive(to, n))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let mut latencies_us: Vec<u32> = parts.iter().flat_map(|p| p.latencies_us.iter().copied()).collect();
        latencies_us.sort_unstable();
        Outcome {
            requests: parts.iter().map(|p| p.requests).sum(),
            bytes: parts.iter().map(|p| p.bytes).sum(),
            elapsed: started.elapsed(),
            latencies_us,
        }
    }

    /// One connection: `depth` requests in one write, then their answers, until the time is over.
    fn drive(&self, to: SocketAddr, number: usize) -> Outcome {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut burst = Vec::new();
        for n in 0..self.depth {
            burst.extend_from_slice(&self.frames[(number * self.depth + n) % self.frames.len()]);
        }
        let mut outcome = Outcome { requests: 0, bytes: 0, elapsed: Duration::ZERO, latencies_us: Vec::new() };
        let mut buffer = vec![0; 2 << 20];
        let started = Instant::now();
        while started.elapsed() < self.duration {
            let sent = Instant::now();
            stream.write_all(&burst).unwrap();
            for _ in 0..self.depth {
                let length = read_frame(&mut stream, &mut buffer);
                outcome.requests += 1;
                outcome.bytes += if self.bytes_per_request == 0 { length } else { self.bytes_per_request };
            }
            outcome.latencies_us.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        outcome
    }
}

fn read_frame(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> u64 {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let length = usize::try_from(i32::from_be_bytes(length)).unwrap();
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    stream.read_exact(&mut buffer[..length]).unwrap();
    length as u64
}
