//! Listeners, connectors and byte streams: TCP sockets ([`super::real`]), or those of a simulation
//! ([`super::sim::net`]).
//!
//! A server or client holds a [`Stream`] and cannot tell which it is. May not know: protocols.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;

/// Slices that are given to one write.
const SLICES_MAX: usize = 64;

/// A connection: bytes in order, both ways. One task reads and writes.
pub trait Stream: Send + Sync {
    /// Ready when a read would return bytes, the end or an error.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Appends what has arrived to `buffer`, at most its spare capacity; 0 bytes: the other side has closed its
    /// direction.
    fn poll_read(&mut self, buffer: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;

    /// Ready when a write would take bytes or return an error.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Writes without waiting; returns how many bytes were taken.
    ///
    /// # Errors
    /// `WouldBlock` when the stream takes nothing now.
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// Accepts connections.
pub trait Listener: Send {
    /// The next connection, and the address of the client.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn Stream>, SocketAddr)>>;
}

/// Opens connections.
pub trait Connector: Send + Sync {
    /// A connection to `host:port`. It may never complete: the caller bounds the time.
    fn connect<'a>(
        &'a self,
        address: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;
}

/// A stream of which one future of a task reads and another one writes.
pub struct Duplex(Mutex<Box<dyn Stream>>);

impl Duplex {
    /// Takes a stream.
    #[must_use]
    pub fn new(stream: Box<dyn Stream>) -> Self {
        Self(Mutex::new(stream))
    }

    /// Appends what has arrived to `buffer`, at most its spare capacity; 0 bytes: the other side has closed its
    /// direction. Cancelling the future loses nothing.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|cx| self.0.lock().poll_read(buffer, cx)).await
    }

    /// Writes everything.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn write_all(&self, bytes: &mut (impl Buf + Send)) -> io::Result<()> {
        while bytes.has_remaining() {
            let written = {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = bytes.chunks_vectored(&mut slices);
                self.0.lock().try_write_vectored(&slices[..count])
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|cx| self.0.lock().poll_write_ready(cx)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Waits until a read would not wait.
///
/// # Errors
/// Those of the stream.
pub async fn readable(stream: &dyn Stream) -> io::Result<()> {
    poll_fn(|cx| stream.poll_read_ready(cx)).await
}

/// Waits until a write would not wait.
///
/// # Errors
/// Those of the stream.
pub async fn writable(stream: &dyn Stream) -> io::Result<()> {
    poll_fn(|cx| stream.poll_write_ready(cx)).await
}

/// Waits for the next connection.
///
/// # Errors
/// When none can be accepted, for now.
pub async fn accept(listener: &mut dyn Listener) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
    poll_fn(|cx| listener.poll_accept(cx)).await
}
