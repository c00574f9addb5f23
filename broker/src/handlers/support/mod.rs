//! What several handlers share and no single API owns: addresses of brokers, partitions as clients see them, config
//! resources, loggers, authorized operations, and the error of a response for the metrics.
//!
//! Kept apart so that every other file of the handlers is one API. May not know: which API calls.

pub(super) mod authorized_operations;
pub(super) mod broker_loggers;
pub(super) mod config_resource;
pub(super) mod endpoints;
pub(super) mod known_topics;
pub(super) mod partition_metadata;
pub(super) mod response_error;
pub(super) mod transaction_error;

use kafka_protocol::protocol::StrBytes;

/// A string of the node as the wire format's type.
pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
