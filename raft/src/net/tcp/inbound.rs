//! Connections that other nodes made: who they are, their requests, our answers.
//!
//! May not know: what a request does.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ottla_storage::env::critical::Owner;
use ottla_storage::env::rt;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::frame::{Batch, FrameReader, Kind, Sealed};
use super::guests::{Guest, Guests};
use super::hello::{read_hello, write_answer};
use super::link::{HELLO_WAIT, IDLE_MAX, WRITE_BYTES, room, units};
use super::shared::Shared;
use crate::host::RaftHost;
use crate::net::wire::decode;

/// Connections at one time, those that have not said who they are included.
const CONNECTIONS_MAX: usize = 4_096;

/// A task that ends with what keeps it.
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

/// Accepts connections as long as it is kept.
pub struct Listening {
    _accepting: Task,
}

pub(super) fn listen(listener: TcpListener, host: RaftHost, shared: Arc<Shared>) -> Listening {
    let accepting = async move {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = connections.next(), if !connections.is_empty() => {}
                accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => connections.push(Task(rt::spawn(receive(stream, host.clone(), shared.clone())))),
                    Err(error) => {
                        tracing::warn!(%error, "a connection of another node cannot be accepted");
                        rt::sleep(HELLO_WAIT).await;
                    }
                },
            }
        }
    };
    Listening { _accepting: Task(rt::spawn_critical("cluster-listener", Owner::process(), accepting)) }
}

async fn receive(stream: TcpStream, host: RaftHost, shared: Arc<Shared>) {
    let from = stream.peer_addr().map_or_else(|_| "somebody".to_owned(), |address| address.to_string());
    match rt::timeout(HELLO_WAIT, welcome(stream, &shared)).await {
        Ok(Ok(Some((stream, guest)))) => {
            let ended = converse(stream, &host).await;
            tracing::debug!(node = guest.node().0, from, "connection of another node ended: {ended:?}");
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::warn!(from, "the cluster listener got no hello: {error}"),
        Err(_) => tracing::warn!(from, "the cluster listener got no hello in time"),
    }
}

/// Hears who is there and answers; `None` if it was refused.
async fn welcome(mut stream: TcpStream, shared: &Arc<Shared>) -> io::Result<Option<(TcpStream, Guest)>> {
    stream.set_nodelay(true)?;
    let hello = read_hello(&mut stream).await?;
    let own = shared.identity();
    let guest = hello.check(&own).and_then(|()| Guests::enter(&shared.guests, &hello));
    let answer = guest.as_ref().map(|_| own).map_err(Clone::clone);
    write_answer(&mut stream, &answer).await?;
    match guest {
        Ok(guest) => Ok(Some((stream, guest))),
        Err(why) => {
            tracing::warn!(node = hello.identity.node.0, "a node is refused: {why}");
            Ok(None)
        }
    }
}

type Answer = (Sealed, Option<OwnedSemaphorePermit>);

async fn converse(stream: TcpStream, host: &RaftHost) -> io::Result<()> {
    let (reading, writing) = stream.into_split();
    let (answers, outgoing) = mpsc::unbounded_channel();
    tokio::select! {
        biased;
        ended = hear(reading, host, answers) => ended,
        ended = speak(writing, outgoing) => ended,
    }
}

async fn hear(mut from: OwnedReadHalf, host: &RaftHost, answers: mpsc::UnboundedSender<Answer>) -> io::Result<()> {
    let (mut frames, mut tasks) = (FrameReader::default(), FuturesUnordered::new());
    // What is under way is bounded: whoever sends more waits.
    let room: Arc<Semaphore> = room();
    loop {
        let frame = tokio::select! {
            biased;
            Some(()) = tasks.next(), if !tasks.is_empty() => continue,
            frame = rt::timeout(IDLE_MAX, frames.next(&mut from)) => frame,
        };
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing comes, not even a ping");
        let frame = frame.map_err(silent)??;
        let Some(frame) = frame else { return Ok(()) };
        match frame.kind {
            Kind::Request => {
                let taken = Arc::clone(&room).acquire_many_owned(units(frame.body.len())).await;
                let taken = taken.map_err(io::Error::other)?;
                let request = decode(frame.body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                let (host, answers) = (host.clone(), answers.clone());
                tasks.push(Task(rt::spawn(async move {
                    let answer = host.deliver(frame.from, frame.to, request).await;
                    let _ended = answers.send((Sealed::answer(frame.number, &answer), Some(taken)));
                })));
            }
            Kind::Ping => {
                let _ended = answers.send((Sealed::bare(Kind::Pong), None));
            }
            Kind::Answer | Kind::Refusal | Kind::Pong => {
                return Err(io::Error::other("an answer where questions are expected"));
            }
        }
    }
}

async fn speak(mut to: OwnedWriteHalf, mut answers: mpsc::UnboundedReceiver<Answer>) -> io::Result<()> {
    let mut batch = Batch::default();
    while let Some(first) = answers.recv().await {
        let (mut next, mut written) = (Some(first), Vec::new());
        while let Some((frame, taken)) = next.take() {
            batch.push(frame);
            written.push(taken);
            next = if batch.bytes() < WRITE_BYTES { answers.try_recv().ok() } else { None };
        }
        to.write_all_buf(&mut batch).await?;
        drop(written);
    }
    Ok(())
}
