//! A simulated connection: one pipe in each direction, over the links between its machines.
//!
//! How it ends:
//! - a side that is dropped closes: the other side reads what is on its way, then the end;
//! - a machine that loses power says nothing: its side is dropped in silence, and the other side waits (half-open);
//! - once that machine is up again it answers bytes of a connection that it does not know with a reset.
//!
//! May not know: addresses, listeners.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;

use super::link::Link;
use crate::net::Stream;
use crate::rt::{self, Sleep};
use crate::sim::elapsed;

/// The power of a machine while one of its processes runs; shared by the connections of that process.
#[derive(Default)]
pub(super) struct Power {
    /// The machine has lost power: its connections end in silence.
    is_lost: AtomicBool,
    /// The machine has come up again since.
    is_back: AtomicBool,
}

impl Power {
    pub(super) fn lose(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
    }

    pub(super) fn come_back(&self) {
        self.is_back.store(true, Ordering::Relaxed);
    }

    fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    fn is_back(&self) -> bool {
        self.is_lost() && self.is_back.load(Ordering::Relaxed)
    }
}

/// What one write takes at most: long messages arrive bit by bit over a slow link.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// One direction.
struct Pipe {
    link: Arc<Link>,
    /// Bytes on their way; a write that would exceed them waits, as for a socket's buffers.
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Writes on their way, with the time since the start of the simulation at which each arrives.
    chunks: VecDeque<(Duration, Bytes)>,
    bytes: usize,
    /// The writer will not write any more.
    is_ended: bool,
    /// The reader will not read any more.
    is_closed: bool,
    /// The connection was reset: what is on its way is lost.
    is_reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake_both(&self, change: impl FnOnce(&mut State)) {
        let wakers = {
            let mut state = self.state.lock();
            change(&mut state);
            [state.reader.take(), state.writer.take()]
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn reset(&self) {
        self.wake_both(|state| state.is_reset = true);
    }
}

/// Both directions, so that a fault can reset them.
pub(super) struct Pair(Arc<Pipe>, Arc<Pipe>);

impl Pair {
    /// Both sides find the connection reset at once.
    pub(super) fn reset(&self) {
        self.0.reset();
        self.1.reset();
    }

    /// The machine of one side has come up again: bytes that it never acknowledged are sent to it again, and it does
    /// not know the connection.
    pub(super) fn answer_retransmissions(&self) {
        if self.0.state.lock().bytes > 0 || self.1.state.lock().bytes > 0 {
            self.reset();
        }
    }

    /// True if neither side is there any more.
    pub(super) fn is_over(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// One side of a connection.
pub struct SimStream {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
    /// Wakes the reader when the first write arrives.
    arrival: Mutex<Option<Sleep>>,
    own: Arc<Power>,
    other: Arc<Power>,
}

/// A connection between two machines: the side of the client, that of the server, and a handle of both. `links`: from
/// the client, and to it; each direction holds `bytes_max`.
pub(super) fn connection(
    links: (Arc<Link>, Arc<Link>),
    (client, server): (Arc<Power>, Arc<Power>),
    bytes_max: usize,
) -> (SimStream, SimStream, Pair) {
    let [to, from] = [links.0, links.1].map(|link| Arc::new(Pipe { link, bytes_max, state: Mutex::default() }));
    let side = |incoming: &Arc<Pipe>, outgoing: &Arc<Pipe>, own: &Arc<Power>, other: &Arc<Power>| SimStream {
        incoming: incoming.clone(),
        outgoing: outgoing.clone(),
        arrival: Mutex::default(),
        own: own.clone(),
        other: other.clone(),
    };
    let clients = side(&from, &to, &client, &server);
    (clients, side(&to, &from, &server, &client), Pair(to, from))
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl SimStream {
    /// Waits until `wait` has passed; the clock of this node may be slower than the world's, so what is left is waited
    /// for again.
    fn poll_arrival(&self, wait: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let mut arrival = self.arrival.lock();
        if Pin::new(arrival.get_or_insert_with(|| rt::sleep(wait))).poll(cx).is_pending() {
            return Poll::Pending;
        }
        *arrival = None;
        Poll::Ready(())
    }
}

impl Stream for SimStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut state = self.incoming.state.lock();
            let due = match state.chunks.front() {
                _ if state.is_reset => return Poll::Ready(Ok(())),
                Some((due, _)) => *due,
                None if state.is_ended => Duration::ZERO,
                None => {
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            };
            let Some(resumes_in) = self.incoming.link.wait_while_cut(cx.waker()) else {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let wait = due.saturating_sub(elapsed()).max(resumes_in);
            if wait.is_zero() {
                return Poll::Ready(Ok(()));
            }
            state.reader = Some(cx.waker().clone());
            drop(state);
            if self.poll_arrival(wait, cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_read(&mut self, buffer: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.poll_read_ready(cx)?.is_pending() {
            return Poll::Pending;
        }
        let mut state = self.incoming.state.lock();
        if state.is_reset {
            return Poll::Ready(Err(reset()));
        }
        let (now, mut read) = (elapsed(), 0);
        while let Some((due, chunk)) = state.chunks.front_mut() {
            let room = buffer.capacity() - buffer.len();
            if *due > now || room == 0 {
                break;
            }
            let taken = chunk.len().min(room);
            buffer.extend_from_slice(&chunk[..taken]);
            chunk.advance(taken);
            let is_empty = chunk.is_empty();
            read += taken;
            state.bytes -= taken;
            if is_empty {
                state.chunks.pop_front();
            }
        }
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(Ok(read))
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.outgoing.state.lock();
        if state.is_reset || state.is_closed || state.bytes < self.outgoing.bytes_max {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.outgoing.state.lock();
        if state.is_reset {
            return Err(reset());
        }
        if state.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = self.outgoing.bytes_max.saturating_sub(state.bytes).min(CHUNK_BYTES_MAX);
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut chunk = BytesMut::new();
        for slice in slices {
            let taken = slice.len().min(room - chunk.len());
            chunk.extend_from_slice(&slice[..taken]);
        }
        let written = chunk.len();
        let earliest = state.chunks.back().map_or(Duration::ZERO, |(before, _)| *before);
        let due = self.outgoing.link.arrival(written, earliest);
        state.bytes += written;
        state.chunks.push_back((due, chunk.freeze()));
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        if self.other.is_back() {
            self.incoming.reset();
            self.outgoing.reset();
        }
        Ok(written)
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        if !self.own.is_lost() {
            self.outgoing.wake_both(|state| state.is_ended = true);
            self.incoming.wake_both(|state| state.is_closed = true);
        }
    }
}
