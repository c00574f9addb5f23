//! One running replica: openraft with our log store, state machine and links, and the tasks around it.
//!
//! May not know: other groups. Its tasks: one turns openraft's metrics into the role, one lets an idle group
//! sleep and purges what checkpoints cover, one listens for the leader (`silence`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Config, EmptyNode, Raft, ServerState, SnapshotPolicy};
use ottla_storage::env::critical::Owner;
use ottla_storage::env::mutants::{self, Bug};
use ottla_storage::env::rt;
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId, Term};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::applier::{Applier, Origin};
use crate::damage::Damage;
use crate::directory::{Directory, EntryLog};
use crate::error::{Failure, RaftError};
use crate::followers::Followers;
use crate::log_store::LogStore;
use crate::machine::StateMachine;
use crate::members::Members;
use crate::net::Network;
use crate::options::RaftOptions;
use crate::progress::{Progress, Role};
use crate::state_machine::Machine;
use crate::taking::Taking;
use crate::transport::Links;
use crate::types::{TypeConfig, from_raft_membership};

/// How often a group looks whether it may sleep or purge.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// What a follower may lack and still count as caught up, in entries.
pub(crate) const REPLICATION_LAG_MAX: u64 = 1_000;
/// Entries in one append, besides the limit in bytes.
const APPEND_ENTRIES_MAX: u64 = 300;
/// Requests waiting for a group's core; the byte semaphore is the real bound.
const CORE_QUEUE_LEN: u64 = 4_096;

/// Where replicas report that they stopped by themselves.
pub(crate) type OnFailure = Arc<dyn Fn(ReplicaId, Failure) + Send + Sync>;

/// Everything a replica is started with.
pub(crate) struct Start {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) log: Arc<dyn EntryLog>,
    pub(crate) origin: Origin,
    pub(crate) first_members: Members,
    pub(crate) machine: Box<dyn StateMachine>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) options: RaftOptions,
    pub(crate) on_failure: OnFailure,
}

/// One running replica.
pub(crate) struct Group {
    pub(crate) replica: ReplicaId,
    pub(crate) raft: Raft<TypeConfig, Machine>,
    pub(crate) applier: Arc<Applier>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) options: RaftOptions,
    /// Bytes of proposals in flight.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) log: Arc<dyn EntryLog>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) taking: Arc<Taking>,
    on_failure: OnFailure,
    damage: Arc<Damage>,
    pub(crate) followers: Followers,
    active_at: AtomicI64,
    /// When a leader last spoke; at first, when the replica started.
    heard_at: AtomicI64,
    /// How far the disk was when it last lacked something, and since when it is there.
    pub(crate) unsynced: Mutex<Option<(Option<LogId>, rt::Instant)>>,
    /// The term whose leader was last suspected, and when.
    suspected_at: Mutex<Option<(Term, rt::Instant)>>,
    asleep: AtomicBool,
    stopping: AtomicBool,
    /// It has ended, and said so.
    over: AtomicBool,
    reason: Mutex<Option<Arc<str>>>,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// openraft's settings.
fn config(options: &RaftOptions) -> Result<Config, RaftError> {
    let config = Config {
        heartbeat_interval: millis(options.heartbeat),
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
        let Start { directory, log, origin, first_members, machine, network, options, on_failure } = start;
        let replica = log.id();
        let config = config(&options)?;
        // A restarted leader that lost its unsynced tail would reuse log ids.
        assert!(
            config.enable_leader_restore == Some(false) || mutants::is_on(Bug::LeaderRestoredFromVote),
            "a leader is never restored from its vote"
        );
        let pristine = log.vote().is_none() && log.last_log_id().is_none();
        let store = LogStore::new(log.clone(), options.read_bytes_max).committed_upto(origin.committed);
        let damage = store.damage();
        let applier = Applier::new(directory.clone(), log.clone(), damage.clone(), origin, machine);
        let progress = Progress::new();
        let taking = Arc::<Taking>::default();
        let state_machine = Machine { applier: applier.clone(), progress: progress.clone(), taking: taking.clone() };
        let links =
            Links { from: replica, network: network.clone(), damage: damage.clone(), progress: progress.clone() };
        let raft = Raft::build(replica.0, Arc::new(config), links, store, state_machine).await.map_err(|e| {
            let what = e.to_string();
            if damage.is_fatal() { RaftError::Damaged { replica, what } } else { RaftError::Storage { replica, what } }
        })?;
        let group = Arc::new(Group {
            replica,
            raft,
            applier,
            progress,
            room: Arc::new(Semaphore::new(options.in_flight_bytes_max.min(Semaphore::MAX_PERMITS))),
            options,
            directory,
            log,
            network,
            taking,
            on_failure,
            damage,
            followers: Followers::default(),
            active_at: AtomicI64::new(rt::now().0),
            heard_at: AtomicI64::new(rt::now().0),
            unsynced: Mutex::default(),
            suspected_at: Mutex::new(None),
            asleep: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            over: AtomicBool::new(false),
            reason: Mutex::new(None),
        });
        let source: Arc<dyn ottla_storage::checkpoint::CheckpointSource> = group.applier.clone();
        group.directory.register(replica, Arc::downgrade(&source));
        let peers: Arc<dyn ottla_storage::data_dir::Peers> = group.clone();
        group.directory.register_peers(replica, Arc::downgrade(&peers));
        let owner = group.owner();
        // What openraft starts belongs to the replica too: its core, its links, its state machine's worker.
        owner.scope(|| group.raft.run());
        rt::spawn_critical("raft-role", owner.clone(), group.clone().watch_role());
        rt::spawn_critical("raft-maintenance", owner.clone(), group.clone().maintain());
        rt::spawn_critical("raft-silence", owner, group.clone().watch_silence());
        group.begin(pristine, first_members).await?;
        Ok(group)
    }

    /// The first step: found the group, or campaign at once where nobody else can.
    async fn begin(self: &Arc<Self>, pristine: bool, first: Members) -> Result<(), RaftError> {
        if !pristine {
            if self.members().is_sole_voter(self.replica) {
                self.elect(false).await?;
            }
            return Ok(());
        }
        if first.is_sole_voter(self.replica) {
            return self.found(&first).await;
        }
        // Every first member may found the group, all with the same entry. One begins, the others only in
        // case it does not come: whoever campaigns first should not meet a rival.
        let rank = first.voters.iter().flatten().filter(|&&voter| voter < self.replica).count();
        let wait = self.options.election_max * u32::try_from(rank).unwrap_or(u32::MAX);
        let group = self.clone();
        rt::spawn_critical("raft-founding", self.owner(), async move {
            rt::sleep(wait).await;
            if first.is_voter(group.replica)
                && let Err(error) = group.found(&first).await
            {
                tracing::warn!(replica = group.replica.0, "group not founded: {error}");
            }
        });
        Ok(())
    }

    async fn found(&self, first: &Members) -> Result<(), RaftError> {
        use openraft::errors::{InitializeError, RaftError as Error};
        let voters: BTreeSet<u64> = first.voters.iter().flatten().map(|replica| replica.0).collect();
        let nodes: std::collections::BTreeMap<u64, EmptyNode> =
            voters.into_iter().map(|voter| (voter, EmptyNode::new())).collect();
        match self.raft.initialize(nodes).await {
            // Somebody else was faster.
            Ok(()) | Err(Error::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(Error::APIError(error)) => Err(RaftError::Refused(error.to_string())),
            Err(Error::Fatal(error)) => Err(self.stopped(&error.to_string())),
        }
    }

    pub(crate) fn stopped(&self, otherwise: &str) -> RaftError {
        RaftError::Stopped(self.failure().unwrap_or_else(|| otherwise.into()))
    }

    pub(crate) async fn elect(&self, pre_vote: bool) -> Result<(), RaftError> {
        self.raft.trigger().elect(pre_vote).await.map_err(|e| self.stopped(&e.to_string()))
    }

    pub(crate) fn members(&self) -> Members {
        from_raft_membership(self.raft.server_metrics().borrow_watched().membership_config.membership())
    }

    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.applier.failure().or_else(|| self.reason.lock().clone())
    }

    /// Notes that the group is used, and wakes it.
    pub(crate) fn touch(&self) {
        self.active_at.store(rt::now().0, Ordering::Relaxed);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::SeqCst) {
            self.raft.runtime_config().tick(true);
        }
    }

    /// Notes that a leader spoke.
    pub(crate) fn heard(&self) {
        self.heard_at.store(rt::now().0, Ordering::Relaxed);
    }

    /// True if this replica follows a leader that has spoken within this time.
    pub(crate) fn has_heard_within(&self, time: Duration) -> bool {
        let role = self.role();
        let follows = role.leader.is_some_and(|leader| leader != self.replica) && !role.stopped;
        follows && self.silence() <= time
    }

    /// For how long no leader has spoken.
    pub(crate) fn silence(&self) -> Duration {
        rt::now().since(rt::Instant(self.heard_at.load(Ordering::Relaxed)))
    }

    #[cfg(test)]
    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    /// Turns openraft's metrics into the role until the core ends.
    async fn watch_role(self: Arc<Self>) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let (term, leads, leader) = {
                let now = metrics.borrow_and_update();
                (now.vote.leader_id.term, now.state == ServerState::Leader && now.vote.committed, now.current_leader)
            };
            self.progress.refresh(|known| {
                (known.term, known.leads, known.leader) = (term, leads, leader);
            });
            self.look_at_followers();
            if metrics.changed().await.is_err() {
                break;
            }
        }
        self.ended();
    }

    /// What the replica's tasks belong to.
    pub(crate) fn owner(self: &Arc<Self>) -> Owner {
        let group = Arc::downgrade(self);
        Owner::new(move |why| {
            if let Some(group) = group.upgrade() {
                group.fail(why);
            }
        })
    }

    /// The replica stops for good: something that it cannot do without is gone. Others go on.
    pub(crate) fn fail(self: &Arc<Self>, why: &str) {
        self.reason.lock().get_or_insert_with(|| why.into());
        self.ended();
        let group = self.clone();
        rt::spawn(async move {
            if let Err(error) = group.raft.shutdown().await {
                tracing::warn!(replica = group.replica.0, "while stopping: {error}");
            }
        });
    }

    fn ended(&self) {
        if self.over.swap(true, Ordering::SeqCst) {
            return;
        }
        let fatal = self.raft.metrics().borrow_watched().running_state.clone().err();
        let reason = self.failure().or_else(|| fatal.map(|error| error.to_string().into()));
        let reason = reason.unwrap_or_else(|| "stopped".into());
        self.reason.lock().get_or_insert_with(|| reason.clone());
        self.applier.close();
        self.room.close();
        self.progress.stop();
        if !self.stopping.load(Ordering::SeqCst) {
            tracing::error!(replica = self.replica.0, "replica stopped: {reason}");
            let is_damage = self.damage.is_fatal();
            (self.on_failure)(self.replica, Failure { why: reason, is_damage });
        }
    }

    /// Lets an idle group sleep, and purges what the checkpoint contains.
    async fn maintain(self: Arc<Self>) {
        let mut role = self.progress.role();
        loop {
            let tick = rt::sleep(MAINTENANCE_INTERVAL);
            let stopped = async { role.wait_for(|role| role.stopped).await.is_ok() };
            tokio::select! {
                biased;
                _ = stopped => return,
                () = tick => {}
            }
            // A leader that writes nothing would not notice, and lead on over a disk that gives nothing.
            if let Some(why) = self.directory.poisoned() {
                return self.fail(&format!("its data directory has failed: {why}"));
            }
            let members = self.members();
            // Only a group that needs nobody may sleep: a sleeping follower would not miss its leader.
            if members.is_alone(self.replica) {
                self.sleep_if_idle();
            } else if self.asleep.load(Ordering::SeqCst) {
                self.touch();
            }
            self.look_at_followers();
            self.hand_over_if_stuck();
            self.purge(&members).await;
        }
    }

    fn sleep_if_idle(&self) {
        let Some(idle_after) = self.options.idle_after else { return };
        let active_at = rt::Instant(self.active_at.load(Ordering::Relaxed));
        let idle = rt::now().since(active_at) >= idle_after && self.progress.current().ready;
        if idle && !self.asleep.swap(true, Ordering::SeqCst) {
            self.raft.runtime_config().tick(false);
        }
    }

    /// Entries up to here need not be kept for anybody: nobody else is there, all others have them, or whoever lacks them is
    /// better served by a snapshot, because so much was logged since (the purge horizon of design section 4) or they are damaged.
    fn purgeable(&self, members: &Members) -> Option<LogId> {
        let kept = self.directory.checkpointed(self.replica)?;
        if members.is_alone(self.replica) {
            return Some(kept);
        }
        let held = self.held_by_all().and_then(|index| self.log.log_id(kept.index.min(RaftIndex(index))));
        let damaged = self.damage.to_purge().filter(|damaged| *damaged <= kept.index);
        let damaged = damaged.and_then(|index| self.log.log_id(index));
        held.max(damaged).max(self.log.behind(self.options.purge_horizon_bytes)).map(|id| id.min(kept))
    }

    /// Purges what the checkpoint contains and nobody needs.
    async fn purge(&self, members: &Members) {
        let Some(upto) = self.purgeable(members) else { return };
        let point = self.applier.snapshot().and_then(|meta| meta.last_log_id).map(|id| id.index);
        if let Some(damaged) = self.damage.to_purge().filter(|damaged| Some(damaged.0) <= point) {
            // While somebody is being sent entries nothing is purged; from now on a snapshot is what is sent next.
            if self.raft.trigger().purge_log(damaged.0).await.is_ok() {
                self.damage.purged(damaged);
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

    /// What this replica is in its group, as far as it knows.
    pub(crate) fn role(&self) -> Role {
        self.progress.current()
    }

    /// True unless the leader of this term was suspected so short a time ago.
    pub(crate) fn suspects(&self, patience: Duration) -> bool {
        let mut suspected_at = self.suspected_at.lock();
        let (term, now) = (self.role().term, rt::now());
        if suspected_at.is_some_and(|(suspected, at)| suspected == term && now.since(at) < patience) {
            return false;
        }
        *suspected_at = Some((term, now));
        true
    }

    /// Its leader was suspected wrongly, and may be suspected again at once.
    pub(crate) fn trusts(&self) {
        *self.suspected_at.lock() = None;
    }

    /// Stops the replica; when this returns nothing is applied any more.
    pub(crate) async fn shutdown(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(replica = self.replica.0, "while stopping: {error}");
        }
        self.ended();
    }
}
