//! All replicas of a node: created, opened, found by id, stopped.
//!
//! May not know: which shards there should be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_storage::data_dir::{DataDir, RecoveredReplica};
use ottla_storage::env::watch;
use ottla_storage::ids::ReplicaId;

use crate::error::RaftError;
use crate::handle::GroupHandle;
use crate::machine::StateMachine;
use crate::members::Members;
use crate::net::{Message, Network, Undelivered};

/// Settings of all groups of a node.
#[derive(Debug, Clone)]
pub struct RaftOptions {
    /// A leader's heartbeat.
    pub heartbeat: Duration,
    /// Shortest time without a leader before a replica campaigns.
    pub election_min: Duration,
    /// Longest such time; also the lease.
    pub election_max: Duration,
    /// Bytes of proposals in flight per group.
    pub in_flight_bytes_max: usize,
    /// Bytes of entries read from the log at once, for replication and apply.
    pub read_bytes_max: usize,
    /// A leader stops ticking after so long without a request; its followers after half of it. `None`: never.
    pub idle_after: Option<Duration>,
}

impl Default for RaftOptions {
    fn default() -> Self {
        RaftOptions {
            heartbeat: Duration::from_millis(250),
            election_min: Duration::from_millis(750),
            election_max: Duration::from_millis(1500),
            in_flight_bytes_max: 32 << 20,
            read_bytes_max: 4 << 20,
            idle_after: Some(Duration::from_secs(10)),
        }
    }
}

/// All replicas of a node; cheap to clone.
#[derive(Clone)]
pub struct RaftHost(());

impl RaftHost {
    /// A host without replicas.
    #[must_use]
    pub fn new(_network: Arc<dyn Network>, _options: RaftOptions) -> Self {
        unimplemented!()
    }

    /// Creates a replica of a new group in `directory` and starts it. `shard` is what the shard wants to find
    /// again in [`crate::Creation::shard`] of a recovered replica. A sole voter campaigns at once.
    pub async fn create(
        &self,
        _directory: &Arc<DataDir>,
        _replica: ReplicaId,
        _shard: Bytes,
        _members: Members,
        _machine: Box<dyn StateMachine>,
    ) -> Result<GroupHandle, RaftError> {
        unimplemented!()
    }

    /// Starts a recovered replica. `machine` already holds `recovered.state`; entries after `recovered.applied`
    /// are applied again.
    pub async fn open(
        &self,
        _directory: &Arc<DataDir>,
        _recovered: &RecoveredReplica,
        _machine: Box<dyn StateMachine>,
    ) -> Result<GroupHandle, RaftError> {
        unimplemented!()
    }

    /// A replica that runs here.
    #[must_use]
    pub fn group(&self, _replica: ReplicaId) -> Option<GroupHandle> {
        unimplemented!()
    }

    /// Replicas that stopped by themselves, with the reason.
    #[must_use]
    pub fn failures(&self) -> watch::Receiver<BTreeMap<ReplicaId, Arc<str>>> {
        unimplemented!()
    }

    /// A message from another node. For a replica that is not here it is dropped: it never creates one.
    pub async fn deliver(
        &self,
        _from: ReplicaId,
        _to: ReplicaId,
        _message: Message,
    ) -> Result<Message, Undelivered> {
        unimplemented!()
    }

    /// Stops all replicas; nothing is applied afterwards.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}
