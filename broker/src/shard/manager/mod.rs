//! The shards of this node: opened from what the disk holds, created when the metadata records them, found by id.
//!
//! No replica is deleted because the metadata does not have it (design section 6). May not know: topics' contents,
//! requests.

mod children;
mod compactor;
mod merges;
mod open_error;
mod opening;
mod replicas_here;
mod unseeded;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use ottla_env::critical::Owner;
use ottla_env::mutants::{self, Bug};
use ottla_env::{rt, watch};
use ottla_protocol::ids::NodeId;
use ottla_raft::{GroupHandle, Membership, RaftError, RaftHost};
use ottla_storage::data_dir::DataDir;
use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;
use uuid::Uuid;

pub use self::open_error::{OpenError, creation_of};
use self::replicas_here::ReplicasHere;
use super::closed_replicas::{ClosedReplica, ClosedReplicas};
use super::handle::{Shard, keeps};
use super::idempotence_fence::ConnectionId;
use super::leadership::dissemination::{LeadershipPublisher, RemoteLeaders};
use super::leadership::preferred_balance::PreferredLeaderBalancer;
use super::metadata_view::MetadataView;
use super::node_clocks::NodeClocks;
use super::rpc::{LedShard, PeerService};
use super::siblings::Siblings;
use super::state_machine::{DirectoryStorage, ShardStateMachine};
use super::state_machine_view::StateMachineView;
use super::tasks::membership_reconciler;
use super::tasks::{self, LeaderTaskSettings};
use crate::levels::DIRECTORY_MOVES;
use crate::metadata::{MetadataImage, ReplicaRecord, ShardCreation, ShardId, ShardKind, ShardRecord, node_rpc_address};
use crate::replicated::shard_state::ShardState;

/// Before a shard that could not be created is tried again.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Inner {
    pub(super) node: NodeId,
    pub(super) host: RaftHost,
    directories: BTreeMap<Uuid, Arc<DataDir>>,
    pub(super) metadata: Arc<dyn MetadataView>,
    task_settings: LeaderTaskSettings,
    shards: ReplicasHere,
    /// Replicas on the disks of this node that do not run.
    closed: ClosedReplicas,
    /// What splits have made here and does not run yet, and what merges take over.
    siblings: Arc<Siblings>,
    /// The creations of children that a crash has left here without a state.
    unseeded: Mutex<BTreeMap<ReplicaId, Bytes>>,
    /// Held while a replica is removed: from before it stops until it is gone from the disk.
    removals: Arc<tokio::sync::Mutex<()>>,
    /// Grows when a shard is added or closed.
    changes: watch::Sender<u64>,
    /// Grows when a shard's role or its set of partitions changes, or the shards that another node leads.
    pub(super) leadership: watch::Sender<u64>,
    pub(super) remote_leaders: Arc<RemoteLeaders>,
    clocks: Arc<NodeClocks>,
    /// Answers other nodes' requests for the lag of consumer groups; set by the coordinator.
    pub(super) groups_service: OnceLock<PeerService>,
    /// Answers other nodes' requests about transactions; set by the coordinator.
    pub(super) transactions_service: OnceLock<PeerService>,
}

/// The shards of this node; cheap to clone.
#[derive(Clone)]
pub struct Shards(pub(super) Arc<Inner>);

impl std::fmt::Debug for Shards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.shards.all()).finish()
    }
}

impl Shards {
    /// A node without shards yet. `directories` by their random ids.
    #[must_use]
    pub fn new(
        node: NodeId,
        host: RaftHost,
        directories: BTreeMap<Uuid, Arc<DataDir>>,
        metadata: Arc<dyn MetadataView>,
        task_settings: LeaderTaskSettings,
    ) -> Self {
        let siblings = Arc::<Siblings>::default();
        siblings.partners.set_host(host.downgrade());
        Self(Arc::new_cyclic(|weak: &Weak<Inner>| {
            for directory in directories.values() {
                let weak = weak.clone();
                let moves = move |id| weak.upgrade().is_some_and(|inner| inner.shards.is_moving_in(id));
                directory.set_directory_moves(Arc::new(moves));
            }
            let (weak, remote_leaders) = (weak.clone(), Arc::<RemoteLeaders>::default());
            let last_entry_ms = move || {
                let all = weak.upgrade().map(|inner| Shards(inner).replicas()).unwrap_or_default();
                all.iter().map(|shard| shard.applied_clock_ms()).max().unwrap_or_default()
            };
            let clocks = NodeClocks::new(remote_leaders.clone(), metadata.clone(), Box::new(last_entry_ms));
            Inner {
                node,
                host,
                directories,
                metadata,
                task_settings,
                shards: ReplicasHere::default(),
                closed: ClosedReplicas::default(),
                siblings,
                unseeded: Mutex::default(),
                removals: Arc::default(),
                changes: watch::Sender::new(0),
                leadership: watch::Sender::new(0),
                remote_leaders,
                groups_service: OnceLock::new(),
                transactions_service: OnceLock::new(),
                clocks: Arc::new(clocks),
            }
        }))
    }

    /// One shard that runs already.
    #[cfg(test)]
    pub(crate) fn for_tests(shard: Arc<Shard>, metadata: Arc<dyn MetadataView>) -> Self {
        let host = RaftHost::new(Arc::new(ottla_raft::NoPeers), ottla_raft::RaftOptions::default());
        let shards = Self::new(super::fake::NODE, host, BTreeMap::new(), metadata, LeaderTaskSettings::default());
        shards.0.shards.add(shard.clone());
        rt::spawn(watch_leadership(shard, shards.0.leadership.clone()));
        shards
    }

    async fn create(
        &self,
        directory: &Arc<DataDir>,
        record: &ShardRecord,
        replica: &ReplicaRecord,
    ) -> Result<(), OpenError> {
        let beside = self.beside(record, replica);
        let creation = ShardCreation { beside, ..ShardCreation::from(record) };
        let (machine, view) = self.state_machine(directory, replica.id, ShardState::new(keeps(creation.kind)));
        // A replica that is added later starts without members, and waits for a snapshot or entries from the leader.
        let founds = record.founders.contains(&replica.id);
        let members = if founds { Membership::of(record.founders.iter().copied()) } else { Membership::default() };
        let group =
            self.0.host.create(directory.clone(), replica.id, creation.encode(), members, Box::new(machine)).await?;
        self.add(creation, replica.id, directory, group, view, None);
        tracing::info!("shard={} replica={}: created ({:?})", record.id, replica.id, record.kind);
        Ok(())
    }

    /// The older replicas of a shard here that take part still, whether they run by now or are yet to come from a split.
    fn beside(&self, record: &ShardRecord, replica: &ReplicaRecord) -> Vec<ReplicaId> {
        if self.0.metadata.image().level < DIRECTORY_MOVES || mutants::is_on(Bug::BesideNotRecorded) {
            return Vec::new();
        }
        let older = record.members().filter(|older| older.node == self.0.node && older.id < replica.id);
        older.map(|older| older.id).filter(|older| !self.0.closed.is_lost(*older)).collect()
    }

    fn state_machine(
        &self,
        directory: &Arc<DataDir>,
        replica: ReplicaId,
        state: ShardState,
    ) -> (ShardStateMachine, StateMachineView) {
        let storage = Arc::new(DirectoryStorage { directory: directory.clone(), replica });
        let machine = ShardStateMachine::new(state, replica, storage, self.0.siblings.clone());
        let view = machine.view();
        (machine, view)
    }

    /// `parent`: the shard here that has split this one off.
    fn add(
        &self,
        creation: ShardCreation,
        replica: ReplicaId,
        directory: &Arc<DataDir>,
        group: GroupHandle,
        view: StateMachineView,
        parent: Option<Arc<Shard>>,
    ) {
        // Coordinators never wait behind bulk data in the writer.
        group.set_priority(matches!(creation.kind, ShardKind::ConsumerOffsets | ShardKind::TransactionState));
        let resizes = self.clone().finish_resizes(group.clone(), directory.clone());
        rt::spawn_critical("resizes", Owner::process(), resizes);
        let shard =
            Shard::new(creation, replica, Arc::new(group), Some(directory.clone()), view, self.0.clocks.clone());
        // Before it can be found: nothing that is sent to it comes before what waits there.
        if let Some(parent) = parent {
            shard.take_over_from(&parent);
        }
        self.0.siblings.partners.opened(replica, shard.machine.state.clone());
        self.0.shards.add(shard.clone());
        let owner = shard.group().owner();
        rt::spawn_critical("appender", owner.clone(), shard.clone().run());
        let weak = Arc::downgrade(&self.0);
        let leader_of = Box::new(move |shard| Shards(weak.upgrade()?).leader_of(shard));
        let tasks = tasks::run(shard.clone(), self.0.metadata.clone(), self.0.task_settings.clone(), leader_of);
        rt::spawn_critical("retention", owner.clone(), tasks);
        rt::spawn_critical(
            "membership",
            owner.clone(),
            membership_reconciler::run(shard.clone(), self.0.metadata.clone()),
        );
        rt::spawn_critical("leadership", owner, watch_leadership(shard, self.0.leadership.clone()));
        self.0.changes.send_modify(|version| *version += 1);
    }

    /// Creates the shards that the metadata places here, now and whenever it changes.
    pub fn start(&self) {
        let lost = self.0.closed.lost();
        if !lost.is_empty() {
            self.0.metadata.report_lost(lost);
        }
        self.serve_node_requests();
        let weak = Arc::downgrade(&self.0);
        let led = move || Some(Shards(weak.upgrade()?).replicas().iter().filter_map(|shard| shard.led()).collect());
        let publisher = LeadershipPublisher {
            own: self.0.node,
            host: self.0.host.clone(),
            metadata: self.0.metadata.clone(),
            leadership: self.0.leadership.clone(),
            led: Box::new(led),
        };
        publisher.start();
        let (weak, weaker) = (Arc::downgrade(&self.0), Arc::downgrade(&self.0));
        let balancer = PreferredLeaderBalancer {
            own: self.0.node,
            metadata: self.0.metadata.clone(),
            shards: Box::new(move || Some(Shards(weak.upgrade()?).replicas())),
            leader_of: Box::new(move |shard| Shards(weaker.upgrade()?).leader_of(shard)),
        };
        balancer.start();
        self.start_compactor();
        let shards = self.clone();
        rt::spawn_critical("reconciler", Owner::process(), async move { shards.reconcile().await });
        let shards = self.clone();
        rt::spawn_critical("damage-watcher", Owner::process(), async move { shards.watch_damage().await });
    }

    /// Closes replicas that have stopped because their own log does not read back: they are rebuilt as those that are
    /// found lost at the start.
    async fn watch_damage(&self) {
        let mut failures = self.0.host.failures();
        loop {
            let damaged: Vec<_> = {
                let known = failures.borrow_and_update();
                let damaged = known.iter().filter(|(_, failure)| failure.is_damage);
                damaged.map(|(replica, failure)| (*replica, failure.why.clone())).collect()
            };
            for (replica, why) in damaged {
                let here = self.0.shards.find(replica);
                let here = here.filter(|_| self.0.metadata.image().expected_nodes() != 1);
                if let Some(shard) = here.map(|shard| shard.creation.shard) {
                    let error = RaftError::Damaged { replica, what: why.to_string() };
                    self.leave_closed(replica, Some(shard), &error.into());
                    self.close(replica).await;
                    self.0.metadata.report_lost(vec![replica]);
                }
            }
            if failures.changed().await.is_err() {
                return;
            }
        }
    }

    /// Records that a replica does not run.
    fn mark_closed(&self, replica: ReplicaId, closed: ClosedReplica) {
        tracing::error!(replica = replica.0, "left aside: {}", closed.why);
        if closed.is_lost {
            self.0.siblings.partners.lost(replica);
            self.0.directories.values().for_each(|directory| directory.set_aside(replica));
        }
        self.0.closed.insert(replica, closed);
    }

    /// Stops a replica and removes its shard from this node's; what is on the disk stays.
    async fn close(&self, replica: ReplicaId) {
        self.0.host.close(replica).await;
        self.0.siblings.partners.closed(replica);
        if self.0.shards.remove(replica).is_some() {
            self.0.changes.send_modify(|version| *version += 1);
            self.0.leadership.send_modify(|version| *version += 1);
        }
    }

    async fn reconcile(&self) {
        let (mut images, mut removed) = (self.0.metadata.changes(), self.0.metadata.removed_from_cluster());
        loop {
            let image = images.borrow_and_update().clone();
            let removed_metadata = *removed.borrow_and_update();
            let mut failed = !self.remove_left(&image, removed_metadata).await;
            failed |= !self.report_absorbed(&image).await;
            for record in image.shards.values() {
                failed |= !self.ensure(record).await;
            }
            let retry = if failed { RETRY } else { Duration::from_secs(3600) };
            tokio::select! {
                biased;
                changed = images.changed() => if changed.is_err() { return },
                changed = removed.changed() => if changed.is_err() { return },
                () = rt::sleep(retry) => {}
            }
        }
    }

    /// True if the shard needs nothing more here.
    async fn ensure(&self, record: &ShardRecord) -> bool {
        let mine = |replica: &&ReplicaRecord| replica.node == self.0.node;
        // A founder that is to leave is needed until the others are there: in a shard that was moved before it was
        // formed no other replica can form it.
        let needed = |replica: &&ReplicaRecord| {
            mine(replica)
                && record.founders.contains(&replica.id)
                && self.0.directories.contains_key(&replica.directory)
        };
        let replica = record.replicas.iter().find(mine).or_else(|| record.leaving.iter().find(needed));
        let Some(replica) = replica else { return true };
        if record.kind == ShardKind::Metadata {
            return true;
        }
        let here = self.0.shards.of(record.id);
        // Ids only grow: an image with an earlier id is old metadata that is replayed after a restart.
        if here.iter().any(|shard| shard.replica >= replica.id) {
            return true;
        }
        for shard in here {
            let is_member = record.members().any(|member| member.id == shard.replica);
            if is_member && self.0.metadata.image().level >= DIRECTORY_MOVES {
                // Both run until the shard's leader has replaced the former one.
                continue;
            }
            // The predecessor of the replica on this node has not been removed yet. It is closed only once it has no
            // vote any more: it is removed only when the shard has all its recorded members, the new replica included.
            if record.replicas.iter().any(|wanted| wanted.id == shard.replica)
                || shard.members().is_voter(shard.replica)
            {
                return false;
            }
            self.close(shard.replica).await;
        }
        if self.0.closed.is_lost(replica.id) && !self.0.metadata.image().is_resizing(record.id) {
            // The metadata records it again, but it is lost; or could not replace it while the shard was being split or merged.
            self.0.metadata.report_lost(vec![replica.id]);
        }
        if self.0.closed.contains(replica.id) {
            return true;
        }
        if let Some(made) = record.split.as_ref().and_then(|split| self.left_to_split(split, replica.id)) {
            return made;
        }
        let takes_first = mutants::is_on(Bug::FirstDirectoryTaken);
        let takes_any = takes_first || mutants::is_on(Bug::WipedReplicaVotes);
        let any = || self.0.directories.values().next().filter(|_| takes_any);
        let recorded = self.0.directories.get(&replica.directory).filter(|_| !takes_first);
        let Some(directory) = recorded.or_else(any) else {
            let why = format!("its data directory {} is not here", replica.directory);
            self.mark_closed(replica.id, ClosedReplica { shard: Some(record.id), why, is_lost: false });
            return true;
        };
        // Old metadata that is replayed after a restart must not create a replica again that has been removed.
        let current = self.0.metadata.read_index().await || mutants::is_on(Bug::WipedReplicaVotes);
        let image = self.0.metadata.image();
        let record = image.shard(record.id).filter(|record| record.members().any(|member| member == replica));
        let Some(record) = record.filter(|_| current) else { return current };
        match self.create(directory, record, replica).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!("shard={} replica={}: not created: {error}; tried again", record.id, replica.id);
                false
            }
        }
    }

    /// Waits until no replica is being removed; while the guard is held none is. For the shutdown, before it closes the
    /// directories.
    pub async fn end_removals(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.0.removals.clone().lock_owned().await
    }

    /// Removes the replicas here that are no members any more; true if none is left over. No replica is removed because
    /// it is unknown: one that this image does not have yet has an id above those that the image has given.
    /// `removed_metadata`: this node's replica of the metadata, if the other nodes report that it has been removed.
    async fn remove_left(&self, image: &MetadataImage, removed_metadata: Option<ReplicaId>) -> bool {
        let recorded: BTreeSet<_> =
            image.shards.values().flat_map(|shard| shard.members().map(|replica| replica.id)).collect();
        let mut all = true;
        // A node that is unregistered ends with its replica of the metadata, once that has no vote any more.
        let dismissed = image.decommissioned_replica(self.0.node).filter(|replica| {
            let votes = self.0.host.group(*replica).is_some_and(|group| group.membership().is_voter(*replica));
            all &= !votes;
            !votes
        });
        // With it the node leaves the cluster.
        let is_last = |replica: ReplicaId| Some(replica) == dismissed || Some(replica) == removed_metadata;
        let has_left =
            |replica: &ReplicaId| is_last(*replica) || replica.0 < image.next_replica_id && !recorded.contains(replica);
        for directory in self.0.directories.values() {
            for replica in directory.log().replicas().into_iter().filter(has_left) {
                if self.0.siblings.children.involves(replica) || self.0.siblings.partners.involves(replica) {
                    all = false;
                    continue;
                }
                let _removal = self.0.removals.lock().await;
                self.close(replica).await;
                let left = if is_last(replica) { directory.leave().await } else { Ok(()) };
                let removed = match left {
                    Ok(()) => directory.remove_replica(replica).await,
                    Err(error) => Err(io::Error::other(error)),
                };
                match removed {
                    Ok(()) => tracing::info!(replica = replica.0, "removed: it is no member any more"),
                    Err(error) => {
                        tracing::error!(replica = replica.0, "not removed: {error}; tried again");
                        all = false;
                    }
                }
            }
        }
        self.0.closed.retain(|replica| !has_left(replica));
        all
    }

    /// A shard of this node: the replica that serves it.
    #[must_use]
    pub fn get(&self, shard: ShardId) -> Option<Arc<Shard>> {
        self.0.shards.serving(shard)
    }

    /// All shards of this node: of each the replica that serves it.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Shard>> {
        self.0.shards.all_serving()
    }

    /// All replicas of this node: of a shard that moves to another data directory there are two.
    #[must_use]
    pub fn replicas(&self) -> Vec<Arc<Shard>> {
        self.0.shards.all()
    }

    /// The replicas of a shard on this node, the oldest first.
    #[must_use]
    pub fn replicas_of(&self, shard: ShardId) -> Vec<Arc<Shard>> {
        self.0.shards.of(shard)
    }

    /// Changes when a shard is added or closed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Changes when a shard's role or its set of partitions changes.
    #[must_use]
    pub fn leadership_changes(&self) -> watch::Receiver<u64> {
        self.0.leadership.subscribe()
    }

    /// Waits until `condition` holds, which is evaluated again after each change of a leadership; false if it does not hold at the
    /// deadline. Unlike a receiver's `wait_for` it evaluates without a lock on the value that changes: the condition locks others.
    pub async fn wait_for_leadership(&self, deadline: rt::Instant, condition: impl Fn() -> bool) -> bool {
        let mut changes = self.leadership_changes();
        loop {
            drop(changes.borrow_and_update());
            if condition() {
                return true;
            }
            if !matches!(rt::timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
    }

    /// Replicas of this node that do not run while no other replica of their shard runs here.
    #[must_use]
    pub fn closed(&self) -> Vec<(ReplicaId, ClosedReplica)> {
        let runs = |closed: &ClosedReplica| closed.shard.is_some_and(|shard| self.get(shard).is_some());
        self.0.closed.all().into_iter().filter(|(_, closed)| !runs(closed)).collect()
    }

    /// True if this node has a replica of the shard and it does not run.
    #[must_use]
    pub fn is_closed(&self, shard: ShardId) -> bool {
        self.closed().iter().any(|(_, closed)| closed.shard == Some(shard))
    }

    /// The number of this node's replicas by role: see [`RaftHost::roles`]; `closed` are those that could not be
    /// opened.
    #[must_use]
    pub fn replica_roles(&self) -> BTreeMap<&'static str, usize> {
        let mut roles = self.0.host.roles();
        roles.insert("closed", self.closed().len());
        roles
    }

    /// The node that leads a shard, as far as this node knows.
    #[must_use]
    pub fn leader_of(&self, shard: ShardId) -> Option<NodeId> {
        self.leader_and_term_of(shard).map(|(node, _)| node)
    }

    fn leader_and_term_of(&self, shard: ShardId) -> Option<(NodeId, u64)> {
        match self.get(shard) {
            Some(here) => leader_known_to(&here, &self.0.metadata.image()),
            None => self.remote_leader_of(shard).map(|(node, led)| (node, led.term)),
        }
    }

    /// The terms in which shards have leaders, as far as this node knows. The function does not keep the shards alive.
    pub(crate) fn terms(&self) -> impl Fn(ShardId) -> Option<u64> + Send + Sync + use<> {
        let shards = Arc::downgrade(&self.0);
        move |shard| Shards(shards.upgrade()?).leader_and_term_of(shard).map(|(_, term)| term)
    }

    /// The other node that leads a shard, and its last update about the shard.
    pub(crate) fn remote_leader_of(&self, shard: ShardId) -> Option<(NodeId, LedShard)> {
        self.0.remote_leaders.leader_of(shard).filter(|(node, _)| !self.0.host.is_suspected(node_rpc_address(*node)))
    }

    /// The view of the metadata.
    #[must_use]
    pub fn metadata(&self) -> &Arc<dyn MetadataView> {
        &self.0.metadata
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Drops the refusals of a connection that is closed.
    pub fn connection_closed(&self, connection: ConnectionId) {
        self.replicas().iter().for_each(|shard| shard.connection_closed(connection));
    }
}

/// The node whose replica leads, as far as this node knows, and the term. A node that is fenced and silent counts as
/// leading nothing: a shard that has lost its majority elects no other leader, and a client that is sent to a dead node
/// waits for it.
pub(crate) fn leader_known_to(shard: &Shard, image: &MetadataImage) -> Option<(NodeId, u64)> {
    let role = shard.role();
    let leader = role.leader.filter(|_| !role.stopped)?;
    let mut members = image.shard(shard.creation.shard)?.members();
    let node = members.find(|replica| replica.id == leader).map(|replica| replica.node)?;
    let is_heard = leader == shard.replica || shard.following().is_some();
    (is_heard || !image.is_fenced(node)).then_some((node, role.term.0))
}

/// Bumps the leadership version whenever the shard's role or its set of partitions changes.
async fn watch_leadership(shard: Arc<Shard>, leadership: watch::Sender<u64>) {
    let mut role = shard.role_changes();
    let mut adopted = shard.read_view().changes();
    loop {
        leadership.send_modify(|version| *version += 1);
        // The role is kept open by the shard, and the shard by this task.
        if role.borrow().stopped {
            return;
        }
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            changed = adopted.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests;
