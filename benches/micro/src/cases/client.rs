//! A client of a node in this process: frames in, frames out, by the dispatcher of a connection and without a socket.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use kafka_protocol::protocol::Encodable;
use ottla_broker::handlers::kafka_dispatch::{Kafka, KafkaDispatch};
use ottla_broker::server::Service;
use ottla_broker::server::dispatch::{Answer, Dispatch, Peer};
use ottla_broker::server::response_queue::ResponseQueue;
use ottla_protocol::versions::ApiKey;

const CLIENT_ID: &[u8] = b"micro";
/// Length and correlation id.
const RESPONSE_HEAD_BYTES: usize = 8;

/// A request's frame, without its length.
pub(super) fn frame(api: ApiKey, version: i16, correlation_id: i32, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(body.len() + 32);
    frame.put_i16(api.code());
    frame.put_i16(version);
    frame.put_i32(correlation_id);
    frame.put_i16(CLIENT_ID.len() as i16);
    frame.put_slice(CLIENT_ID);
    if api.request_header_version(version) >= 2 {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    frame.freeze()
}

/// The frame of a request in the words of kafka-protocol.
pub(super) fn frame_of(api: ApiKey, version: i16, request: &impl Encodable) -> Bytes {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    frame(api, version, 7, &body)
}

/// A connection's dispatcher and what it has answered last.
pub(super) struct Client {
    dispatch: KafkaDispatch,
    responses: ResponseQueue,
}

impl Client {
    pub(super) fn new(kafka: &Kafka) -> Self {
        let peer = Peer { connection: 1, listener: "PLAINTEXT".into(), address: ([127, 0, 0, 1], 40_000).into() };
        Self { dispatch: kafka.connected(&peer), responses: ResponseQueue::default() }
    }

    /// Sends requests at once, as pipelined ones; gives how many bytes were answered.
    pub(super) async fn send(&mut self, frames: &[Bytes]) -> usize {
        let mut answers = Vec::with_capacity(frames.len());
        for frame in frames {
            let (call, _) = self.dispatch.decode(frame.clone()).unwrap();
            answers.push(self.dispatch.start(call).answer);
        }
        for answer in join_all(answers).await {
            let Answer::Reply { reply, memory } = answer else { panic!("no answer") };
            self.dispatch.encode(reply, &mut self.responses).unwrap();
            drop(memory);
        }
        let bytes = self.responses.len();
        std::hint::black_box(&self.responses);
        self.responses.advance(bytes);
        bytes
    }

    /// Sends one request; gives the body of its answer. For answers that are not streamed.
    pub(super) async fn ask(&mut self, api: ApiKey, version: i16, request: &impl Encodable) -> Bytes {
        let (call, _) = self.dispatch.decode(frame_of(api, version, request)).unwrap();
        let Answer::Reply { reply, .. } = self.dispatch.start(call).answer.await else { panic!("no answer") };
        self.dispatch.encode(reply, &mut self.responses).unwrap();
        let mut answer = self.responses.tail().clone().freeze();
        self.responses.advance(answer.len());
        let tags = usize::from(api.response_header_version(version) >= 1);
        answer.split_off(RESPONSE_HEAD_BYTES + tags)
    }
}
