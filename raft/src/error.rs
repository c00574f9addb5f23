//! Errors of Raft. They name causes only; the broker maps them to Kafka's error codes.

use std::sync::Arc;

use ottla_storage::ids::ReplicaId;

/// Why a replica stopped by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason, as text.
    pub why: Arc<str>,
    /// Its own log does not read back: other replicas may have what it lacks.
    pub is_damage: bool,
}

/// A proposal was not applied, or it is unknown whether it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was proposed: another replica leads, or none.
    #[error("not the leader (leader: {leader:?})")]
    NotLeader {
        /// The leader, as far as is known.
        leader: Option<ReplicaId>,
    },
    /// It was proposed, but leadership was lost before it was applied: it may still be applied, or never.
    #[error("leadership lost before the entry was applied")]
    Unknown,
    /// Nothing was proposed: the leader must first confirm that it still leads, with a read index.
    #[error("the leader's lease has expired")]
    LeaseExpired,
    /// Nothing was proposed: it exceeds the largest entry.
    #[error("an entry of {0} bytes is too large")]
    TooLarge(usize),
    /// This replica has stopped, for good or because the node stops.
    #[error("replica stopped: {0}")]
    Stopped(Arc<str>),
}

/// A read index was not obtained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// Another replica leads, or none that a majority confirms.
    #[error("not the leader (leader: {leader:?})")]
    NotLeader {
        /// The leader, as far as is known.
        leader: Option<ReplicaId>,
    },
    /// This replica has stopped.
    #[error("replica stopped: {0}")]
    Stopped(Arc<str>),
}

/// A replica could not be created, opened or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RaftError {
    /// A replica of this id runs already.
    #[error("replica {0} runs already")]
    Exists(ReplicaId),
    /// The replica's data on disk cannot be decoded, or may not be used.
    #[error("replica {replica}: {what}")]
    Damaged {
        /// Which replica.
        replica: ReplicaId,
        /// What is wrong.
        what: String,
    },
    /// Its directory failed.
    #[error("replica {replica}: storage: {what}")]
    Storage {
        /// Which replica.
        replica: ReplicaId,
        /// What failed.
        what: String,
    },
    /// A membership change was refused.
    #[error("membership change refused: {0}")]
    Refused(String),
    /// The replica, or the host, has stopped.
    #[error("replica stopped: {0}")]
    Stopped(Arc<str>),
}
