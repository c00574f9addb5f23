//! Bytes and words of the Kafka protocol: framing, headers, the one version table, requests,
//! responses, record batches and error codes.
//!
//! May not know: sockets, clocks, async, disks, or what any request means to a broker.

pub mod ids;
