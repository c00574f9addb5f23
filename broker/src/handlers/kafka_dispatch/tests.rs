//! The dispatcher over a whole node: the gate that every request passes, and how streams join responses.

#![allow(clippy::unwrap_used)]
use std::path::Path;

use bytes::{Buf, BytesMut};
use ottla_env::sim;
use ottla_env::sim::disk::{SimDisk, SimDiskOptions};
use ottla_protocol::fetch::{FetchPartitionResponse, FetchTopicResponse};
use ottla_storage::read::ReadError;

use super::*;
use crate::admin::Readiness;
use crate::config::Config;
use crate::node::{Node, World};

/// A node without listeners.
async fn node() -> Node {
    let mut config = Config::default();
    config.log_dirs = vec!["/data".into()];
    config.listeners = Vec::new();
    config.admin_listener = None;
    let disk = SimDisk::new(1, SimDiskOptions::default());
    Node::start(World::alone(Arc::new(disk)), config, Readiness::default()).await.unwrap()
}

/// A request of each version of each API, as clients send them.
fn golden_frames() -> Vec<Bytes> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/testdata");
    let files = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let frame = |text: String| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let digits: Vec<u8> = lines.flat_map(str::bytes).filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(byte).collect()
    };
    files.map(frame).collect()
}

fn peer() -> Peer {
    Peer { connection: 1, listener: "PLAINTEXT".into(), address: ([127, 0, 0, 1], 40_000).into() }
}

#[test]
fn no_request_of_a_principal_without_rights_reaches_a_handler() {
    sim::run(1, || async {
        let node = node().await;
        let kafka = node.kafka();
        let frames = golden_frames();
        assert!(frames.len() >= 200, "{} requests", frames.len());
        for frame in frames {
            let mut dispatch = kafka.connected(&peer());
            let info = &mut Arc::get_mut(&mut dispatch.context).unwrap().connection;
            info.principal = Principal { name: "other".into() };
            let (call, _) = dispatch.decode(frame).unwrap();
            let Answer::Close(reason) = dispatch.start(call).answer.await else {
                panic!("a request was answered");
            };
            assert!(reason.0.starts_with("User:other is not authorized for "), "{reason}");
        }
    });
}

#[test]
fn an_anonymous_client_is_answered() {
    sim::run(1, || async {
        let node = node().await;
        let mut dispatch = node.kafka().connected(&peer());
        let metadata = Bytes::from_static(b"\0\x03\0\x01\0\0\0\x07\0\x01c\xff\xff\xff\xff");
        let (call, _) = dispatch.decode(metadata).unwrap();
        let answer = dispatch.start(call).answer.await;
        assert!(matches!(answer, Answer::Reply { reply: Reply::Response { correlation_id: 7, .. }, .. }));
    });
}

/// Records of a stream, in memory.
struct Records(Bytes);

impl Source for Records {
    fn left(&self) -> usize {
        self.0.len()
    }
    fn is_ready(&self, _: usize) -> bool {
        true
    }
    fn copy(&self, out: &mut BytesMut, bytes_max: usize) -> Result<(), ReadError> {
        self.read(out, bytes_max)
    }
    fn read(&self, out: &mut BytesMut, bytes_max: usize) -> Result<(), ReadError> {
        out.extend_from_slice(&self.0[..bytes_max.min(self.0.len())]);
        Ok(())
    }
    fn advance(&mut self, bytes: usize) {
        self.0.advance(bytes);
    }
    fn grew_old(&mut self) {}
}

/// The bytes of a Fetch response that announces `announced` bytes per partition, and gets `streams`.
fn fetched(announced: &[usize], streams: &[usize]) -> usize {
    let partitions = announced.iter().map(|bytes| FetchPartitionResponse {
        later_bytes: *bytes,
        ..FetchPartitionResponse::failed(0, ErrorCode::None)
    });
    let topic = FetchTopicResponse { name: Some("t".into()), id: None, partitions: partitions.collect() };
    let body = FetchResponse { topics: vec![topic], ..FetchResponse::failed(ErrorCode::None) };
    let streams = streams.iter().map(|bytes| Records(vec![0; *bytes].into())).collect();
    let mut out = ResponseQueue::default();
    push_fetched(&body, 12, 7, streams, &mut out);
    out.len()
}

#[test]
fn streams_that_fill_the_gaps_are_queued_with_the_body() {
    assert_eq!(fetched(&[300, 400], &[300, 400]), fetched(&[300, 300], &[300, 300]) + 100);
}

#[test]
#[should_panic(expected = "fetch response 7: no stream for the next 300 bytes")]
fn a_gap_without_a_stream_is_never_sent() {
    fetched(&[100, 300], &[100]);
}

#[test]
#[should_panic(expected = "fetch response 7: bytes of stream 1")]
fn a_stream_of_another_length_is_never_sent() {
    fetched(&[100, 300], &[100, 299]);
}

#[test]
#[should_panic(expected = "fetch response 7: streams without a place")]
fn a_stream_without_a_gap_is_never_sent() {
    fetched(&[100], &[100, 300]);
}
