//! A node: builds everything in order, stops it in reverse.
//!
//!     admin port -> listeners bound -> data directories (recovery) -> Raft host -> metadata -> shards -> groups
//!     -> listeners opened
//!
//! Only `main` and tests call it. May not know: requests.

mod addresses;
mod cluster_port;
mod directories;
mod error;
mod file_limit;
mod neighbourhood;
mod rescue;

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
pub use rescue::{Fate, Losses, RescueError, Rescued, rescue};

use crate::admin::readiness::{Phase, Readiness};
use crate::admin::{Admin, AdminState};
use crate::config::Config;
use crate::coordinator::group::{GroupSettings, Groups, PartitionJournal};
use crate::coordinator::lag::Lags;
use crate::handlers::fetch::session::FetchSessions;
use crate::limits::ConnectionLimits;
use crate::metadata::{self, DirectoryRecord, Levels, ListenerEndpoint, LocalNode, Metadata, MetadataImage, ShardId};
use crate::metrics::Metrics;
use crate::partition::Partitions;
use crate::server::Server;
use crate::server::admission::{Admission, AdmissionLimits};
use crate::server::budget::Budget;
use crate::server::context::{Directory, Domain};
use crate::server::kafka::Kafka;
use crate::server::listener::{BoundListener, SocketOptions};
use crate::shard::{Shards, Upkeep};
use addresses::Bound;
use cluster_port::{ClusterPort, Neighbourhood};
use directories::{Failures, Opened};
use error::CLUSTER_WAIT;
pub use error::StartError;

/// How long a start waits for leaders of its shards.
const LEADERS_WAIT: Duration = Duration::from_secs(5);

/// How long a node that stops waits for others to lead what it led.
const HAND_OVER_WAIT: Duration = Duration::from_secs(3);

/// How long a node that stops waits until that is recorded.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(1);

/// A node that serves.
pub struct Node {
    readiness: Readiness,
    admin: Option<Admin>,
    server: Server<Kafka>,
    groups: Groups,
    neighbourhood: Neighbourhood,
    metadata: Metadata,
    shards: Shards,
    directories: Arc<[Directory]>,
    failures: Failures,
    told: Vec<ListenerEndpoint>,
}

/// How long a node that could be ready waits until its shards are led.
const READY_WAIT: Duration = Duration::from_secs(10);

impl Node {
    /// Starts a node; when this returns, clients are answered.
    pub async fn start(config: Config, readiness: Readiness) -> Result<Self, StartError> {
        let state = AdminState::new(readiness.clone());
        let admin = match &config.admin_listener {
            Some(endpoint) => Some(Admin::start(endpoint, state.clone()).await?),
            None => None,
        };
        let listeners = bind(&config).await?;
        let cluster_port = ClusterPort::bind(&config).await?;
        let bound: Vec<Bound> = listeners.iter().map(|l| Bound { name: l.name.clone(), address: l.address }).collect();
        let told = addresses::told(&config.listeners, &config.advertised_listeners, &bound);
        let recorded: Vec<_> =
            told.iter().cloned().chain(cluster_port.as_ref().map(|port| port.told.clone())).collect();
        let config = Arc::new(config);

        let failures = Failures::new(config.log_dirs.len());
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let opened = directories::open_all(&disk, &config, &failures, &readiness, &AcceptLoss::Nothing).await?;
        let first = opened.first().map(|opened| &opened.directory).ok_or(StartError::NoDirectory)?;
        let known = (first.id, first.data.cluster_id());
        let neighbourhood = Neighbourhood::open(&config, cluster_port, known)?;
        let floors = Floors::build(&config, &neighbourhood, opened, recorded, &readiness).await?;

        let domain = floors.domain(&config);
        domain.lags.start();
        state.set_domain(domain.clone());
        let server = serve(&config, listeners, domain.clone())?;
        domain.metadata.start_heartbeats();
        let ready = readiness_of(domain.metadata.clone(), domain.partitions.clone(), readiness.clone());
        rt::spawn_critical("readiness", Owner::process(), ready);
        announce(&config, &domain, &bound, &told, admin.as_ref(), &readiness);
        let Floors { shards, groups, directories, .. } = floors;
        let metadata = domain.metadata.clone();
        Ok(Self { readiness, admin, server, groups, neighbourhood, metadata, shards, directories, failures, told })
    }

    /// `host:port` pairs as clients write them into `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        addresses::bootstrap(&self.told)
    }

    /// Resolves when the node cannot go on: no data directory is left, a task that it cannot do without has panicked,
    /// or its replica of the metadata has stopped, because it was unregistered or damaged. What is damaged is found and
    /// rebuilt at the next start, if there are other nodes.
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

    /// Stops the node: requests under way are answered, state is checkpointed, locks are released.
    pub async fn stop(self) {
        self.readiness.enter(Phase::Stopping, "stopping", 0, 1);
        self.groups.stop();
        // Clients find the next leaders while this node still answers.
        self.neighbourhood.host.hand_over(HAND_OVER_WAIT).await;
        self.metadata.announce_stop(ANNOUNCE_WAIT).await;
        self.server.stop().await;
        self.neighbourhood.host.shutdown().await;
        // A node that was unregistered stops while its last replica is being removed: found again, that would end it again.
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

/// A node is ready when it is registered with what this build understands, and all founders of a new cluster with it: before, no
/// topic could be placed on them, and a feature level that is new to this build not be raised.
/// Then it knows who leads its shards, unless nobody does; and the others' clients are told of it, unless that cannot be recorded.
async fn readiness_of(metadata: Metadata, partitions: Partitions, readiness: Readiness) {
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
    if !come_true(partitions.leadership_changes(), READY_WAIT, || partitions.all_are_led()).await {
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

/// The lines that say what a user needs to know.
fn announce(
    config: &Config,
    domain: &Domain,
    bound: &[Bound],
    told: &[ListenerEndpoint],
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
    tracing::info!("clients: bootstrap.servers={}", addresses::bootstrap(told));
    for (bound, told) in bound.iter().zip(told) {
        tracing::debug!("listener {} on {}: clients are told {}:{}", told.name, bound.address, told.host, told.port);
    }
    tracing::info!("data: {}", directories.join(", "));
    match admin {
        Some(admin) => tracing::info!("admin: http://{}/ (metrics, healthz, readyz)", admin.address),
        None => tracing::info!("admin: off (ottla.admin.listener=none)"),
    }
    if let Some(advice) = addresses::advice(bound, told) {
        tracing::warn!("{advice}");
    }
}

/// The floors between the disk and the handlers.
struct Floors {
    metadata: Metadata,
    shards: Shards,
    partitions: Partitions,
    groups: Groups,
    directories: Arc<[Directory]>,
}

impl Floors {
    async fn build(
        config: &Arc<Config>,
        neighbourhood: &Neighbourhood,
        opened: Vec<Opened>,
        recorded: Vec<ListenerEndpoint>,
        readiness: &Readiness,
    ) -> Result<Self, StartError> {
        readiness.enter(Phase::Joining, "looking for the metadata group", 0, 2);
        let host = &neighbourhood.host;
        let directories: Arc<[Directory]> = opened.iter().map(|opened| opened.directory.clone()).collect();
        let metadata = start_metadata(config, neighbourhood, &opened, recorded).await?;
        directories::classify(&directories, &metadata);
        directories::follow_settings(&directories, &metadata);
        let shards = open_shards(config, host, &metadata, &opened).await;
        // Who was forgotten while it was away is told nothing, not even that: its shards find out, and see to that it ends.
        let cluster_id = tokio::select! {
            biased;
            told = cluster_id(&metadata) => told?,
            why = metadata_stopped(metadata.group(), &shards) => {
                let _removals = shards.end_removals().await;
                return Err(StartError::Stopped(why));
            }
        };
        neighbourhood.belongs_to(&cluster_id);
        for directory in directories.iter() {
            directory.data.set_cluster_id(&cluster_id).await?;
        }
        readiness.enter(Phase::Joining, "waiting for leaders of the shards", 1, 2);
        wait_for_leaders(config, &metadata, &shards).await;
        let partitions = Partitions::new(shards.clone());
        let journal = PartitionJournal::start(Arc::new(metadata.clone()), partitions.clone());
        let groups = Groups::new(GroupSettings::from(config.as_ref()), journal);
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

/// Starts the metadata group: in the directory that holds its replica, or in the first of a new node.
async fn start_metadata(
    config: &Arc<Config>,
    neighbourhood: &Neighbourhood,
    opened: &[Opened],
    recorded: Vec<ListenerEndpoint>,
) -> Result<Metadata, StartError> {
    let held = opened.iter().filter_map(|opened| {
        let replica = metadata::start::metadata_among(&opened.replicas)?;
        Some((&opened.directory, replica))
    });
    let recovered = held.max_by_key(|(_, replica)| metadata::start::is_metadata(replica));
    let home = recovered.map(|(directory, _)| directory).or_else(|| opened.first().map(|opened| &opened.directory));
    let home = home.ok_or(StartError::NoDirectory)?;
    let records = opened.iter().map(|opened| DirectoryRecord {
        id: opened.directory.id,
        path: opened.directory.path.clone(),
        free_bytes: opened.directory.data.disk_bytes().1,
    });
    let mut local = LocalNode::from_config(config, records.collect());
    local.listeners = recorded;
    let (host, seeds) = (&neighbourhood.host, neighbourhood.seeds.clone());
    let has_left = opened.iter().any(|opened| opened.directory.data.has_left());
    let seeds = if has_left { seeds.to_join_only() } else { seeds };
    let place = (home.data.clone() as Arc<dyn ottla_raft::Directory>, home.id);
    Ok(Metadata::start(host, place, recovered.map(|(_, replica)| replica), local, config.clone(), seeds).await?)
}

/// The cluster's id, which a node that joins is told with everything else.
async fn cluster_id(metadata: &Metadata) -> Result<String, StartError> {
    let mut images = metadata.watch();
    let told = async {
        loop {
            let id = images.borrow_and_update().cluster_id.to_string();
            if !id.is_empty() {
                return Some(id);
            }
            images.changed().await.ok()?;
        }
    };
    rt::timeout(CLUSTER_WAIT, told).await.ok().flatten().ok_or(StartError::NoCluster)
}

/// Opens the shards that lie on this node's disks and creates those that the metadata places here.
async fn open_shards(config: &Config, host: &RaftHost, metadata: &Metadata, opened: &[Opened]) -> Shards {
    let directories: BTreeMap<Uuid, Arc<DataDir>> =
        opened.iter().map(|opened| (opened.directory.id, opened.directory.data.clone())).collect();
    let upkeep = Upkeep {
        retention_check: Duration::from_millis(config.log.retention_check_interval_ms),
        producer_expiration_ms: i64::try_from(config.transaction.producer_id_expiration_ms).unwrap_or(i64::MAX),
        ..Upkeep::default()
    };
    let registry = Arc::new(metadata.clone());
    let shards = Shards::new(config.node_id, host.clone(), directories, registry, upkeep);
    let all = opened.iter().flat_map(|opened| opened.replicas.iter().map(|replica| (&opened.directory.data, replica)));
    shards.open(all.filter(|(_, replica)| !metadata::start::is_metadata(replica))).await;
    shards.start();
    shards
}

/// Resolves when the node's replica of the metadata has stopped; why, in words.
async fn metadata_stopped(metadata: &GroupHandle, shards: &Shards) -> String {
    let mut role = metadata.role();
    drop(role.wait_for(|role| role.stopped).await);
    let registry = shards.registry();
    if registry.image().is_going(shards.node()) || registry.expelled().borrow().is_some() {
        return "this node was unregistered; started again it joins as a new one".to_owned();
    }
    let why = metadata.failure();
    format!("the node's replica of the metadata has stopped ({})", why.as_deref().unwrap_or("closed"))
}

/// Waits, not for ever, until every shard that the metadata places here has a leader: then the first request of the
/// first client is answered at once.
async fn wait_for_leaders(config: &Config, metadata: &Metadata, shards: &Shards) {
    let image = metadata.image();
    let here = image.shards.values().filter(|shard| {
        shard.id != ShardId::METADATA && shard.replicas.iter().any(|replica| replica.node == config.node_id)
    });
    let here: Vec<ShardId> = here.map(|shard| shard.id).collect();
    // A leader that has applied nothing of its own term yet refuses, and a client of the first moment would have to ask again.
    let led = |id: &ShardId| {
        shards.get(*id).map_or_else(
            || shards.is_closed(*id),
            |shard| {
                let role = shard.role();
                role.ready || role.stopped || role.leader.is_some_and(|leader| leader != shard.replica)
            },
        )
    };
    if !come_true(shards.leadership_changes(), LEADERS_WAIT, || here.iter().all(led)).await {
        tracing::warn!("some shards have no leader yet; clients are answered as they come");
    }
}

/// Waits until `is_so`, asked again after each of `changes`; false if that takes longer than `patience`. Unlike a receiver's
/// `wait_for` it asks without a lock on what changes: the answer needs those of others.
async fn come_true(mut changes: watch::Receiver<u64>, patience: Duration, is_so: impl Fn() -> bool) -> bool {
    let so = async {
        while !is_so() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    rt::timeout(patience, so).await.is_ok()
}
