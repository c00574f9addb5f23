//! [`Groups`]: what handlers call. Finds the owner of a group's partition, starts owners where this node leads, and
//! waits for what they answer.
//!
//! May not know: wire versions, Raft, how a group decides.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ottla_protocol::ids::LeaderEpoch;
use ottla_storage::env::rt;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use super::classic::{Assigned, Join, JoinAnswer, Leaving, Left, MemberRef, Settings, Sync};
use super::error::GroupError;
use super::journal::{Journal, partition_refusal};
use super::owner::{Begun, Command, Commit, DeletedTopic, Described, Listed, Owner, OwnerSettings, wait_for_all};
use super::partition_for;
use super::partition_journal::PartitionJournal;
use super::store::{GroupStore, Offsets};
use crate::config::Config;
use crate::metadata::Metadata;
use crate::partition::Partitions;

/// New members know no id and cannot heartbeat; Kafka gives their joins as long.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60_000;

/// Bounds and times of the coordinator, from the configuration.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i64,
    /// `group.min.session.timeout.ms`.
    pub session_timeout_ms_min: i64,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_ms_max: i64,
    /// `group.max.size`.
    pub members_max: usize,
    /// `offset.metadata.max.bytes`.
    pub metadata_bytes_max: usize,
    /// `offsets.commit.timeout.ms`.
    pub commit_timeout: Duration,
    /// `offsets.retention.minutes`.
    pub retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_interval_ms: i64,
}

impl From<&Config> for GroupSettings {
    fn from(config: &Config) -> Self {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Self {
            initial_rebalance_delay_ms: signed(config.group.initial_rebalance_delay_ms),
            session_timeout_ms_min: signed(config.group.session_timeout_ms_min),
            session_timeout_ms_max: signed(config.group.session_timeout_ms_max),
            members_max: config.group.members_max,
            metadata_bytes_max: config.offsets.metadata_bytes_max,
            commit_timeout: Duration::from_millis(config.offsets.commit_timeout_ms),
            retention_ms: signed(config.offsets.retention_ms),
            retention_check_interval_ms: signed(config.offsets.retention_check_interval_ms),
        }
    }
}

/// The owner of a partition's groups in one epoch.
#[derive(Debug)]
struct Owned {
    epoch: LeaderEpoch,
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
struct Shared {
    settings: GroupSettings,
    journal: Arc<dyn Journal>,
    owners: RwLock<BTreeMap<i32, Owned>>,
    stopped: AtomicBool,
}

/// The coordinator of this node's groups. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Groups(Arc<Shared>);

impl Groups {
    /// Starts coordinating whatever this node leads.
    #[must_use]
    pub fn new(settings: GroupSettings, journal: Arc<dyn Journal>) -> Self {
        let shared = Arc::new(Shared { settings, journal, owners: RwLock::default(), stopped: AtomicBool::new(false) });
        rt::spawn(watch_leadership(Arc::downgrade(&shared)));
        Self(shared)
    }

    /// Over this node's partitions, as the metadata configures it.
    #[must_use]
    pub fn start(metadata: Metadata, partitions: Partitions) -> Self {
        let settings = GroupSettings::from(&*metadata.config());
        Self::new(settings, PartitionJournal::start(Arc::new(metadata), partitions))
    }

    /// The partition of `__consumer_offsets` that keeps this group; its leader is the group's coordinator.
    #[must_use]
    pub fn coordinator_partition(&self, group: &str) -> i32 {
        partition_for(group, self.0.journal.partition_count())
    }

    /// Creates `__consumer_offsets` unless it exists.
    pub async fn ensure_offsets_topic(&self) -> Result<(), GroupError> {
        self.0.journal.ensure_topic().await
    }

    /// Hands everything over: parked requests are answered NOT_COORDINATOR, owners end.
    pub fn stop(&self) {
        let mut owners = self.0.owners.write();
        self.0.stopped.store(true, Ordering::Relaxed);
        owners.clear();
    }

    /// The owner of the group's partition, started if this node has just begun to lead it. A partition that is about
    /// to be adopted here is waited for: its first client has just made it come about.
    async fn owner(&self, group: &str) -> Result<mpsc::Sender<Command>, GroupError> {
        let partition = self.coordinator_partition(group);
        if let Some(owner) = self.0.owner_of(partition) {
            return Ok(owner);
        }
        self.0.journal.wait_until_led(partition).await.map_err(|error| partition_refusal(&error))?;
        self.0.owner_of(partition).ok_or(GroupError::NotCoordinator)
    }

    async fn ask<T>(
        &self,
        group: &str,
        command: impl FnOnce(Arc<str>, oneshot::Sender<T>) -> Command,
    ) -> Result<T, GroupError> {
        let (asker, answer) = oneshot::channel();
        let command = command(Arc::from(group), asker);
        self.owner(group).await?.send(command).await.map_err(|_| GroupError::NotCoordinator)?;
        // An owner that ends drops what it did not answer.
        answer.await.map_err(|_| GroupError::NotCoordinator)
    }

    /// Waits for what an owner has begun, as long as a commit may take.
    async fn finish<T>(&self, begun: Begun<T>) -> Result<T, GroupError> {
        let (value, appends) = begun?;
        match rt::timeout(self.0.settings.commit_timeout, wait_for_all(appends)).await {
            Ok(outcome) => outcome.map(|()| value),
            Err(rt::Elapsed) => Err(GroupError::CoordinatorNotAvailable),
        }
    }

    /// JoinGroup; waits for the generation to complete.
    pub async fn join(&self, group: &str, join: Join) -> JoinAnswer {
        let member_id = join.member_id.clone();
        let refused = |error| JoinAnswer { member_id, outcome: Err(error) };
        if group.is_empty() {
            return refused(GroupError::InvalidGroupId);
        }
        let settings = &self.0.settings;
        let bounds = settings.session_timeout_ms_min..=settings.session_timeout_ms_max;
        if !bounds.contains(&i64::from(join.session_timeout_ms)) {
            return refused(GroupError::InvalidSessionTimeout);
        }
        self.ask(group, |group, asker| Command::Join(group, join, asker)).await.unwrap_or_else(refused)
    }

    /// SyncGroup; waits for the leader's assignment.
    pub async fn sync(&self, group: &str, sync: Sync) -> Result<Assigned, GroupError> {
        not_empty(group)?;
        self.ask(group, |group, asker| Command::Sync(group, sync, asker)).await?
    }

    /// Heartbeat.
    pub async fn heartbeat(&self, group: &str, who: MemberRef) -> Result<(), GroupError> {
        not_empty(group)?;
        self.ask(group, |group, asker| Command::Heartbeat(group, who, asker)).await?
    }

    /// LeaveGroup. A group that nobody is a member of answers for each that it does not know it.
    pub async fn leave(&self, group: &str, members: Vec<Leaving>) -> Result<Vec<Left>, GroupError> {
        not_empty(group)?;
        let named: Vec<_> = members.iter().map(|m| (m.member_id.clone(), m.instance_id.clone())).collect();
        let outcome = self.ask(group, |group, asker| Command::Leave(group, members, asker)).await?;
        match outcome {
            Err(GroupError::UnknownMemberId) => {
                let unknown = |(member_id, instance_id)| Left {
                    member_id,
                    instance_id,
                    outcome: Err(GroupError::UnknownMemberId),
                };
                Ok(named.into_iter().map(unknown).collect())
            }
            outcome => outcome,
        }
    }

    /// OffsetCommit: answered once it is applied. For each offset, in order, whether it was committed.
    pub async fn commit(&self, group: &str, mut commit: Commit) -> Vec<Result<(), GroupError>> {
        let max = self.0.settings.metadata_bytes_max;
        let fits: Vec<bool> = commit.offsets.iter().map(|offset| offset.metadata.len() <= max).collect();
        commit.offsets.retain(|offset| offset.metadata.len() <= max);
        let outcome = match self.ask(group, |group, asker| Command::Commit(group, commit, asker)).await {
            Ok(begun) => self.finish(begun).await,
            Err(error) => Err(error),
        };
        let of_one = |fits: bool| match outcome {
            Ok(()) if !fits => Err(GroupError::OffsetMetadataTooLarge),
            outcome => outcome,
        };
        fits.into_iter().map(of_one).collect()
    }

    /// OffsetFetch: what `read` takes from the group's offsets, none if there is no such group.
    pub async fn fetch<T>(&self, group: &str, read: impl FnOnce(Option<&Offsets>) -> T) -> Result<T, GroupError> {
        let store = self.current_store(group).await?;
        let store = store.lock();
        Ok(read(store.group(group).map(|stored| &stored.offsets)))
    }

    /// The group's store after a read index; only the group's coordinator answers.
    async fn current_store(&self, group: &str) -> Result<Arc<Mutex<GroupStore>>, GroupError> {
        let partition = self.coordinator_partition(group);
        self.owner(group).await?;
        self.0.journal.read_index(partition).await.map_err(|error| partition_refusal(&error))?;
        self.0.journal.store(partition).ok_or(GroupError::NotCoordinator)
    }

    /// DescribeGroups, one group; none if there is no such group.
    pub async fn describe(&self, group: &str) -> Result<Option<Described>, GroupError> {
        self.current_store(group).await?;
        self.ask(group, Command::Describe).await
    }

    /// ListGroups: all groups that this node coordinates.
    pub async fn list(&self) -> Vec<Listed> {
        let mut all = Vec::new();
        for partition in 0..self.0.journal.partition_count() {
            let Some(owner) = self.0.owner_of(partition) else { continue };
            let (asker, answer) = oneshot::channel();
            if owner.send(Command::List(asker)).await.is_ok() {
                // An owner that ends meanwhile has no groups to list here.
                all.extend(answer.await.unwrap_or_default());
            }
        }
        all
    }

    /// DeleteGroups, one group.
    pub async fn delete(&self, group: &str) -> Result<(), GroupError> {
        self.current_store(group).await?;
        let begun = self.ask(group, Command::Delete).await?;
        self.finish(begun).await
    }

    /// OffsetDelete: for each topic whether its offsets are gone.
    pub async fn delete_offsets(
        &self,
        group: &str,
        topics: Vec<(Arc<str>, Vec<i32>)>,
    ) -> Result<Vec<DeletedTopic>, GroupError> {
        self.current_store(group).await?;
        let begun = self.ask(group, |group, asker| Command::DeleteOffsets(group, topics, asker)).await?;
        self.finish(begun).await
    }

    /// Calls `visit` with the replicated groups of every partition that this node leads, for metrics.
    pub fn visit_led(&self, mut visit: impl FnMut(&GroupStore)) {
        let journal = &self.0.journal;
        for partition in 0..journal.partition_count() {
            if journal.leader_epoch(partition).is_none() {
                continue;
            }
            if let Some(store) = journal.store(partition) {
                visit(&store.lock());
            }
        }
    }
}

fn not_empty(group: &str) -> Result<(), GroupError> {
    if group.is_empty() { Err(GroupError::InvalidGroupId) } else { Ok(()) }
}

impl Shared {
    fn owner_of(&self, partition: i32) -> Option<mpsc::Sender<Command>> {
        let epoch = self.journal.leader_epoch(partition)?;
        let usable = |owned: &&Owned| owned.epoch == epoch && !owned.commands.is_closed();
        if let Some(owned) = self.owners.read().get(&partition).filter(usable) {
            return Some(owned.commands.clone());
        }
        let mut owners = self.owners.write();
        if let Some(owned) = owners.get(&partition).filter(usable) {
            return Some(owned.commands.clone());
        }
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let store = self.journal.store(partition)?;
        let settings = OwnerSettings {
            group: Settings {
                initial_rebalance_delay_ms: self.settings.initial_rebalance_delay_ms,
                new_member_join_timeout_ms: NEW_MEMBER_JOIN_TIMEOUT_MS,
                members_max: self.settings.members_max,
            },
            retention_ms: self.settings.retention_ms,
            sweep_interval_ms: self.settings.retention_check_interval_ms,
        };
        let commands = Owner::start(partition, epoch, settings, self.journal.clone(), store);
        owners.insert(partition, Owned { epoch, commands: commands.clone() });
        Some(commands)
    }
}

/// Starts an owner wherever leadership comes, so that silent members are noticed though nobody asks.
async fn watch_leadership(shared: Weak<Shared>) {
    let Some(mut changes) = shared.upgrade().map(|shared| shared.journal.leadership_changes()) else { return };
    while let Some(shared) = shared.upgrade() {
        for partition in 0..shared.journal.partition_count() {
            shared.owner_of(partition);
        }
        drop(shared);
        if changes.changed().await.is_err() {
            return;
        }
    }
}
