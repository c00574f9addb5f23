//! A node: starts all services in order, stops them in reverse.
//!
//!     admin port -> data directories (recovery) -> transport to other nodes -> metadata -> shards -> groups
//!     -> listeners opened
//!
//! [`Node::start`] takes a [`World`]: `main` gives it the machine with its listeners bound, the simulation and the
//! micro-benchmarks give it models. May not know: requests.

mod addresses;
mod directories;
mod error;
mod file_limit;
mod follow_config;
mod load;
mod peer_listener;
mod peers;
mod seed_resolver;
mod services;
mod startup;
mod unsafe_recovery;
mod world;

use std::sync::Arc;
use std::time::Duration;

use ottla_env::critical::{Owner, process_failed};
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_raft::{Identity, RaftHost};
use ottla_storage::data_dir::DataDirError;
use parking_lot::Mutex;

pub use error::StartError;
pub use file_limit::raise_file_limit;
pub use peers::PeerEndpoint;
pub use unsafe_recovery::{Losses, RecoveryError, RecoveryOutcome, ReplicaRecovery, unsafe_recover};
pub use world::{NodeOptions, OnOpen, World};

use crate::admin::readiness::{Phase, Readiness};
use crate::admin::{Admin, AdminState};
use crate::config::Config;
use crate::handlers::context::{Directory, Domain};
use crate::handlers::kafka_dispatch::Kafka;
use crate::limits::ConnectionLimits;
use crate::metadata::ListenerEndpoint;
use crate::server::Server;
use crate::server::admission::{Admission, AdmissionLimits};
use crate::server::budget::Budget;
use crate::server::listener::BoundListener;
use crate::shard::Shards;
use addresses::Bound;
use directories::Failures;
use follow_config::follow_config;
use load::NodeLoad;
use peers::Peers;
use services::{Services, metadata_stopped};

/// How long a node that stops waits for other nodes to take over its leaderships.
const TRANSFER_WAIT: Duration = Duration::from_secs(3);

/// How long a node that stops waits until the metadata records that.
const STOP_RECORD_WAIT: Duration = Duration::from_secs(1);

/// A running node.
pub struct Node {
    readiness: Readiness,
    admin: Mutex<Option<Admin>>,
    server: Server<Kafka>,
    domain: Domain,
    shards: Shards,
    peers: Peers,
    failures: Failures,
    advertised: Vec<ListenerEndpoint>,
}

impl Node {
    /// Starts a node; when this returns, it serves clients.
    ///
    /// # Errors
    /// When a port, a data directory or the cluster stands against it; nothing is left running then but tasks that end
    /// with the process.
    pub async fn start(world: World, config: Config, readiness: Readiness) -> Result<Self, StartError> {
        let World { disk, listeners, peers, options, on_open } = world;
        let state = AdminState::new(readiness.clone());
        let admin = match &config.admin_listener {
            Some(endpoint) => Some(Admin::start(endpoint, state.clone()).await?),
            None => None,
        };
        let bound: Vec<Bound> = listeners.iter().map(|l| Bound { name: l.name.clone(), address: l.address }).collect();
        let advertised = addresses::advertised_endpoints(&config.listeners, &config.advertised_listeners, &bound);
        let recorded: Vec<_> =
            advertised.iter().cloned().chain(peers.as_ref().map(|peers| peers.advertised.clone())).collect();
        let config = Arc::new(config);

        let failures = Failures::new(config.log_dirs.len());
        let opened = directories::open_all(&disk, &config, &options.data_dir, &failures, &readiness).await?;
        if let Some(on_open) = on_open {
            opened.iter().for_each(|opened| on_open(&opened.directory.data, &opened.replicas));
        }
        let first = opened.first().map(|opened| &opened.directory).ok_or(StartError::NoDirectory)?;
        let identity = Identity { node: config.node_id, directory: first.id, cluster: first.data.cluster_id() };
        let peers = Peers::open(peers, &config, identity, services::raft_options(&config, options.raft))?;
        let services = Services::build(&config, &peers, opened, recorded, options.leader_tasks, &readiness).await?;

        let shards = services.shards.clone();
        let domain = services.into_domain(&config, options.log_levels);
        domain.lags.start();
        state.set_domain(domain.clone());
        let server = serve(&config, listeners, domain.clone())?;
        domain.metadata.start_heartbeats();
        let load = NodeLoad {
            metadata: domain.metadata.clone(),
            shards: shards.clone(),
            directories: Arc::clone(&domain.directories),
        };
        domain.metadata.start_load_reports(Arc::new(load));
        let ready = startup::become_ready(domain.metadata.clone(), domain.partitions.clone(), readiness.clone());
        rt::spawn_critical("readiness", Owner::process(), ready);
        startup::log(&domain, &bound, &advertised, admin.as_ref(), &readiness);
        let admin = Mutex::new(admin);
        Ok(Self { readiness, admin, server, domain, shards, peers, failures, advertised })
    }

    /// The handles of the node's services.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Serves connections.
    #[must_use]
    pub fn kafka(&self) -> &Kafka {
        self.server.service()
    }

    /// The shards that have a replica on this node.
    #[must_use]
    pub fn shards(&self) -> &Shards {
        &self.shards
    }

    /// The Raft groups that have a replica on this node.
    #[must_use]
    pub fn host(&self) -> &RaftHost {
        &self.peers.host
    }

    fn directories(&self) -> &[Directory] {
        &self.domain.directories
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
            why = metadata_stopped(self.domain.metadata.group(), &self.shards) => return why,
        }
        let reasons = self
            .directories()
            .iter()
            .filter_map(|directory| directory.data.poisoned().map(|reason| format!("{}: {reason}", directory.path)));
        format!("every data directory has failed ({})", reasons.collect::<Vec<_>>().join("; "))
    }

    /// Stops the node: requests in flight are completed, state is checkpointed, locks are released.
    pub async fn stop(&self) {
        self.hand_over().await;
        for (directory, error) in self.close().await {
            tracing::warn!("data directory {directory}: {error}; it is recovered at the next start");
        }
    }

    /// The first half of a stop, while clients are still served: they find the next leaders.
    pub async fn hand_over(&self) {
        self.readiness.enter(Phase::Stopping, "stopping", 0, 1);
        self.domain.groups.stop();
        self.domain.transactions.stop();
        self.peers.host.transfer_leaderships(TRANSFER_WAIT).await;
        self.domain.metadata.announce_stop(STOP_RECORD_WAIT).await;
    }

    /// The second half of a stop. Returns the directories that could not be closed in order, and why.
    pub async fn close(&self) -> Vec<(String, DataDirError)> {
        self.server.stop().await;
        self.peers.host.shutdown().await;
        // A node that was unregistered stops while its last replica is being removed. If the replica were still there
        // at the next start, the node would stop again.
        let _removals = match mutants::is_on(Bug::RemovalsNotAwaited) {
            true => None,
            false => Some(self.shards.end_removals().await),
        };
        let mut unclosed = Vec::new();
        for directory in self.directories() {
            if let Err(error) = directory.data.close().await {
                unclosed.push((directory.path.clone(), error));
            }
        }
        if let Some(admin) = self.admin.lock().take() {
            admin.stop();
        }
        unclosed
    }
}

fn serve(config: &Config, listeners: Vec<BoundListener>, domain: Domain) -> Result<Server<Kafka>, StartError> {
    let admission = Admission::new(AdmissionLimits::configured(&config.network));
    let followed = admission.clone();
    follow_config("connection-limits", &domain.metadata, move |config| {
        followed.set_limits(AdmissionLimits::configured(&config.network));
    });
    let budget = Budget::new(config.network.queued_bytes_max);
    let limits = ConnectionLimits::configured(&config.network);
    Server::start(listeners, Kafka::new(domain), limits, admission, budget).map_err(StartError::Open)
}
