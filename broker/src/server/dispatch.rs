//! The interface between a connection and the code that answers its requests: decode, start, encode.
//!
//! The connection is responsible for order, bursts and limits; it never looks into a request. May not know: sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::server::budget::Reservation;
use crate::server::response_queue::ResponseQueue;

/// The client's end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Unique within the process; the key of state that must not outlive the connection.
    pub connection: u64,
    /// Name of the listener that accepted the client: it decides which addresses the client is sent.
    pub listener: Arc<str>,
    /// The client's address.
    pub address: SocketAddr,
}

/// Why a request closes its connection, in the words of the log line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CloseReason(pub String);

/// The result of a request.
#[derive(Debug)]
pub enum Answer<R> {
    /// A response is sent.
    Reply {
        /// The response.
        reply: R,
        /// Memory that is returned to the budget when the response is written.
        memory: Reservation,
    },
    /// No response is sent (acks=0).
    Nothing,
    /// The connection is closed: the only way to report an error of a request without a response.
    Close(CloseReason),
}

/// Whether a request may start while earlier ones of its connection are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It may, if all of those may, too: consecutive Produce requests.
    Overlap,
    /// It waits until all earlier ones are answered, and later ones wait for it.
    Alone,
}

/// A request in flight.
pub struct Started<R> {
    /// Resolves to the answer; may be polled later and may be dropped.
    pub answer: BoxFuture<'static, Answer<R>>,
    /// Whether everything that must happen in the order of requests has happened. If not, no later request starts
    /// before this one is answered.
    pub ordered: bool,
}

/// Decodes, starts and encodes the requests of one connection.
pub trait Dispatch: Send + Sync + 'static {
    /// A decoded request.
    type Call: Send;
    /// A response that is not encoded yet.
    type Reply: Send;

    /// Decodes a frame, or returns why the connection must be closed.
    fn decode(&mut self, frame: Bytes) -> Result<(Self::Call, Turn), CloseReason>;

    /// Starts a request.
    fn start(&mut self, call: Self::Call) -> Started<Self::Reply>;

    /// Appends the response, its length first, to `out`.
    fn encode(&mut self, reply: Self::Reply, out: &mut ResponseQueue) -> Result<(), CloseReason>;
}
