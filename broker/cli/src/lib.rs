//! The administrator's command line, and the client of Kafka's protocol that it uses.
//!
//! - `client`: finds leaders and coordinators, sends requests, retries retriable errors
//! - `commands`: `ottla topic`, `group`, `node`, `shard`, `feature`
//!
//! May not know: the broker, which it reaches over the wire only; that keeps it usable with any broker of Kafka's
//! protocol.

pub mod client;
pub mod commands;
