//! How the marker of a transaction enters a partition: its batch, and the options of its append.
//!
//! May not know: whether a transaction is open there; apply decides that.

use std::time::Duration;

use bytes::Bytes;
use ottla_protocol::batch::{ControlRecord, encode_control_batch};

use super::types::{AppendOptions, Origin, TransactionDecision, TransactionPart};
use crate::replicated::transactions::Marker;

/// What is appended for a marker. `producer`: its id, and the epoch that the marker has.
#[must_use]
pub fn append_of(marker: Marker, producer: (i64, i16), now_ms: i64, timeout: Duration) -> (Bytes, AppendOptions) {
    let coordinator_epoch = marker.coordinator_epoch;
    let record = match marker.commits {
        true => ControlRecord::Commit { coordinator_epoch },
        false => ControlRecord::Abort { coordinator_epoch },
    };
    let transaction = Some(TransactionPart::Decides(TransactionDecision::Ends(marker)));
    let (id, epoch) = producer;
    let batch = encode_control_batch(id, epoch, now_ms, record);
    (batch, AppendOptions { transaction, ..AppendOptions::new(Origin::Transaction, timeout) })
}
