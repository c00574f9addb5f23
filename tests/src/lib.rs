//! Shared by the integration tests: real broker processes, a thin raw client and hand-made record batches.
//!
//! It implements the wire protocol by `kafka-protocol` and Kafka's documentation, never by our own codecs: a mistake
//! there must not hide itself here.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

pub mod batch;
pub mod cluster;
pub mod groups;
pub mod links;
pub mod modules;
pub mod process;
pub mod raw;
