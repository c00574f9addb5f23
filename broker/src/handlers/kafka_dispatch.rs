//! The Kafka dispatcher of a connection: decodes frames, authorizes requests, calls handlers, encodes responses, and
//! counts all of it.
//!
//! Unknown APIs and versions close the connection, as in Kafka. The only exception is ApiVersions: a version that is
//! too new is answered in v0, and the connection stays open. May not know: sockets.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::fetch::{FetchChunk, FetchResponse};
use ottla_protocol::header::RequestHeader;
use ottla_protocol::request::{self, Request, RequestError};
use ottla_protocol::response::{self, Response};
use ottla_protocol::versions::ApiKey;
use ottla_storage::env::rt;

use super::Replied;
use super::authorization::{Principal, authorize_request};
use super::context::{ConnectionInfo, Context, Domain};
use super::produce::partition_cache::PartitionCache;
use super::support::response_error;
use crate::limits::{CLIENT_ID_LOG_CHARS_MAX, GATHERED_BYTES_MAX};
use crate::metrics::Metrics;
use crate::partition::ConnectionId;
use crate::server::connection::Disconnect;
use crate::server::dispatch::{Answer, CloseReason, Dispatch, Peer, Started, Turn};
use crate::server::response_queue::ResponseQueue;
use crate::server::sniff::escape_for_log;
use crate::server::source::Source;
use crate::server::{Service, budget};

/// The service of Kafka clients: makes a dispatcher per connection.
pub struct Kafka {
    domain: Domain,
}

impl Kafka {
    /// A service with the node's handles.
    #[must_use]
    pub fn new(domain: Domain) -> Self {
        Self { domain }
    }
}

impl Service for Kafka {
    type Dispatch = KafkaDispatch;

    fn connected(&self, peer: &Peer) -> KafkaDispatch {
        self.domain.metrics.connections_accepted.inc();
        self.domain.metrics.connections.inc();
        let principal = Principal::anonymous();
        let connection = ConnectionInfo { peer: peer.clone(), principal, client_id: "".into() };
        KafkaDispatch {
            context: Arc::new(Context { domain: self.domain.clone(), connection, pending_refusals: Arc::default() }),
            partition_cache: PartitionCache::default(),
        }
    }

    fn disconnected(&self, peer: &Peer, disconnect: &Disconnect) {
        self.domain.metrics.connections.dec();
        match reason(disconnect) {
            Reason::Ordinary(reason) => self.domain.metrics.closed(reason),
            Reason::Refused(reason) => self.domain.metrics.refused(reason),
        }
        self.domain.partitions.connection_closed(ConnectionId(peer.connection));
    }

    fn refused(&self) {
        self.domain.metrics.refused("limit");
    }

    fn panicked(&self, peer: &Peer, _message: &str) {
        self.domain.metrics.connections.dec();
        self.domain.metrics.panics.inc();
        self.domain.metrics.closed("panic");
        self.domain.partitions.connection_closed(ConnectionId(peer.connection));
    }
}

/// The metric label of a disconnect, and whether the broker refused the client.
enum Reason {
    Ordinary(&'static str),
    Refused(&'static str),
}

fn reason(disconnect: &Disconnect) -> Reason {
    match disconnect {
        Disconnect::ByClient | Disconnect::ByClientMidway => Reason::Ordinary("client"),
        Disconnect::Io(_) => Reason::Ordinary("socket"),
        Disconnect::Idle => Reason::Ordinary("idle"),
        Disconnect::Stopping => Reason::Ordinary("stopping"),
        Disconnect::Frame(_) => Reason::Refused("frame"),
        Disconnect::ForeignProtocol(_) => Reason::Refused("stranger"),
        Disconnect::Request(_) => Reason::Refused("request"),
        Disconnect::SlowRequest => Reason::Refused("slow_request"),
        Disconnect::NeverReads => Reason::Refused("never_reads"),
        Disconnect::NoMemory => Reason::Refused("memory"),
        Disconnect::Disk(_) => Reason::Refused("disk"),
    }
}

/// One connection's dispatcher.
pub struct KafkaDispatch {
    context: Arc<Context>,
    partition_cache: PartitionCache,
}

/// A decoded request.
pub enum Call {
    /// A request for a handler.
    Request(RequestHeader, Request),
    /// ApiVersions in a version above the table.
    ApiVersionsTooNew {
        /// Repeated in the response.
        correlation_id: i32,
    },
}

/// A response before it is encoded.
pub enum Reply {
    /// The response of a handler.
    Response {
        /// The API.
        api: ApiKey,
        /// Its version.
        version: i16,
        /// Repeated from the request.
        correlation_id: i32,
        /// The body, and the record streams that fill its gaps.
        body: Replied,
    },
    /// The table of versions in v0, with UNSUPPORTED_VERSION.
    ApiVersionsTooNew {
        /// Repeated from the request.
        correlation_id: i32,
    },
}

impl KafkaDispatch {
    /// The context for a request: a new one if the client changes its id within a connection.
    fn context_for(&mut self, header: &RequestHeader) -> Arc<Context> {
        let client_id = header.client_id.as_deref().unwrap_or("");
        if *self.context.connection.client_id != *client_id {
            let mut context = Context::clone(&self.context);
            context.connection.client_id = client_id.into();
            self.context = Arc::new(context);
        }
        self.context.clone()
    }

    /// Authorizes a request and starts its handler. One that is denied closes the connection.
    fn start_request(&mut self, header: RequestHeader, request: Request) -> Started<Reply> {
        let context = self.context_for(&header);
        let request = match authorize_request(&context.connection.principal, request) {
            Ok(request) => request,
            Err(denied) => {
                context.metrics.answered(header.api_key, denied.error, 0.0);
                return answered(Answer::Close(self.complain(&denied)));
            }
        };
        let metrics = context.metrics.clone();
        let began = rt::now();
        let version = header.version;
        super::start(context, version, request, &mut self.partition_cache, move |answer| {
            finished(&metrics, &header, began, answer)
        })
    }

    fn complain(&self, error: &impl Error) -> CloseReason {
        let client = escape_for_log(&self.context.connection.client_id, CLIENT_ID_LOG_CHARS_MAX);
        CloseReason(format!("{error} (client id \"{client}\")"))
    }
}

impl Dispatch for KafkaDispatch {
    type Call = Call;
    type Reply = Reply;

    fn decode(&mut self, frame: Bytes) -> Result<(Call, Turn), CloseReason> {
        self.context.metrics.request_bytes.inc_by(frame.len() as u64);
        match request::decode(frame) {
            Ok((header, request)) => {
                let turn = if matches!(request, Request::Produce(_)) { Turn::Overlap } else { Turn::Alone };
                Ok((Call::Request(header, request), turn))
            }
            Err(RequestError::ApiVersionsTooNew { correlation_id, .. }) => {
                Ok((Call::ApiVersionsTooNew { correlation_id }, Turn::Alone))
            }
            Err(error) => Err(self.complain(&error)),
        }
    }

    fn start(&mut self, call: Call) -> Started<Reply> {
        match call {
            Call::Request(header, request) => self.start_request(header, request),
            Call::ApiVersionsTooNew { correlation_id } => {
                self.context.metrics.answered(ApiKey::ApiVersions, ErrorCode::UnsupportedVersion, 0.0);
                let reply = Reply::ApiVersionsTooNew { correlation_id };
                answered(Answer::Reply { reply, memory: budget::Reservation::default() })
            }
        }
    }

    fn encode(&mut self, reply: Reply, out: &mut ResponseQueue) -> Result<(), CloseReason> {
        let encoded = match reply {
            Reply::ApiVersionsTooNew { correlation_id } => {
                response::encode_api_versions_too_new(correlation_id, out.tail())
            }
            Reply::Response {
                version, correlation_id, body: Replied { body: Response::Fetch(body), streams }, ..
            } if !streams.is_empty() || body.records_bytes() > GATHERED_BYTES_MAX => {
                push_fetched(&body, version, correlation_id, streams, out);
                Ok(())
            }
            Reply::Response { api, version, correlation_id, body } => {
                response::encode(api, version, correlation_id, &body.body, out.tail())
            }
        };
        encoded.map_err(|error| {
            // A bug of the broker: the client gets no response that it could misread.
            tracing::error!("an answer cannot be encoded: {error}");
            CloseReason(error.to_string())
        })
    }
}

/// A request that is answered without a handler.
fn answered(answer: Answer<Reply>) -> Started<Reply> {
    Started { answer: Box::pin(std::future::ready(answer)), ordered: true }
}

/// Queues a Fetch response: large records without a copy; copying small ones costs less than a slice of their own.
///
/// # Panics
///
/// If the streams do not fill the gaps of the body exactly: the frame's length would be wrong, and the client would
/// read all later responses of the connection from a wrong place. A panic ends this connection only.
fn push_fetched<S: Source + 'static>(
    body: &FetchResponse,
    version: i16,
    correlation_id: i32,
    streams: Vec<S>,
    out: &mut ResponseQueue,
) {
    let mut chunks = Vec::new();
    body.encode_chunks(version, correlation_id, &mut chunks);
    let mut streams = streams.into_iter().enumerate();
    for chunk in chunks {
        match chunk {
            FetchChunk::Bytes(bytes) => out.push_bytes(bytes),
            FetchChunk::Later(announced) => {
                let Some((number, stream)) = streams.next() else {
                    panic!("fetch response {correlation_id}: no stream for the next {announced} bytes");
                };
                let left = stream.left();
                assert_eq!(left, announced, "fetch response {correlation_id}: bytes of stream {number}");
                out.push_source(Box::new(stream));
            }
        }
    }
    assert_eq!(streams.len(), 0, "fetch response {correlation_id}: streams without a place");
}

fn finished(metrics: &Metrics, header: &RequestHeader, began: rt::Instant, answer: Answer<Replied>) -> Answer<Reply> {
    let seconds = rt::now().since(began).as_secs_f64();
    match answer {
        Answer::Reply { reply, memory } => {
            metrics.answered(header.api_key, response_error::error_of(&reply.body), seconds);
            let (api, version, correlation_id) = (header.api_key, header.version, header.correlation_id);
            Answer::Reply { reply: Reply::Response { api, version, correlation_id, body: reply }, memory }
        }
        Answer::Nothing => {
            metrics.answered(header.api_key, ErrorCode::None, seconds);
            Answer::Nothing
        }
        Answer::Close(reason) => {
            metrics.answered(header.api_key, ErrorCode::UnknownServerError, seconds);
            Answer::Close(reason)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use bytes::{Buf, BytesMut};
    use ottla_protocol::fetch::{FetchPartitionResponse, FetchTopicResponse};
    use ottla_raft::{NoPeers, RaftHost, RaftOptions};
    use ottla_storage::data_dir::{DataDir, DataDirOptions};
    use ottla_storage::env::sim;
    use ottla_storage::env::sim::disk::{SimDisk, SimDiskOptions};
    use ottla_storage::read::ReadError;

    use super::*;
    use crate::config::Config;
    use crate::coordinator::group::{GroupSettings, Groups, PartitionWriter};
    use crate::coordinator::lag::Lags;
    use crate::handlers::fetch::session::FetchSessions;
    use crate::metadata::{DirectoryRecord, LocalNode, MetadataHandle, Seeds};
    use crate::partition::Partitions;
    use crate::server::budget::Budget;
    use crate::shard::{LeaderTaskSettings, Shards};

    /// The handles of a node with its metadata and without shards.
    async fn domain() -> Domain {
        let config = Arc::new(Config::default());
        let disk = SimDisk::new(1, SimDiskOptions::default());
        let options = DataDirOptions { node_id: config.node_id.0, ..DataDirOptions::default() };
        let (data, _) = DataDir::open(Arc::new(disk), Path::new("/data"), options).await.unwrap();
        let id = data.directory_id();
        let host = RaftHost::new(Arc::new(NoPeers), RaftOptions::default());
        let record = DirectoryRecord { id, path: "/data".to_owned(), free_bytes: 1 << 30 };
        let local = LocalNode::from_config(&config, vec![record]);
        let seeds = Seeds::single_node(Arc::default());
        let metadata = MetadataHandle::start(&host, (data, id), None, local, config.clone(), seeds).await.unwrap();
        let view = Arc::new(metadata.clone());
        let upkeep = LeaderTaskSettings::default();
        let partitions = Partitions::new(Shards::new(config.node_id, host, [].into(), view.clone(), upkeep));
        let log = PartitionWriter::start(view, partitions.clone());
        let groups = Groups::new(GroupSettings::from(config.as_ref()), log);
        Domain {
            lags: Lags::new(groups.clone(), partitions.clone()),
            groups,
            metadata,
            partitions,
            metrics: Metrics::new(&config.metrics),
            sessions: Arc::new(FetchSessions::new(1)),
            answers: Budget::new(1 << 20),
            directories: [].into(),
            config,
        }
    }

    /// A request of each version of each API, as clients send them.
    fn golden_frames() -> Vec<Bytes> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/testdata");
        let files =
            std::fs::read_dir(folder).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
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
            let kafka = Kafka::new(domain().await);
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
            let mut dispatch = Kafka::new(domain().await).connected(&peer());
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
}
