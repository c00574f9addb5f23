//! Builds the services between the data directories and the handlers, in the order in which they need each other.
//!
//! May not know: listeners, requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_raft::{GroupHandle, RaftHost, RaftOptions};
use ottla_storage::data_dir::DataDir;
use uuid::Uuid;

use super::directories::{self, Opened};
use super::error::{CLUSTER_WAIT, StartError};
use super::peers::Peers;
use super::startup;
use crate::admin::readiness::{Phase, Readiness};
use crate::config::Config;
use crate::coordinator::group::{GroupSettings, Groups, OffsetsLog};
use crate::coordinator::lag::Lags;
use crate::coordinator::transaction::{self, TransactionPeers, TransactionSettings, Transactions};
use crate::handlers::context::{Directory, Domain};
use crate::handlers::fetch::session::FetchSessions;
use crate::log_levels::LogLevels;
use crate::metadata::{self, DirectoryRecord, ListenerEndpoint, LocalNode, MetadataHandle};
use crate::metrics::Metrics;
use crate::partition::Partitions;
use crate::server::budget::Budget;
use crate::shard::{LeaderTaskSettings, Shards};

/// The options of Raft groups: those that settings name, the rest of `base`.
pub(super) fn raft_options(config: &Config, base: RaftOptions) -> RaftOptions {
    RaftOptions { in_sync_lag: Duration::from_millis(config.log.replica_lag_ms_max), ..base }
}

/// The services between the data directories and the handlers.
pub(super) struct Services {
    metadata: MetadataHandle,
    pub(super) shards: Shards,
    partitions: Partitions,
    groups: Groups,
    transactions: (Transactions, TransactionPeers),
    directories: Arc<[Directory]>,
}

impl Services {
    pub(super) async fn build(
        config: &Arc<Config>,
        peers: &Peers,
        opened: Vec<Opened>,
        recorded: Vec<ListenerEndpoint>,
        leader_tasks: LeaderTaskSettings,
        readiness: &Readiness,
    ) -> Result<Self, StartError> {
        readiness.enter(Phase::Joining, "looking for the metadata group", 0, 3);
        let host = &peers.host;
        let directories: Arc<[Directory]> = opened.iter().map(|opened| opened.directory.clone()).collect();
        let metadata = start_metadata(config, peers, &opened, recorded).await?;
        directories::classify(&directories, &metadata);
        directories::follow_settings(&directories, &metadata);
        let shards = open_shards(config, host, &metadata, &opened, leader_tasks).await;
        // A node that was removed while it was down gets no cluster id, and no message that says so: the removal
        // detector finds out, and its shards then remove the replica of the metadata, which ends the node.
        let cluster_id = tokio::select! {
            biased;
            id = joined(&metadata, readiness) => id?,
            why = metadata_stopped(metadata.group(), &shards), if !mutants::is_on(Bug::UnregisteredStartWaits) => {
                let _removals = shards.end_removals().await;
                return Err(StartError::Stopped(why));
            }
        };
        peers.set_cluster_id(&cluster_id);
        for directory in directories.iter() {
            directory.data.set_cluster_id(&cluster_id).await?;
        }
        readiness.enter(Phase::Joining, "waiting for leaders of the shards", 2, 3);
        startup::wait_for_leaders(config, &metadata, &shards).await;
        let partitions = Partitions::new(shards.clone());
        let log = OffsetsLog::start(Arc::new(metadata.clone()), partitions.clone());
        let groups = Groups::new(GroupSettings::from(config.as_ref()), log);
        let settings = TransactionSettings::from(config.as_ref());
        let transactions = transaction::start(settings, &metadata, &partitions);
        Ok(Self { metadata, shards, partitions, groups, transactions, directories })
    }

    pub(super) fn into_domain(self, config: &Arc<Config>, log_levels: Arc<LogLevels>) -> Domain {
        Domain {
            config: config.clone(),
            log_levels,
            lags: Lags::new(self.groups.clone(), self.partitions.clone()),
            metadata: self.metadata,
            partitions: self.partitions,
            groups: self.groups,
            transactions: self.transactions.0,
            transaction_peers: self.transactions.1,
            metrics: Metrics::new(&config.metrics),
            sessions: Arc::new(FetchSessions::new(config.network.fetch_sessions_max)),
            answers: Budget::new(config.network.queued_bytes_max),
            directories: self.directories,
        }
    }
}

/// Starts the metadata group: in the directory that holds its replica, or in the first directory of a new node. It is
/// registered as the first one.
async fn start_metadata(
    config: &Arc<Config>,
    peers: &Peers,
    opened: &[Opened],
    recorded: Vec<ListenerEndpoint>,
) -> Result<MetadataHandle, StartError> {
    let held = opened.iter().filter_map(|opened| {
        let replica = metadata::start::metadata_among(&opened.replicas)?;
        Some((&opened.directory, replica))
    });
    let recovered = held.max_by_key(|(_, replica)| (metadata::start::is_metadata(replica), replica.id));
    let directory =
        recovered.map(|(directory, _)| directory).or_else(|| opened.first().map(|opened| &opened.directory));
    let directory = directory.ok_or(StartError::NoDirectory)?;
    let record = |opened: &Opened| DirectoryRecord {
        id: opened.directory.id,
        path: opened.directory.path.clone(),
        free_bytes: opened.directory.data.disk_bytes().1,
    };
    let mut records: Vec<_> = opened.iter().map(record).collect();
    // The metadata's comes first: its replica is placed there.
    records.sort_by_key(|record| record.id != directory.id);
    let mut local = LocalNode::from_config(config, records);
    local.listeners = recorded;
    let (host, seeds) = (&peers.host, peers.seeds.clone());
    let has_left = opened.iter().any(|opened| opened.directory.data.has_left());
    let seeds = if has_left && !mutants::is_on(Bug::LeftNodeFounds) { seeds.join_only() } else { seeds };
    let place = (directory.data.clone() as Arc<dyn ottla_raft::Directory>, directory.id);
    Ok(MetadataHandle::start(host, place, recovered.map(|(_, replica)| replica), local, config.clone(), seeds).await?)
}

/// The cluster's id, when the metadata is current here.
async fn joined(metadata: &MetadataHandle, readiness: &Readiness) -> Result<String, StartError> {
    let id = cluster_id(metadata).await?;
    readiness.enter(Phase::Joining, "catching up with the metadata", 1, 3);
    startup::catch_up(metadata).await;
    Ok(id)
}

/// The cluster's id. A node that joins gets it with the rest of the metadata.
async fn cluster_id(metadata: &MetadataHandle) -> Result<String, StartError> {
    let mut images = metadata.watch();
    let known = async {
        loop {
            let id = images.borrow_and_update().cluster_id.to_string();
            if !id.is_empty() {
                return Some(id);
            }
            images.changed().await.ok()?;
        }
    };
    rt::timeout(CLUSTER_WAIT, known).await.ok().flatten().ok_or(StartError::NoCluster)
}

/// Opens the shards whose replicas are on this node's disks and creates those that the metadata places on this node.
async fn open_shards(
    config: &Config,
    host: &RaftHost,
    metadata: &MetadataHandle,
    opened: &[Opened],
    leader_tasks: LeaderTaskSettings,
) -> Shards {
    let directories: BTreeMap<Uuid, Arc<DataDir>> =
        opened.iter().map(|opened| (opened.directory.id, opened.directory.data.clone())).collect();
    let leader_tasks = leader_tasks.configured(config);
    let registry = Arc::new(metadata.clone());
    let shards = Shards::new(config.node_id, host.clone(), directories, registry, leader_tasks);
    let mut carried = Vec::new();
    for Opened { directory, replicas } in opened {
        let of_shards = replicas.iter().filter(|replica| !metadata::start::is_metadata(replica));
        carried.extend(of_shards.map(|replica| (&directory.data, replica)));
    }
    shards.open(carried).await;
    shards.start();
    metadata.set_shard_terms(shards.terms());
    shards
}

/// Resolves to the reason, in words, when the node's replica of the metadata has stopped.
pub(super) async fn metadata_stopped(metadata: &GroupHandle, shards: &Shards) -> String {
    let mut role = metadata.role();
    drop(role.wait_for(|role| role.stopped).await);
    let view = shards.metadata();
    if view.image().is_decommissioned(shards.node()) || view.removed_from_cluster().borrow().is_some() {
        return "this node was unregistered; started again it joins as a new one".to_owned();
    }
    let why = metadata.failure();
    format!("the node's replica of the metadata has stopped ({})", why.as_deref().unwrap_or("closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lagging_replica_is_out_of_sync_after_the_configured_time() {
        let mut config = Config::default();
        let in_sync_lag = |config: &Config| raft_options(config, RaftOptions::default()).in_sync_lag;
        assert_eq!(in_sync_lag(&config), Duration::from_secs(30));
        config.log.replica_lag_ms_max = 700;
        assert_eq!(in_sync_lag(&config), Duration::from_millis(700));
    }
}
