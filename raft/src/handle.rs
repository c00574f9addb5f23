//! The cheap handle of one replica: propose, read index, role.
//!
//! May not know: what a proposal means.

use bytes::Bytes;
use ottla_storage::entry::EntryBatch;
use ottla_storage::env::watch;
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId, Term};

use crate::error::{ProposeError, RaftError, ReadIndexError};
use crate::machine::Reply;
use crate::members::Members;

/// What becomes a normal entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The command, encoded.
    pub payload: Bytes,
    /// Record batches, grouped by partition.
    pub batches: Vec<EntryBatch>,
    /// The proposer's wall clock; must never fall within a shard.
    pub clock_ms: i64,
}

/// An applied proposal.
#[derive(Debug)]
pub struct Proposed {
    /// Where it lies in the group's log.
    pub log_id: LogId,
    /// What apply answered.
    pub reply: Reply,
}

/// What a replica is in its group, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Role {
    /// The greatest term seen.
    pub term: Term,
    /// Who leads that term, if known.
    pub leader: Option<ReplicaId>,
    /// This replica leads AND has applied an entry of its own term: only now may it serve.
    pub ready: bool,
    /// The replica has stopped; it will not come back in this process.
    pub stopped: bool,
}

/// A proposal on its way; await [`Pending::applied`].
pub struct Pending(());

impl Pending {
    /// Waits until the entry is applied here.
    pub async fn applied(self) -> Result<Proposed, ProposeError> {
        unimplemented!()
    }
}

/// Handle of one replica of one group; cheap to clone.
#[derive(Clone)]
pub struct GroupHandle(());

impl GroupHandle {
    /// Which replica this is.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        unimplemented!()
    }

    /// Proposes an entry and waits until it is applied here.
    pub async fn propose(&self, _proposal: Proposal) -> Result<Proposed, ProposeError> {
        unimplemented!()
    }

    /// Proposes an entry and returns as soon as its place among this handle's proposals is fixed: entries of
    /// one caller that submits one after the other keep that order. Waits for room by bytes.
    pub async fn submit(&self, _proposal: Proposal) -> Result<Pending, ProposeError> {
        unimplemented!()
    }

    /// Confirms with a majority that this replica still leads, and waits until everything committed before the
    /// call is applied here. Returns the index read.
    pub async fn read_index(&self) -> Result<RaftIndex, ReadIndexError> {
        unimplemented!()
    }

    /// The role, and its changes.
    #[must_use]
    pub fn role(&self) -> watch::Receiver<Role> {
        unimplemented!()
    }

    /// Campaigns at once.
    pub async fn elect(&self) -> Result<(), RaftError> {
        unimplemented!()
    }

    /// Hands leadership to `to`.
    pub async fn transfer(&self, _to: ReplicaId) -> Result<(), RaftError> {
        unimplemented!()
    }

    /// The members as last seen.
    #[must_use]
    pub fn membership(&self) -> Members {
        unimplemented!()
    }

    /// The last entry applied here.
    #[must_use]
    pub fn applied(&self) -> Option<LogId> {
        unimplemented!()
    }

    /// Why the replica stopped, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<std::sync::Arc<str>> {
        unimplemented!()
    }

    /// Stops this replica; its state stays on disk.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}
