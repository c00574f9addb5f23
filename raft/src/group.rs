//! One running replica: openraft with our log store, state machine and transport, and the tasks around it.
//!
//! - One task turns openraft's metrics into the role.
//! - One lets an idle group hibernate and purges what checkpoints cover.
//! - One watches the leader's liveness, or the leader's quorum.
//! - One makes the leader send heartbeats.
//!
//! May not know: other groups.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Config, EmptyNode, Raft, ServerState, SnapshotPolicy};
use ottla_env::critical::Owner;
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId, Term};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::applier::{Applier, InitialState};
use crate::damage::Damage;
use crate::directory::{Directory, EntryLog};
use crate::error::{Failure, RaftError};
use crate::in_sync::InSyncTracker;
use crate::log_store::LogStore;
use crate::membership::Membership;
use crate::net::Network;
use crate::openraft_adapter::StateMachineAdapter;
use crate::openraft_types::{TypeConfig, from_raft_membership};
use crate::options::RaftOptions;
use crate::role::{Role, RoleTracker, stops_within};
use crate::snapshot_download::SnapshotDownload;
use crate::state_machine::StateMachine;
use crate::state_parts::HeldState;
use crate::transport::TransportFactory;

/// How often a group checks whether it may hibernate or purge.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// What a follower may lack and still count as caught up, in entries.
pub(crate) const REPLICATION_LAG_MAX: u64 = 1_000;
/// Entries in one AppendEntries request, besides the limit in bytes.
const APPEND_ENTRIES_MAX: u64 = 300;
/// Requests waiting for openraft's core task of a group; the byte semaphore is the real bound.
const CORE_QUEUE_LEN: u64 = 4_096;

/// The first candidate of a new group waits so long for a leader before it campaigns again, and twice as long each time.
const FIRST_CAMPAIGN_RETRY: Duration = Duration::from_millis(10);

/// Called by a replica that stopped by itself.
pub(crate) type OnFailure = Arc<dyn Fn(ReplicaId, Failure) + Send + Sync>;

/// Everything needed to start a replica.
pub(crate) struct Start {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) log: Arc<dyn EntryLog>,
    pub(crate) initial: InitialState,
    pub(crate) initial_membership: Membership,
    pub(crate) state_machine: Box<dyn StateMachine>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) options: RaftOptions,
    pub(crate) on_failure: OnFailure,
}

/// One running replica.
pub(crate) struct Group {
    pub(crate) replica: ReplicaId,
    pub(crate) raft: Raft<TypeConfig, StateMachineAdapter>,
    pub(crate) applier: Arc<Applier>,
    pub(crate) role_tracker: Arc<RoleTracker>,
    pub(crate) options: RaftOptions,
    /// Limits the bytes of proposals in flight.
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) log: Arc<dyn EntryLog>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) snapshot_download: Arc<SnapshotDownload>,
    pub(crate) held_state: Arc<HeldState>,
    on_failure: OnFailure,
    pub(crate) damage: Arc<Damage>,
    pub(crate) in_sync_tracker: InSyncTracker,
    active_at: AtomicI64,
    /// When a message of a leader was last received; at first, when the replica started.
    leader_contact_at: AtomicI64,
    /// The synced end of the log at the last check that found unsynced entries, and since when it is there.
    pub(crate) unsynced: Mutex<Option<(Option<LogId>, rt::Instant)>>,
    /// The term whose leader was last suspected, and when.
    suspected_at: Mutex<Option<(Term, rt::Instant)>>,
    hibernating: AtomicBool,
    stopping: AtomicBool,
    /// The replica has ended, and reported it.
    ended: AtomicBool,
    reason: Mutex<Option<Arc<str>>>,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// openraft's settings.
fn config(options: &RaftOptions) -> Result<Config, RaftError> {
    let config = Config {
        // Also how long a heartbeat may be on its way and back; heartbeats are sent more often (`send_heartbeats`).
        heartbeat_interval: millis(options.heartbeat_timeout()),
        election_timeout_min: millis(options.election_min),
        election_timeout_max: millis(options.election_max),
        max_payload_entries: APPEND_ENTRIES_MAX,
        replication_lag_threshold: REPLICATION_LAG_MAX,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        api_channel_size: Some(CORE_QUEUE_LEN),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(mutants::is_on(Bug::LeaderRestoredFromVote)),
        ..Config::default()
    };
    config.validate().map_err(|e| RaftError::Refused(e.to_string()))
}

impl Group {
    /// Starts a replica over its log.
    pub(crate) async fn start(start: Start) -> Result<Arc<Self>, RaftError> {
        let Start { directory, log, initial, initial_membership, state_machine, network, options, on_failure } = start;
        let replica = log.id();
        let config = config(&options)?;
        // A leader restored after a restart that lost its unsynced tail would reuse log ids.
        assert!(
            config.enable_leader_restore == Some(false) || mutants::is_on(Bug::LeaderRestoredFromVote),
            "a leader is never restored from its vote"
        );
        let is_new = log.vote().is_none() && log.last_log_id().is_none();
        let store = LogStore::new(log.clone(), options.read_bytes_max).with_committed(initial.committed);
        let damage = store.damage();
        let entries = options.state_check_entries;
        let applier = Applier::new(directory.clone(), log.clone(), damage.clone(), initial, state_machine, entries);
        let role_tracker = RoleTracker::new();
        let snapshot_download = Arc::<SnapshotDownload>::default();
        let adapter = StateMachineAdapter {
            applier: applier.clone(),
            role_tracker: role_tracker.clone(),
            snapshot_download: snapshot_download.clone(),
        };
        let transports = TransportFactory {
            from: replica,
            network: network.clone(),
            damage: damage.clone(),
            role_tracker: role_tracker.clone(),
            heartbeat: options.heartbeat,
        };
        let raft = Raft::build(replica.0, Arc::new(config), transports, store, adapter).await.map_err(|e| {
            let what = e.to_string();
            if damage.is_fatal() { RaftError::Damaged { replica, what } } else { RaftError::Storage { replica, what } }
        })?;
        let group = Arc::new(Group {
            replica,
            raft,
            applier,
            role_tracker,
            in_flight: Arc::new(Semaphore::new(options.in_flight_bytes_max.min(Semaphore::MAX_PERMITS))),
            options,
            directory,
            log,
            network,
            snapshot_download,
            held_state: Arc::default(),
            on_failure,
            damage,
            in_sync_tracker: InSyncTracker::default(),
            active_at: AtomicI64::new(rt::now().0),
            leader_contact_at: AtomicI64::new(rt::now().0),
            unsynced: Mutex::default(),
            suspected_at: Mutex::new(None),
            hibernating: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            reason: Mutex::new(None),
        });
        let source: Arc<dyn ottla_storage::checkpoint::CheckpointSource> = group.applier.clone();
        group.directory.register(replica, Arc::downgrade(&source));
        let peers: Arc<dyn ottla_storage::data_dir::Peers> = group.clone();
        group.directory.register_peers(replica, Arc::downgrade(&peers));
        group.spawn_tasks();
        group.begin(is_new, initial_membership).await?;
        Ok(group)
    }

    /// Starts the tasks of the replica. Those that openraft starts belong to it too: its core, its replication, its state machine's
    /// worker.
    fn spawn_tasks(self: &Arc<Self>) {
        let owner = self.owner();
        owner.scope(|| self.raft.run());
        rt::spawn_critical("raft-role", owner.clone(), self.clone().watch_role());
        rt::spawn_critical("raft-maintenance", owner.clone(), self.clone().maintain());
        rt::spawn_critical("raft-liveness", owner.clone(), self.clone().watch_liveness());
        rt::spawn_critical("raft-heartbeats", owner.clone(), self.clone().send_heartbeats());
        rt::spawn_critical("raft-state-check", owner, self.clone().check_states());
    }

    /// The first step: initialize the group, or campaign at once if there is no other voter.
    async fn begin(self: &Arc<Self>, is_new: bool, first: Membership) -> Result<(), RaftError> {
        if !is_new {
            if self.recovered_members().await?.is_sole_voter(self.replica) {
                self.campaign(false).await?;
            }
            return Ok(());
        }
        if first.is_sole_voter(self.replica) {
            return self.initialize_group(&first).await;
        }
        // Every initial member may initialize the group, all with the same entry. One begins, the others follow only in
        // case it does not: the first candidate should not meet a rival.
        let rank = first.voters.iter().flatten().filter(|&&voter| voter < self.replica).count();
        let wait = self.options.election_max * u32::try_from(rank).unwrap_or(u32::MAX);
        let group = self.clone();
        rt::spawn_critical("raft-initialize", self.owner(), async move {
            rt::sleep(wait).await;
            if !first.is_voter(group.replica) {
                return;
            }
            let begun = match group.initialize_group(&first).await {
                Ok(()) if rank == 0 => group.campaign_until_led().await,
                initialized => initialized,
            };
            if let Err(error) = begun {
                tracing::warn!(replica = group.replica.0, "group not initialized: {error}");
            }
        });
        Ok(())
    }

    /// The members that openraft has read from the log; its metrics name none before its first step.
    async fn recovered_members(&self) -> Result<Membership, RaftError> {
        let members =
            self.raft.with_raft_state(|state| from_raft_membership(state.membership_state.effective().membership()));
        members.await.map_err(|error| self.stopped(&error.to_string()))
    }

    /// Campaigns again until the group has a leader, or an election timeout is over: the first vote requests may reach nodes
    /// on which the other members are still being created. A pre-vote that they do not grant changes nothing.
    async fn campaign_until_led(&self) -> Result<(), RaftError> {
        let mut role = self.role_tracker.role();
        let mut wait = FIRST_CAMPAIGN_RETRY;
        while wait <= self.options.election_max {
            let led = role.wait_for(|role| role.stopped || role.leader.is_some());
            if rt::timeout(wait, led).await.is_ok() {
                break;
            }
            self.campaign(true).await?;
            wait *= 2;
        }
        Ok(())
    }

    /// Campaigns in the background until the group has a leader.
    pub(crate) fn campaign_soon(self: Arc<Self>) {
        rt::spawn_critical("raft-campaign", self.owner(), async move {
            let campaigned = match self.campaign(true).await {
                Ok(()) => self.campaign_until_led().await,
                failed => failed,
            };
            if let Err(error) = campaigned {
                tracing::warn!(replica = self.replica.0, "no election: {error}");
            }
        });
    }

    async fn initialize_group(&self, first: &Membership) -> Result<(), RaftError> {
        use openraft::errors::{InitializeError, RaftError as Error};
        let voters: BTreeSet<u64> = first.voters.iter().flatten().map(|replica| replica.0).collect();
        let nodes: std::collections::BTreeMap<u64, EmptyNode> =
            voters.into_iter().map(|voter| (voter, EmptyNode::new())).collect();
        match self.raft.initialize(nodes).await {
            // Another member was faster.
            Ok(()) | Err(Error::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(Error::APIError(error)) => Err(RaftError::Refused(error.to_string())),
            Err(Error::Fatal(error)) => Err(self.stopped(&error.to_string())),
        }
    }

    pub(crate) fn stopped(&self, otherwise: &str) -> RaftError {
        RaftError::Stopped(self.failure().unwrap_or_else(|| otherwise.into()))
    }

    pub(crate) async fn campaign(&self, pre_vote: bool) -> Result<(), RaftError> {
        self.raft.trigger().elect(pre_vote).await.map_err(|e| self.stopped(&e.to_string()))
    }

    pub(crate) fn members(&self) -> Membership {
        from_raft_membership(self.raft.server_metrics().borrow_watched().membership_config.membership())
    }

    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.applier.failure().or_else(|| self.reason.lock().clone())
    }

    /// Notes that the group is used, and wakes it.
    pub(crate) fn touch(&self) {
        self.active_at.store(rt::now().0, Ordering::Relaxed);
        if self.hibernating.load(Ordering::Relaxed) && self.hibernating.swap(false, Ordering::SeqCst) {
            self.raft.runtime_config().tick(true);
        }
    }

    /// Notes that a message of a leader was received.
    pub(crate) fn note_leader_contact(&self) {
        self.leader_contact_at.store(rt::now().0, Ordering::Relaxed);
    }

    /// True if this replica follows a leader and received a message of it within this time.
    pub(crate) fn has_leader_contact_within(&self, time: Duration) -> bool {
        let role = self.role();
        let follows = role.leader.is_some_and(|leader| leader != self.replica) && !role.stopped;
        follows && self.leader_silence() <= time
    }

    /// For how long no message of a leader was received.
    pub(crate) fn leader_silence(&self) -> Duration {
        rt::now().since(rt::Instant(self.leader_contact_at.load(Ordering::Relaxed)))
    }

    #[cfg(test)]
    pub(crate) fn is_hibernating(&self) -> bool {
        self.hibernating.load(Ordering::SeqCst)
    }

    /// Turns openraft's metrics into the role until openraft's core task ends.
    async fn watch_role(self: Arc<Self>) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let (term, leads, leader) = {
                let now = metrics.borrow_and_update();
                (now.vote.leader_id.term, now.state == ServerState::Leader && now.vote.committed, now.current_leader)
            };
            self.role_tracker.refresh(|known| {
                (known.term, known.leads, known.leader) = (term, leads, leader);
            });
            self.observe_followers();
            if metrics.changed().await.is_err() {
                break;
            }
        }
        self.finish();
    }

    /// The owner of the replica's tasks.
    pub(crate) fn owner(self: &Arc<Self>) -> Owner {
        let group = Arc::downgrade(self);
        Owner::new(move |why| {
            if let Some(group) = group.upgrade() {
                group.fail(why);
            }
        })
    }

    /// Stops the replica for good: something that it depends on has failed. Other replicas continue.
    pub(crate) fn fail(self: &Arc<Self>, why: &str) {
        self.reason.lock().get_or_insert_with(|| why.into());
        self.finish();
        let group = self.clone();
        rt::spawn(async move {
            if let Err(error) = group.raft.shutdown().await {
                tracing::warn!(replica = group.replica.0, "while stopping: {error}");
            }
        });
    }

    fn finish(&self) {
        if self.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        let fatal = self.raft.metrics().borrow_watched().running_state.clone().err();
        let reason = self.failure().or_else(|| fatal.map(|error| error.to_string().into()));
        let reason = reason.unwrap_or_else(|| "stopped".into());
        self.reason.lock().get_or_insert_with(|| reason.clone());
        self.applier.close();
        self.in_flight.close();
        self.role_tracker.stop();
        if !self.stopping.load(Ordering::SeqCst) {
            tracing::error!(replica = self.replica.0, "replica stopped: {reason}");
            let is_damage = self.damage.is_fatal();
            (self.on_failure)(self.replica, Failure { why: reason, is_damage });
        }
    }

    /// Makes the leader send heartbeats: openraft sends them as rarely as it lets them time out.
    async fn send_heartbeats(self: Arc<Self>) {
        let mut role = self.role_tracker.role();
        while !stops_within(&mut role, self.options.heartbeat).await {
            if self.role_tracker.leads() && !self.members().is_alone(self.replica) {
                // It fails only when the replica stops.
                let _ = self.raft.trigger().heartbeat().await;
            }
        }
    }

    /// Lets an idle group hibernate, and purges what the checkpoint contains.
    async fn maintain(self: Arc<Self>) {
        let mut role = self.role_tracker.role();
        while !stops_within(&mut role, MAINTENANCE_INTERVAL).await {
            // A leader that writes nothing would not notice, and would continue to lead although its disk cannot be
            // read.
            if let Some(why) = self.directory.poisoned() {
                return self.fail(&format!("its data directory has failed: {why}"));
            }
            let members = self.members();
            // Only a group without other members may hibernate: a hibernating follower would not notice that its leader
            // is gone.
            if members.is_alone(self.replica) {
                self.hibernate_if_idle();
            } else if self.hibernating.load(Ordering::SeqCst) {
                self.touch();
            }
            self.observe_followers();
            self.transfer_if_disk_stuck();
            self.purge(&members).await;
        }
    }

    fn hibernate_if_idle(&self) {
        let Some(idle_after) = self.options.idle_after else { return };
        let active_at = rt::Instant(self.active_at.load(Ordering::Relaxed));
        let idle = rt::now().since(active_at) >= idle_after && self.role_tracker.current().ready;
        if idle && !self.hibernating.swap(true, Ordering::SeqCst) {
            self.raft.runtime_config().tick(false);
        }
    }

    /// The last entry that may be purged: there is no other member, or all others have the entries, or a member that
    /// lacks them is better served by a snapshot, because so much was logged since (the purge horizon of
    /// design section 4; not where a snapshot does not serve it) or they are damaged.
    fn purgeable(&self, members: &Membership) -> Option<LogId> {
        let kept = self.directory.checkpointed(self.replica)?;
        if members.is_alone(self.replica) {
            return Some(kept);
        }
        let held = self.replicated_to_all().and_then(|index| self.log.log_id(kept.index.min(RaftIndex(index))));
        let damaged = self.damage.to_purge().filter(|damaged| *damaged <= kept.index);
        let damaged = damaged.and_then(|index| self.log.log_id(index));
        let behind = match self.applier.needs_entries() {
            true => None,
            false => self.log.behind(self.options.purge_horizon_bytes),
        };
        held.max(damaged).max(behind).map(|id| id.min(kept))
    }

    /// Purges what the checkpoint contains and no member needs.
    async fn purge(&self, members: &Membership) {
        let Some(upto) = self.purgeable(members) else { return };
        let point = self.applier.snapshot().and_then(|meta| meta.last_log_id).map(|id| id.index);
        if let Some(damaged) = self.damage.to_purge().filter(|damaged| Some(damaged.0) <= point) {
            // openraft purges nothing while it sends entries to a member; after this request it sends a snapshot next.
            if self.raft.trigger().purge_log(damaged.0).await.is_ok() {
                self.damage.note_purged(damaged);
            }
        }
        if Some(upto.index.0) <= point {
            return;
        }
        self.applier.set_purgeable(upto);
        if self.raft.trigger().snapshot().await.is_err() {
            tracing::debug!(replica = self.replica.0, "stopped before a purge");
        }
    }

    /// The role of this replica, as far as it knows.
    pub(crate) fn role(&self) -> Role {
        self.role_tracker.current()
    }

    /// Notes that the leader of this term is suspected; false if it was suspected within `interval` already.
    pub(crate) fn begin_suspicion(&self, interval: Duration) -> bool {
        let mut suspected_at = self.suspected_at.lock();
        let (term, now) = (self.role().term, rt::now());
        if suspected_at.is_some_and(|(suspected, at)| suspected == term && now.since(at) < interval) {
            return false;
        }
        *suspected_at = Some((term, now));
        true
    }

    /// The leader was suspected wrongly, and may be suspected again at once.
    pub(crate) fn clear_suspicion(&self) {
        *self.suspected_at.lock() = None;
    }

    /// Stops the replica; when this returns nothing is applied any more.
    pub(crate) async fn shutdown(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(replica = self.replica.0, "while stopping: {error}");
        }
        self.finish();
    }
}
