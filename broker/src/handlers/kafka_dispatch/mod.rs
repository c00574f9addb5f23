//! The Kafka dispatcher of a connection: decodes frames, authorizes requests, calls handlers, encodes responses, and
//! counts all of it.
//!
//! Unknown APIs and versions close the connection, as in Kafka. The only exception is ApiVersions: a version that is
//! too new is answered in v0, and the connection stays open. May not know: sockets.

mod lost_contact;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use ottla_env::rt;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::fetch::{FetchChunk, FetchResponse};
use ottla_protocol::header::RequestHeader;
use ottla_protocol::request::{self, Request, RequestError};
use ottla_protocol::response::{self, Response};
use ottla_protocol::versions::ApiKey;

use self::lost_contact::ContactCheck;
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
            told_leaderless: Arc::default(),
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
    /// The client was answered by this node, which is cut off, that there is no leader.
    told_leaderless: Arc<AtomicBool>,
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
        let contact = ContactCheck::of(header.api_key, &context.metadata, &self.told_leaderless);
        super::start(context, version, request, &mut self.partition_cache, move |answer| {
            let answer = match contact {
                Some(contact) => contact.check(answer),
                None => answer,
            };
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
mod tests;
