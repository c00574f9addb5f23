//! A node: starts all services in order, stops them in reverse.
//!
//!     admin port -> listeners bound -> data directories (recovery) -> Raft host -> metadata -> shards -> groups
//!     -> listeners opened
//!
//! Only `main` and tests call it. May not know: requests.

mod addresses;
mod directories;
mod error;
mod file_limit;
mod peer_listener;
mod seed_resolver;
mod unsafe_recovery;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ottla_raft::{GroupHandle, RaftHost};
use ottla_storage::data_dir::DataDir;
use ottla_storage::env::critical::{Owner, process_failed};
use ottla_storage::env::disk::Disk;
use ottla_storage::env::real::RealDisk;
use ottla_storage::env::{rt, watch};
use ottla_storage::log::AcceptLoss;
use uuid::Uuid;

pub use file_limit::raise_file_limit;
pub use unsafe_recovery::{Losses, RecoveryError, RecoveryOutcome, ReplicaRecovery, unsafe_recover};

use crate::admin::readiness::{Phase, Readiness};
use crate::admin::{Admin, AdminState};
use crate::config::Config;
use crate::coordinator::group::{GroupSettings, Groups, PartitionWriter};
use crate::coordinator::lag::Lags;
use crate::handlers::context::{Directory, Domain};
use crate::handlers::fetch::session::FetchSessions;
use crate::handlers::kafka_dispatch::Kafka;
use crate::limits::ConnectionLimits;
use crate::metadata::{
    self, DirectoryRecord, Levels, ListenerEndpoint, LocalNode, MetadataHandle, MetadataImage, ShardId,
};
use crate::metrics::Metrics;
use crate::partition::Partitions;
use crate::server::Server;
use crate::server::admission::{Admission, AdmissionLimits};
use crate::server::budget::Budget;
use crate::server::listener::{BoundListener, SocketOptions};
use crate::shard::{LeaderTaskSettings, Shards};
use addresses::Bound;
use directories::{Failures, Opened};
use error::CLUSTER_WAIT;
pub use error::StartError;
use peer_listener::{PeerListener, PeerNetwork};

/// How long a start waits for leaders of its shards.
const LEADERS_WAIT: Duration = Duration::from_secs(5);

/// How long a node that stops waits for other nodes to take over its leaderships.
const TRANSFER_WAIT: Duration = Duration::from_secs(3);

/// How long a node that stops waits until the metadata records that.
const STOP_RECORD_WAIT: Duration = Duration::from_secs(1);

/// A running node.
pub struct Node {
    readiness: Readiness,
    admin: Option<Admin>,
    server: Server<Kafka>,
    groups: Groups,
    peers: PeerNetwork,
    metadata: MetadataHandle,
    shards: Shards,
    directories: Arc<[Directory]>,
    failures: Failures,
    advertised: Vec<ListenerEndpoint>,
}

/// How long a node that is otherwise ready waits until its shards have leaders, and then until it is unfenced.
const READY_WAIT: Duration = Duration::from_secs(10);

impl Node {
    /// Starts a node; when this returns, it serves clients.
    pub async fn start(config: Config, readiness: Readiness) -> Result<Self, StartError> {
        let state = AdminState::new(readiness.clone());
        let admin = match &config.admin_listener {
            Some(endpoint) => Some(Admin::start(endpoint, state.clone()).await?),
            None => None,
        };
        let listeners = bind(&config).await?;
        let peer_listener = PeerListener::bind(&config).await?;
        let bound: Vec<Bound> = listeners.iter().map(|l| Bound { name: l.name.clone(), address: l.address }).collect();
        let advertised = addresses::advertised_endpoints(&config.listeners, &config.advertised_listeners, &bound);
        let recorded: Vec<_> = advertised
            .iter()
            .cloned()
            .chain(peer_listener.as_ref().map(|listener| listener.advertised.clone()))
            .collect();
        let config = Arc::new(config);

        let failures = Failures::new(config.log_dirs.len());
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let opened = directories::open_all(&disk, &config, &failures, &readiness, &AcceptLoss::Nothing).await?;
        let first = opened.first().map(|opened| &opened.directory).ok_or(StartError::NoDirectory)?;
        let known = (first.id, first.data.cluster_id());
        let peers = PeerNetwork::open(&config, peer_listener, known)?;
        let services = Services::build(&config, &peers, opened, recorded, &readiness).await?;

        let domain = services.domain(&config);
        domain.lags.start();
        state.set_domain(domain.clone());
        let server = serve(&config, listeners, domain.clone())?;
        domain.metadata.start_heartbeats();
        let ready = readiness_of(domain.metadata.clone(), domain.partitions.clone(), readiness.clone());
        rt::spawn_critical("readiness", Owner::process(), ready);
        log_startup(&config, &domain, &bound, &advertised, admin.as_ref(), &readiness);
        let Services { shards, groups, directories, .. } = services;
        let metadata = domain.metadata.clone();
        Ok(Self { readiness, admin, server, groups, peers, metadata, shards, directories, failures, advertised })
    }

    /// `host:port` pairs as clients write them into `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        addresses::bootstrap(&self.advertised)
    }

    /// Resolves when the node cannot continue:
    /// - no data directory is left,
    /// - a critical task has panicked, or
    /// - its replica of the metadata has stopped, because the node was unregistered or the replica is damaged. A
    ///   damaged replica is detected and rebuilt at the next start, if there are other nodes.
    pub async fn failed(&self) -> String {
        tokio::select! {
            biased;
            () = self.failures.all_failed() => {}
            why = process_failed() => return why.to_string(),
            why = metadata_stopped(self.metadata.group(), &self.shards) => return why,
        }
        let reasons = self
            .directories
            .iter()
            .filter_map(|directory| directory.data.poisoned().map(|reason| format!("{}: {reason}", directory.path)));
        format!("every data directory has failed ({})", reasons.collect::<Vec<_>>().join("; "))
    }

    /// Stops the node: requests in flight are completed, state is checkpointed, locks are released.
    pub async fn stop(self) {
        self.readiness.enter(Phase::Stopping, "stopping", 0, 1);
        self.groups.stop();
        // Clients find the next leaders while this node still serves requests.
        self.peers.host.transfer_leaderships(TRANSFER_WAIT).await;
        self.metadata.announce_stop(STOP_RECORD_WAIT).await;
        self.server.stop().await;
        self.peers.host.shutdown().await;
        // A node that was unregistered stops while its last replica is being removed. If the replica were still there
        // at the next start, the node would stop again.
        let _removals = self.shards.end_removals().await;
        for directory in self.directories.iter() {
            if let Err(error) = directory.data.close().await {
                tracing::warn!("data directory {}: {error}; it is recovered at the next start", directory.path);
            }
        }
        if let Some(admin) = self.admin {
            admin.stop();
        }
    }
}

async fn bind(config: &Config) -> Result<Vec<BoundListener>, StartError> {
    let options = SocketOptions {
        send_buffer_bytes: config.network.send_buffer_bytes,
        receive_buffer_bytes: config.network.receive_buffer_bytes,
        backlog: config.network.backlog,
    };
    let mut bound = Vec::with_capacity(config.listeners.len());
    for listener in &config.listeners {
        bound.push(BoundListener::bind(listener, &options).await?);
    }
    Ok(bound)
}

fn serve(config: &Config, listeners: Vec<BoundListener>, domain: Domain) -> Result<Server<Kafka>, StartError> {
    let admission = Admission::new(AdmissionLimits {
        connections_max: config.network.connections_max,
        per_ip_max: config.network.connections_per_ip_max,
        ..AdmissionLimits::default()
    });
    let budget = Budget::new(config.network.queued_bytes_max);
    let limits = ConnectionLimits::configured(&config.network);
    Server::start(listeners, Kafka::new(domain), limits, admission, budget).map_err(StartError::Open)
}

/// A node is ready when:
/// - it is registered with the feature levels that this build understands, and so are all founders of a new cluster:
///   before, no topic could be placed on them, and a feature level that is new to this build could not be raised;
/// - the leaders of its shards are known, or the wait for them has ended;
/// - it is unfenced, so that other nodes list it to clients, or the wait for that has ended.
async fn readiness_of(metadata: MetadataHandle, partitions: Partitions, readiness: Readiness) {
    let mut images = metadata.watch();
    let is_whole = |image: &MetadataImage| {
        let founded = image.nodes.len() >= image.expected_nodes() || image.shards.len() > 1;
        founded && image.nodes.get(&metadata.node_id()).is_some_and(|node| node.levels == Levels::OWN)
    };
    if !is_whole(&images.borrow_and_update()) {
        readiness.enter(Phase::Joining, "waiting until all nodes of the new cluster are registered", 1, 2);
        if images.wait_for(|image| is_whole(image)).await.is_err() {
            return;
        }
    }
    if !wait_until(partitions.leadership_changes(), READY_WAIT, || partitions.all_are_led()).await {
        tracing::warn!("some shards have no leader; what they carry is not served yet");
    }
    let is_told_of = |image: &Arc<MetadataImage>| !image.is_fenced(metadata.node_id());
    if !matches!(rt::timeout(READY_WAIT, images.wait_for(is_told_of)).await, Ok(Ok(_))) {
        tracing::warn!("this node is fenced, and clients of other nodes are not told of it yet");
    }
    let closed = partitions.closed();
    let step = match closed.first() {
        None => "serving".to_owned(),
        Some((_, aside)) => format!("serving, but {} replicas here are closed; the first: {}", closed.len(), aside.why),
    };
    readiness.enter(Phase::Serving, step, 1, 1);
}

/// Logs the addresses, directories and counts that an operator needs.
fn log_startup(
    config: &Config,
    domain: &Domain,
    bound: &[Bound],
    advertised: &[ListenerEndpoint],
    admin: Option<&Admin>,
    readiness: &Readiness,
) {
    let image = domain.metadata.image();
    let directories: Vec<&str> = domain.directories.iter().map(|directory| directory.path.as_str()).collect();
    tracing::info!(
        "Ottla {} serves: node {}, cluster {}, {} topics, {} partitions, started in {} ms",
        env!("CARGO_PKG_VERSION"),
        config.node_id.0,
        image.cluster_id,
        image.topics.len(),
        image.partition_count(),
        readiness.elapsed_ms(),
    );
    tracing::info!("clients: bootstrap.servers={}", addresses::bootstrap(advertised));
    for (bound, advertised) in bound.iter().zip(advertised) {
        tracing::debug!(
            "listener {} on {}: clients are told {}:{}",
            advertised.name,
            bound.address,
            advertised.host,
            advertised.port
        );
    }
    tracing::info!("data: {}", directories.join(", "));
    match admin {
        Some(admin) => tracing::info!("admin: http://{}/ (metrics, healthz, readyz)", admin.address),
        None => tracing::info!("admin: off (ottla.admin.listener=none)"),
    }
    if let Some(advice) = addresses::advice(bound, advertised) {
        tracing::warn!("{advice}");
    }
}

/// The services between the data directories and the handlers.
struct Services {
    metadata: MetadataHandle,
    shards: Shards,
    partitions: Partitions,
    groups: Groups,
    directories: Arc<[Directory]>,
}

impl Services {
    async fn build(
        config: &Arc<Config>,
        peers: &PeerNetwork,
        opened: Vec<Opened>,
        recorded: Vec<ListenerEndpoint>,
        readiness: &Readiness,
    ) -> Result<Self, StartError> {
        readiness.enter(Phase::Joining, "looking for the metadata group", 0, 2);
        let host = &peers.host;
        let directories: Arc<[Directory]> = opened.iter().map(|opened| opened.directory.clone()).collect();
        let metadata = start_metadata(config, peers, &opened, recorded).await?;
        directories::classify(&directories, &metadata);
        directories::follow_settings(&directories, &metadata);
        let shards = open_shards(config, host, &metadata, &opened).await;
        // A node that was removed while it was down gets no cluster id, and no message that says so: the removal
        // detector finds out, and its shards then remove the replica of the metadata, which ends the node.
        let cluster_id = tokio::select! {
            biased;
            id = cluster_id(&metadata) => id?,
            why = metadata_stopped(metadata.group(), &shards) => {
                let _removals = shards.end_removals().await;
                return Err(StartError::Stopped(why));
            }
        };
        peers.set_cluster_id(&cluster_id);
        for directory in directories.iter() {
            directory.data.set_cluster_id(&cluster_id).await?;
        }
        readiness.enter(Phase::Joining, "waiting for leaders of the shards", 1, 2);
        wait_for_leaders(config, &metadata, &shards).await;
        let partitions = Partitions::new(shards.clone());
        let log = PartitionWriter::start(Arc::new(metadata.clone()), partitions.clone());
        let groups = Groups::new(GroupSettings::from(config.as_ref()), log);
        Ok(Self { metadata, shards, partitions, groups, directories })
    }

    fn domain(&self, config: &Arc<Config>) -> Domain {
        Domain {
            config: config.clone(),
            metadata: self.metadata.clone(),
            partitions: self.partitions.clone(),
            groups: self.groups.clone(),
            lags: Lags::new(self.groups.clone(), self.partitions.clone()),
            metrics: Metrics::new(&config.metrics),
            sessions: Arc::new(FetchSessions::new(config.network.fetch_sessions_max)),
            answers: Budget::new(config.network.queued_bytes_max),
            directories: self.directories.clone(),
        }
    }
}

/// Starts the metadata group: in the directory that holds its replica, or in the first directory of a new node.
async fn start_metadata(
    config: &Arc<Config>,
    peers: &PeerNetwork,
    opened: &[Opened],
    recorded: Vec<ListenerEndpoint>,
) -> Result<MetadataHandle, StartError> {
    let held = opened.iter().filter_map(|opened| {
        let replica = metadata::start::metadata_among(&opened.replicas)?;
        Some((&opened.directory, replica))
    });
    let recovered = held.max_by_key(|(_, replica)| metadata::start::is_metadata(replica));
    let directory =
        recovered.map(|(directory, _)| directory).or_else(|| opened.first().map(|opened| &opened.directory));
    let directory = directory.ok_or(StartError::NoDirectory)?;
    let records = opened.iter().map(|opened| DirectoryRecord {
        id: opened.directory.id,
        path: opened.directory.path.clone(),
        free_bytes: opened.directory.data.disk_bytes().1,
    });
    let mut local = LocalNode::from_config(config, records.collect());
    local.listeners = recorded;
    let (host, seeds) = (&peers.host, peers.seeds.clone());
    let has_left = opened.iter().any(|opened| opened.directory.data.has_left());
    let seeds = if has_left { seeds.join_only() } else { seeds };
    let place = (directory.data.clone() as Arc<dyn ottla_raft::Directory>, directory.id);
    Ok(MetadataHandle::start(host, place, recovered.map(|(_, replica)| replica), local, config.clone(), seeds).await?)
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
async fn open_shards(config: &Config, host: &RaftHost, metadata: &MetadataHandle, opened: &[Opened]) -> Shards {
    let directories: BTreeMap<Uuid, Arc<DataDir>> =
        opened.iter().map(|opened| (opened.directory.id, opened.directory.data.clone())).collect();
    let upkeep = LeaderTaskSettings {
        retention_check: Duration::from_millis(config.log.retention_check_interval_ms),
        producer_expiration_ms: i64::try_from(config.transaction.producer_id_expiration_ms).unwrap_or(i64::MAX),
        ..LeaderTaskSettings::default()
    };
    let registry = Arc::new(metadata.clone());
    let shards = Shards::new(config.node_id, host.clone(), directories, registry, upkeep);
    let all = opened.iter().flat_map(|opened| opened.replicas.iter().map(|replica| (&opened.directory.data, replica)));
    shards.open(all.filter(|(_, replica)| !metadata::start::is_metadata(replica))).await;
    shards.start();
    shards
}

/// Resolves to the reason, in words, when the node's replica of the metadata has stopped.
async fn metadata_stopped(metadata: &GroupHandle, shards: &Shards) -> String {
    let mut role = metadata.role();
    drop(role.wait_for(|role| role.stopped).await);
    let view = shards.metadata();
    if view.image().is_decommissioned(shards.node()) || view.removed_from_cluster().borrow().is_some() {
        return "this node was unregistered; started again it joins as a new one".to_owned();
    }
    let why = metadata.failure();
    format!("the node's replica of the metadata has stopped ({})", why.as_deref().unwrap_or("closed"))
}

/// Waits, with a timeout, until every shard that the metadata places on this node has a leader: then the first request
/// of the first client is served at once.
async fn wait_for_leaders(config: &Config, metadata: &MetadataHandle, shards: &Shards) {
    let image = metadata.image();
    let here = image.shards.values().filter(|shard| {
        shard.id != ShardId::METADATA && shard.replicas.iter().any(|replica| replica.node == config.node_id)
    });
    let here: Vec<ShardId> = here.map(|shard| shard.id).collect();
    // A leader that has applied nothing of its own term yet refuses requests, and an early client would have to retry.
    let led = |id: &ShardId| {
        shards.get(*id).map_or_else(
            || shards.is_closed(*id),
            |shard| {
                let role = shard.role();
                role.ready || role.stopped || role.leader.is_some_and(|leader| leader != shard.replica)
            },
        )
    };
    if !wait_until(shards.leadership_changes(), LEADERS_WAIT, || here.iter().all(led)).await {
        tracing::warn!("some shards have no leader yet; clients are answered as they come");
    }
}

/// Waits until `condition` holds, which is evaluated again after each of `changes`; false if that takes longer than
/// `timeout`. Unlike a receiver's `wait_for` it evaluates without a lock on the value that changes: the condition locks
/// others.
async fn wait_until(mut changes: watch::Receiver<u64>, timeout: Duration, condition: impl Fn() -> bool) -> bool {
    let so = async {
        while !condition() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    rt::timeout(timeout, so).await.is_ok()
}
