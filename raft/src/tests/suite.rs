//! openraft's own log-store suite on our store.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use openraft::StorageError;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use ottla_env::sim;
use ottla_storage::ids::ReplicaId;
use ottla_storage::log::GroupCreation;

use super::ledger::Ledger;
use super::memory::{MemoryDirectory, Shared};
use crate::applier::{Applier, InitialState};
use crate::directory::Directory;
use crate::log_store::LogStore;
use crate::openraft_adapter::{Snapshot, SnapshotPointBuilder, StateMachineAdapter};
use crate::openraft_types::{RaftLogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::role::RoleTracker;

/// Our state machine; only the installation of a foreign snapshot, which it refuses, is simulated by the test.
pub(crate) struct Installable {
    adapter: StateMachineAdapter,
    installed: Option<SnapshotMeta>,
}

impl Installable {
    pub(crate) fn new(adapter: StateMachineAdapter) -> Self {
        Installable { adapter, installed: None }
    }
}

impl RaftStateMachine<TypeConfig> for Installable {
    type SnapshotData = ();
    type SnapshotBuilder = SnapshotPointBuilder;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        match &self.installed {
            Some(meta) => Ok((meta.last_log_id, meta.last_membership.clone())),
            None => self.adapter.applied_state().await,
        }
    }
    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        self.adapter.apply(entries).await
    }
    async fn get_snapshot_builder(&mut self) -> SnapshotPointBuilder {
        self.adapter.get_snapshot_builder().await
    }
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, _snapshot: ()) -> Result<(), io::Error> {
        assert!(self.adapter.install_snapshot(meta, ()).await.is_err(), "refused until it can be done");
        self.installed = Some(meta.clone());
        Ok(())
    }
    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        match &self.installed {
            Some(meta) => Ok(Some(Snapshot { meta: meta.clone(), snapshot: () })),
            None => self.adapter.get_current_snapshot().await,
        }
    }
}

struct OnMemory;

impl StoreBuilder<TypeConfig, LogStore, Installable, Arc<MemoryDirectory>> for OnMemory {
    async fn build(&self) -> Result<(Arc<MemoryDirectory>, LogStore, Installable), StorageError<TypeConfig>> {
        let (directory, _) = MemoryDirectory::open(Arc::default(), Duration::from_millis(1), false);
        let shared: Arc<dyn Directory> = Arc::new(Shared(directory.clone()));
        let replica = ReplicaId(0);
        let creation = GroupCreation { replica, payload: bytes::Bytes::new(), vote: None, purged: None };
        let log = shared.create_replica(creation).await.unwrap();
        let ledger = Ledger::restore(&[], Arc::default());
        let applier = Applier::new(shared, log.clone(), Arc::default(), InitialState::default(), Box::new(ledger), 256);
        let adapter =
            StateMachineAdapter { applier, role_tracker: RoleTracker::new(), snapshot_download: Arc::default() };
        Ok((directory, LogStore::new(log, 1 << 20), Installable::new(adapter)))
    }
}

#[test]
fn openraft_s_log_store_suite_passes_in_memory() {
    sim::run(7, || async {
        Suite::test_all(OnMemory).await.unwrap();
    });
}

#[test]
fn a_snapshot_point_copies_nothing_and_never_goes_back() {
    sim::run(8, || async {
        let (_directory, _log, mut sm) = OnMemory.build().await.unwrap();
        assert!(sm.adapter.try_create_snapshot_builder(false).await.is_none(), "no checkpoint kept yet");
        assert_eq!(sm.get_snapshot_builder().await.build_snapshot().await.unwrap().meta, SnapshotMeta::default());
    });
}
