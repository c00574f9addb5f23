//! [`Groups`]: what handlers call. Finds the coordinator of a group's partition, starts coordinators where this node
//! leads, and waits for their answers.
//!
//! May not know: wire versions, Raft, how a group decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use ottla_env::critical::Owner;
use ottla_env::rt;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use super::classic::{Assigned, Join, JoinAnswer, Leaving, Left, MemberRef, Settings, Sync};
use super::coordinator_log::{CoordinatorLog, partition_refusal};
use super::error::GroupError;
use super::partition_coordinator::{
    Command, Commit, CoordinatorSettings, DeletedTopic, Described, Listed, PartitionCoordinator, PendingAppends,
    wait_for_all,
};
use crate::config::Config;
use crate::coordinator::by_leadership::ByLeadership;
use crate::coordinator::topic_log::partition_for;
use crate::replicated::group::store::GroupStore;

/// New members have no id yet and cannot heartbeat; Kafka gives their joins as long.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60_000;

/// A coordinator serves other requests between so many descriptions of its groups.
const DESCRIBED_AT_ONCE_MAX: usize = 100;

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

/// The pause before a coordinator that has panicked is started again, since it may panic as soon as it starts.
const REVIVE_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Shared {
    settings: GroupSettings,
    log: Arc<dyn CoordinatorLog>,
    /// Where the commands to the coordinator of a partition's groups go.
    coordinators: ByLeadership<mpsc::Sender<Command>>,
    /// Notified when a coordinator has panicked.
    revive: Arc<Notify>,
}

/// The coordinator of this node's groups. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Groups(Arc<Shared>);

impl Groups {
    /// Starts coordinating the groups of all partitions that this node leads.
    #[must_use]
    pub fn new(settings: GroupSettings, log: Arc<dyn CoordinatorLog>) -> Self {
        let (coordinators, revive) = Default::default();
        let shared = Arc::new(Shared { settings, log, coordinators, revive });
        rt::spawn_critical("coordinator", Owner::process(), watch_leadership(Arc::downgrade(&shared)));
        Self(shared)
    }

    /// The partition of `__consumer_offsets` that keeps this group; its leader is the group's coordinator.
    #[must_use]
    pub fn coordinator_partition(&self, group: &str) -> i32 {
        partition_for(group, self.0.log.topic().partition_count())
    }

    /// Creates `__consumer_offsets` unless it exists.
    pub async fn ensure_offsets_topic(&self) -> Result<(), GroupError> {
        if self.0.log.topic().ensure_topic().await { Ok(()) } else { Err(GroupError::CoordinatorNotAvailable) }
    }

    /// Stops coordinating: parked requests are answered NOT_COORDINATOR, coordinators end.
    pub fn stop(&self) {
        self.0.coordinators.stop();
    }

    /// The coordinator of a partition's groups, started if this node has just begun to lead it. Waits for a partition
    /// that is about to be adopted here: the request of its first client has just created it.
    async fn coordinator(&self, partition: i32) -> Result<mpsc::Sender<Command>, GroupError> {
        if let Some(coordinator) = self.0.coordinator_of(partition) {
            return Ok(coordinator);
        }
        self.0.log.topic().wait_until_led(partition).await.map_err(|error| partition_refusal(&error))?;
        self.0.coordinator_of(partition).ok_or(GroupError::NotCoordinator)
    }

    async fn send<T>(
        &self,
        group: &str,
        command: impl FnOnce(Arc<str>, oneshot::Sender<T>) -> Command,
    ) -> Result<T, GroupError> {
        self.send_to_partition(self.coordinator_partition(group), |reply| command(Arc::from(group), reply)).await
    }

    async fn send_to_partition<T>(
        &self,
        partition: i32,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, GroupError> {
        let (reply, answer) = oneshot::channel();
        // The sender is dropped as soon as it has sent: a coordinator ends when no sender is left, even with requests
        // parked.
        self.coordinator(partition).await?.send(command(reply)).await.map_err(|_| GroupError::NotCoordinator)?;
        // A coordinator that ends drops what it did not answer.
        answer.await.map_err(|_| GroupError::NotCoordinator)
    }

    /// Waits for the appends of a coordinator, for as long as a commit may take.
    async fn finish<T>(&self, pending: PendingAppends<T>) -> Result<T, GroupError> {
        let (value, appends) = pending?;
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
        self.send(group, |group, reply| Command::Join(group, join, reply)).await.unwrap_or_else(refused)
    }

    /// SyncGroup; waits for the leader's assignment.
    pub async fn sync(&self, group: &str, sync: Sync) -> Result<Assigned, GroupError> {
        not_empty(group)?;
        self.send(group, |group, reply| Command::Sync(group, sync, reply)).await?
    }

    /// Heartbeat.
    pub async fn heartbeat(&self, group: &str, who: MemberRef) -> Result<(), GroupError> {
        not_empty(group)?;
        self.send(group, |group, reply| Command::Heartbeat(group, who, reply)).await?
    }

    /// LeaveGroup. In a group without members each of them is answered UNKNOWN_MEMBER_ID.
    pub async fn leave(&self, group: &str, members: Vec<Leaving>) -> Result<Vec<Left>, GroupError> {
        not_empty(group)?;
        let named: Vec<_> = members.iter().map(|m| (m.member_id.clone(), m.instance_id.clone())).collect();
        let outcome = self.send(group, |group, reply| Command::Leave(group, members, reply)).await?;
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
        let outcome = match self.send(group, |group, reply| Command::Commit(group, commit, reply)).await {
            Ok(pending) => self.finish(pending).await,
            Err(error) => Err(error),
        };
        let of_one = |fits: bool| match outcome {
            Ok(()) if !fits => Err(GroupError::OffsetMetadataTooLarge),
            outcome => outcome,
        };
        fits.into_iter().map(of_one).collect()
    }

    /// OffsetFetch: for each group, by its place among `groups`, what `read` takes from the store that keeps it. A partition has one
    /// read index, however many of its groups are requested.
    pub async fn fetch<T>(
        &self,
        groups: &[&str],
        mut read: impl FnMut(usize, &GroupStore) -> T,
    ) -> Vec<Result<T, GroupError>> {
        let partitions: Vec<i32> = groups.iter().map(|group| self.coordinator_partition(group)).collect();
        let distinct: BTreeSet<i32> = partitions.iter().copied().collect();
        let each =
            distinct.into_iter().map(|partition| async move { (partition, self.current_store(partition).await) });
        let stores: BTreeMap<i32, _> = join_all(each).await.into_iter().collect();
        let one = |(place, partition): (usize, &i32)| {
            let store = stores
                .get(partition)
                .map_or(Err(GroupError::NotCoordinator), |found| found.as_ref().map_err(|e| *e))?;
            // Locked for one group at a time: the partition's commits are applied under the same lock.
            let store = store.lock();
            Ok(read(place, &store))
        };
        partitions.iter().enumerate().map(one).collect()
    }

    /// A partition's store after a read index; only the coordinator of its groups answers.
    async fn current_store(&self, partition: i32) -> Result<Arc<Mutex<GroupStore>>, GroupError> {
        self.coordinator(partition).await?;
        self.0.log.topic().read_index(partition).await.map_err(|error| partition_refusal(&error))?;
        self.0.log.store(partition).ok_or(GroupError::NotCoordinator)
    }

    /// DescribeGroups: for each group in order what it is; none if there is no such group.
    pub async fn describe(&self, groups: &[&str]) -> Vec<Result<Option<Described>, GroupError>> {
        let partitions: Vec<i32> = groups.iter().map(|group| self.coordinator_partition(group)).collect();
        let mut by_partition: BTreeMap<i32, Vec<Arc<str>>> = BTreeMap::new();
        for (group, partition) in groups.iter().zip(&partitions) {
            by_partition.entry(*partition).or_default().push(Arc::from(*group));
        }
        let each = by_partition.into_iter().map(|(partition, groups)| async move {
            let outcome = self.describe_in(partition, &groups).await;
            (partition, outcome.map(Vec::into_iter))
        });
        let mut found: BTreeMap<i32, _> = join_all(each).await.into_iter().collect();
        let one = |partition: &i32| match found.get_mut(partition) {
            Some(Ok(in_order)) => in_order.next().ok_or(GroupError::NotCoordinator),
            Some(Err(error)) => Err(*error),
            None => Err(GroupError::NotCoordinator),
        };
        partitions.iter().map(one).collect()
    }

    async fn describe_in(&self, partition: i32, groups: &[Arc<str>]) -> Result<Vec<Option<Described>>, GroupError> {
        self.current_store(partition).await?;
        let mut described = Vec::with_capacity(groups.len());
        for some in groups.chunks(DESCRIBED_AT_ONCE_MAX) {
            described.extend(self.send_to_partition(partition, |reply| Command::Describe(some.to_vec(), reply)).await?);
        }
        Ok(described)
    }

    /// ListGroups: all groups that this node coordinates.
    pub async fn list(&self) -> Vec<Listed> {
        let led =
            (0..self.0.log.topic().partition_count()).filter(|partition| self.0.coordinator_of(*partition).is_some());
        // A coordinator that ends meanwhile has no groups to list here.
        let each = led
            .map(|partition| async move { self.send_to_partition(partition, Command::List).await.unwrap_or_default() });
        join_all(each).await.concat()
    }

    /// DeleteGroups, one group.
    pub async fn delete(&self, group: &str) -> Result<(), GroupError> {
        self.current_store(self.coordinator_partition(group)).await?;
        let pending = self.send(group, Command::Delete).await?;
        self.finish(pending).await
    }

    /// OffsetDelete: for each topic whether its offsets are gone.
    pub async fn delete_offsets(
        &self,
        group: &str,
        topics: Vec<(Arc<str>, Vec<i32>)>,
    ) -> Result<Vec<DeletedTopic>, GroupError> {
        not_empty(group)?;
        self.current_store(self.coordinator_partition(group)).await?;
        let pending = self.send(group, |group, reply| Command::DeleteOffsets(group, topics, reply)).await?;
        self.finish(pending).await
    }

    /// The replicated groups of a partition of `__consumer_offsets`; none where this node has no replica of it.
    #[must_use]
    pub fn replicated(&self, partition: i32) -> Option<Arc<Mutex<GroupStore>>> {
        self.0.log.store(partition)
    }

    /// True if this node coordinates the groups of the partition.
    #[must_use]
    pub fn leads(&self, partition: i32) -> bool {
        self.0.log.topic().leadership(partition).is_some()
    }

    /// The time by which commits of the partition are stamped; the node's own where it does not coordinate them.
    #[must_use]
    pub fn clock_ms(&self, partition: i32) -> i64 {
        self.0.log.topic().clock(partition).map_or_else(rt::wall_clock_ms, |clock| clock.now_ms)
    }
}

fn not_empty(group: &str) -> Result<(), GroupError> {
    if group.is_empty() { Err(GroupError::InvalidGroupId) } else { Ok(()) }
}

impl Shared {
    fn coordinator_of(&self, partition: i32) -> Option<mpsc::Sender<Command>> {
        let by = self.log.topic().leadership(partition)?;
        let start = || {
            let store = self.log.store(partition)?;
            let settings = CoordinatorSettings {
                group: Settings {
                    initial_rebalance_delay_ms: self.settings.initial_rebalance_delay_ms,
                    new_member_join_timeout_ms: NEW_MEMBER_JOIN_TIMEOUT_MS,
                    members_max: self.settings.members_max,
                },
                retention_ms: self.settings.retention_ms,
                expiration_interval_ms: self.settings.retention_check_interval_ms,
            };
            let revive = self.revive.clone();
            let task_owner = Owner::new(move |_| revive.notify_one());
            Some(PartitionCoordinator::start(partition, by, settings, self.log.clone(), store, task_owner))
        };
        self.coordinators.get_or_start(partition, by, |commands| !commands.is_closed(), start)
    }
}

/// Starts a coordinator wherever this node becomes leader, so that silent members are noticed though no request comes;
/// and once more where one has panicked. What a coordinator keeps is in the log: ending the replica would only give the
/// same groups to the next coordinator.
async fn watch_leadership(shared: Weak<Shared>) {
    let parts = shared.upgrade().map(|shared| (shared.log.topic().leadership_changes(), shared.revive.clone()));
    let Some((mut changes, revive)) = parts else { return };
    while let Some(shared) = shared.upgrade() {
        for partition in 0..shared.log.topic().partition_count() {
            shared.coordinator_of(partition);
        }
        drop(shared);
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() { return },
            () = revive.notified() => rt::sleep(REVIVE_PAUSE).await,
        }
    }
}
