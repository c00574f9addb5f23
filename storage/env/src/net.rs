//! Listeners and byte streams: TCP sockets ([`super::real`]), or those of a simulation ([`super::sim::net`]).
//!
//! Who serves a connection holds a [`Stream`] and cannot tell which it is. May not know: protocols.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::BytesMut;

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
