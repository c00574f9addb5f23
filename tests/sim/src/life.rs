//! One life of a node: the production floors from the disk to the coordinators, over the simulated world.
//!
//! May not know: faults, clients, laws.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ottla_broker::coordinator::group::{GroupSettings, Groups, PartitionJournal};
use ottla_broker::partition::Partitions;
use ottla_broker::shard::{Shards, Upkeep};
use ottla_raft::{RaftHost, RaftOptions, SimNetwork};
use ottla_storage::data_dir::{DataDir, DataDirOptions};
use ottla_storage::env::disk::Disk;
use ottla_storage::env::sim::SimNode;
use ottla_storage::env::sim::disk::SimDisk;
use ottla_storage::log::LogOptions;

use crate::registry::{StaticRegistry, broker};

/// Bytes of a segment: small, so that seeds see many.
const SEGMENT_BYTES: u32 = 1 << 20;
/// A member that lacks more than this gets a snapshot: so little that a few seconds of absence are enough.
const PURGE_HORIZON_BYTES: u64 = 256 << 10;
const RETENTION_MS: i64 = 7 * 86_400_000;

/// A node while it runs.
pub(crate) struct Life {
    pub(crate) node: SimNode,
    /// Counts the lives of all nodes.
    pub(crate) number: u64,
    pub(crate) directory: Arc<DataDir>,
    pub(crate) host: RaftHost,
    pub(crate) shards: Shards,
    pub(crate) partitions: Partitions,
    pub(crate) groups: Groups,
}

fn data_dir_options(node: SimNode) -> DataDirOptions {
    let log = LogOptions {
        segment_bytes: SEGMENT_BYTES,
        reserve_bytes: 0,
        zero_ahead_bytes_per_second: 0,
        ..LogOptions::default()
    };
    DataDirOptions {
        node_id: broker(node).0,
        log,
        checkpoint_bytes: 64 << 10,
        checkpoint_interval: Duration::from_millis(400),
        maintenance_interval: Duration::from_millis(100),
        ..DataDirOptions::default()
    }
}

fn raft_options() -> RaftOptions {
    RaftOptions { purge_horizon_bytes: PURGE_HORIZON_BYTES, ..RaftOptions::default() }
}

fn upkeep() -> Upkeep {
    Upkeep {
        retention_check: Duration::from_secs(1),
        producer_check: Duration::from_secs(2),
        offsets_check: Duration::from_millis(500),
        ..Upkeep::default()
    }
}

fn group_settings() -> GroupSettings {
    GroupSettings {
        initial_rebalance_delay_ms: 100,
        session_timeout_ms_min: 100,
        session_timeout_ms_max: 60_000,
        members_max: 100,
        metadata_bytes_max: 4_096,
        commit_timeout: Duration::from_secs(5),
        retention_ms: RETENTION_MS,
        retention_check_interval_ms: 5_000,
    }
}

impl Life {
    /// Starts the node's floors with what its disk holds; the reason, if it refuses.
    pub(crate) async fn begin(
        node: SimNode,
        number: u64,
        nodes: u32,
        disk: SimDisk,
        network: SimNetwork,
    ) -> Result<Self, String> {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let opened = DataDir::open(disk, Path::new("/data"), data_dir_options(node)).await;
        let (directory, recovered) = opened.map_err(|error| error.to_string())?;
        let host = RaftHost::new(Arc::new(network), raft_options());
        let registry = Arc::new(StaticRegistry::new(nodes, directory.directory_id()));
        let directories = [(directory.directory_id(), directory.clone())].into_iter().collect();
        let shards = Shards::new(broker(node), host.clone(), directories, registry.clone(), upkeep());
        for replica in &recovered {
            shards.open(&directory, replica).await.map_err(|error| error.to_string())?;
        }
        shards.start();
        let partitions = Partitions::new(shards.clone());
        let groups = Groups::new(group_settings(), PartitionJournal::start(registry, partitions.clone()));
        Ok(Self { node, number, directory, host, shards, partitions, groups })
    }
}
