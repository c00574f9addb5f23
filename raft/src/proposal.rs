//! A proposal to a group, and the response that its proposer waits for.
//!
//! May not know: openraft, and what a proposal means.

use std::fmt;

use bytes::Bytes;
use ottla_storage::entry::Batches;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// The content of a normal entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The command, encoded.
    pub payload: Bytes,
    /// Record batches, grouped by partition.
    pub batches: Batches,
    /// The proposer's wall clock; must never go back within a shard.
    pub clock_ms: i64,
}

/// The cost of an entry besides its payload and batches.
const ENTRY_BYTES: usize = 128;

impl Proposal {
    /// Bytes of its command, its batches and their descriptors.
    pub(crate) fn entry_bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.data.len() + 32).sum::<usize>() + self.payload.len()
    }

    /// Bytes that it counts for while in flight.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entry_bytes() + ENTRY_BYTES
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {} batches", self.payload.len(), self.batches.len())
    }
}

/// Responds to one proposal; the bytes of the proposal count as in flight until it is dropped.
pub(crate) struct ProposalResponder<T> {
    sender: oneshot::Sender<T>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<T> ProposalResponder<T> {
    /// A responder that holds the proposal's permit, and the receiver of the response.
    pub(crate) fn holding(permit: OwnedSemaphorePermit) -> (Self, oneshot::Receiver<T>) {
        let (sender, result) = oneshot::channel();
        (ProposalResponder { sender, _permit: Some(permit) }, result)
    }

    pub(crate) fn send(self, result: T) {
        // The proposer may have stopped waiting.
        let _ = self.sender.send(result);
    }
}
