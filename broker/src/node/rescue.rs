//! `ottla unsafe-recover`: what an operator has left when most replicas of a shard are gone for good, or the only one lost
//! entries to a disk.
//!
//! Runs while the node is down. Of each replica on its disks whose group has lost its majority with the nodes and replicas that
//! are named, this one becomes the only voter; what the others had acknowledged and this one lacks is gone. One here that lost
//! entries, and is named, goes on with what is whole where no other has them. Without `--execute` it only says what it would
//! do. May not know: partitions' contents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_protocol::ids::NodeId;
use ottla_raft::{Creation, Directory, Holding, RaftError, StateMachine, accept_loss};
use ottla_storage::data_dir::{DataDir, DataDirError, RecoveredReplica};
use ottla_storage::env::disk::Disk;
use ottla_storage::env::real::RealDisk;
use ottla_storage::ids::{LogId, ReplicaId};
use ottla_storage::log::{AcceptLoss, Missing};
use thiserror::Error;

use super::directories::{self, Failures, Opened};
use crate::admin::readiness::Readiness;
use crate::config::Config;
use crate::metadata::{self, MetadataImage, ReplicaRecord, ShardCreation, ShardId, ShardKind, ShardRecord};
use crate::shard::{OpenError, creation_of, recovery_state_machine};

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
    /// A replica's state cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What becomes of a replica on this node's disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Its group has a majority without the lost nodes: it is left alone.
    HasMajority,
    /// It becomes the only voter.
    Alone,
    /// It becomes the only voter, without the entries that are gone.
    WithoutLost(String),
    /// It cannot: it is damaged.
    Unusable(String),
}

impl Fate {
    /// True if it is changed.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        matches!(self, Self::Alone | Self::WithoutLost(_))
    }
}

/// What is gone, as the operator says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    /// Nodes that never come back.
    pub nodes: BTreeSet<NodeId>,
    /// Replicas, here or elsewhere, of which what they lost is not coming back.
    pub replicas: AcceptLoss,
}

impl Losses {
    /// True if a voter counts no more.
    fn hold(&self, voter: ReplicaId, homes: &HomeMap) -> bool {
        let named = matches!(&self.replicas, AcceptLoss::Of(replicas) if replicas.contains(&voter));
        named || homes.get(&voter).is_none_or(|node| self.nodes.contains(node))
    }
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
            Fate::WithoutLost(what) => write!(f, "goes on alone and without what it lost: {what}"),
            Fate::Unusable(why) => write!(f, "cannot go on: {why}"),
        }
    }
}

/// Looks at all replicas of a node that is down and, if `execute` is set, makes those the only voters that need it.
///
/// # Errors
/// When the node runs, or its metadata does not tell where replicas live. Nothing was changed then.
pub async fn rescue(config: &Config, losses: &Losses, execute: bool) -> Result<Vec<Rescued>, RescueError> {
    if losses.nodes.contains(&config.node_id) {
        return Err(RescueError::Itself(config.node_id));
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let failures = Failures::new(config.log_dirs.len());
    let opened = directories::open_all(&disk, config, &failures, &Readiness::default(), &losses.replicas).await?;
    let (homes, image) = homes(config, &opened).await?;
    let on_disk = on_disk(config, &opened);
    let mut all = Vec::new();
    for Opened { directory, replicas } in &opened {
        for replica in replicas {
            let (mut rescued, holding) = look_at(&directory.data, replica, &homes, losses).await?;
            if execute {
                make_so(&directory.data, replica, &mut rescued, holding, || match metadata::is_metadata(replica) {
                    true => metadata::rescue_machine(config, replica, on_disk.clone())
                        .map_err(|source| OpenError::Checkpoint { replica: replica.id, source }),
                    false => recovery_state_machine(&directory.data, replica, &image),
                })
                .await?;
            }
            all.push(rescued);
        }
    }
    for Opened { directory, .. } in &opened {
        directory.data.close().await?;
    }
    Ok(all)
}

type HomeMap = BTreeMap<ReplicaId, NodeId>;

/// Where replicas live, as the newest entry of the metadata that lies here says, whether it was committed or not; and all that
/// it says.
async fn homes(config: &Config, opened: &[Opened]) -> Result<(HomeMap, Arc<MetadataImage>), RescueError> {
    let missing = |why: &str| RescueError::NoMetadata(why.to_owned());
    let found = opened.iter().find_map(|opened| {
        let replica = opened.replicas.iter().find(|replica| metadata::is_metadata(replica))?;
        Some((&opened.directory.data, replica))
    });
    let (directory, replica) = found.ok_or_else(|| missing("none"))?;
    if let Some(lost) = &replica.lost {
        return Err(missing(&format!(
            "its replica {} lost entries ({lost}); where this node is the only one, --accept-loss {} has it go on without them",
            replica.id, replica.id
        )));
    }
    let log = Directory::replica_log(&**directory, replica.id).ok_or_else(|| missing("it has no log"))?;
    let image = metadata::newest_image(config, replica, &*log).await.map_err(|error| missing(&error.to_string()))?;
    let mut homes: HomeMap =
        image.shards.values().flat_map(|shard| shard.members().map(|replica| (replica.id, replica.node))).collect();
    if let Ok(ShardCreation { founders, .. }) = creation_of(replica) {
        homes.extend(founders.iter().map(|founder| (founder.id, founder.node)));
    }
    // What the metadata does not know of, because it lost the entry, is here.
    for replica in opened.iter().flat_map(|opened| &opened.replicas) {
        homes.entry(replica.id).or_insert(config.node_id);
    }
    Ok((homes, image))
}

/// The shards whose only replicas lie here, as these say themselves.
fn on_disk(config: &Config, opened: &[Opened]) -> Vec<ShardRecord> {
    let all = opened.iter().flat_map(|opened| opened.replicas.iter().map(|replica| (opened.directory.id, replica)));
    let record = |(directory, replica): (_, &RecoveredReplica)| {
        let creation = creation_of(replica).ok().filter(|creation| creation.kind != ShardKind::Metadata)?;
        let members = Creation::decode(replica.creation.clone())?.members;
        members.is_sole_voter(replica.id).then(|| ShardRecord {
            id: creation.shard,
            kind: creation.kind,
            replicas: vec![ReplicaRecord { id: replica.id, node: config.node_id, directory }],
            adding: Vec::new(),
            leaving: Vec::new(),
            founders: vec![replica.id],
            created: creation.created,
        })
    };
    all.filter_map(record).collect()
}

async fn look_at(
    directory: &Arc<DataDir>,
    replica: &RecoveredReplica,
    homes: &HomeMap,
    losses: &Losses,
) -> Result<(Rescued, Option<Holding>), RescueError> {
    let creation = creation_of(replica).map_err(|error: OpenError| RescueError::NoMetadata(error.to_string()))?;
    let mut rescued = Rescued {
        shard: creation.shard,
        replica: replica.id,
        last: replica.last_log_id,
        voters: Vec::new(),
        fate: Fate::HasMajority,
    };
    let holding = match Holding::of(&**directory, replica).await {
        Ok(holding) => holding,
        Err(error) => {
            rescued.fate = Fate::Unusable(error.to_string());
            return Ok((rescued, None));
        }
    };
    let voters: BTreeSet<_> = holding.members.voters.iter().flatten().collect();
    rescued.voters = voters.into_iter().map(|voter| homes.get(voter).copied()).collect();
    rescued.last = Some(holding.last);
    rescued.fate = fate(directory, replica, &creation, &holding, homes, losses, &rescued.voters);
    Ok((rescued, Some(holding)))
}

#[allow(clippy::too_many_arguments)]
fn fate(
    directory: &DataDir,
    replica: &RecoveredReplica,
    creation: &ShardCreation,
    holding: &Holding,
    homes: &HomeMap,
    losses: &Losses,
    voters: &[Option<NodeId>],
) -> Fate {
    // Who is not known may live.
    if voters.contains(&None) {
        return Fate::Unusable("the metadata here does not say where all its voters are".to_owned());
    }
    if let Some(missing) = &replica.missing {
        let others = || holding.members.voters.iter().flatten().filter(|voter| **voter != replica.id);
        if let Some(other) = others().find(|voter| !losses.hold(**voter, homes)) {
            let node = homes.get(other).map_or_else(|| "?".to_owned(), ToString::to_string);
            return Fate::Unusable(format!(
                "others have what it lost: rebuilt by itself where there are three; of two, node {node} goes on alone with --accept-loss {} there",
                replica.id
            ));
        }
        if !directory.has_checkpoint() {
            return Fate::Unusable("no checkpoint of its data directory counts".to_owned());
        }
        return Fate::WithoutLost(in_words(missing));
    }
    // This one is whole, whatever was said of it.
    let is_left = |voter: &&ReplicaId| **voter == replica.id || !losses.hold(**voter, homes);
    let has_majority = |config: &BTreeSet<ReplicaId>| config.iter().filter(is_left).count() > config.len() / 2;
    if holding.members.voters.iter().all(has_majority) {
        return Fate::HasMajority;
    }
    // A learner may lack anything; of the metadata it has what any other node has.
    if !holding.members.is_voter(replica.id) && creation.kind != ShardKind::Metadata {
        return Fate::Unusable("it is no voter".to_owned());
    }
    Fate::Alone
}

fn in_words(missing: &Missing) -> String {
    let entries: Vec<_> = missing.entries.iter().map(|(first, last)| format!("{} to {}", first.0, last.0)).collect();
    let entries = if entries.is_empty() { String::new() } else { format!(", entries {}", entries.join(", ")) };
    let at_end = if missing.at_end { ", and perhaps the last entries" } else { "" };
    format!("{} frames{entries}{at_end} ({})", missing.frames, missing.why)
}

async fn make_so(
    directory: &Arc<DataDir>,
    replica: &RecoveredReplica,
    rescued: &mut Rescued,
    holding: Option<Holding>,
    machine: impl FnOnce() -> Result<Box<dyn StateMachine>, OpenError>,
) -> Result<(), RescueError> {
    let (id, shard) = (replica.id.0, rescued.shard);
    match (&rescued.fate, holding) {
        (Fate::Alone, Some(holding)) => {
            let at = holding.make_sole_voter(&**directory, replica).await?;
            rescued.last = Some(at);
            tracing::warn!(replica = id, "shard={shard}: the only voter from entry {at} on, by hand");
        }
        (Fate::WithoutLost(what), _) => {
            let settled = accept_loss(directory.clone(), replica, machine()?).await?;
            directory.accept_loss(replica.id).await?;
            rescued.last = Some(settled.log_id);
            tracing::warn!(
                replica = id,
                "shard={shard}: goes on from entry {} without {what}, by hand",
                settled.log_id
            );
        }
        _ => {}
    }
    Ok(())
}
