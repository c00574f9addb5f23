//! One shard on this node: the handle that partitions hold.
//!
//! It queues batches and commands for the appender (see `appender`), waits at the read barrier, and shows role, clock
//! and state. May not know: topics, sockets, how other replicas are reached. Invariant: nothing is proposed while this
//! replica does not lead, or has not applied an entry of its own term.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ottla_env::{rt, watch};
use ottla_protocol::ids::{LeaderEpoch, PartitionId};
use ottla_raft::{Membership, Role};
use ottla_storage::data_dir::DataDir;
use ottla_storage::ids::{LogId, ReplicaId, Term};
use ottla_storage::log::BATCH_BYTES_MAX;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::append_queue::AppendQueue;
use super::clock::Agreement;
use super::cut_points::CutPoints;
use super::group::Group;
use super::handover::{HANDOVER_WAIT, Handover, Successor};
use super::idempotence_fence::{ConnectionId, ProducerBatch};
use super::leader_clock::{AppliedClock, ClockWitness, LeaderClock, ShardTime};
use super::queued::{QueuedBatch, QueuedCommand};
use super::read_barrier::ReadBarrier;
use super::read_view::ReadView;
use super::rpc::LedShard;
use super::state_machine_view::StateMachineView;
use super::traffic::Traffic;
use crate::metadata::{ShardCreation, ShardId, ShardKind};
use crate::replicated::command::Command;
use crate::replicated::error::{AppendError, PartitionError};
use crate::replicated::kept::Keeps;
use crate::replicated::shard_state::{ApplyReply, ShardState, epoch_of};

/// A follower that has not heard from its leader for so long serves no reads.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// One shard on this node.
pub struct Shard {
    /// Which shard, and what it is for.
    pub creation: ShardCreation,
    /// This node's replica.
    pub replica: ReplicaId,
    pub(super) group: Arc<dyn Group>,
    pub(super) directory: Option<Arc<DataDir>>,
    pub(super) machine: StateMachineView,
    pub(super) role: watch::Receiver<Role>,
    pub(super) queue: Mutex<AppendQueue>,
    pub(super) work: Notify,
    pub(super) clock: LeaderClock,
    /// Partitions for which a request waits; their adoption goes first.
    adoption_requests: Mutex<Vec<PartitionId>>,
    adoption_requests_changed: Notify,
    read_barrier: ReadBarrier,
    /// Since when this replica leads.
    pub(super) led_since: Mutex<Option<rt::Instant>>,
    /// See [`Shard::take_over_from`].
    taken_over: Mutex<Option<TakenOver>>,
    /// See [`Shard::take_over_absorbed`].
    absorbed: Mutex<Option<AbsorbedEpochs>>,
    /// What its clients have sent and got since this replica was opened.
    pub(crate) traffic: Traffic,
}

/// What this shard took over from others while it led in a term, which this node led as well.
#[derive(Debug)]
struct AbsorbedEpochs {
    term: Term,
    /// The oldest epoch of each partition in which this node has led it without a break.
    oldest: BTreeMap<PartitionId, LeaderEpoch>,
}

/// What this shard took over from its parent, which this node led.
#[derive(Debug, Clone, Copy)]
struct TakenOver {
    /// Until when batches wait for the election of this replica.
    elected_by: rt::Instant,
    /// The first term from which on this node has led the partitions, in this shard or in its parents, without a break.
    led_from: Term,
    /// The last entry that is the parent's.
    behind: Option<LogId>,
    /// The term in which this replica was elected.
    led_in: Option<Term>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shard({}, replica {})", self.creation.shard, self.replica)
    }
}

impl Shard {
    pub(crate) fn new(
        creation: ShardCreation,
        replica: ReplicaId,
        group: Arc<dyn Group>,
        directory: Option<Arc<DataDir>>,
        machine: StateMachineView,
        witness: Arc<dyn ClockWitness>,
    ) -> Arc<Self> {
        let role = group.role();
        let clock = LeaderClock::new(creation.shard.0, replica.0, witness);
        Arc::new(Self {
            creation,
            replica,
            group,
            directory,
            machine,
            role,
            queue: Mutex::default(),
            work: Notify::new(),
            clock,
            adoption_requests: Mutex::default(),
            adoption_requests_changed: Notify::new(),
            read_barrier: ReadBarrier::default(),
            led_since: Mutex::default(),
            taken_over: Mutex::default(),
            absorbed: Mutex::default(),
            traffic: Traffic::default(),
        })
    }

    /// What the shard's partitions keep beside their records.
    #[must_use]
    pub fn keeps(&self) -> Keeps {
        keeps(self.creation.kind)
    }

    /// This replica's role in its group.
    #[must_use]
    pub fn role(&self) -> Role {
        *self.role.borrow()
    }

    /// For how long the shard has had no leader, as far as this replica knows; `None` while it has one.
    pub(super) fn leaderless_for(&self) -> Option<Duration> {
        self.group.leaderless_for()
    }

    /// What other nodes are told of the shard, if this replica leads it and serves.
    pub(super) fn led(&self) -> Option<(ShardId, LedShard)> {
        let role = self.role();
        role.ready.then(|| (self.creation.shard, LedShard { term: role.term.0, in_sync: self.group.in_sync() }))
    }

    /// The term in which this replica follows a leader from which it has heard lately: what is applied here is nearly
    /// current.
    #[must_use]
    pub fn following(&self) -> Option<Term> {
        let role = self.role();
        (!role.ready && self.group.has_heard_within(SILENCE_MAX)).then_some(role.term)
    }

    /// The voters that are in sync; empty where this replica does not lead.
    #[must_use]
    pub fn in_sync(&self) -> Arc<[ReplicaId]> {
        self.group.in_sync()
    }

    /// The role and its changes.
    #[must_use]
    pub fn role_changes(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// The term in which this replica leads and serves.
    #[must_use]
    pub fn leading(&self) -> Option<Term> {
        let role = self.role();
        (role.ready && self.leads(role)).then_some(role.term)
    }

    /// True if batches may be queued here: this replica leads, or has been elected and serves once its first entry is
    /// applied, or campaigns for what it takes over. A client may know the new leader before that, and one that is refused
    /// retries only much later.
    #[must_use]
    pub(crate) fn is_elected(&self) -> bool {
        self.leads(self.role()) || self.awaits_election().is_some()
    }

    /// How long batches still wait for the election of this replica; `None` if they do not.
    pub(super) fn awaits_election(&self) -> Option<Duration> {
        let role = self.role();
        let taken_over = (*self.taken_over.lock()).filter(|_| role.leader.is_none() && !role.stopped)?;
        let left = taken_over.elected_by.since(rt::now());
        (taken_over.led_in.is_none() && left > Duration::ZERO).then_some(left)
    }

    /// Takes over what waits for this shard's partitions in the queue of its parent, if that leads here, and what still arrives
    /// there; it waits until this replica is elected, and not for long.
    pub(super) fn take_over_from(self: &Arc<Self>, parent: &Self) {
        let Some(led_from) = parent.led_from() else { return };
        let elected_by = rt::now() + HANDOVER_WAIT;
        let (behind, partitions) = {
            let state = self.state().lock();
            (state.last, state.partitions.keys().copied().collect())
        };
        *self.taken_over.lock() = Some(TakenOver { elected_by, led_from, behind, led_in: None });
        let successor: Arc<dyn Successor> = self.clone();
        parent.queue.lock().hand_over(Handover::to(Arc::downgrade(&successor), partitions));
    }

    /// The first term from which on this node has led the shard's partitions without a break, here or in the shard that was
    /// split: no other leader has appended anything since. Only where this replica leads.
    pub(crate) fn led_from(&self) -> Option<Term> {
        let term = self.leading()?;
        let taken_over = (*self.taken_over.lock()).filter(|taken_over| taken_over.led_in == Some(term));
        Some(taken_over.map_or(term, |taken_over| taken_over.led_from))
    }

    /// Takes over what waits in the queue of a shard that was absorbed, if both are led here, and what still arrives there.
    pub(super) fn take_over_absorbed(self: &Arc<Self>, absorbed: &Self) {
        let bases = std::mem::take(&mut self.state().lock().taken_over).epoch_bases;
        let partitions: BTreeSet<_> = bases.keys().copied().collect();
        self.queue.lock().take_back(&partitions);
        let (Some(term), Some(led_from)) = (self.leading(), absorbed.led_from()) else { return };
        {
            let mut known = self.absorbed.lock();
            let mut of_term =
                known.take().filter(|known| known.term == term).map_or(BTreeMap::new(), |known| known.oldest);
            of_term.extend(bases.into_iter().map(|(id, base)| (id, epoch_of(base, led_from.0))));
            *known = Some(AbsorbedEpochs { term, oldest: of_term });
        }
        let successor: Arc<dyn Successor> = self.clone();
        absorbed.queue.lock().hand_over(Handover::to(Arc::downgrade(&successor), partitions));
    }

    /// The oldest leader epoch of a partition from which on no other node has led it: see [`Self::led_from`].
    pub(crate) fn oldest_epoch(&self, id: PartitionId, epoch_base: i32) -> Option<LeaderEpoch> {
        let term = self.leading()?;
        let absorbed = self.absorbed.lock();
        let of_term = absorbed.as_ref().filter(|absorbed| absorbed.term == term);
        let absorbed = of_term.and_then(|absorbed| absorbed.oldest.get(&id)).copied();
        absorbed.or_else(|| self.led_from().map(|term| epoch_of(epoch_base, term.0)))
    }

    /// True if the shard is sealed for a merge: nothing of it changes.
    pub(crate) fn is_sealed(&self) -> bool {
        self.state().lock().is_sealed()
    }

    /// This replica leads and serves in `term`, and has proposed nothing yet.
    pub(super) fn note_leading(&self, term: Term) {
        let mut taken_over = self.taken_over.lock();
        let Some(first) = taken_over.as_mut().filter(|taken_over| taken_over.led_in.is_none()) else { return };
        // Of what is behind the parent's last entry, only the first one of this term is this leader's.
        let before = first.behind.map_or(0, |last| last.index.0);
        let now = self.state().lock().last.map_or(0, |last| last.index.0);
        match now <= before + 1 {
            true => first.led_in = Some(term),
            false => *taken_over = None,
        }
    }

    /// True if this replica is the leader, whether it serves already or not.
    fn leads(&self, role: Role) -> bool {
        !role.stopped && role.leader == Some(self.replica)
    }

    /// How long this replica has led.
    #[must_use]
    pub(super) fn led_for(&self) -> Option<Duration> {
        let since = (*self.led_since.lock())?;
        self.leading().map(|_| rt::now().since(since))
    }

    /// What readers see.
    #[must_use]
    pub fn read_view(&self) -> &Arc<ReadView> {
        &self.machine.read_view
    }

    /// The replicated state; held only briefly.
    pub(crate) fn state(&self) -> &Mutex<ShardState> {
        &self.machine.state
    }

    /// The last entry that this process has applied and the rolling checksum of the state then: equal on all replicas
    /// (I6).
    #[must_use]
    pub fn applied_checksum(&self) -> Option<(LogId, u64)> {
        let state = self.machine.state.lock();
        Some((state.last?, state.checksum()))
    }

    /// The last entry that this process has applied and a digest of the whole state then, however it came to be: from
    /// entries or from a checkpoint (I6). Groups are in the rolling checksum only.
    #[must_use]
    pub fn state_digest(&self) -> Option<(LogId, u64)> {
        let state = self.machine.state.lock();
        Some((state.last?, super::state_machine::digest(&state)))
    }

    pub(crate) fn cut_points(&self) -> &Mutex<CutPoints> {
        &self.machine.cut_points
    }

    /// The data directory of this replica.
    #[must_use]
    pub fn directory(&self) -> Option<&Arc<DataDir>> {
        self.directory.as_ref()
    }

    pub(crate) fn group(&self) -> &Arc<dyn Group> {
        &self.group
    }

    /// The group's members.
    #[must_use]
    pub fn members(&self) -> Membership {
        self.group.members()
    }

    /// The largest batch of a client that an entry can hold here.
    pub(crate) fn batch_bytes_max(&self) -> usize {
        self.directory.as_ref().map_or(BATCH_BYTES_MAX, |directory| directory.batch_bytes_max())
    }

    /// Why writes are refused now, if they are: the disk is nearly full or has failed.
    pub(crate) fn refuses_writes(&self) -> Option<AppendError> {
        let directory = self.directory.as_ref()?;
        if directory.poisoned().is_some() {
            return Some(PartitionError::Storage.into());
        }
        (!directory.accepts_writes()).then_some(AppendError::DiskFull)
    }

    /// Confirms leadership and waits until everything committed before is applied. One confirmation serves all callers
    /// that called before it began. A sealed shard confirms nothing: the survivor of its merge may have gone on already.
    pub async fn read_index(&self) -> Result<(), PartitionError> {
        let confirmed = self.read_barrier.confirm(&*self.group).await && self.leading().is_some();
        if confirmed && !self.is_sealed() { Ok(()) } else { Err(PartitionError::NotLeaderOrFollower) }
    }

    /// Enqueues a batch, in call order. With `refused` the batch is refused at once, and so is what follows of its
    /// producer.
    pub(crate) fn enqueue(&self, batch: QueuedBatch, refused: Option<AppendError>) {
        let refused = match refused {
            None if !self.is_elected() => Some(PartitionError::NotLeaderOrFollower.into()),
            refused => refused,
        };
        match refused {
            Some(error) => self.queue.lock().refuse_unqueued(batch, error),
            None => {
                let mut queue = self.queue.lock();
                queue.push(batch);
                if queue.wakes_appender() {
                    drop(queue);
                    self.work.notify_one();
                }
            }
        }
    }

    /// Notes that a batch was refused before it reached the shard: what follows of its producer is refused too.
    pub(crate) fn note_refusal(&self, producer_batch: ProducerBatch, error: &AppendError) {
        self.queue.lock().note_refusal(producer_batch, error);
    }

    /// Proposes a command and waits for the reply of apply. The command is enqueued before this returns.
    pub(crate) fn command(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<ApplyReply, PartitionError>> + Send + use<> {
        let (answer, receiver) = oneshot::channel();
        self.queue.lock().push_command(QueuedCommand { command, answer });
        self.work.notify_one();
        async move { receiver.await.unwrap_or(Err(PartitionError::NotLeaderOrFollower)) }
    }

    /// Bytes of the queued batches.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.queue.lock().bytes()
    }

    /// Drops the refusals of a connection that is closed.
    pub fn connection_closed(&self, connection: ConnectionId) {
        self.queue.lock().close(connection);
    }

    /// Requests that a partition be adopted before others.
    pub fn request_adoption(&self, partition: PartitionId) {
        let mut adoption_requests = self.adoption_requests.lock();
        if !adoption_requests.contains(&partition) {
            adoption_requests.push(partition);
            self.adoption_requests_changed.notify_one();
        }
    }

    /// Takes the partitions whose adoption was requested.
    pub(crate) fn take_adoption_requests(&self) -> Vec<PartitionId> {
        std::mem::take(&mut self.adoption_requests.lock())
    }

    pub(crate) async fn adoption_requested(&self) {
        self.adoption_requests_changed.notified().await;
    }

    /// The shard's time now; none where this replica does not lead.
    #[must_use]
    pub fn time(&self) -> Option<ShardTime> {
        let term = self.leading()?;
        Some(self.clock.time(term, self.applied_clock()))
    }

    /// The shard's time, if it may be used for expiry.
    pub(crate) fn clock_for_expiry(&self) -> Option<i64> {
        self.time()?.for_expiry_ms
    }

    /// Whether the other nodes' clocks agree with this node's.
    pub(super) fn clock_agreement(&self) -> Agreement {
        self.clock.agreement(self.applied_clock_ms())
    }

    pub(super) fn applied_clock_ms(&self) -> i64 {
        self.applied_clock().ms
    }

    pub(super) fn applied_clock(&self) -> AppliedClock {
        let state = self.machine.state.lock();
        AppliedClock { ms: state.clock_ms, merge: state.last_merge.index }
    }
}

impl Successor for Shard {
    fn enqueue(&self, batch: QueuedBatch) {
        self.enqueue(batch, None);
    }
}

/// What partitions of such a shard keep beside their records.
pub(crate) fn keeps(kind: ShardKind) -> Keeps {
    match kind {
        ShardKind::ConsumerOffsets => Keeps::Groups,
        ShardKind::TransactionState => Keeps::Transactions,
        ShardKind::Metadata | ShardKind::Pool { .. } => Keeps::Records,
    }
}

#[cfg(test)]
mod tests;
