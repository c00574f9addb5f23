//! What the integration tests share: real broker processes, a thin raw client and hand-made record batches.
//!
//! It knows the wire from `kafka-protocol` and from Kafka's documentation, never from our own codecs: a mistake there
//! must not hide itself here.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

pub mod batch;
pub mod cluster;
pub mod modules;
pub mod process;
pub mod raw;
