//! InstallSnapshot: the lagging replica downloads the snapshot, so that any member can continue what another began to
//! send.
//!
//! ```text
//!  leader:   InstallSnapshot{last_included} -> follower: is it installed already? else downloads; the leader repeats
//!  follower: FetchState{after key} ----------> state of the newest checkpoint, part by part (leader)
//!            FetchBatches{p, from, end} -----> batches by partition and offset (any member), into runs
//!            Raft installs the point; one checkpoint transaction makes everything durable
//! ```
//! Only what is missing is fetched; a download that failed continues where it was. May not know: what keys mean.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::data_dir::{PassConflict, ReplicaSnapshot};
use ottla_storage::entry::Vote;
use ottla_storage::ids::{LogId, ReplicaId};

use crate::applier::Applier;
use crate::directory::SnapshotImport;
use crate::group::Group;
use crate::net::{Message, NoResponse, Priority, Resume};
use crate::openraft_adapter::Snapshot;
use crate::openraft_types::{SnapshotMeta, decode_stored_membership, to_raft_log_id, to_raft_vote};
use crate::snapshot_download::Prepared;
use crate::state_machine::Extent;
use crate::state_parts::{ReceivedState, part_of};

/// The most bytes of batches in one response, except for a single longer batch.
pub(crate) const RESPONSE_BYTES_MAX: usize = 1 << 20;
/// How long a member has to respond.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn refused(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

fn is_conflict(error: &io::Error, conflict: PassConflict) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref()) == Some(&conflict)
}

impl Group {
    /// Handles the leader's notice that it has purged entries which this replica lacks.
    pub(crate) fn install_snapshot(self: &Arc<Self>, leader: ReplicaId, vote: Vote, last_included: LogId) -> Message {
        if let Some(known) = self.log.vote()
            && (known.term, known.committed) > (vote.term, vote.committed)
        {
            return Message::HigherVote(known);
        }
        let is_applied = self.applier.applied() >= Some(last_included);
        // The leader counts what this says as synced here, and what others have committed is applied before it is.
        let is_synced = self.log.last_synced() >= Some(last_included);
        if !is_applied && self.snapshot_download.begin() {
            let group = self.clone();
            rt::spawn_critical("snapshot", self.owner(), async move {
                if let Err(error) = group.download_snapshot(leader, vote).await {
                    tracing::warn!(replica = group.replica.0, "snapshot not downloaded: {error}; tried again");
                }
                group.snapshot_download.end();
            });
        }
        Message::InstallSnapshotResponse { done: is_applied && is_synced }
    }

    async fn download_snapshot(self: &Arc<Self>, leader: ReplicaId, vote: Vote) -> io::Result<()> {
        let mut received = self.snapshot_download.take_received();
        let fetched = self.fetch_state(leader, &mut received).await;
        self.snapshot_download.keep_received(received);
        let snapshot = fetched?;
        // A leader that has been deposed meanwhile holds what its successor has committed. Raft installs nothing of a later
        // term than that of the leader which offered it; the successor offers its own.
        if snapshot.applied.term > vote.term {
            return Err(refused("the leader has been deposed, and its checkpoint is of a later term"));
        }
        if self.applier.applied() >= Some(snapshot.applied) {
            return Err(refused("the leader's checkpoint is older than what is here"));
        }
        let membership = decode_stored_membership(snapshot.membership.clone());
        let last_membership = membership.ok_or_else(|| refused("its members cannot be read"))?;
        let applied = self.applier.applied();
        let earlier = self.snapshot_download.take_import(applied);
        let mut import = earlier.unwrap_or_else(|| self.directory.clone().begin_import(self.replica));
        let fetched = match self.fetch_all(leader, &snapshot, &mut *import).await {
            Ok(()) => import.seal().await,
            failed => failed,
        };
        if let Err(error) = fetched {
            self.snapshot_download.keep_import(applied, Some(import));
            return Err(error);
        }
        let meta = SnapshotMeta { last_log_id: Some(to_raft_log_id(snapshot.applied)), last_membership };
        self.snapshot_download.prepare(Prepared { snapshot, import });
        let installed = self.raft.install_full_snapshot(to_raft_vote(vote), Snapshot { meta, snapshot: () }).await;
        // Not needed any more: there is a newer leader, or Raft is past the snapshot.
        let left = self.snapshot_download.take_prepared();
        self.snapshot_download.keep_import(applied, left.map(|prepared| prepared.import));
        installed.map(drop).map_err(io::Error::other)
    }

    /// The state of the leader's newest checkpoint. `received`: its parts, which outlast an error.
    async fn fetch_state(&self, leader: ReplicaId, received: &mut ReceivedState) -> io::Result<ReplicaSnapshot> {
        loop {
            let resume = received.resume();
            match self.call(leader, Message::FetchState { resume }).await? {
                Message::FetchStateResponse(Some(part)) => {
                    if let Some(state) = received.take(part).map_err(refused)? {
                        return Ok(state);
                    }
                }
                Message::FetchWholeStateResponse(Some(state)) => return Ok(state),
                Message::FetchStateResponse(None) | Message::FetchWholeStateResponse(None) => {
                    return Err(refused("the leader has no checkpoint yet"));
                }
                _ => return Err(refused("not a response to a fetch of the state")),
            }
        }
    }

    async fn fetch_all(
        self: &Arc<Self>,
        leader: ReplicaId,
        snapshot: &ReplicaSnapshot,
        import: &mut dyn SnapshotImport,
    ) -> io::Result<()> {
        let mut extents = self.applier.extents(&snapshot.keys).inspect_err(|error| self.fail_behind(error))?;
        import.order(&mut extents);
        let sources = self.repair_sources(Some(leader));
        for extent in &extents {
            import.skip_to(extent.partition, extent.log_start);
            // A partition is taken anew only if the replica can continue with none of the sources.
            let (mut failures, mut needs_anew) = (0, false);
            while import.position(extent.partition) < extent.end {
                let source = sources[failures % sources.len()];
                if let Err(error) = self.fetch_some(source, extent, import).await {
                    failures += 1;
                    needs_anew |= is_conflict(&error, PassConflict::Anew);
                    if failures < sources.len() {
                        continue;
                    }
                    if needs_anew {
                        tracing::warn!(
                            "partition={}: the others have compacted beyond what is here, taken anew",
                            extent.partition
                        );
                        import.begin_anew(extent.partition).await?;
                    }
                    return Err(error);
                }
            }
        }
        // Batches that a full disk did not take are missing again, in any partition.
        let lacks = |extent: &Extent| import.position(extent.partition) < extent.end;
        if extents.iter().any(lacks) { Err(refused("some of it could not be written")) } else { Ok(()) }
    }

    /// A state that this replica can never take over: it stops, and is rebuilt under another id.
    fn fail_behind(self: &Arc<Self>, error: &io::Error) {
        if error.kind() == io::ErrorKind::InvalidInput {
            self.damage.set_fatal();
            self.fail(&error.to_string());
        }
    }

    async fn fetch_some(&self, source: ReplicaId, extent: &Extent, import: &mut dyn SnapshotImport) -> io::Result<()> {
        let partition = extent.partition;
        let from = import.position(partition);
        let request =
            Message::FetchBatches { partition, from, up_to: extent.end, bytes_max: RESPONSE_BYTES_MAX as u64 };
        let Message::FetchBatchesResponse(found) = self.call(source, request).await? else {
            return Err(refused("not a response to a fetch of batches"));
        };
        // What has expired meanwhile is not needed.
        import.skip_to(partition, found.log_start.min(extent.end));
        import.agree(partition, found.done, extent.end).map_err(io::Error::other)?;
        for batch in found.batches {
            import.push(partition, batch).await?;
        }
        if import.position(partition) == from { Err(refused("batches are lacking there")) } else { Ok(()) }
    }

    pub(crate) async fn call(&self, source: ReplicaId, request: Message) -> io::Result<Message> {
        let response = self.network.call(self.replica, source, request, Priority::Normal, RESPONSE_TIMEOUT).await;
        response.map_err(|NoResponse(why)| refused(&why))
    }

    /// A part of the state of the newest checkpoint, for another member.
    pub(crate) async fn serve_state(self: &Arc<Self>, resume: Option<Resume>) -> Result<Message, NoResponse> {
        let held = self.held_state.find(resume.as_ref(), self.log.purged());
        let state = match held {
            Some(state) => state,
            None => {
                let Some(state) = self.newest_state().await? else { return Ok(Message::FetchStateResponse(None)) };
                let state = Arc::new(state);
                self.held_state.hold(state.clone(), self.owner());
                state
            }
        };
        let mixes = mutants::is_on(Bug::StateOfTwoPoints);
        let after = resume.as_ref().filter(|resume| resume.of == state.applied || mixes).map(|resume| &resume.after);
        let part = part_of(&state, after, self.options.state_part_bytes);
        Ok(Message::FetchStateResponse(Some(part)))
    }

    /// The state of the newest checkpoint, for a member of a release that does not know parts.
    pub(crate) async fn serve_whole_state(&self) -> Result<Message, NoResponse> {
        self.newest_state().await.map(Message::FetchWholeStateResponse)
    }

    async fn newest_state(&self) -> Result<Option<ReplicaSnapshot>, NoResponse> {
        self.directory.snapshot_of(self.replica).await.map_err(|error| NoResponse(error.to_string()))
    }

    /// Batches for another member: only what is applied here has offsets.
    pub(crate) async fn serve_batches(
        &self,
        partition: PartitionId,
        from: Offset,
        up_to: Offset,
        bytes_max: u64,
    ) -> Result<Message, NoResponse> {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(RESPONSE_BYTES_MAX).min(RESPONSE_BYTES_MAX);
        let exported = self.directory.export(self.replica, partition, from..up_to, bytes_max).await;
        exported.map(Message::FetchBatchesResponse).map_err(|error| NoResponse(error.to_string()))
    }
}

impl Applier {
    /// Makes a prepared snapshot the state: on disk by one transaction, then in memory.
    pub(crate) async fn install(&self, meta: &SnapshotMeta, prepared: Option<Prepared>) -> io::Result<()> {
        let wanted = meta.last_log_id;
        let Some(Prepared { snapshot, import }) =
            prepared.filter(|prepared| Some(to_raft_log_id(prepared.snapshot.applied)) == wanted)
        else {
            return Err(refused("a snapshot is to be installed that was not downloaded"));
        };
        // No cut of the old state may follow the transaction: neither an ordinary one, nor that of a split or merge.
        self.resizes_ended().await;
        self.begin_install()?;
        if let Err(error) = import.commit(&snapshot).await {
            return Err(self.install_failed(&error));
        }
        self.end_install(meta, &snapshot)
    }
}
