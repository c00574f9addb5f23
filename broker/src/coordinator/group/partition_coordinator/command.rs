//! The commands to a partition coordinator, and where its replies go.

use std::sync::Arc;

use ottla_protocol::ids::ProducerId;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::coordinator::group::classic::{Answer, Assigned, Join, JoinAnswer, Leaving, Left, MemberRef, State, Sync};
use crate::coordinator::group::error::GroupError;
use crate::coordinator::topic_log::AppendFuture;
use crate::partition::TransactionPart;
use crate::replicated::group::records::MemberValue;

/// One offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOffset {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The topic's id, nil if unknown.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The next offset that the group will read.
    pub offset: i64,
    /// Leader epoch of the last record read, -1 if not said.
    pub leader_epoch: i32,
    /// What the client keeps beside it.
    pub metadata: Box<str>,
}

/// An OffsetCommit request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The member that commits.
    pub who: MemberRef,
    /// v2-v4: how long it is to be kept.
    pub retention_ms: Option<i64>,
    /// v9+ clients understand GROUP_ID_NOT_FOUND; older ones are answered ILLEGAL_GENERATION.
    pub knows_group_not_found: bool,
    /// The transaction with which they become visible, if it is a TxnOffsetCommit request.
    pub transaction: Option<CommitTransaction>,
    /// The offsets to commit.
    pub offsets: Vec<NewOffset>,
}

/// The transaction of a TxnOffsetCommit request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitTransaction {
    /// Its producer.
    pub producer: ProducerId,
    /// The producer's epoch.
    pub epoch: i16,
    /// What the leader of the group's partition found.
    pub part: TransactionPart,
}

/// A group as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Where it stands.
    pub state: State,
    /// The type; empty if it never had members.
    pub protocol_type: String,
    /// The protocol, while stable.
    pub protocol: String,
    /// Its members; their metadata and assignments only while stable.
    pub members: Vec<MemberValue>,
}

/// A group as ListGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The group.
    pub group: Arc<str>,
    /// The type; empty if it never had members.
    pub protocol_type: String,
    /// Where it stands.
    pub state: State,
}

/// Outcome of OffsetDelete for one topic: its partitions go, or they stay for this reason.
pub type DeletedTopic = (Arc<str>, Result<(), GroupError>);

/// The channel for the answer to a request that the state machine answers in its own time.
#[derive(Debug)]
pub(super) enum PendingReply {
    Join(oneshot::Sender<JoinAnswer>),
    Sync(oneshot::Sender<Result<Assigned, GroupError>>),
    Heartbeat(oneshot::Sender<Result<(), GroupError>>),
    Leave(oneshot::Sender<Result<Vec<Left>, GroupError>>),
}

impl PendingReply {
    /// Sends the answer; the caller may have gone.
    pub(super) fn answer(self, answer: Answer) {
        match (self, answer) {
            (Self::Join(reply), Answer::Join(answer)) => drop(reply.send(answer)),
            (Self::Sync(reply), Answer::Sync(answer)) => drop(reply.send(answer)),
            (Self::Heartbeat(reply), Answer::Heartbeat(answer)) => drop(reply.send(answer)),
            (Self::Leave(reply), Answer::Leave(answer)) => drop(reply.send(Ok(answer))),
            (reply, _) => reply.refuse(GroupError::Internal),
        }
    }

    pub(super) fn refuse(self, error: GroupError) {
        match self {
            Self::Join(reply) => drop(reply.send(JoinAnswer { member_id: String::new(), outcome: Err(error) })),
            Self::Sync(reply) => drop(reply.send(Err(error))),
            Self::Heartbeat(reply) => drop(reply.send(Err(error))),
            Self::Leave(reply) => drop(reply.send(Err(error))),
        }
    }
}

/// Appends that are enqueued in order and not yet applied: the caller waits for them, not the coordinator.
pub(in crate::coordinator::group) type PendingAppends<T> = Result<(T, Vec<AppendFuture>), GroupError>;

/// One request to the coordinator.
pub(in crate::coordinator::group) enum Command {
    Join(Arc<str>, Join, oneshot::Sender<JoinAnswer>),
    Sync(Arc<str>, Sync, oneshot::Sender<Result<Assigned, GroupError>>),
    Heartbeat(Arc<str>, MemberRef, oneshot::Sender<Result<(), GroupError>>),
    Leave(Arc<str>, Vec<Leaving>, oneshot::Sender<Result<Vec<Left>, GroupError>>),
    Commit(Arc<str>, Commit, oneshot::Sender<PendingAppends<()>>),
    Delete(Arc<str>, oneshot::Sender<PendingAppends<()>>),
    DeleteOffsets(Arc<str>, Vec<(Arc<str>, Vec<i32>)>, oneshot::Sender<PendingAppends<Vec<DeletedTopic>>>),
    Describe(Vec<Arc<str>>, oneshot::Sender<Vec<Option<Described>>>),
    List(oneshot::Sender<Vec<Listed>>),
}
