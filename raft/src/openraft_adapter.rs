//! openraft's state machine over the applier.
//!
//! A snapshot is a point, not bytes: the state itself is stored in the checkpoint and in the log's segments;
//! `snapshot_install` describes how it is transferred. May not know: what is applied.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use crate::applier::Applier;
use crate::openraft_types::{LogEntry, RaftLogId, SnapshotMeta, StoredMembership, TypeConfig, to_raft_log_id};
use crate::role::RoleTracker;
use crate::snapshot_download::SnapshotDownload;

/// A snapshot: everything up to one index; its content is chosen when it is sent.
pub(crate) type Snapshot =
    openraft::storage::Snapshot<openraft::vote::leader_id_std::CommittedLeaderId<u64>, u64, openraft::EmptyNode, ()>;

/// The state machine of one replica.
#[derive(Clone)]
pub(crate) struct StateMachineAdapter {
    pub(crate) applier: Arc<Applier>,
    pub(crate) role_tracker: Arc<RoleTracker>,
    pub(crate) snapshot_download: Arc<SnapshotDownload>,
}

impl RaftStateMachine<TypeConfig> for StateMachineAdapter {
    type SnapshotData = ();
    type SnapshotBuilder = SnapshotPointBuilder;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        let (applied, membership) = self.applier.applied_state();
        Ok((applied.map(to_raft_log_id), membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let term = openraft::entry::RaftEntry::log_id_parts(&entry).0.term;
            self.await_prerequisite(&entry).await?;
            let reply = self.applier.apply(entry)?;
            self.role_tracker.term_applied(term);
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotPointBuilder> {
        self.applier.advance_snapshot(force).map(SnapshotPointBuilder)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotPointBuilder {
        let point = self.applier.advance_snapshot(true).or_else(|| self.applier.snapshot());
        SnapshotPointBuilder(point.unwrap_or_default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, _snapshot: ()) -> Result<(), io::Error> {
        let (applied, _) = self.applier.applied_state();
        if meta.last_log_id <= applied.map(to_raft_log_id) {
            return Ok(());
        }
        self.applier.install(meta, self.snapshot_download.take_prepared()).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.applier.snapshot().map(|meta| Snapshot { meta, snapshot: () }))
    }
}

impl StateMachineAdapter {
    /// Waits for what apply of an entry needs of another replica here, as long as this one runs.
    async fn await_prerequisite(&self, entry: &LogEntry) -> io::Result<()> {
        let Some(ready) = self.applier.prerequisite(entry) else { return Ok(()) };
        let mut role = self.role_tracker.role();
        tokio::select! {
            biased;
            ready = ready => ready.map_err(|what| self.applier.lose(entry, &what)),
            _ = role.wait_for(|role| role.stopped) => Err(io::Error::other("stopped")),
        }
    }
}

/// Builds a snapshot by recording its point.
pub(crate) struct SnapshotPointBuilder(SnapshotMeta);

impl RaftSnapshotBuilder<TypeConfig> for SnapshotPointBuilder {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(Snapshot { meta: self.0.clone(), snapshot: () })
    }
}
