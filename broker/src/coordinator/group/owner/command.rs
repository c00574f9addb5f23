//! What the owner of a partition's groups is asked, and where its answers go.

use std::sync::Arc;

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::coordinator::group::classic::{Answer, Assigned, Join, JoinAnswer, Leaving, Left, MemberRef, State, Sync};
use crate::coordinator::group::error::GroupError;
use crate::coordinator::group::journal::AppendFuture;
use crate::coordinator::group::records::MemberValue;

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
    /// Who commits.
    pub who: MemberRef,
    /// v2-v4: how long it is to be kept.
    pub retention_ms: Option<i64>,
    /// v9+ clients know GROUP_ID_NOT_FOUND; older ones are told ILLEGAL_GENERATION.
    pub knows_group_not_found: bool,
    /// What is committed.
    pub offsets: Vec<NewOffset>,
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

/// Where the answer to a request goes whose time is the machine's to choose.
#[derive(Debug)]
pub(super) enum Asker {
    Join(oneshot::Sender<JoinAnswer>),
    Sync(oneshot::Sender<Result<Assigned, GroupError>>),
    Heartbeat(oneshot::Sender<Result<(), GroupError>>),
    Leave(oneshot::Sender<Result<Vec<Left>, GroupError>>),
}

impl Asker {
    /// Whoever asked may be gone; then nobody needs the answer.
    pub(super) fn answer(self, answer: Answer) {
        match (self, answer) {
            (Self::Join(asker), Answer::Join(answer)) => drop(asker.send(answer)),
            (Self::Sync(asker), Answer::Sync(answer)) => drop(asker.send(answer)),
            (Self::Heartbeat(asker), Answer::Heartbeat(answer)) => drop(asker.send(answer)),
            (Self::Leave(asker), Answer::Leave(answer)) => drop(asker.send(Ok(answer))),
            (asker, _) => asker.refuse(GroupError::Internal),
        }
    }

    pub(super) fn refuse(self, error: GroupError) {
        match self {
            Self::Join(asker) => drop(asker.send(JoinAnswer { member_id: String::new(), outcome: Err(error) })),
            Self::Sync(asker) => drop(asker.send(Err(error))),
            Self::Heartbeat(asker) => drop(asker.send(Err(error))),
            Self::Leave(asker) => drop(asker.send(Err(error))),
        }
    }
}

/// What was begun in order and is still to be waited for: the caller waits, not the owner.
pub(in crate::coordinator::group) type Begun<T> = Result<(T, Vec<AppendFuture>), GroupError>;

/// One request to the owner.
pub(in crate::coordinator::group) enum Command {
    Join(Arc<str>, Join, oneshot::Sender<JoinAnswer>),
    Sync(Arc<str>, Sync, oneshot::Sender<Result<Assigned, GroupError>>),
    Heartbeat(Arc<str>, MemberRef, oneshot::Sender<Result<(), GroupError>>),
    Leave(Arc<str>, Vec<Leaving>, oneshot::Sender<Result<Vec<Left>, GroupError>>),
    Commit(Arc<str>, Commit, oneshot::Sender<Begun<()>>),
    Delete(Arc<str>, oneshot::Sender<Begun<()>>),
    DeleteOffsets(Arc<str>, Vec<(Arc<str>, Vec<i32>)>, oneshot::Sender<Begun<Vec<DeletedTopic>>>),
    Describe(Vec<Arc<str>>, oneshot::Sender<Vec<Option<Described>>>),
    List(oneshot::Sender<Vec<Listed>>),
}
