//! The same scenarios over the real data directory on simulated disks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use ottla_env::sim;
use ottla_env::sim::disk::{Crash, SimDisk, SimDiskOptions};
use ottla_storage::data_dir::{DataDir, DataDirOptions, RecoveredReplica};
use ottla_storage::ids::ReplicaId;
use ottla_storage::log::{GroupCreation, LogOptions};
use parking_lot::Mutex;

use super::cluster::{Cluster, Storage};
use super::ledger::Ledger;
use super::suite::Installable;
use super::three_voters::seeds;
use crate::applier::{Applier, InitialState};
use crate::directory::Directory;
use crate::log_store::LogStore;
use crate::openraft_adapter::StateMachineAdapter;
use crate::openraft_types::TypeConfig;
use crate::role::RoleTracker;

const SEGMENT_BYTES: u32 = 256 << 10;

fn options() -> DataDirOptions {
    DataDirOptions {
        log: LogOptions { segment_bytes: SEGMENT_BYTES, reserve_bytes: 1 << 20, ..LogOptions::default() },
        // Often, so that restarts begin at checkpoints of every age.
        checkpoint_interval: Duration::from_millis(700),
        maintenance_interval: Duration::from_millis(100),
        ..DataDirOptions::default()
    }
}

fn disk() -> SimDisk {
    let sync_delay_max = Duration::from_millis(4);
    SimDisk::new(sim::random_below(u64::MAX), SimDiskOptions { sync_delay_max, ..SimDiskOptions::default() })
}

fn path() -> PathBuf {
    PathBuf::from("/data")
}

/// A data directory on a simulated disk.
struct RealStorage {
    disk: Mutex<Option<SimDisk>>,
}

impl Storage for RealStorage {
    fn open(&self) -> BoxFuture<'static, (Arc<dyn Directory>, Vec<RecoveredReplica>)> {
        let disk = self.disk.lock().get_or_insert_with(disk).clone();
        Box::pin(async move {
            let (directory, recovered) = DataDir::open(Arc::new(disk), &path(), options()).await.unwrap();
            (directory as Arc<dyn Directory>, recovered)
        })
    }

    fn crash(&self) {
        let crash = if sim::random_below(3) == 0 { Crash::Process } else { Crash::Power };
        if let Some(disk) = &*self.disk.lock() {
            disk.crash(crash);
        }
    }
}

#[test]
fn three_voters_over_the_real_log_lose_nothing() {
    seeds(8, || {
        let storage = |_| Box::new(RealStorage { disk: Mutex::new(None) }) as Box<dyn Storage>;
        Cluster::new((0..3).map(storage).collect())
    });
}

#[test]
fn one_voter_over_the_real_log_loses_nothing() {
    seeds(8, || Cluster::new(vec![Box::new(RealStorage { disk: Mutex::new(None) }) as Box<dyn Storage>]));
}

struct OnRealLog;

impl StoreBuilder<TypeConfig, LogStore, Installable, Arc<DataDir>> for OnRealLog {
    async fn build(&self) -> Result<(Arc<DataDir>, LogStore, Installable), StorageError<TypeConfig>> {
        let (directory, _) = DataDir::open(Arc::new(disk()), &path(), options()).await.unwrap();
        let replica = ReplicaId(0);
        let creation = GroupCreation { replica, payload: bytes::Bytes::new(), vote: None, purged: None };
        let log = Directory::create_replica(&*directory, creation).await.unwrap();
        let ledger = Ledger::restore(&[], Arc::default());
        let applier = Applier::new(
            directory.clone(),
            log.clone(),
            Arc::default(),
            InitialState::default(),
            Box::new(ledger),
            256,
        );
        let adapter =
            StateMachineAdapter { applier, role_tracker: RoleTracker::new(), snapshot_download: Arc::default() };
        Ok((directory, LogStore::new(log, 1 << 20), Installable::new(adapter)))
    }
}

#[test]
fn openraft_s_log_store_suite_passes_on_the_real_log() {
    sim::run(9, || async {
        Suite::test_all(OnRealLog).await.unwrap();
    });
}
