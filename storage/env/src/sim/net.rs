//! Simulated listeners and streams: bytes arrive in order, each write so much later, as the seed has it.
//!
//! A stream ends when one side drops it; the other reads what is on its way, then the end. When a machine loses power
//! ([`SimListener::lose_power`]) its side ends in silence, and the other waits for ever. May not know: protocols.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;

use super::{elapsed, random_below};
use crate::net::{Listener, Stream};
use crate::rt::{self, Sleep};

/// Bytes on their way in one direction; a write that would exceed them waits, as for a socket's buffers.
const PIPE_BYTES_MAX: usize = 64 << 10;
/// Shortest time from write to arrival.
const DELAY_MIN: Duration = Duration::from_micros(50);
/// The delays differ by at most so much.
const DELAY_SPREAD_US: u64 = 1_500;

/// One direction.
#[derive(Default)]
struct Pipe {
    /// Writes on their way, with the time since the start of the simulation at which each arrives.
    chunks: VecDeque<(Duration, Bytes)>,
    bytes: usize,
    /// The writer will not write any more.
    is_ended: bool,
    /// The reader will not read any more.
    is_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One side of a connection.
pub struct SimStream {
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
    /// Wakes the reader when the first write arrives.
    arrival: Mutex<Option<Sleep>>,
    /// The machine of this side has lost power.
    is_silent: Arc<AtomicBool>,
}

fn pair(silent: Arc<AtomicBool>) -> (SimStream, SimStream) {
    let (to, from) = (Arc::<Mutex<Pipe>>::default(), Arc::<Mutex<Pipe>>::default());
    let client = SimStream {
        incoming: from.clone(),
        outgoing: to.clone(),
        arrival: Mutex::default(),
        is_silent: Arc::default(),
    };
    (client, SimStream { incoming: to, outgoing: from, arrival: Mutex::default(), is_silent: silent })
}

impl Stream for SimStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut pipe = self.incoming.lock();
            let wait = match pipe.chunks.front() {
                Some((due, _)) => due.saturating_sub(elapsed()),
                None if pipe.is_ended => return Poll::Ready(Ok(())),
                None => {
                    pipe.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            };
            if wait.is_zero() {
                return Poll::Ready(Ok(()));
            }
            drop(pipe);
            let mut arrival = self.arrival.lock();
            if Pin::new(arrival.get_or_insert_with(|| rt::sleep(wait))).poll(cx).is_pending() {
                return Poll::Pending;
            }
            // The clock of this node may be slower than the world's: what is left is waited for again.
            *arrival = None;
        }
    }

    fn poll_read(&mut self, buffer: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.poll_read_ready(cx)?.is_pending() {
            return Poll::Pending;
        }
        let mut pipe = self.incoming.lock();
        let (now, mut read) = (elapsed(), 0);
        while let Some((due, chunk)) = pipe.chunks.front_mut() {
            let room = buffer.capacity() - buffer.len();
            if *due > now || room == 0 {
                break;
            }
            let taken = chunk.len().min(room);
            buffer.extend_from_slice(&chunk[..taken]);
            chunk.advance(taken);
            let is_empty = chunk.is_empty();
            read += taken;
            pipe.bytes -= taken;
            if is_empty {
                pipe.chunks.pop_front();
            }
        }
        let writer = pipe.writer.take();
        drop(pipe);
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(Ok(read))
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.outgoing.lock();
        if pipe.is_closed || pipe.bytes < PIPE_BYTES_MAX {
            return Poll::Ready(Ok(()));
        }
        pipe.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = self.outgoing.lock();
        if pipe.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = PIPE_BYTES_MAX.saturating_sub(pipe.bytes);
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut chunk = BytesMut::new();
        for slice in slices {
            let taken = slice.len().min(room - chunk.len());
            chunk.extend_from_slice(&slice[..taken]);
        }
        let written = chunk.len();
        let soonest = elapsed() + DELAY_MIN + Duration::from_micros(random_below(DELAY_SPREAD_US));
        let due = pipe.chunks.back().map_or(soonest, |(before, _)| soonest.max(*before));
        pipe.bytes += written;
        pipe.chunks.push_back((due, chunk.freeze()));
        let reader = pipe.reader.take();
        drop(pipe);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(written)
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        if self.is_silent.load(Ordering::Relaxed) {
            return;
        }
        let reader = {
            let mut outgoing = self.outgoing.lock();
            outgoing.is_ended = true;
            outgoing.reader.take()
        };
        let writer = {
            let mut incoming = self.incoming.lock();
            incoming.is_closed = true;
            incoming.writer.take()
        };
        [reader, writer].into_iter().flatten().for_each(Waker::wake);
    }
}

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<SimStream>,
    acceptor: Option<Waker>,
}

/// A port of a simulated node; cheap to clone.
#[derive(Clone, Default)]
pub struct SimListener {
    backlog: Arc<Mutex<Backlog>>,
    is_silent: Arc<AtomicBool>,
}

impl SimListener {
    /// Connects a client.
    #[must_use]
    pub fn connect(&self) -> SimStream {
        let (client, served) = pair(self.is_silent.clone());
        let mut backlog = self.backlog.lock();
        backlog.waiting.push_back(served);
        let acceptor = backlog.acceptor.take();
        drop(backlog);
        if let Some(acceptor) = acceptor {
            acceptor.wake();
        }
        client
    }

    /// From now on no client is told that its connection has ended.
    pub fn lose_power(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
    }
}

impl Listener for SimListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn Stream>, SocketAddr)>> {
        let mut backlog = self.backlog.lock();
        match backlog.waiting.pop_front() {
            Some(stream) => Poll::Ready(Ok((Box::new(stream), SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000))))),
            None => {
                backlog.acceptor = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
