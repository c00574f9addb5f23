//! What a replica on a disk recorded about its shard, and why one cannot be opened.
//!
//! May not know: the shards that run.

use ottla_raft::{Creation, RaftError};
use ottla_storage::data_dir::RecoveredReplica;
use ottla_storage::ids::ReplicaId;
use thiserror::Error;

use crate::codec::CodecError;
use crate::metadata::ShardCreation;

/// Why a replica on this disk cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// What it recorded about itself cannot be read.
    #[error("replica {replica}: its record cannot be read: {what}")]
    Unreadable {
        /// Which replica.
        replica: ReplicaId,
        /// What is wrong.
        what: String,
    },
    /// Its checkpoint cannot be read.
    #[error("replica {replica}: its checkpoint cannot be read: {source}")]
    Checkpoint {
        /// Which replica.
        replica: ReplicaId,
        /// What is wrong.
        source: CodecError,
    },
    /// Raft refused.
    #[error(transparent)]
    Raft(#[from] RaftError),
}

/// What a recovered replica recorded about its shard.
pub fn creation_of(recovered: &RecoveredReplica) -> Result<ShardCreation, OpenError> {
    let replica = recovered.id;
    let unreadable = |what: String| OpenError::Unreadable { replica, what };
    let creation = Creation::decode(recovered.creation.clone()).ok_or_else(|| unreadable("no members".to_owned()))?;
    ShardCreation::decode(&creation.shard).map_err(|error| unreadable(error.to_string()))
}
