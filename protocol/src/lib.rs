//! The Kafka protocol: framing, headers, the one version table, requests,
//! responses, record batches and error codes.
//!
//! May not know: sockets, clocks, async, disks, or what any request means to a broker.

pub mod batch;
pub mod compression;
pub mod error;
pub mod fetch;
pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod header;
pub mod id_hash;
pub mod ids;
mod leader_hint;
pub mod messages;
pub mod produce;
pub mod records;
pub mod request;
pub mod response;
#[cfg(test)]
mod samples;
mod schema;
#[cfg(test)]
mod tests;
pub mod versions;
pub mod wire;

pub use kafka_protocol::protocol::StrBytes;
