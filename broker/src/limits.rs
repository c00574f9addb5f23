//! The limits of the server and the handlers, in one place: memory and time of a client, a connection and the node.
//!
//! Kafka's own limits (`socket.request.max.bytes`, `max.connections` ...) come from the configuration; the limits
//! here have no Kafka name. May not know: sockets, requests, partitions.

use std::time::Duration;

use crate::config::NetworkConfig;

/// Bytes of requests that a connection may hold without a reservation of the node's budget, so that small requests
/// (heartbeats, commits, metadata) pass when large ones wait for memory.
pub const CONNECTION_FREE_BYTES: usize = 16 * 1024;

/// A read buffer never starts larger than this, whatever size a frame announces.
pub const READ_BUFFER_BYTES_MIN: usize = 8 * 1024;

/// Bytes that are read ahead while complete requests wait until earlier ones are answered.
pub const READ_AHEAD_BYTES: usize = 128 * 1024;

/// Once this much of a frame has arrived, the buffer grows by up to [`FRAME_GROWTH_BYTES`] at once.
pub const FRAME_TRUSTED_BYTES: usize = 64 * 1024;

/// The largest growth of a read buffer that exceeds the bytes that have arrived.
pub const FRAME_GROWTH_BYTES: usize = 1024 * 1024;

/// Bytes of responses collected before they are written even if more are ready.
pub const WRITE_BURST_BYTES: usize = 256 * 1024;

/// Chunks of a response up to this size are copied together before they are written; larger ones are written without a
/// copy.
pub const GATHERED_BYTES_MAX: usize = 16 * 1024;

/// Bytes of responses that a connection writes before it yields to other tasks.
pub const TURN_BYTES: usize = 1024 * 1024;

/// Bytes of Produce requests of one connection that may be in flight at once (one larger request always may).
pub const IN_FLIGHT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Characters of a client id that a log line shows.
pub const CLIENT_ID_LOG_CHARS_MAX: usize = 80;

/// Characters of a resource's name that a log line shows.
pub const RESOURCE_NAME_LOG_CHARS_MAX: usize = 80;

/// Bytes that a Fetch response may have even when the memory budget is used up: one batch must always fit, or a
/// consumer gets stuck.
pub const FETCH_BYTES_FLOOR: usize = 64 * 1024;

/// Topics that one Metadata request may auto-create.
pub const METADATA_AUTO_CREATE_MAX: usize = 100;

/// The limits of one connection, mostly of time.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `ottla.connection.queued.requests`: Produce requests in flight at once.
    pub in_flight_requests_max: usize,
    /// `connections.max.idle.ms`.
    pub idle: Duration,
    /// `ottla.request.read.timeout.ms`: a frame must arrive within this time, plus one second per KiB received.
    pub frame_grace: Duration,
    /// A client that reads no byte of its responses for this long is disconnected.
    pub write_stall: Duration,
    /// A request that waits this long for memory is dropped, so that half-read requests cannot block each other.
    pub memory_wait: Duration,
    /// Time limit for requests in flight at a clean stop.
    pub drain: Duration,
}

impl ConnectionLimits {
    /// The limits that the configuration sets.
    #[must_use]
    pub fn configured(network: &NetworkConfig) -> Self {
        Self {
            request_bytes_max: network.request_bytes_max,
            in_flight_requests_max: network.connection_requests_max,
            idle: Duration::from_millis(network.idle_ms_max),
            // A client that sends a byte now and then is not idle, but it gets no more time than an idle one.
            frame_grace: Duration::from_millis(network.request_read_timeout_ms.min(network.idle_ms_max)),
            ..Self::default()
        }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            request_bytes_max: 100 * 1024 * 1024,
            in_flight_requests_max: 64,
            idle: Duration::from_secs(600),
            frame_grace: Duration::from_secs(30),
            write_stall: Duration::from_secs(300),
            memory_wait: Duration::from_secs(15),
            drain: Duration::from_secs(2),
        }
    }
}

const _: () = assert!(READ_BUFFER_BYTES_MIN <= CONNECTION_FREE_BYTES);
const _: () = assert!(FRAME_TRUSTED_BYTES <= FRAME_GROWTH_BYTES);
const _: () = assert!(FETCH_BYTES_FLOOR <= WRITE_BURST_BYTES);

/// Partitions in all fetch sessions together: about 200 bytes each.
pub const FETCH_SESSION_PARTITIONS_MAX: usize = 500_000;
