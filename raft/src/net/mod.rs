//! Messages between replicas, and the trait that a transport implements.
//!
//! A message names replicas, never nodes; the transport looks up where they are located. May not know: sockets.

pub mod congestion_window;
mod local_delivery;
pub(crate) mod message_codec;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod message_samples;
pub(crate) mod peer;
mod peer_directory;
pub(crate) mod sim;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
pub use local_delivery::LocalDelivery;
use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::data_dir::{Exported, ReplicaSnapshot};
use ottla_storage::entry::{Entry, Vote};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId};
pub use peer::{DeathConfirmation, HandshakeRejection, Identity, Listening, OnPeerClosed, PeerNetwork};
pub use peer_directory::{PeerDirectory, ReplicaLocation};

/// A request from one replica of a group to another, or the response to one. The names are those of the Raft paper.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Entries to append; without entries a heartbeat.
    AppendEntries { vote: Vote, prev_log_id: Option<LogId>, entries: Vec<Entry>, leader_commit: Option<LogId> },
    /// Everything up to the end of the request is on the follower's disk.
    AppendEntriesSuccess,
    /// Only the entries up to this one are on the follower's disk; the leader may send more.
    AppendEntriesPartialSuccess(Option<LogId>),
    /// The follower's log differs at `prev_log_id`.
    AppendEntriesConflict,
    /// The receiver has seen a greater vote.
    HigherVote(Vote),
    /// Request for a vote. `pre_vote`: only whether the vote would be granted. `leadership_transfer`: the leader itself
    /// wants the election, or is suspected of having failed. Both: whether the receiver has not heard from the leader
    /// either.
    RequestVote { pre_vote: bool, vote: Vote, last_log_id: Option<LogId>, leadership_transfer: bool },
    /// Response to `RequestVote`.
    RequestVoteResponse { vote: Vote, last_log_id: Option<LogId>, granted: bool },
    /// The leader requests that `to` takes over leadership.
    TransferLeader { from_leader: Vote, to: ReplicaId, last_log_id: Option<LogId> },
    /// Response to `TransferLeader`.
    TransferLeaderResponse { accepted: bool },
    /// A request to the [`crate::Service`] registered for a replica, in bytes that Raft does not read.
    Request(Bytes),
    /// Response to `Request`.
    Response(Bytes),
    /// The leader has purged entries that the receiver lacks: the receiver downloads a snapshot that contains at least
    /// `last_included`.
    InstallSnapshot { vote: Vote, last_included: LogId },
    /// Response to `InstallSnapshot`: whether the snapshot is installed; if not, it is being downloaded.
    InstallSnapshotResponse { done: bool },
    /// Request for the state of the newest checkpoint, part by part: for the first part, or for the next one.
    FetchState { resume: Option<Resume> },
    /// Response to `FetchState`: a part, `None` before there is a checkpoint. Its keys begin anew where the state at the
    /// requested place is not held any more.
    FetchStateResponse(Option<StatePart>),
    /// Request for the state of the newest checkpoint in one message, as a node of version 1 sends it.
    FetchWholeState,
    /// Response to `FetchWholeState`.
    FetchWholeStateResponse(Option<ReplicaSnapshot>),
    /// Request for the checksum of the receiver's state after an entry, computed as `format` says.
    CheckState { index: RaftIndex, format: u8 },
    /// Response to `CheckState`; `None` if the receiver does not have it.
    CheckStateResponse(Option<u64>),
    /// Request for batches of a partition.
    FetchBatches { partition: PartitionId, from: Offset, up_to: Offset, bytes_max: u64 },
    /// Response to `FetchBatches`.
    FetchBatchesResponse(Exported),
}

/// Where a state goes on that is fetched in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The last entry that the state contains.
    pub of: LogId,
    /// The last key that was received.
    pub after: Bytes,
}

/// A part of a replica's state: some of its keys, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePart {
    /// The state, with the keys of this part alone.
    pub state: ReplicaSnapshot,
    /// No keys follow.
    pub is_last: bool,
}

impl Message {
    /// The version of messages from which on a node understands the request. What has an older form is sent in that one.
    pub(crate) fn since_version(&self) -> u8 {
        match self {
            Self::CheckState { .. } => 2,
            _ => 1,
        }
    }

    /// The vote that a request makes its receiver see.
    pub(crate) fn vote(&self) -> Option<Vote> {
        match self {
            Self::AppendEntries { vote, .. } | Self::RequestVote { vote, .. } | Self::InstallSnapshot { vote, .. } => {
                Some(*vote)
            }
            Self::TransferLeader { from_leader, .. } => Some(*from_leader),
            _ => None,
        }
    }
}

/// Whether a request may wait behind others between the same two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// The transport decides by the kind of the message.
    Normal,
    /// The request arrives after those of the same group that were sent before it, with the group's entries. Its response is awaited
    /// as long as the connection makes progress; `timeout` counts from when the receiver has the request.
    InOrder,
    /// The request is sent with snapshots and repairs, so that it delays neither votes nor entries.
    Bulk,
}

/// The request got no response; whether it was acted upon is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no answer: {0}")]
pub struct NoResponse(pub String);

impl NoResponse {
    /// The location of the receiver is not known here.
    pub(crate) fn unknown_location(to: ReplicaId) -> BoxFuture<'static, Result<Message, Self>> {
        Box::pin(std::future::ready(Err(Self(format!("replica {to} is on no node that is known here")))))
    }
}

/// A transport between replicas. Loss, delay, duplication and reordering are all allowed.
pub trait Network: Send + Sync + 'static {
    /// Sends a request and waits for its response, at most `timeout`. A transport without classes of messages may
    /// ignore `priority`.
    fn call(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        request: Message,
        priority: Priority,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Message, NoResponse>>;
}

/// What a transport hands received requests to: the replicas of a node.
pub trait MessageHandler: Send + Sync + 'static {
    /// Handles a request and returns its response.
    fn deliver(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        request: Message,
    ) -> BoxFuture<'static, Result<Message, NoResponse>>;
}

/// Stands between the groups of a node and its transport, in both directions: a simulation observes messages there.
pub trait Interceptor: Send + Sync + 'static {
    /// What groups send goes through the returned network.
    fn network(&self, below: Arc<dyn Network>) -> Arc<dyn Network>;
    /// What the transport receives goes through the returned handler.
    fn handler(&self, above: Arc<dyn MessageHandler>) -> Arc<dyn MessageHandler>;
}

/// No network: every group has one member, so nothing is ever sent.
#[derive(Debug, Clone, Copy)]
pub struct NoPeers;

impl Network for NoPeers {
    fn call(
        &self,
        _from: ReplicaId,
        to: ReplicaId,
        _request: Message,
        _priority: Priority,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<Message, NoResponse>> {
        NoResponse::unknown_location(to)
    }
}
