//! `ottla unsafe-recover`: what an operator has left when most replicas of a shard are gone for good.
//!
//! Runs while the node is down. Of each replica on its disks whose group has lost its majority with the nodes that are named,
//! this one becomes the only voter; what the others had acknowledged and this one lacks is gone. Without `--execute` it only
//! says what it would do. May not know: partitions' contents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_protocol::ids::NodeId;
use ottla_raft::{Directory, Holding, RaftError};
use ottla_storage::data_dir::{DataDirError, RecoveredReplica};
use ottla_storage::env::disk::Disk;
use ottla_storage::env::real::RealDisk;
use ottla_storage::ids::{LogId, ReplicaId};
use thiserror::Error;

use super::directories::{self, Failures, Opened};
use crate::admin::readiness::Readiness;
use crate::config::Config;
use crate::metadata::{self, ShardCreation, ShardId, ShardKind};
use crate::shard::{OpenError, creation_of};

/// Why nothing was done.
#[derive(Debug, Error)]
pub enum RescueError {
    /// A data directory cannot be opened.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// Where replicas live is written in the metadata only.
    #[error("this node has no whole replica of the metadata ({0}): run this on another one that is left")]
    NoMetadata(String),
    /// The node that is to be kept is named as lost.
    #[error("node {0} is this one")]
    Itself(NodeId),
    /// A replica cannot be read or changed.
    #[error(transparent)]
    Raft(#[from] RaftError),
}

/// What becomes of a replica on this node's disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Its group has a majority without the lost nodes: it is left alone.
    HasMajority,
    /// It becomes the only voter.
    Alone,
    /// It cannot: it is damaged.
    Unusable(String),
}

/// One replica on this node's disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescued {
    /// Its shard.
    pub shard: ShardId,
    /// The replica.
    pub replica: ReplicaId,
    /// The last entry of its log: of several nodes that are left, the one with the greatest is to go on.
    pub last: Option<LogId>,
    /// Where the voters are, as far as is known.
    pub voters: Vec<Option<NodeId>>,
    /// What becomes of it.
    pub fate: Fate,
}

impl std::fmt::Display for Rescued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let voters = self.voters.iter().map(|node| node.map_or_else(|| "?".to_owned(), |node| node.to_string()));
        let voters: Vec<_> = voters.collect();
        let last = self.last.map_or_else(|| "none".to_owned(), |last| last.to_string());
        write!(
            f,
            "shard {} replica {}: voters on nodes {}, last entry {last}: ",
            self.shard,
            self.replica,
            voters.join(",")
        )?;
        match &self.fate {
            Fate::HasMajority => f.write_str("has a majority without the lost nodes, left alone"),
            Fate::Alone => f.write_str("becomes the only voter"),
            Fate::Unusable(why) => write!(f, "cannot go on: {why}"),
        }
    }
}

/// Looks at all replicas of a node that is down and, if `execute` is set, makes those the only voters that need it.
///
/// # Errors
/// When the node runs, or its metadata does not tell where replicas live. Nothing was changed then.
pub async fn rescue(config: &Config, lost: &BTreeSet<NodeId>, execute: bool) -> Result<Vec<Rescued>, RescueError> {
    if lost.contains(&config.node_id) {
        return Err(RescueError::Itself(config.node_id));
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let failures = Failures::new(config.log_dirs.len());
    let opened = directories::open_all(&disk, config, &failures, &Readiness::default()).await?;
    let homes = homes(config, &opened).await?;
    let mut all = Vec::new();
    for Opened { directory, replicas } in &opened {
        for replica in replicas {
            all.push(look_at(&*directory.data, replica, &homes, lost, execute).await?);
        }
    }
    for Opened { directory, .. } in &opened {
        directory.data.close().await?;
    }
    Ok(all)
}

type HomeMap = BTreeMap<ReplicaId, NodeId>;

/// Where replicas live, as the newest entry of the metadata that lies here says, whether it was committed or not.
async fn homes(config: &Config, opened: &[Opened]) -> Result<HomeMap, RescueError> {
    let missing = |why: &str| RescueError::NoMetadata(why.to_owned());
    let found = opened.iter().find_map(|opened| {
        let replica = opened.replicas.iter().find(|replica| metadata::is_metadata(replica))?;
        Some((&opened.directory.data, replica))
    });
    let (directory, replica) = found.ok_or_else(|| missing("none"))?;
    let log = Directory::replica_log(&**directory, replica.id).ok_or_else(|| missing("it has no log"))?;
    let image = metadata::newest_image(config, replica, &*log).await.map_err(|error| missing(&error.to_string()))?;
    let mut homes: HomeMap =
        image.shards.values().flat_map(|shard| shard.members().map(|replica| (replica.id, replica.node))).collect();
    if let Ok(ShardCreation { founders, .. }) = creation_of(replica) {
        homes.extend(founders.iter().map(|founder| (founder.id, founder.node)));
    }
    Ok(homes)
}

async fn look_at(
    directory: &dyn Directory,
    replica: &RecoveredReplica,
    homes: &HomeMap,
    lost: &BTreeSet<NodeId>,
    execute: bool,
) -> Result<Rescued, RescueError> {
    let creation = creation_of(replica).map_err(|error: OpenError| RescueError::NoMetadata(error.to_string()))?;
    let mut rescued = Rescued {
        shard: creation.shard,
        replica: replica.id,
        last: replica.last_log_id,
        voters: Vec::new(),
        fate: Fate::HasMajority,
    };
    let holding = match Holding::of(directory, replica).await {
        Ok(holding) => holding,
        Err(error) => {
            rescued.fate = Fate::Unusable(error.to_string());
            return Ok(rescued);
        }
    };
    let voters: BTreeSet<_> = holding.members.voters.iter().flatten().collect();
    rescued.voters = voters.into_iter().map(|voter| homes.get(voter).copied()).collect();
    rescued.last = Some(holding.last);
    // Who is not known may live.
    if rescued.voters.contains(&None) {
        rescued.fate = Fate::Unusable("the metadata here does not say where all its voters are".to_owned());
        return Ok(rescued);
    }
    let is_left = |voter: &&ReplicaId| homes.get(*voter).is_some_and(|node| !lost.contains(node));
    let has_majority = |config: &BTreeSet<ReplicaId>| config.iter().filter(is_left).count() > config.len() / 2;
    if holding.members.voters.iter().all(has_majority) {
        return Ok(rescued);
    }
    // A learner may lack anything; of the metadata it has what any other node has.
    if !holding.members.is_voter(replica.id) && creation.kind != ShardKind::Metadata {
        rescued.fate = Fate::Unusable("it is no voter".to_owned());
        return Ok(rescued);
    }
    rescued.fate = Fate::Alone;
    if execute {
        let at = holding.make_sole_voter(directory, replica).await?;
        rescued.last = Some(at);
        tracing::warn!(replica = replica.id.0, "shard={}: the only voter from entry {at} on, by hand", creation.shard);
    }
    Ok(rescued)
}
