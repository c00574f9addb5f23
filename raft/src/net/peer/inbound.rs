//! Connections opened by other nodes: their handshake, their requests, the responses of this node.
//!
//! May not know: what a request does.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use ottla_env::critical::Owner;
use ottla_env::net::{self, Duplex, Listener};
use ottla_env::rt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::connected_peers::{ConnectedPeer, ConnectedPeers};
use super::frame::{Batch, EncodedFrame, FrameReader, Kind, Read};
use super::handshake::{read_request, write_response};
use super::local_node::LocalNode;
use super::peer_connection::{HANDSHAKE_TIMEOUT, IDLE_MAX, PING_INTERVAL, WRITE_BYTES, call_budget, units};
use crate::net::message_codec::decode;
use crate::net::{Message, MessageHandler};

/// The most connections at one time, including those whose handshake is not complete.
const CONNECTIONS_MAX: usize = 4_096;

/// A task that is aborted when this is dropped.
struct Task(rt::JoinHandle<()>);

impl Future for Task {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Accepts connections until it is dropped.
pub struct Listening {
    _accepting: Task,
}

pub(super) fn listen(
    mut listener: Box<dyn Listener>,
    handler: Arc<dyn MessageHandler>,
    local: Arc<LocalNode>,
) -> Listening {
    let accepting = async move {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = connections.next(), if !connections.is_empty() => {}
                accepted = net::accept(&mut *listener), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, from)) => {
                        let stream = Duplex::new(stream);
                        connections.push(Task(rt::spawn(receive(stream, from, handler.clone(), local.clone()))));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection of another node cannot be accepted");
                        rt::sleep(HANDSHAKE_TIMEOUT).await;
                    }
                },
            }
        }
    };
    Listening { _accepting: Task(rt::spawn_critical("cluster-listener", Owner::process(), accepting)) }
}

async fn receive(stream: Duplex, from: SocketAddr, handler: Arc<dyn MessageHandler>, local: Arc<LocalNode>) {
    match rt::timeout(HANDSHAKE_TIMEOUT, handshake(&stream, &local)).await {
        Ok(Ok(Some(peer))) => {
            let ended = exchange(&stream, &handler).await;
            tracing::debug!(node = peer.node().0, %from, "connection of another node ended: {ended:?}");
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::warn!(%from, "the cluster listener received no handshake: {error}"),
        Err(_) => tracing::warn!(%from, "the cluster listener received no handshake in time"),
    }
}

/// Accepts or rejects the handshake of a connection; `None` if it was rejected.
async fn handshake(stream: &Duplex, local: &Arc<LocalNode>) -> io::Result<Option<ConnectedPeer>> {
    let request = read_request(stream).await?;
    let own = local.identity();
    let checked = request.check(&own);
    let peer = checked.and_then(|version| Ok((version, ConnectedPeers::register(&local.connected, &request)?)));
    let response = peer.as_ref().map(|(version, _)| (*version, own)).map_err(Clone::clone);
    write_response(stream, &response).await?;
    match peer {
        Ok((_, peer)) => Ok(Some(peer)),
        Err(why) => {
            tracing::warn!(node = request.identity.node.0, "a node is rejected: {why}");
            Ok(None)
        }
    }
}

type Response = (EncodedFrame, Option<OwnedSemaphorePermit>);

async fn exchange(stream: &Duplex, handler: &Arc<dyn MessageHandler>) -> io::Result<()> {
    let (responses, outgoing) = mpsc::unbounded_channel();
    tokio::select! {
        biased;
        ended = read_frames(stream, handler, responses) => ended,
        ended = write_frames(stream, outgoing) => ended,
    }
}

async fn read_frames(
    from: &Duplex,
    handler: &Arc<dyn MessageHandler>,
    responses: mpsc::UnboundedSender<Response>,
) -> io::Result<()> {
    let (mut frames, mut tasks) = (FrameReader::default(), FuturesUnordered::new());
    // Requests in progress are bounded: a sender of more waits.
    let budget: Arc<Semaphore> = call_budget();
    let mut said_at = rt::now();
    loop {
        let frame = tokio::select! {
            biased;
            Some(()) = tasks.next(), if !tasks.is_empty() => continue,
            frame = rt::timeout(IDLE_MAX, frames.next(from)) => frame,
        };
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing comes, not even a ping");
        let frame = frame.map_err(silent)??;
        let frame = match frame {
            Some(Read::Frame(frame)) => frame,
            // What was sent behind a long frame on a slow link, a ping too, is answered late: the sender learns that the link
            // carries something.
            Some(Read::Bytes) => {
                if rt::now().since(said_at) >= PING_INTERVAL {
                    said_at = rt::now();
                    let _ended = responses.send((EncodedFrame::receiving(), None));
                }
                continue;
            }
            None => return Ok(()),
        };
        match frame.kind {
            Kind::Request => {
                let taken = Arc::clone(&budget).acquire_many_owned(units(frame.body.len())).await;
                let taken = taken.map_err(io::Error::other)?;
                let request = decode(frame.body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                let is_in_order = matches!(request, Message::AppendEntries { .. });
                let (handler, responses) = (handler.clone(), responses.clone());
                let mut handled = Box::pin(async move {
                    let response = handler.deliver(frame.from, frame.to, request).await;
                    let _ended = responses.send((EncodedFrame::response(frame.number, &response), Some(taken)));
                });
                // The first step is made here: what was sent in order reaches its group in order.
                if !is_in_order || (&mut handled).now_or_never().is_none() {
                    tasks.push(Task(rt::spawn(handled)));
                }
            }
            Kind::Ping => {
                let _ended = responses.send((EncodedFrame::bare(Kind::Pong), None));
            }
            Kind::Response | Kind::NoResponse | Kind::Pong => {
                return Err(io::Error::other("a response where requests are expected"));
            }
        }
    }
}

async fn write_frames(to: &Duplex, mut responses: mpsc::UnboundedReceiver<Response>) -> io::Result<()> {
    let mut batch = Batch::default();
    while let Some(first) = responses.recv().await {
        let (mut next, mut written) = (Some(first), Vec::new());
        while let Some((frame, taken)) = next.take() {
            batch.push(frame);
            written.push(taken);
            next = if batch.bytes() < WRITE_BYTES { responses.try_recv().ok() } else { None };
        }
        to.write_all(&mut batch).await?;
        drop(written);
    }
    Ok(())
}
