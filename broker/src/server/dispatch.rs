//! What a connection needs of whoever answers requests: decode, start, encode.
//!
//! The connection keeps order, bursts and limits; it never looks into a request. May not know: sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::server::budget::Reservation;
use crate::server::response_queue::ResponseQueue;

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Unique within the process; what must not outlive a connection is keyed by it.
    pub connection: u64,
    /// Name of the listener the client came to: it decides which addresses the client is told.
    pub listener: Arc<str>,
    /// The client's address.
    pub address: SocketAddr,
}

/// The end of a connection that the client brought about, as a log line says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CloseReason(pub String);

/// What became of a request.
#[derive(Debug)]
pub enum Answer<R> {
    /// This goes back to the client.
    Reply {
        /// The answer.
        reply: R,
        /// Memory that is given back when the answer is written.
        memory: Reservation,
    },
    /// Nothing goes back (acks=0).
    Nothing,
    /// The client learns of it by the end of its connection.
    Close(CloseReason),
}

/// Whether a request may start while earlier ones of its connection are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It may, if all of those overlap too: consecutive Produce requests.
    Overlap,
    /// It waits until all earlier ones are answered, and later ones wait for it.
    Alone,
}

/// A request under way.
pub struct Started<R> {
    /// Gives the answer; may be polled later and may be dropped.
    pub answer: BoxFuture<'static, Answer<R>>,
    /// Whether everything that must happen in the order of requests has happened. If not, no later request starts
    /// before this one is answered.
    pub ordered: bool,
}

/// Answers requests; one per connection.
pub trait Dispatch: Send + Sync + 'static {
    /// A decoded request.
    type Call: Send;
    /// An answer that is not encoded yet.
    type Reply: Send;

    /// Decodes a frame, or says why the connection must end.
    fn decode(&mut self, frame: Bytes) -> Result<(Self::Call, Turn), CloseReason>;

    /// Starts a request.
    fn start(&mut self, call: Self::Call) -> Started<Self::Reply>;

    /// Appends the answer, its length first, to `out`.
    fn encode(&mut self, reply: Self::Reply, out: &mut ResponseQueue) -> Result<(), CloseReason>;
}
