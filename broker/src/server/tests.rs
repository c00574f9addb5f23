//! The server against a scripted dispatcher over loopback: order, bursts, limits, clients that misbehave.

#![allow(clippy::unwrap_used, clippy::disallowed_types)]

use std::sync::atomic::AtomicUsize;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::admission::AdmissionLimits;
use super::dispatch::{Answer, CloseReason, Started, Turn};
use super::response_queue::ResponseQueue;
use super::*;
use crate::config::{Endpoint, Listener, SecurityProtocol};
use crate::server::budget::Reservation;
use crate::server::listener::SocketOptions;

/// The first byte of a scripted request is its kind; the other seven name it.
const AT_ONCE: u8 = b'r';
const OVERLAP_GATED: u8 = b'o';
const ALONE_GATED: u8 = b'a';
const SILENT: u8 = b's';
const CLOSE: u8 = b'c';
const PANIC: u8 = b'p';
const PANIC_ENCODING: u8 = b'e';
const LARGE: u8 = b'l';
const UNKNOWN: u8 = b'u';

#[derive(Default)]
struct Script {
    started: AtomicUsize,
    running: AtomicUsize,
    running_max: AtomicUsize,
    panics: AtomicUsize,
    gate: Notify,
    endings: Mutex<Vec<String>>,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Script>);

impl Service for Scripted {
    type Dispatch = Scripted;
    fn connected(&self, _peer: &Peer) -> Scripted {
        self.clone()
    }
    fn disconnected(&self, _peer: &Peer, disconnect: &Disconnect) {
        self.0.endings.lock().push(disconnect.to_string());
    }
    fn refused(&self) {}
    fn panicked(&self, _peer: &Peer, _message: &str) {
        self.0.panics.fetch_add(1, Ordering::SeqCst);
    }
}

impl Dispatch for Scripted {
    type Call = Bytes;
    type Reply = Bytes;

    fn decode(&mut self, frame: Bytes) -> Result<(Bytes, Turn), CloseReason> {
        match frame.first() {
            Some(&UNKNOWN) => Err(CloseReason("unknown api".into())),
            Some(&(OVERLAP_GATED | SILENT | CLOSE)) => Ok((frame, Turn::Overlap)),
            _ => Ok((frame, Turn::Alone)),
        }
    }

    fn start(&mut self, call: Bytes) -> Started<Bytes> {
        let script = self.0.clone();
        script.started.fetch_add(1, Ordering::SeqCst);
        let running = script.running.fetch_add(1, Ordering::SeqCst) + 1;
        script.running_max.fetch_max(running, Ordering::SeqCst);
        let ordered = call.get(1) != Some(&1);
        let answer = async move {
            let kind = call.first().copied();
            if let Some(OVERLAP_GATED | ALONE_GATED) = kind {
                script.gate.notified().await;
            }
            script.running.fetch_sub(1, Ordering::SeqCst);
            match kind {
                Some(SILENT) => Answer::Nothing,
                Some(CLOSE) => Answer::Close(CloseReason("acks=0 failed".into())),
                Some(PANIC) => panic!("scripted"),
                Some(LARGE) => Answer::Reply { reply: vec![7; 4 << 20].into(), memory: Reservation::default() },
                _ => Answer::Reply { reply: call, memory: Reservation::default() },
            }
        };
        Started { answer: Box::pin(answer), ordered }
    }

    fn encode(&mut self, reply: Bytes, out: &mut ResponseQueue) -> Result<(), CloseReason> {
        assert!(reply.first() != Some(&PANIC_ENCODING), "scripted");
        out.tail().extend_from_slice(&u32::try_from(reply.len()).unwrap().to_be_bytes());
        if reply.len() > 1000 {
            out.push_bytes(reply)
        } else {
            out.tail().extend_from_slice(&reply)
        }
        Ok(())
    }
}

struct Bench {
    server: Server<Scripted>,
    script: Scripted,
    address: SocketAddr,
    budget: Budget,
}

async fn bench(limits: ConnectionLimits, admission: AdmissionLimits) -> Bench {
    let listener = Listener {
        name: "PLAINTEXT".into(),
        endpoint: Endpoint { host: "127.0.0.1".into(), port: 0 },
        protocol: SecurityProtocol::Plaintext,
    };
    let bound =
        BoundListener::bind(&listener, &SocketOptions { backlog: 50, ..Default::default() }).await.unwrap().boxed();
    let (address, script, budget) = (bound.address, Scripted::default(), Budget::new(1 << 20));
    let server = Server::start(vec![bound], script.clone(), limits, Admission::new(admission), budget.clone()).unwrap();
    Bench { server, script, address, budget }
}

impl Bench {
    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ending(&self) -> String {
        until(|| !self.script.0.endings.lock().is_empty()).await;
        self.script.0.endings.lock().remove(0)
    }
}

async fn until(condition: impl Fn() -> bool) {
    let deadline = rt::now() + Duration::from_secs(10);
    while !condition() {
        assert!(rt::now() < deadline, "did not happen in time");
        rt::sleep(Duration::from_millis(1)).await;
    }
}

fn request(kind: u8, number: u32) -> Vec<u8> {
    let mut frame = 8_u32.to_be_bytes().to_vec();
    frame.extend([kind, 0, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame
}

async fn number(client: &mut TcpStream) -> u32 {
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.unwrap();
    (&answer[8..]).get_u32()
}

/// Reads to the end; a reset counts as the end.
async fn rest(client: &mut TcpStream) -> usize {
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes).await;
    bytes.len()
}

fn short() -> ConnectionLimits {
    ConnectionLimits { request_bytes_max: 1 << 20, ..ConnectionLimits::default() }
}

#[tokio::test]
async fn a_hundred_thousand_pipelined_requests_are_answered_in_order() {
    let bench = bench(short(), AdmissionLimits::default()).await;
    let (mut read, mut write) = bench.client().await.into_split();
    let writer = rt::spawn(async move {
        for chunk in 0..100_u32 {
            let burst: Vec<u8> = (0..1000).flat_map(|n| request(AT_ONCE, chunk * 1000 + n)).collect();
            write.write_all(&burst).await.unwrap();
        }
        write
    });
    for expected in 0..100_000 {
        let mut answer = [0; 12];
        read.read_exact(&mut answer).await.unwrap();
        assert_eq!((&answer[8..]).get_u32(), expected);
    }
    drop(writer.await);
    assert_eq!(bench.script.0.running_max.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn produce_requests_overlap_and_others_wait_for_them() {
    let bench = bench(short(), AdmissionLimits::default()).await;
    let mut client = bench.client().await;
    let mut burst: Vec<u8> = (0..3).flat_map(|n| request(OVERLAP_GATED, n)).collect();
    burst.extend(request(AT_ONCE, 3));
    burst.extend(request(OVERLAP_GATED, 4));
    client.write_all(&burst).await.unwrap();
    let script = bench.script.0.clone();
    until(|| script.started.load(Ordering::SeqCst) == 3).await;
    for expected in 0..5 {
        script.gate.notify_one();
        if expected == 3 {
            script.gate.notify_one();
        }
        assert_eq!(number(&mut client).await, expected);
    }
    assert_eq!(script.running_max.load(Ordering::SeqCst), 3);
    assert_eq!(script.started.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn nothing_overtakes_a_produce_request_that_could_not_be_enqueued() {
    let bench = bench(short(), AdmissionLimits::default()).await;
    let mut client = bench.client().await;
    let mut burst: Vec<u8> = (0..3).flat_map(|n| request(OVERLAP_GATED, n)).collect();
    // The second request says that it is not enqueued yet.
    burst[12 + 5] = 1;
    client.write_all(&burst).await.unwrap();
    let script = bench.script.0.clone();
    until(|| script.started.load(Ordering::SeqCst) == 2).await;
    script.gate.notify_one();
    assert_eq!(number(&mut client).await, 0);
    assert_eq!(script.started.load(Ordering::SeqCst), 2);
    script.gate.notify_one();
    assert_eq!(number(&mut client).await, 1);
    until(|| script.started.load(Ordering::SeqCst) == 3).await;
    script.gate.notify_one();
    assert_eq!(number(&mut client).await, 2);
}

#[tokio::test]
async fn a_client_that_closed_its_direction_still_gets_its_answers() {
    let bench = bench(short(), AdmissionLimits::default()).await;
    let mut client = bench.client().await;
    let burst: Vec<u8> = (0..50).flat_map(|n| request(AT_ONCE, n)).collect();
    client.write_all(&burst).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, 50 * 12);
}

#[tokio::test]
async fn silence_is_no_answer_and_a_failure_of_it_closes_after_earlier_answers() {
    let bench = bench(short(), AdmissionLimits::default()).await;
    let mut client = bench.client().await;
    let mut burst = request(AT_ONCE, 1);
    burst.extend(request(SILENT, 2));
    burst.extend(request(AT_ONCE, 3));
    burst.extend(request(CLOSE, 4));
    burst.extend(request(AT_ONCE, 5));
    client.write_all(&burst).await.unwrap();
    assert_eq!((number(&mut client).await, number(&mut client).await), (1, 3));
    assert_eq!(rest(&mut client).await, 0);
    assert_eq!(bench.ending().await, "acks=0 failed");
}

#[tokio::test]
async fn an_unknown_request_closes_after_earlier_answers() {
    let bench = bench(short(), AdmissionLimits::default()).await;
    let mut client = bench.client().await;
    let mut burst = request(OVERLAP_GATED, 1);
    burst.extend(request(UNKNOWN, 2));
    client.write_all(&burst).await.unwrap();
    until(|| bench.script.0.started.load(Ordering::SeqCst) == 1).await;
    bench.script.0.gate.notify_one();
    assert_eq!(number(&mut client).await, 1);
    assert_eq!(rest(&mut client).await, 0);
}

#[tokio::test]
async fn a_panic_closes_its_connection_and_no_other() {
    let bench = bench(short(), AdmissionLimits::default()).await;
    let mut other = bench.client().await;
    for (panics, kind) in [(1, PANIC), (2, PANIC_ENCODING)] {
        let mut client = bench.client().await;
        client.write_all(&request(kind, 1)).await.unwrap();
        assert_eq!(rest(&mut client).await, 0);
        other.write_all(&request(AT_ONCE, 2)).await.unwrap();
        assert_eq!(number(&mut other).await, 2);
        assert_eq!(bench.script.0.panics.load(Ordering::SeqCst), panics);
    }
}

#[tokio::test]
async fn foreign_protocols_and_impossible_sizes_are_closed_with_a_reason() {
    let bench = bench(short(), AdmissionLimits::default()).await;
    for (bytes, reason) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "HTTP"),
        (vec![0x16, 3, 1, 2, 0, 1, 0, 1], "TLS"),
        ((-1_i32).to_be_bytes().to_vec(), "frame length -1"),
        (0_i32.to_be_bytes().to_vec(), "frame length 0"),
        ((200_i32 << 20).to_be_bytes().to_vec(), "socket.request.max.bytes"),
    ] {
        let mut client = bench.client().await;
        client.write_all(&bytes).await.unwrap();
        assert_eq!(rest(&mut client).await, 0);
        let ending = bench.ending().await;
        assert!(ending.contains(reason), "{ending}");
    }
}

#[tokio::test]
async fn an_announced_size_costs_nothing_and_a_slow_request_is_cut() {
    let limits = ConnectionLimits { frame_grace: Duration::from_millis(100), ..short() };
    let bench = bench(limits, AdmissionLimits::default()).await;
    let mut client = bench.client().await;
    client.write_all(&(1_000_000_u32).to_be_bytes()).await.unwrap();
    rt::sleep(Duration::from_millis(30)).await;
    assert!(bench.budget.bytes_used() < 16 * 1024);
    assert_eq!(rest(&mut client).await, 0);
    assert!(bench.ending().await.contains("not complete in time"));
}

#[tokio::test]
async fn idle_connections_are_closed_but_not_waiting_ones() {
    let limits = ConnectionLimits { idle: Duration::from_millis(100), ..short() };
    let bench = bench(limits, AdmissionLimits::default()).await;
    let (mut idle, mut waiting) = (bench.client().await, bench.client().await);
    waiting.write_all(&request(ALONE_GATED, 1)).await.unwrap();
    assert_eq!(rest(&mut idle).await, 0);
    rt::sleep(Duration::from_millis(200)).await;
    bench.script.0.gate.notify_one();
    assert_eq!(number(&mut waiting).await, 1);
}

#[tokio::test]
async fn a_client_that_never_reads_is_bounded_and_cut() {
    let limits = ConnectionLimits { write_stall: Duration::from_millis(200), ..short() };
    let bench = bench(limits, AdmissionLimits::default()).await;
    let mut client = bench.client().await;
    let burst: Vec<u8> = (0..200).flat_map(|n| request(LARGE, n)).collect();
    client.write_all(&burst).await.unwrap();
    assert!(bench.ending().await.contains("does not read"));
    // What fits into the kernel's buffers was produced, and not much beyond.
    assert!(bench.script.0.started.load(Ordering::SeqCst) < 20);
}

#[tokio::test]
async fn requests_beyond_the_budget_wait_for_memory_while_small_ones_pass() {
    let limits = ConnectionLimits { memory_wait: Duration::from_millis(300), ..short() };
    let bench = bench(limits, AdmissionLimits::default()).await;
    let taken = bench.budget.try_take(bench.budget.bytes_total()).unwrap();
    let (mut large, mut small) = (bench.client().await, bench.client().await);
    let mut frame = 200_000_u32.to_be_bytes().to_vec();
    frame.resize(4 + 200_000, b'r');
    large.write_all(&frame[..100_000]).await.unwrap();
    small.write_all(&request(AT_ONCE, 1)).await.unwrap();
    assert_eq!(number(&mut small).await, 1);
    assert_eq!(bench.script.0.started.load(Ordering::SeqCst), 1);
    drop(taken);
    large.write_all(&frame[100_000..]).await.unwrap();
    let mut answer = vec![0; frame.len()];
    large.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, frame);
    until(|| bench.budget.bytes_used() == 0).await;
}

#[tokio::test]
async fn half_read_requests_do_not_block_each_other_for_ever() {
    let limits = ConnectionLimits { memory_wait: Duration::from_millis(100), ..short() };
    let bench = bench(limits, AdmissionLimits::default()).await;
    let taken = bench.budget.try_take(bench.budget.bytes_total()).unwrap();
    let mut client = bench.client().await;
    let mut frame = 200_000_u32.to_be_bytes().to_vec();
    frame.resize(4 + 200_000, b'r');
    let _ = client.write_all(&frame).await;
    assert!(bench.ending().await.contains("no memory"));
    drop(taken);
    assert_eq!(bench.budget.bytes_used(), 0);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let bench = bench(short(), AdmissionLimits { per_ip_max: 1, ..AdmissionLimits::default() }).await;
    let mut first = bench.client().await;
    first.write_all(&request(AT_ONCE, 1)).await.unwrap();
    assert_eq!(number(&mut first).await, 1);
    let mut second = bench.client().await;
    assert_eq!(rest(&mut second).await, 0);
    drop(first);
    until(|| bench.server.shared.admission.connections() == 0).await;
    let mut third = bench.client().await;
    third.write_all(&request(AT_ONCE, 3)).await.unwrap();
    assert_eq!(number(&mut third).await, 3);
}

#[tokio::test]
async fn a_stop_answers_what_is_under_way() {
    let bench = bench(short(), AdmissionLimits::default()).await;
    let mut client = bench.client().await;
    client.write_all(&request(ALONE_GATED, 9)).await.unwrap();
    until(|| bench.script.0.started.load(Ordering::SeqCst) == 1).await;
    let (script, server) = (bench.script.clone(), bench.server);
    let stop = rt::spawn(async move { server.stop().await });
    rt::sleep(Duration::from_millis(20)).await;
    script.0.gate.notify_one();
    assert_eq!(number(&mut client).await, 9);
    assert_eq!(rest(&mut client).await, 0);
    stop.await.unwrap();
}
