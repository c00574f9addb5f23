//! A Raft group of one that applies at once, and a metadata view whose image a test sets: for tests of `shard` and
//! `partition`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_env::critical::Owner;
use ottla_env::watch;
use ottla_protocol::ids::{NodeId, Offset, PartitionId};
use ottla_raft::{
    Membership, MembershipStep, Proposal, ProposeError, Proposed, RaftError, ReadIndexError, Role, StateMachine,
};
use ottla_storage::entry::{Entry, EntryKind};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId, Term};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::clock::Agreement;
use super::group::Group;
use super::handle::Shard;
use super::leader_clock::ClockWitness;
use super::metadata_view::MetadataView;
use super::proposal_window::Applied;
use super::state_machine::{LocalStorage, ShardStateMachine};
use crate::config::TopicConfig;
use crate::metadata::{
    Intent, IntentKey, IntentKind, InternalTopic, MergeStep, MetadataImage, PartitionRoute, ReplicaRecord,
    ShardCreation, ShardId, ShardKind, ShardRecord, Topic,
};
use crate::replicated::command::{AdoptedPartition, Command};
use crate::replicated::shard_state::ShardState;

pub(crate) const REPLICA: ReplicaId = ReplicaId(5);
pub(crate) const SHARD: ShardId = ShardId(3);
pub(crate) const NODE: NodeId = NodeId(1);
pub(crate) const TOPIC: Uuid = Uuid::from_u128(77);

struct NoStorage;

impl LocalStorage for NoStorage {
    fn set_log_start(&self, _: PartitionId, _: Offset) {}
    fn drop_partition(&self, _: PartitionId) {}
    fn of_replica(&self, _: ReplicaId) -> Arc<dyn LocalStorage> {
        Arc::new(Self)
    }
}

/// All clocks agree.
struct Agreeing;

impl ClockWitness for Agreeing {
    fn judge(&self, _: i64, _: ottla_env::rt::Instant, _: i64) -> Agreement {
        Agreement::Agrees
    }

    fn believe(&self, _: i64, _: ottla_env::rt::Instant) {}
}

struct Applying {
    machine: ShardStateMachine,
    last: LogId,
    /// The entries that were proposed and applied.
    entries: Vec<Entry>,
    failure: Option<ProposeError>,
    /// Another replica leads, and this one does not know it.
    deposed: bool,
}

/// A group of one.
#[derive(Clone)]
pub(crate) struct FakeGroup {
    inner: Arc<Mutex<Applying>>,
    role: watch::Sender<Role>,
    /// How many voters are in sync, and have everything.
    pub(crate) in_sync: watch::Sender<usize>,
    /// This replica hears from the leader that it follows.
    pub(crate) hears: Arc<AtomicBool>,
    /// Each proposal needs a permit: a test can hold the flush up.
    pub(crate) flushes: Arc<Semaphore>,
    /// Proposals that were submitted and are not decided.
    in_flight: Arc<AtomicUsize>,
    /// Other replicas that could lead at once.
    pub(crate) transfer_targets: Arc<Mutex<BTreeSet<ReplicaId>>>,
    /// So many transfers have no effect.
    pub(crate) lost_transfers: Arc<AtomicUsize>,
    /// Its voters.
    pub(crate) voters: Arc<Mutex<BTreeSet<ReplicaId>>>,
}

impl FakeGroup {
    /// A group that leads in term 1, over a new state machine, and its running shard.
    pub(crate) fn leading(kind: ShardKind) -> (Self, Arc<Shard>) {
        Self::leading_among(kind, Arc::new(Agreeing))
    }

    /// As [`Self::leading`], with the first partitions of the topic adopted.
    pub(crate) async fn leading_with(kind: ShardKind, partitions: i32) -> (Self, Arc<Shard>) {
        let (group, shard) = Self::leading(kind);
        let adopted = |index| AdoptedPartition { id: partition(index), intent: RaftIndex(1), epoch_base: 0 };
        shard.command(Command::Adopt((0..partitions).map(adopted).collect())).await.unwrap();
        (group, shard)
    }

    /// As [`Self::leading`], with this witness of the nodes' clocks.
    pub(crate) fn leading_among(kind: ShardKind, clocks: Arc<dyn ClockWitness>) -> (Self, Arc<Shard>) {
        let machine = ShardStateMachine::new(
            ShardState::new(super::handle::keeps(kind)),
            REPLICA,
            Arc::new(NoStorage),
            Arc::default(),
        );
        let view = machine.view();
        let last = LogId { term: Term(1), index: RaftIndex(1) };
        let applying = Applying { machine, last, entries: Vec::new(), failure: None, deposed: false };
        let group = Self {
            inner: Arc::new(Mutex::new(applying)),
            role: watch::Sender::new(role(1, true)),
            in_sync: watch::Sender::new(1),
            hears: Arc::default(),
            flushes: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            in_flight: Arc::default(),
            transfer_targets: Arc::default(),
            lost_transfers: Arc::default(),
            voters: Arc::new(Mutex::new([REPLICA].into())),
        };
        let creation =
            ShardCreation { shard: SHARD, kind, created: RaftIndex(0), founders: Vec::new(), beside: Vec::new() };
        let shard = Shard::new(creation, REPLICA, Arc::new(group.clone()), None, view, clocks);
        ottla_env::rt::spawn(shard.clone().run());
        (group, shard)
    }

    /// Another replica of the shard on this node, which does not run.
    pub(crate) fn beside(&self, of: &Shard, replica: ReplicaId) -> Arc<Shard> {
        let view = self.inner.lock().machine.view();
        Shard::new(of.creation.clone(), replica, Arc::new(self.clone()), None, view, Arc::new(Agreeing))
    }

    pub(crate) fn set_role(&self, term: u64, leads: bool) {
        self.inner.lock().last.term = Term(term);
        self.role.send_replace(role(term, leads));
    }

    /// The role is still that of an older term than what is applied.
    pub(crate) fn role_lags(&self, term: u64, leads: bool) {
        self.role.send_replace(role(term, leads));
    }

    /// This replica leads, and is about to transfer leadership.
    pub(crate) fn hide_leader(&self) {
        self.role.send_modify(|role| role.leader = None);
    }

    /// This replica is elected in `term`, and its first entry is not applied yet.
    pub(crate) fn elect(&self, term: u64) {
        self.role.send_replace(Role { ready: false, ..role(term, true) });
    }

    pub(crate) fn fail_with(&self, failure: Option<ProposeError>) {
        self.inner.lock().failure = failure;
    }

    /// From now on no majority confirms that it leads.
    pub(crate) fn depose_unawares(&self) {
        self.inner.lock().deposed = true;
    }

    /// How many proposals are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.inner.lock().entries.clone()
    }

    pub(crate) fn commands(&self) -> Vec<Command> {
        self.entries().iter().filter_map(|entry| Command::decode(&entry.payload).ok()).collect()
    }
}

fn role(term: u64, leads: bool) -> Role {
    let leader = if leads { REPLICA } else { ReplicaId(9) };
    Role { term: Term(term), leader: Some(leader), ready: leads, stopped: false }
}

impl Group for FakeGroup {
    fn owner(&self) -> Owner {
        let role = self.role.clone();
        Owner::new(move |_| role.send_modify(|role| (role.stopped, role.ready) = (true, false)))
    }

    fn submit(&self, proposal: Proposal) -> BoxFuture<'static, Result<Applied, ProposeError>> {
        let group = self.clone();
        group.in_flight.fetch_add(1, Ordering::Relaxed);
        let applied = async move {
            if let Ok(permit) = group.flushes.acquire().await {
                permit.forget();
            }
            group.in_flight.fetch_sub(1, Ordering::Relaxed);
            let mut inner = group.inner.lock();
            if let Some(failure) = &inner.failure {
                return Err(failure.clone());
            }
            inner.last.index.0 += 1;
            let Proposal { payload, batches, clock_ms } = proposal;
            let entry = Entry { log_id: inner.last, kind: EntryKind::Normal, clock_ms, payload, batches };
            let applied = inner.machine.apply(&entry, &Membership::of([REPLICA]));
            inner.machine.publish();
            let log_id = entry.log_id;
            inner.entries.push(entry);
            Ok(Proposed { log_id, reply: applied.reply })
        };
        futures_util::future::ready(Ok(applied.boxed())).boxed()
    }

    fn read_index(&self) -> BoxFuture<'static, Result<RaftIndex, ReadIndexError>> {
        let inner = self.inner.lock();
        let read = if inner.deposed { Err(ReadIndexError::NotLeader { leader: None }) } else { Ok(inner.last.index) };
        futures_util::future::ready(read).boxed()
    }

    fn role(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    fn members(&self) -> Membership {
        Membership::of(self.voters.lock().iter().copied())
    }

    fn in_sync(&self) -> Arc<[ReplicaId]> {
        (0..self.in_sync_count() as u64).map(|other| ReplicaId(REPLICA.0 + other)).collect()
    }

    fn in_sync_count(&self) -> usize {
        *self.in_sync.borrow()
    }

    fn synced_by(&self, _: RaftIndex, voters: usize) -> BoxFuture<'static, bool> {
        let mut in_sync = self.in_sync.subscribe();
        async move { in_sync.wait_for(|count| *count >= voters).await.is_ok() }.boxed()
    }

    fn leaderless_for(&self) -> Option<Duration> {
        None
    }

    fn has_heard_within(&self, _: Duration) -> bool {
        self.hears.load(Ordering::Relaxed)
    }

    fn could_lead(&self, replica: ReplicaId) -> bool {
        self.transfer_targets.lock().contains(&replica)
    }

    fn transfer_leadership(&self, to: ReplicaId) -> BoxFuture<'static, Result<(), RaftError>> {
        let lost = self.lost_transfers.load(Ordering::Relaxed);
        self.lost_transfers.store(lost.saturating_sub(1), Ordering::Relaxed);
        if lost == 0 {
            let term = self.role.borrow().term.0 + 1;
            self.role.send_replace(Role { leader: Some(to), ..role(term, false) });
        }
        futures_util::future::ready(Ok(())).boxed()
    }

    fn begins_behind(&self, _: RaftIndex) -> bool {
        true
    }

    fn advance_membership(&self, to: BTreeSet<ReplicaId>) -> BoxFuture<'static, Result<MembershipStep, RaftError>> {
        *self.voters.lock() = to;
        futures_util::future::ready(Ok(MembershipStep::Reached)).boxed()
    }
}

/// A metadata view whose image a test sets.
#[derive(Clone)]
pub(crate) struct FakeMetadata {
    images: watch::Sender<Arc<MetadataImage>>,
    pub(crate) ended: Arc<Mutex<Vec<IntentKey>>>,
    /// Children whose split was reported as done, and the index.
    pub(crate) ended_splits: Arc<Mutex<Vec<(ShardId, RaftIndex)>>>,
    pub(crate) merge_steps: Arc<Mutex<Vec<MergeStep>>>,
    /// Shown at the next read index.
    pub(crate) unseen: Arc<Mutex<Option<MetadataImage>>>,
    /// The image cannot be confirmed to be current.
    pub(crate) unconfirmed: Arc<AtomicBool>,
    pub(crate) removed_from_cluster: watch::Sender<Option<ReplicaId>>,
}

impl FakeMetadata {
    pub(crate) fn new(image: MetadataImage) -> Self {
        let images = watch::Sender::new(Arc::new(image));
        let removed_from_cluster = watch::Sender::new(None);
        Self {
            images,
            ended: Arc::default(),
            ended_splits: Arc::default(),
            merge_steps: Arc::default(),
            unseen: Arc::default(),
            unconfirmed: Arc::default(),
            removed_from_cluster,
        }
    }

    pub(crate) fn show(&self, image: MetadataImage) {
        self.images.send_replace(Arc::new(image));
    }
}

impl MetadataView for FakeMetadata {
    fn image(&self) -> Arc<MetadataImage> {
        self.images.borrow().clone()
    }

    fn changes(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.images.subscribe()
    }

    fn read_index(&self) -> BoxFuture<'static, bool> {
        if let Some(image) = self.unseen.lock().take() {
            self.show(image);
        }
        let unconfirmed = self.unconfirmed.load(Ordering::Relaxed);
        futures_util::future::ready(!unconfirmed).boxed()
    }

    fn end_intents(&self, done: Vec<IntentKey>) -> BoxFuture<'static, bool> {
        self.ended.lock().extend(done);
        futures_util::future::ready(true).boxed()
    }

    fn end_split(&self, child: ShardId, at: RaftIndex) -> BoxFuture<'static, bool> {
        self.ended_splits.lock().push((child, at));
        futures_util::future::ready(true).boxed()
    }

    fn report_merge(&self, step: MergeStep) -> BoxFuture<'static, bool> {
        self.merge_steps.lock().push(step);
        futures_util::future::ready(true).boxed()
    }

    fn forget_replicas(&self, _: ShardId, _: Vec<ReplicaId>, _: Vec<ReplicaId>) -> BoxFuture<'static, bool> {
        futures_util::future::ready(true).boxed()
    }

    fn report_lost(&self, _: Vec<ReplicaId>) {}

    fn removed_from_cluster(&self) -> watch::Receiver<Option<ReplicaId>> {
        self.removed_from_cluster.subscribe()
    }

    fn ensure_internal(&self, _: InternalTopic) -> BoxFuture<'static, bool> {
        futures_util::future::ready(true).boxed()
    }
}

/// A topic "t" of `partitions` on the shard, with the intent that it be adopted.
pub(crate) fn image_with_topic(partitions: i32, config: TopicConfig) -> MetadataImage {
    let route = PartitionRoute { shard: SHARD, epoch_base: 0, intent: RaftIndex(10) };
    let topic = Arc::new(Topic {
        name: Arc::from("t"),
        id: TOPIC,
        internal: false,
        config: Arc::new(config),
        overrides: Arc::default(),
        partitions: Arc::new((0..partitions).map(|_| route).collect()),
    });
    let replicas = vec![ReplicaRecord { id: REPLICA, node: NODE, directory: Uuid::nil() }];
    let kind = ShardKind::Pool { factor: 1, pinned: false };
    let record = ShardRecord {
        id: SHARD,
        kind,
        replicas,
        adding: Vec::new(),
        leaving: Vec::new(),
        founders: vec![REPLICA],
        created: RaftIndex(1),
        split: None,
        merge: None,
    };
    let mut image = MetadataImage { index: RaftIndex(10), ..MetadataImage::default() };
    image.topics.insert(topic.name.clone(), topic.clone());
    image.topics_by_id.insert(topic.id, topic);
    image.shards = Arc::new([(SHARD, Arc::new(record))].into_iter().collect());
    let intent = Intent { kind: IntentKind::Adopt, partitions: (0..partitions).map(|index| (index, 0)).collect() };
    image.intents.insert(IntentKey { shard: SHARD, index: RaftIndex(10), topic: TOPIC }, Arc::new(intent));
    image
}

pub(crate) fn partition(index: i32) -> PartitionId {
    PartitionId { topic: TOPIC, index }
}

/// Lets all other tasks run until they wait.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
