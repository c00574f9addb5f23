//! Connections opened by other nodes: their handshake, their requests, the responses of this node.
//!
//! May not know: what a request does.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

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
use super::peer_connection::{HANDSHAKE_TIMEOUT, IDLE_MAX, WRITE_BYTES, call_budget, units};
use super::send_window::{RECEIPT_BYTES, RECEIPT_INTERVAL, RECEIPTS_SINCE};
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
        Ok(Ok(Some((version, peer)))) => {
            let ended = exchange(&stream, version, &handler, &peer).await;
            tracing::debug!(node = peer.node().0, %from, "connection of another node ended: {ended:?}");
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::warn!(%from, "the cluster listener received no handshake: {error}"),
        Err(_) => tracing::warn!(%from, "the cluster listener received no handshake in time"),
    }
}

/// Accepts or rejects the handshake of a connection; `None` if it was rejected, else the version of the connection.
async fn handshake(stream: &Duplex, local: &Arc<LocalNode>) -> io::Result<Option<(u8, ConnectedPeer)>> {
    let request = read_request(stream).await?;
    let own = local.identity();
    let checked = request.check(&own);
    let peer = checked.and_then(|version| Ok((version, ConnectedPeers::register(&local.connected, &request)?)));
    let response = peer.as_ref().map(|(version, _)| (*version, own)).map_err(Clone::clone);
    write_response(stream, &response).await?;
    match peer {
        Ok(accepted) => Ok(Some(accepted)),
        Err(why) => {
            tracing::warn!(node = request.identity.node.0, "a node is rejected: {why}");
            Ok(None)
        }
    }
}

type Response = (EncodedFrame, Option<OwnedSemaphorePermit>);

async fn exchange(
    stream: &Duplex,
    version: u8,
    handler: &Arc<dyn MessageHandler>,
    peer: &ConnectedPeer,
) -> io::Result<()> {
    let (responses, outgoing) = mpsc::unbounded_channel();
    tokio::select! {
        biased;
        ended = read_frames(stream, version, handler, peer, responses) => ended,
        ended = write_frames(stream, outgoing) => ended,
    }
}

/// What the sender was told last of the bytes that were received.
struct Receipts {
    told: u64,
    told_at: rt::Instant,
}

impl Receipts {
    /// How long until the sender is to be told; `None` while there is nothing to tell.
    fn due(&self, received: u64) -> Option<Duration> {
        match received - self.told {
            0 => None,
            RECEIPT_BYTES.. => Some(Duration::ZERO),
            _ => Some(RECEIPT_INTERVAL.saturating_sub(rt::now().since(self.told_at))),
        }
    }
}

async fn read_frames(
    from: &Duplex,
    version: u8,
    handler: &Arc<dyn MessageHandler>,
    peer: &ConnectedPeer,
    responses: mpsc::UnboundedSender<Response>,
) -> io::Result<()> {
    let (mut frames, mut tasks) = (FrameReader::default(), FuturesUnordered::new());
    // Requests in progress are bounded: a sender of more waits.
    let budget: Arc<Semaphore> = call_budget();
    let mut receipts = Receipts { told: 0, told_at: rt::now() };
    loop {
        let receipt_due = receipts.due(frames.received()).filter(|_| version >= RECEIPTS_SINCE);
        if receipt_due.is_some_and(|wait| wait.is_zero()) {
            receipts = Receipts { told: frames.received(), told_at: rt::now() };
            let _ended = responses.send((EncodedFrame::received(receipts.told), None));
            continue;
        }
        let frame = tokio::select! {
            biased;
            Some(()) = tasks.next(), if !tasks.is_empty() => continue,
            frame = rt::timeout(IDLE_MAX, frames.next(from)) => frame,
            () = rt::sleep(receipt_due.unwrap_or_default()), if receipt_due.is_some() => continue,
        };
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing comes, not even a ping");
        let frame = frame.map_err(silent)??;
        peer.heard();
        let frame = match frame {
            Some(Read::Frame(frame)) => frame,
            Some(Read::Bytes) => continue,
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
            Kind::Response | Kind::NoResponse | Kind::Pong | Kind::Received => {
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
