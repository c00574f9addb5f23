//! Clients' connections: requests encoded as Kafka clients do, through the production dispatcher, and its responses
//! decoded.
//!
//! A connection belongs to one incarnation of a node: a crash closes it, and so does a missing answer.
//!
//! May not know: what requests mean.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use ottla_broker::handlers::kafka_dispatch::{KafkaDispatch, Reply};
use ottla_broker::server::Service;
use ottla_broker::server::connection::Disconnect;
use ottla_broker::server::dispatch::{Answer, Dispatch, Peer};
use ottla_broker::server::response_queue::{Next, ResponseQueue};
use ottla_storage::env::rt;
use ottla_storage::env::sim::{self, SimNode};
use parking_lot::Mutex;

use crate::laws::Violation;
use crate::sim_node::{LISTENER, RunningNode};
use crate::world::World;

/// A connection is reset before one of so many requests.
const RESETS_ONE_IN: u64 = 300;

/// A connection.
#[derive(Clone)]
struct Link {
    incarnation: u64,
    peer: Peer,
    dispatch: Arc<Mutex<KafkaDispatch>>,
}

/// A client with a connection to each node that it uses.
pub(crate) struct Client {
    world: World,
    name: String,
    links: BTreeMap<SimNode, Link>,
    correlation: i32,
}

pub(crate) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// A request's frame without its length prefix, as a connection's input buffer returns it.
fn frame<R: Request>(client: &str, version: i16, correlation: i32, request: &R) -> Result<Bytes, String> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(text(client)));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, R::header_version(version)).map_err(|error| error.to_string())?;
    request.encode(&mut frame, version).map_err(|error| error.to_string())?;
    Ok(frame.freeze())
}

/// The response's bytes as they would be written to the socket.
fn drained(mut out: ResponseQueue) -> Option<Bytes> {
    let mut all = BytesMut::new();
    while !out.is_empty() {
        if out.prepare().ok()? == Next::OnDisk {
            let read = out.disk_read()?.run().ok()?;
            out.disk_was_read(read);
        }
        let taken = out.with_slices(|slices| {
            slices.iter().for_each(|slice| all.extend_from_slice(slice));
            slices.iter().map(|slice| slice.len()).sum()
        });
        out.advance(taken);
    }
    Some(all.freeze())
}

/// The node's side of a connection: a new one if there was none, `None` if it belonged to another incarnation.
fn connected(running: &RunningNode, link: Option<Link>, connection: u64) -> Option<Link> {
    match link {
        Some(link) => Some(link).filter(|link| link.incarnation == running.incarnation),
        None => {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
            let peer = Peer { connection, listener: LISTENER.into(), address };
            let dispatch = Arc::new(Mutex::new(running.kafka.connected(&peer)));
            Some(Link { incarnation: running.incarnation, peer, dispatch })
        }
    }
}

/// A response as it is sent; `None` if the connection is closed with it.
async fn encoded(link: &Link, started: BoxFuture<'static, Answer<Reply>>) -> Option<Bytes> {
    match started.await {
        Answer::Reply { reply, memory } => {
            let mut out = ResponseQueue::default();
            link.dispatch.lock().encode(reply, &mut out).ok()?;
            let bytes = drained(out)?;
            drop(memory);
            Some(bytes)
        }
        Answer::Nothing | Answer::Close(_) => None,
    }
}

/// Handles frames that arrive one after the other, each so long after the one before: each request starts when a
/// connection would start it, and the responses leave in order. `None` if the connection is closed.
async fn served(
    running: Arc<RunningNode>,
    link: Option<Link>,
    connection: u64,
    frames: Vec<(Duration, Bytes)>,
) -> Option<(Link, Vec<Bytes>)> {
    let link = connected(&running, link, connection)?;
    let (mut under_way, mut answers) = (Vec::new(), Vec::new());
    for (after, frame) in frames {
        if !after.is_zero() {
            rt::sleep(after).await;
        }
        let started = {
            let mut dispatch = link.dispatch.lock();
            let (call, _turn) = dispatch.decode(frame).ok()?;
            dispatch.start(call)
        };
        under_way.push(started.answer);
        if !started.ordered {
            for answer in under_way.drain(..) {
                answers.push(encoded(&link, answer).await?);
            }
        }
    }
    for answer in under_way {
        answers.push(encoded(&link, answer).await?);
    }
    Some((link, answers))
}

fn answer_of<R: Request>(version: i16, correlation: i32, mut bytes: Bytes) -> Result<R::Response, String> {
    let length = bytes.split_to(bytes.len().min(4));
    if <[u8; 4]>::try_from(&length[..]).map(u32::from_be_bytes).ok() != u32::try_from(bytes.len()).ok() {
        return Err("the length is wrong".to_owned());
    }
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
        Self { world, name: name.to_owned(), links: BTreeMap::new(), correlation: 0 }
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
        let (link, connection) = (self.links.get(&node).cloned(), self.world.next_connection());
        let answer = self.world.request(node, move |running| served(running, link, connection, frames)).await.flatten();
        let Some((link, answers)) = answer else {
            self.close(node);
            return None;
        };
        self.links.insert(node, link);
        let name = std::any::type_name::<R>();
        let wrong = |what| Violation::new("an answer can be read", None, format!("{name}, version {version}: {what}"));
        let read = (first..).zip(answers).map(|(correlation, bytes)| answer_of::<R>(version, correlation, bytes));
        self.world.judge(read.collect::<Result<Vec<_>, _>>().map_err(wrong))
    }

    /// Closes the connection to a node, which notices it.
    pub(crate) fn close(&mut self, node: SimNode) {
        let Some(link) = self.links.remove(&node) else { return };
        if let Some(running) = self.world.running_node(node).filter(|running| running.incarnation == link.incarnation) {
            sim::spawn_on(node, async move { running.kafka.disconnected(&link.peer, &Disconnect::ByClient) });
        }
    }
}
