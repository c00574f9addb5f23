//! Clients' connections: requests encoded as Kafka clients do, over a simulated stream to the production server, and
//! its responses decoded.
//!
//! A connection belongs to one process of a node: its end closes it, and so does a missing answer.
//!
//! May not know: what requests mean.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use ottla_env::net::Duplex;
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};

use crate::laws::Violation;
use crate::world::World;

/// A connection is reset before one of so many requests.
const RESETS_ONE_IN: u64 = 300;

/// The room that a read is given.
const READ_BYTES: usize = 16 << 10;

/// A connection.
struct Connection {
    stream: Duplex,
    /// What has arrived of the next responses.
    received: BytesMut,
}

impl Connection {
    /// The next response without its length prefix; `None` if the connection has ended.
    async fn receive(&mut self) -> Option<Bytes> {
        loop {
            if let Some(prefix) = self.received.first_chunk::<4>() {
                let length = usize::try_from(u32::from_be_bytes(*prefix)).ok()?;
                if self.received.len() >= 4 + length {
                    return Some(self.received.split_to(4 + length).freeze().slice(4..));
                }
            }
            self.received.reserve(READ_BYTES);
            if self.stream.read(&mut self.received).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Sends frames one after the other, each so long after the one before, and returns the responses. `None` if the
    /// connection has ended.
    async fn exchange(&mut self, frames: Vec<(Duration, Bytes)>) -> Option<Vec<Bytes>> {
        let count = frames.len();
        for (after, mut frame) in frames {
            if !after.is_zero() {
                rt::sleep(after).await;
            }
            self.stream.write_all(&mut frame).await.ok()?;
        }
        let mut responses = Vec::with_capacity(count);
        while responses.len() < count {
            responses.push(self.receive().await?);
        }
        Some(responses)
    }
}

/// A client with a connection to each node that it uses.
pub(crate) struct Client {
    world: World,
    name: String,
    connections: BTreeMap<SimNode, Connection>,
    correlation: i32,
}

pub(crate) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// A request's frame, with its length prefix.
fn frame<R: Request>(client: &str, version: i16, correlation: i32, request: &R) -> Result<Bytes, String> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(text(client)));
    let mut frame = BytesMut::zeroed(4);
    header.encode(&mut frame, R::header_version(version)).map_err(|error| error.to_string())?;
    request.encode(&mut frame, version).map_err(|error| error.to_string())?;
    let length = u32::try_from(frame.len() - 4).map_err(|error| error.to_string())?;
    (&mut frame[..4]).put_u32(length);
    Ok(frame.freeze())
}

fn answer_of<R: Request>(version: i16, correlation: i32, mut bytes: Bytes) -> Result<R::Response, String> {
    let header = ResponseHeader::decode(&mut bytes, R::Response::header_version(version));
    let header = header.map_err(|error| error.to_string())?;
    if header.correlation_id != correlation {
        return Err(format!("answers {}, asked {correlation}", header.correlation_id));
    }
    let response = R::Response::decode(&mut bytes, version).map_err(|error| error.to_string())?;
    if bytes.is_empty() { Ok(response) } else { Err(format!("{} bytes too many", bytes.len())) }
}

impl Client {
    pub(crate) fn new(world: World, name: &str) -> Self {
        Self { world, name: name.to_owned(), connections: BTreeMap::new(), correlation: 0 }
    }

    /// One request to `node` and its response; `None`: the connection broke, and the outcome is unknown.
    pub(crate) async fn call<R: Request>(&mut self, node: SimNode, version: i16, request: &R) -> Option<R::Response> {
        self.pipeline(node, version, std::slice::from_ref(request), Duration::ZERO).await?.pop()
    }

    /// Several requests on one connection without waiting for responses, up to `gap_max` apart, and their responses.
    pub(crate) async fn pipeline<R: Request>(
        &mut self,
        node: SimNode,
        version: i16,
        requests: &[R],
        gap_max: Duration,
    ) -> Option<Vec<R::Response>> {
        let first = self.correlation + 1;
        let mut frames = Vec::new();
        for request in requests {
            self.correlation += 1;
            let sent = frame(&self.name, version, self.correlation, request);
            let sent = sent.map_err(|what| Violation::new("a request can be written", None, what));
            let gap_us = u64::try_from(gap_max.as_micros()).unwrap_or(0);
            let gap = if gap_us == 0 || frames.is_empty() { 0 } else { sim::random_below(gap_us) };
            frames.push((Duration::from_micros(gap), self.world.judge(sent)?));
        }
        if sim::random_below(RESETS_ONE_IN) == 0 {
            self.close(node);
        }
        let connection = self.connections.remove(&node);
        let (world, exchanging) = (self.world.clone(), self.world.clone());
        let exchange = async move {
            let mut connection = match connection {
                Some(connection) => connection,
                None => Connection {
                    stream: Duplex::new(Box::new(exchanging.running_node(node)?.port.connect())),
                    received: BytesMut::new(),
                },
            };
            let responses = connection.exchange(frames).await?;
            (!exchanging.loses_answer()).then_some((connection, responses))
        };
        let (connection, responses) = world.answered(exchange).await?;
        self.connections.insert(node, connection);
        let name = std::any::type_name::<R>();
        let wrong = |what| Violation::new("an answer can be read", None, format!("{name}, version {version}: {what}"));
        let read = (first..).zip(responses).map(|(correlation, bytes)| answer_of::<R>(version, correlation, bytes));
        self.world.judge(read.collect::<Result<Vec<_>, _>>().map_err(wrong))
    }

    /// Closes the connection to a node, which notices it.
    pub(crate) fn close(&mut self, node: SimNode) {
        self.connections.remove(&node);
    }
}
