//! The world around a node: disk, listeners, the transport to other nodes. In production it is the machine, in a
//! simulation a model of it; the node between them is the same.
//!
//! May not know: how a node is built.

use std::sync::Arc;

use ottla_env::disk::Disk;
use ottla_env::real::RealDisk;
use ottla_raft::RaftOptions;
use ottla_storage::data_dir::{DataDir, DataDirOptions, RecoveredReplica};

use super::error::StartError;
use super::peers::PeerEndpoint;
use crate::config::Config;
use crate::log_levels::LogLevels;
use crate::server::listener::{BoundListener, SocketOptions};
use crate::shard::LeaderTaskSettings;

/// What a node is given besides its configuration.
pub struct World {
    /// Holds the data directories.
    pub disk: Arc<dyn Disk>,
    /// Where clients connect: bound, and opened when the node can serve.
    pub listeners: Vec<BoundListener>,
    /// How the node reaches other nodes, and is reached; `None`: it is a cluster of one node.
    pub peers: Option<PeerEndpoint>,
    /// What no setting names.
    pub options: NodeOptions,
    /// Called with each data directory as recovery has found it, before anything uses it: a simulation judges recovery
    /// here.
    pub on_open: Option<OnOpen>,
}

/// Observes a data directory and the replicas that recovery has found in it.
pub type OnOpen = Arc<dyn Fn(&Arc<DataDir>, &[RecoveredReplica]) + Send + Sync>;

/// Options that no setting names. Settings take precedence in the fields that they do name.
#[derive(Clone, Default)]
pub struct NodeOptions {
    /// Of each data directory.
    pub data_dir: DataDirOptions,
    /// Of every Raft group.
    pub raft: RaftOptions,
    /// Of each shard's leader.
    pub leader_tasks: LeaderTaskSettings,
    /// What this process logs.
    pub log_levels: Arc<LogLevels>,
}

impl World {
    /// A disk and nothing else: a cluster of one node that no client reaches.
    #[must_use]
    pub fn alone(disk: Arc<dyn Disk>) -> Self {
        Self { disk, listeners: Vec::new(), peers: None, options: NodeOptions::default(), on_open: None }
    }

    /// This machine: its file system and its network, with all listeners bound.
    ///
    /// # Errors
    /// When a listener cannot be bound, or the one for other nodes is open to strangers.
    pub async fn of_machine(config: &Config) -> Result<Self, StartError> {
        let options = SocketOptions {
            send_buffer_bytes: config.network.send_buffer_bytes,
            receive_buffer_bytes: config.network.receive_buffer_bytes,
            backlog: config.network.backlog,
        };
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for listener in &config.listeners {
            listeners.push(BoundListener::bind(listener, &options).await?.boxed());
        }
        let peers = PeerEndpoint::of_machine(config).await?;
        Ok(Self { disk: Arc::new(RealDisk), listeners, peers, options: NodeOptions::default(), on_open: None })
    }
}
