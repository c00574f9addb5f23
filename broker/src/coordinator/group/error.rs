//! The errors of group operations, and the one total mapping of the coordinator to Kafka's codes.

use thiserror::Error;

use crate::replicated::group::store::refusal;

/// Why a group operation was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum GroupError {
    /// This node is not (any more) the group's coordinator.
    #[error("not the coordinator of this group")]
    NotCoordinator,
    /// The coordinator is there but cannot answer now.
    #[error("coordinator not available")]
    CoordinatorNotAvailable,
    /// The coordinator is loading and does not have the whole state yet.
    #[error("coordinator load in progress")]
    LoadInProgress,
    /// An empty or absent group id where one is needed.
    #[error("invalid group id")]
    InvalidGroupId,
    /// No such group.
    #[error("group id not found")]
    GroupIdNotFound,
    /// The group has members.
    #[error("group is not empty")]
    NonEmptyGroup,
    /// The group subscribes to the topic whose offsets are to be deleted.
    #[error("group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// The session timeout is outside the broker's bounds.
    #[error("invalid session timeout")]
    InvalidSessionTimeout,
    /// The member shares no protocol with the group, or is of another type.
    #[error("inconsistent group protocol")]
    InconsistentGroupProtocol,
    /// No such member.
    #[error("unknown member id")]
    UnknownMemberId,
    /// The member sent another generation.
    #[error("illegal generation")]
    IllegalGeneration,
    /// The group is between two generations.
    #[error("rebalance in progress")]
    RebalanceInProgress,
    /// Another process took over this static member's identity.
    #[error("fenced instance id")]
    FencedInstanceId,
    /// The member must join again with the id it was given (KIP-394).
    #[error("member id required")]
    MemberIdRequired,
    /// The group is full.
    #[error("group max size reached")]
    GroupMaxSizeReached,
    /// The metadata beside an offset is too long.
    #[error("offset metadata too large")]
    OffsetMetadataTooLarge,
    /// No such topic name or partition.
    #[error("unknown topic or partition")]
    UnknownTopicOrPartition,
    /// No such topic id.
    #[error("unknown topic id")]
    UnknownTopicId,
    /// The member's epoch makes no sense for a classic group.
    #[error("stale member epoch")]
    StaleMemberEpoch,
    /// The write took longer than the coordinator waits.
    #[error("request timed out")]
    TimedOut,
    /// The records of one request do not fit a batch.
    #[error("commit too large")]
    CommitTooLarge,
    /// The producer of a transactional commit is fenced.
    #[error("invalid producer epoch")]
    InvalidProducerEpoch,
    /// The transaction of a commit has ended since its coordinator was asked about it: it is asked again.
    #[error("the transaction has ended")]
    TransactionEnded,
    /// What the broker holds of the group cannot be right.
    #[error("internal error")]
    Internal,
}

impl GroupError {
    /// From the group store's code at apply.
    #[must_use]
    pub fn from_apply(code: i16) -> Self {
        match code {
            refusal::ILLEGAL_GENERATION => Self::IllegalGeneration,
            refusal::UNKNOWN_MEMBER_ID => Self::UnknownMemberId,
            refusal::NON_EMPTY_GROUP => Self::NonEmptyGroup,
            refusal::CHANGED_MEANWHILE => Self::CoordinatorNotAvailable,
            _ => Self::Internal,
        }
    }

    /// Kafka's code.
    #[must_use]
    pub fn code(self) -> i16 {
        match self {
            Self::Internal => -1,
            Self::UnknownTopicOrPartition => 3,
            Self::TimedOut => 7,
            Self::OffsetMetadataTooLarge => 12,
            Self::LoadInProgress => 14,
            Self::CoordinatorNotAvailable => 15,
            Self::NotCoordinator => 16,
            Self::IllegalGeneration => 22,
            Self::InconsistentGroupProtocol => 23,
            Self::InvalidGroupId => 24,
            Self::UnknownMemberId => 25,
            Self::InvalidSessionTimeout => 26,
            Self::RebalanceInProgress => 27,
            Self::CommitTooLarge => 28,
            Self::InvalidProducerEpoch => 47,
            Self::TransactionEnded => 48,
            Self::NonEmptyGroup => 68,
            Self::GroupIdNotFound => 69,
            Self::MemberIdRequired => 79,
            Self::GroupMaxSizeReached => 81,
            Self::FencedInstanceId => 82,
            Self::GroupSubscribedToTopic => 86,
            Self::UnknownTopicId => 100,
            Self::StaleMemberEpoch => 113,
        }
    }
}
