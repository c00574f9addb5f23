//! `ottla unsafe-recover`: restores service when most replicas of a shard are gone for good, or its only replica lost
//! entries to a disk failure. The operator's last resort, because acknowledged data may be lost.
//!
//! Runs while the node is down. For each replica on its disks:
//! - If its group has lost its majority with the nodes and replicas that the operator names, this replica becomes the
//!   only voter; entries that the others had acknowledged and this one lacks are gone.
//! - If it lost entries itself, and is named, it continues with its intact entries, provided that no other replica has
//!   them.
//!
//! Without `--execute` it only prints what it would do. May not know: partitions' contents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_env::disk::Disk;
use ottla_env::real::RealDisk;
use ottla_protocol::ids::NodeId;
use ottla_raft::{Creation, Directory, RaftError, ReplicaSummary, StateMachine, accept_loss};
use ottla_storage::data_dir::{DataDir, DataDirError, DataDirOptions, RecoveredReplica};
use ottla_storage::ids::{LogId, ReplicaId};
use ottla_storage::log::{AcceptLoss, LogOptions, Missing};
use thiserror::Error;

use super::directories::{self, Failures, Opened};
use crate::admin::readiness::Readiness;
use crate::config::Config;
use crate::metadata::{self, MetadataImage, ReplicaRecord, ShardCreation, ShardId, ShardKind, ShardRecord};
use crate::shard::{OpenError, creation_of, recovery_state_machine};

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// A data directory cannot be opened.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// Only the metadata records the nodes of replicas.
    #[error("this node has no whole replica of the metadata ({0}): run this on another one that is left")]
    NoMetadata(String),
    /// This node is named as lost.
    #[error("node {0} is this one")]
    Itself(NodeId),
    /// A replica cannot be read or changed.
    #[error(transparent)]
    Raft(#[from] RaftError),
    /// A replica's state cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What recovery does with a replica on this node's disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryOutcome {
    /// Its group has a majority without the lost nodes: it stays unchanged.
    HasMajority,
    /// It becomes the only voter.
    SoleVoter,
    /// It becomes the only voter, without the entries that it lost.
    SoleVoterWithLoss(String),
    /// It cannot continue, and why.
    Unusable(String),
}

impl RecoveryOutcome {
    /// True if it is changed.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        matches!(self, Self::SoleVoter | Self::SoleVoterWithLoss(_))
    }
}

/// The losses, as the operator names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    /// Nodes that never come back.
    pub nodes: BTreeSet<NodeId>,
    /// Replicas, on this node or on others, whose lost entries do not come back.
    pub replicas: AcceptLoss,
}

impl Losses {
    /// True if the voter does not count any more.
    fn include(&self, voter: ReplicaId, replica_nodes: &ReplicaNodes) -> bool {
        let named = matches!(&self.replicas, AcceptLoss::Of(replicas) if replicas.contains(&voter));
        named || replica_nodes.get(&voter).is_none_or(|node| self.nodes.contains(node))
    }
}

/// The recovery of one replica on this node's disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaRecovery {
    /// Its shard.
    pub shard: ShardId,
    /// The replica.
    pub replica: ReplicaId,
    /// The last entry of its log: of several nodes that are left, the one with the greatest is to continue.
    pub last: Option<LogId>,
    /// The nodes of the voters, as far as they are known.
    pub voters: Vec<Option<NodeId>>,
    /// What recovery does with it.
    pub outcome: RecoveryOutcome,
}

impl std::fmt::Display for ReplicaRecovery {
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
        match &self.outcome {
            RecoveryOutcome::HasMajority => f.write_str("has a majority without the lost nodes, left alone"),
            RecoveryOutcome::SoleVoter => f.write_str("becomes the only voter"),
            RecoveryOutcome::SoleVoterWithLoss(what) => write!(f, "goes on alone and without what it lost: {what}"),
            RecoveryOutcome::Unusable(why) => write!(f, "cannot go on: {why}"),
        }
    }
}

/// Assesses all replicas of a node that is down and, if `execute` is set, makes those the only voters that need it.
///
/// # Errors
/// When the node runs, or its metadata does not contain the nodes of replicas. Nothing was changed then.
pub async fn unsafe_recover(
    config: &Config,
    losses: &Losses,
    execute: bool,
) -> Result<Vec<ReplicaRecovery>, RecoveryError> {
    if losses.nodes.contains(&config.node_id) {
        return Err(RecoveryError::Itself(config.node_id));
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let failures = Failures::new(config.log_dirs.len());
    let log = LogOptions { accept_loss: losses.replicas.clone(), ..LogOptions::default() };
    let options = DataDirOptions { log, ..DataDirOptions::default() };
    let opened = directories::open_all(&disk, config, &options, &failures, &Readiness::default()).await?;
    let (replica_nodes, image) = replica_nodes(config, &opened).await?;
    let on_disk = on_disk(config, &opened);
    let mut assessed = Vec::new();
    for Opened { directory, replicas } in &opened {
        for replica in replicas {
            let (recovery, holding) = assess(&directory.data, replica, &replica_nodes, losses).await?;
            assessed.push((directory, replica, recovery, holding));
        }
    }
    choose_one_of_each(assessed.iter_mut().map(|(_, _, recovery, _)| recovery).collect());
    let mut all = Vec::new();
    for (directory, replica, mut recovery, holding) in assessed {
        if execute {
            recover(&directory.data, replica, &mut recovery, holding, || match metadata::is_metadata(replica) {
                true => metadata::recovery_state_machine(config, replica, on_disk.clone())
                    .map_err(|source| OpenError::Checkpoint { replica: replica.id, source }),
                false => recovery_state_machine(&directory.data, replica, &image),
            })
            .await?;
        }
        all.push(recovery);
    }
    for Opened { directory, .. } in &opened {
        directory.data.close().await?;
    }
    Ok(all)
}

/// Of two replicas of a shard, which was being moved from one directory to another, the one that has more goes on: two would each be the
/// only voter of a group of its own.
fn choose_one_of_each(mut recoveries: Vec<&mut ReplicaRecovery>) {
    let goes_on = |recovery: &ReplicaRecovery| recovery.outcome == RecoveryOutcome::SoleVoter;
    let mut most: BTreeMap<ShardId, (Option<LogId>, ReplicaId)> = BTreeMap::new();
    for recovery in recoveries.iter().filter(|recovery| goes_on(recovery)) {
        let has = (recovery.last, recovery.replica);
        most.entry(recovery.shard).and_modify(|most| *most = has.max(*most)).or_insert(has);
    }
    for recovery in recoveries.iter_mut().filter(|recovery| goes_on(recovery)) {
        if let Some((_, other)) = most.get(&recovery.shard).filter(|(_, most)| *most != recovery.replica) {
            recovery.outcome = RecoveryOutcome::Unusable(format!("replica {other} on this node has more of it"));
        }
    }
}

type ReplicaNodes = BTreeMap<ReplicaId, NodeId>;

/// The nodes of replicas as of the newest metadata entry on this node, whether it was committed or not; and the image
/// as of it.
async fn replica_nodes(
    config: &Config,
    opened: &[Opened],
) -> Result<(ReplicaNodes, Arc<MetadataImage>), RecoveryError> {
    let missing = |why: &str| RecoveryError::NoMetadata(why.to_owned());
    let held = opened.iter().flat_map(|opened| opened.replicas.iter().map(|replica| (&opened.directory.data, replica)));
    // The last one: others were lost before it came in their place.
    let found = held.filter(|(_, replica)| metadata::is_metadata(replica)).max_by_key(|(_, replica)| replica.id);
    let (directory, replica) = found.ok_or_else(|| missing("none"))?;
    if let Some(lost) = &replica.lost {
        return Err(missing(&format!(
            "its replica {} lost entries ({lost}); where this node is the only one, --accept-loss {} has it go on without them",
            replica.id, replica.id
        )));
    }
    let log = Directory::replica_log(&**directory, replica.id).ok_or_else(|| missing("it has no log"))?;
    let image = metadata::newest_image(config, replica, &*log).await.map_err(|error| missing(&error.to_string()))?;
    let mut replica_nodes: ReplicaNodes =
        image.shards.values().flat_map(|shard| shard.members().map(|replica| (replica.id, replica.node))).collect();
    if let Ok(ShardCreation { founders, .. }) = creation_of(replica) {
        replica_nodes.extend(founders.iter().map(|founder| (founder.id, founder.node)));
    }
    // Replicas on these disks that the metadata does not contain, because it lost the entry, are on this node.
    for replica in opened.iter().flat_map(|opened| &opened.replicas) {
        replica_nodes.entry(replica.id).or_insert(config.node_id);
    }
    Ok((replica_nodes, image))
}

/// The shards whose only replicas are on this node, as these replicas record themselves.
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
            split: None,
            merge: None,
        })
    };
    all.filter_map(record).collect()
}

async fn assess(
    directory: &Arc<DataDir>,
    replica: &RecoveredReplica,
    replica_nodes: &ReplicaNodes,
    losses: &Losses,
) -> Result<(ReplicaRecovery, Option<ReplicaSummary>), RecoveryError> {
    let creation = creation_of(replica).map_err(|error: OpenError| RecoveryError::NoMetadata(error.to_string()))?;
    let mut recovery = ReplicaRecovery {
        shard: creation.shard,
        replica: replica.id,
        last: replica.last_log_id,
        voters: Vec::new(),
        outcome: RecoveryOutcome::HasMajority,
    };
    let holding = match ReplicaSummary::of(&**directory, replica).await {
        Ok(holding) => holding,
        Err(error) => {
            recovery.outcome = RecoveryOutcome::Unusable(error.to_string());
            return Ok((recovery, None));
        }
    };
    let voters: BTreeSet<_> = holding.members.voters.iter().flatten().collect();
    recovery.voters = voters.into_iter().map(|voter| replica_nodes.get(voter).copied()).collect();
    recovery.last = Some(holding.last);
    recovery.outcome = outcome(directory, replica, &creation, &holding, replica_nodes, losses, &recovery.voters);
    Ok((recovery, Some(holding)))
}

#[allow(clippy::too_many_arguments)]
fn outcome(
    directory: &DataDir,
    replica: &RecoveredReplica,
    creation: &ShardCreation,
    holding: &ReplicaSummary,
    replica_nodes: &ReplicaNodes,
    losses: &Losses,
    voters: &[Option<NodeId>],
) -> RecoveryOutcome {
    // A voter whose node is unknown may be alive.
    if voters.contains(&None) {
        return RecoveryOutcome::Unusable("the metadata here does not say where all its voters are".to_owned());
    }
    if let Some(missing) = &replica.missing {
        let others = || holding.members.voters.iter().flatten().filter(|voter| **voter != replica.id);
        if let Some(other) = others().find(|voter| !losses.include(**voter, replica_nodes)) {
            let node = replica_nodes.get(other).map_or_else(|| "?".to_owned(), ToString::to_string);
            return RecoveryOutcome::Unusable(format!(
                "others have what it lost: rebuilt by itself where there are three; of two, node {node} goes on alone with --accept-loss {} there",
                replica.id
            ));
        }
        if !directory.has_checkpoint() {
            return RecoveryOutcome::Unusable("no checkpoint of its data directory counts".to_owned());
        }
        return RecoveryOutcome::SoleVoterWithLoss(in_words(missing));
    }
    // This replica is intact, whatever the operator named.
    let is_left = |voter: &&ReplicaId| **voter == replica.id || !losses.include(**voter, replica_nodes);
    let has_majority = |config: &BTreeSet<ReplicaId>| config.iter().filter(is_left).count() > config.len() / 2;
    if holding.members.voters.iter().all(has_majority) {
        return RecoveryOutcome::HasMajority;
    }
    // A learner may lack any entry. A learner of the metadata group counts all the same: it has what other nodes have.
    if !holding.members.is_voter(replica.id) && creation.kind != ShardKind::Metadata {
        return RecoveryOutcome::Unusable("it is no voter".to_owned());
    }
    RecoveryOutcome::SoleVoter
}

fn in_words(missing: &Missing) -> String {
    let entries: Vec<_> = missing.entries.iter().map(|(first, last)| format!("{} to {}", first.0, last.0)).collect();
    let entries = if entries.is_empty() { String::new() } else { format!(", entries {}", entries.join(", ")) };
    let at_end = if missing.at_end { ", and perhaps the last entries" } else { "" };
    format!("{} frames{entries}{at_end} ({})", missing.frames, missing.why)
}

async fn recover(
    directory: &Arc<DataDir>,
    replica: &RecoveredReplica,
    recovery: &mut ReplicaRecovery,
    holding: Option<ReplicaSummary>,
    machine: impl FnOnce() -> Result<Box<dyn StateMachine>, OpenError>,
) -> Result<(), RecoveryError> {
    let (id, shard) = (replica.id.0, recovery.shard);
    match (&recovery.outcome, holding) {
        (RecoveryOutcome::SoleVoter, Some(holding)) => {
            let at = holding.make_sole_voter(&**directory, replica).await?;
            recovery.last = Some(at);
            tracing::warn!(replica = id, "shard={shard}: the only voter from entry {at} on, by hand");
        }
        (RecoveryOutcome::SoleVoterWithLoss(what), _) => {
            let settled = accept_loss(directory.clone(), replica, machine()?).await?;
            directory.accept_loss(replica.id).await?;
            recovery.last = Some(settled.log_id);
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
