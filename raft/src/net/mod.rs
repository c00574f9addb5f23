//! How replicas talk: our own messages and the trait a transport implements.
//!
//! May not know: sockets. A message names replicas, never nodes; the transport knows where they live.

mod homes;
pub(crate) mod sim;
pub(crate) mod tcp;
pub(crate) mod wire;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
pub use homes::{Home, Homes};
use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::data_dir::{Exported, ReplicaSnapshot};
use ottla_storage::entry::{Entry, Vote};
use ottla_storage::ids::{LogId, ReplicaId};

/// A request between two replicas of a group, or the answer to one.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Entries to append; none: a heartbeat.
    Append { vote: Vote, previous: Option<LogId>, entries: Vec<Entry>, commit: Option<LogId> },
    /// Everything up to the end of the append is on the follower's disk.
    Appended,
    /// Only the entries up to here are on the follower's disk; more may be sent.
    AppendedUpTo(Option<LogId>),
    /// The follower's log differs at `previous`.
    Conflict,
    /// The receiver knows a greater vote.
    HigherVote(Vote),
    /// Asks for a vote (`pre`: only whether it would be granted; `transfer`: the leader itself wants it, or is taken for dead;
    /// both: whether the receiver has not heard of the leader either).
    AskVote { pre: bool, vote: Vote, last: Option<LogId>, transfer: bool },
    /// Answer to `AskVote`.
    VoteAnswer { vote: Vote, last: Option<LogId>, granted: bool },
    /// The leader asks `to` to take over.
    Transfer { from_leader: Vote, to: ReplicaId, last: Option<LogId> },
    /// Answer to `Transfer`.
    Transferred { accepted: bool },
    /// A question to whoever stands behind a replica, in bytes that Raft does not read ([`crate::Service`]).
    Ask(Bytes),
    /// Answer to `Ask`.
    Answer(Bytes),
    /// The leader has purged what the receiver lacks: it takes a snapshot that reaches at least to `upto`.
    Snapshot { vote: Vote, upto: LogId },
    /// Answer to `Snapshot`: whether it is there; if not, it is on its way.
    SnapshotTaken { done: bool },
    /// Asks for the state of the newest checkpoint.
    FetchState,
    /// Answer to `FetchState`.
    State(Option<ReplicaSnapshot>),
    /// Asks for batches of a partition.
    FetchBatches { partition: PartitionId, from: Offset, up_to: Offset, bytes_max: u64 },
    /// Answer to `FetchBatches`.
    Batches(Exported),
}

/// The message got no answer; whether it was acted upon is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no answer: {0}")]
pub struct Undelivered(pub String);

impl Undelivered {
    /// Nobody knows where the receiver lives.
    pub(crate) fn nowhere(to: ReplicaId) -> BoxFuture<'static, Result<Message, Self>> {
        Box::pin(std::future::ready(Err(Self(format!("replica {to} is on no node that is known here")))))
    }
}

/// A transport between replicas. Loss, delay, repetition and disorder are all allowed.
pub trait Network: Send + Sync + 'static {
    /// Sends a request and waits for its answer, at most `timeout`.
    fn call(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        request: Message,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Message, Undelivered>>;

    /// The same for a request that may wait: where the transport has classes of messages, it travels with snapshots and
    /// repairs, so that it delays neither votes nor entries.
    fn call_in_bulk(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        request: Message,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Message, Undelivered>> {
        self.call(from, to, request, timeout)
    }
}

/// The network of a node that is alone: every group has one member, so nothing is ever sent.
#[derive(Debug, Clone, Copy)]
pub struct NoPeers;

impl Network for NoPeers {
    fn call(
        &self,
        _from: ReplicaId,
        to: ReplicaId,
        _request: Message,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<Message, Undelivered>> {
        Undelivered::nowhere(to)
    }
}
