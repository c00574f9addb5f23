//! One shard on this node: the handle that partitions hold, and the one task that proposes everything.
//!
//! Whatever becomes an entry goes through one queue and one task, so that the shard clock never falls and batches keep
//! their order. A batch's answer comes from apply. May not know: topics, sockets, how other replicas are reached.
//! Invariant: nothing is taken while this replica does not lead, or has not applied an entry of its own term.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use ottla_protocol::ids::PartitionId;
use ottla_raft::{Members, Proposal, ProposeError, Proposed, Role};
use ottla_storage::data_dir::DataDir;
use ottla_storage::entry::Batches;
use ottla_storage::env::{rt, watch};
use ottla_storage::ids::{LogId, ReplicaId, Term};
use ottla_storage::index::ExtentKey;
use ottla_storage::log::BATCH_BYTES_MAX;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::clock::Agreement;
use super::command::Command;
use super::copies;
use super::cut_points::CutPoints;
use super::group::Group;
use super::leader_clock::{ClockWitness, LeaderClock, ShardTime};
use super::machine::ShardMachine;
use super::published::Published;
use super::queue::{Packed, Queue, QueuedBatch, QueuedCommand};
use super::rpc::LedShard;
use super::state::{ApplyReply, ShardState};
use super::sticky::Sent;
use crate::metadata::{ShardCreation, ShardId, ShardKind};
use crate::partition::{AppendError, ConnectionId, PartitionError};

/// While nothing happens the task looks around this often.
const IDLE: Duration = Duration::from_secs(3600);

/// A shard's first stamp waits so long for word of most nodes' clocks: a wrong one would stay.
const FIRST_STAMP_WAIT: Duration = Duration::from_secs(3);

/// Between two looks for such word.
const CLOCKS_PAUSE: Duration = Duration::from_millis(20);

/// Who has not heard of its leader for so long lets nobody read.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The parts of a machine that its shard keeps looking at.
pub(crate) struct MachineView {
    state: Arc<Mutex<ShardState>>,
    published: Arc<Published>,
    cut_points: Arc<Mutex<CutPoints>>,
}

impl MachineView {
    pub(crate) fn of(machine: &ShardMachine) -> Self {
        Self { state: machine.state(), published: machine.published(), cut_points: machine.cut_points() }
    }
}

/// The outcome of the last read index, and how many of those asked for had been asked for when it began.
#[derive(Default)]
struct ReadRound {
    covers: u64,
    confirmed: bool,
}

/// One shard on this node.
pub struct Shard {
    /// Which shard, and what it is for.
    pub creation: ShardCreation,
    /// This node's replica.
    pub replica: ReplicaId,
    group: Arc<dyn Group>,
    directory: Option<Arc<DataDir>>,
    machine: MachineView,
    role: watch::Receiver<Role>,
    queue: Mutex<Queue>,
    work: Notify,
    clock: LeaderClock,
    /// Partitions that somebody waits for; their adoption goes first.
    wanted: Mutex<Vec<PartitionId>>,
    wanted_changed: Notify,
    /// Read indexes asked for so far.
    reads_asked: AtomicU64,
    last_read: tokio::sync::Mutex<ReadRound>,
    /// Since when this replica leads.
    led_since: Mutex<Option<rt::Instant>>,
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
        machine: MachineView,
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
            wanted: Mutex::default(),
            wanted_changed: Notify::new(),
            reads_asked: AtomicU64::new(0),
            last_read: tokio::sync::Mutex::default(),
            led_since: Mutex::default(),
        })
    }

    /// True if its partitions keep groups.
    #[must_use]
    pub fn keeps_groups(&self) -> bool {
        keeps_groups(self.creation.kind)
    }

    /// What this replica is in its group.
    #[must_use]
    pub fn role(&self) -> Role {
        *self.role.borrow()
    }

    /// For how long nobody has led, as far as is known; `None` while somebody does.
    pub(super) fn leaderless_for(&self) -> Option<Duration> {
        self.group.leaderless_for()
    }

    /// What is told of the shard, if this replica leads it and serves.
    pub(super) fn led(&self) -> Option<(ShardId, LedShard)> {
        let role = self.role();
        role.ready.then(|| (self.creation.shard, LedShard { term: role.term.0, in_sync: self.group.in_sync() }))
    }

    /// The term in which this replica follows a leader that has spoken lately: what is applied here is hardly old.
    #[must_use]
    pub fn following(&self) -> Option<Term> {
        let role = self.role();
        (!role.ready && self.group.has_heard_within(SILENCE_MAX)).then_some(role.term)
    }

    /// The voters that are in sync; nobody where this replica does not lead.
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

    /// True if batches may be queued here: this replica leads, or has been elected and serves once its first entry is applied.
    /// Clients may know of it earlier than that, and who is turned away asks again much later.
    #[must_use]
    pub(crate) fn is_elected(&self) -> bool {
        self.leads(self.role())
    }

    /// This replica is who leads, whether it serves already or not.
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
    pub fn published(&self) -> &Arc<Published> {
        &self.machine.published
    }

    /// The replicated state; held only briefly.
    pub(crate) fn state(&self) -> &Mutex<ShardState> {
        &self.machine.state
    }

    /// The last entry that this process has applied and the rolling checksum of the state then: equal on all replicas (I6).
    #[must_use]
    pub fn applied_checksum(&self) -> Option<(LogId, u64)> {
        let state = self.machine.state.lock();
        Some((state.last?, state.checksum()))
    }

    /// The last entry that this process has applied and a digest of the whole state then, however it came to be: from entries
    /// or from a checkpoint (I6). Groups are in the rolling checksum only.
    #[must_use]
    pub fn state_digest(&self) -> Option<(LogId, u64)> {
        let state = self.machine.state.lock();
        Some((state.last?, super::machine::digest(&state)))
    }

    pub(crate) fn cut_points(&self) -> &Mutex<CutPoints> {
        &self.machine.cut_points
    }

    /// Where this replica's bytes are.
    #[must_use]
    pub fn directory(&self) -> Option<&Arc<DataDir>> {
        self.directory.as_ref()
    }

    /// The key of a partition's batches in the index.
    #[must_use]
    pub fn extent(&self, partition: PartitionId) -> ExtentKey {
        ExtentKey { partition, replica: self.replica }
    }

    pub(crate) fn group(&self) -> &Arc<dyn Group> {
        &self.group
    }

    /// The group's members.
    #[must_use]
    pub fn members(&self) -> Members {
        self.group.members()
    }

    /// The largest batch of a client that an entry takes here.
    pub(crate) fn batch_bytes_max(&self) -> usize {
        self.directory.as_ref().map_or(BATCH_BYTES_MAX, |directory| directory.batch_bytes_max())
    }

    /// Why nothing may be written now, if so: the disk is nearly full or has failed.
    pub(crate) fn refuses_writes(&self) -> Option<AppendError> {
        let directory = self.directory.as_ref()?;
        if directory.poisoned().is_some() {
            return Some(PartitionError::Storage.into());
        }
        (!directory.accepts_writes()).then_some(AppendError::DiskFull)
    }

    /// Confirms leadership and waits until everything committed before is applied. One confirmation serves all who asked
    /// before it began: a request for thousands of partitions costs two.
    pub async fn read_index(&self) -> Result<(), PartitionError> {
        let mine = self.reads_asked.fetch_add(1, Ordering::AcqRel);
        let mut last = self.last_read.lock().await;
        if last.covers <= mine {
            let covers = self.reads_asked.load(Ordering::Acquire);
            *last = ReadRound { covers, confirmed: self.group.read_index().await.is_ok() };
        }
        let confirmed = last.confirmed && self.leading().is_some();
        if confirmed { Ok(()) } else { Err(PartitionError::NotLeaderOrFollower) }
    }

    /// Enqueues a batch, in call order. `refused` turns it away at once, and what follows of its producer.
    pub(crate) fn enqueue(&self, batch: QueuedBatch, refused: Option<AppendError>) {
        let refused = match refused {
            None if !self.is_elected() => Some(PartitionError::NotLeaderOrFollower.into()),
            refused => refused,
        };
        match refused {
            Some(error) => self.queue.lock().turn_away(batch, error),
            None => {
                self.queue.lock().push(batch);
                self.work.notify_one();
            }
        }
    }

    /// A batch was refused before it could come here: what follows of its producer is turned away.
    pub(crate) fn was_refused(&self, sent: Sent, error: &AppendError) {
        self.queue.lock().was_refused(sent, error);
    }

    /// Proposes a command and waits for what apply says. It is enqueued before this returns.
    pub(crate) fn command(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<ApplyReply, PartitionError>> + Send + use<> {
        let (answer, receiver) = oneshot::channel();
        self.queue.lock().push_command(QueuedCommand { command, answer });
        self.work.notify_one();
        async move { receiver.await.unwrap_or(Err(PartitionError::NotLeaderOrFollower)) }
    }

    /// Bytes of batches that wait for an entry.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.queue.lock().bytes()
    }

    /// Forgets what was refused on a connection that is closed.
    pub fn connection_closed(&self, connection: ConnectionId) {
        self.queue.lock().close(connection);
    }

    /// Asks that a partition be adopted before others.
    pub fn want(&self, partition: PartitionId) {
        let mut wanted = self.wanted.lock();
        if !wanted.contains(&partition) {
            wanted.push(partition);
            self.wanted_changed.notify_one();
        }
    }

    /// Takes what was asked for.
    pub(crate) fn take_wanted(&self) -> Vec<PartitionId> {
        std::mem::take(&mut self.wanted.lock())
    }

    pub(crate) async fn wanted(&self) {
        self.wanted_changed.notified().await;
    }

    /// The shard's time now; none where this replica does not lead.
    #[must_use]
    pub fn time(&self) -> Option<ShardTime> {
        let term = self.leading()?;
        Some(self.clock.time(term, self.applied_clock_ms()))
    }

    /// The shard's time, if expiry may go by it.
    pub(crate) fn clock_for_expiry(&self) -> Option<i64> {
        self.time()?.for_expiry_ms
    }

    /// What the nodes' clocks say of this one's.
    pub(super) fn clock_agreement(&self) -> Agreement {
        self.clock.agreement(self.applied_clock_ms())
    }

    pub(super) fn applied_clock_ms(&self) -> i64 {
        self.machine.state.lock().clock_ms
    }

    /// How long a shard's very first stamp is to wait for word of the other nodes' clocks; none if it is not to.
    fn wait_for_clocks(&self) -> Option<Duration> {
        if self.applied_clock_ms() > 0 || self.clock_agreement() != Agreement::Unknown {
            return None;
        }
        let led_for = self.led_for().unwrap_or_default();
        (led_for < FIRST_STAMP_WAIT).then_some(CLOCKS_PAUSE)
    }

    /// The shard's task: proposes what waits, one entry after the other. Ends when the replica stops.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut role = self.role.clone();
        let mut adopted = self.machine.published.changes();
        let mut led_in = None;
        loop {
            let now_leading = self.leading();
            if now_leading != led_in {
                led_in = now_leading;
                *self.led_since.lock() = now_leading.map(|_| rt::now());
                // Long polls are answered, never dropped, when leadership comes or goes.
                self.machine.published.wake_all();
            }
            if self.role().stopped {
                break;
            }
            let wait = match led_in {
                Some(term) => self.propose_next(term).await,
                None if self.is_elected() => Some(IDLE),
                None => {
                    self.queue.lock().refuse_all(&PartitionError::NotLeaderOrFollower);
                    Some(IDLE)
                }
            };
            let Some(wait) = wait else { continue };
            tokio::select! {
                biased;
                changed = role.changed() => if changed.is_err() { break },
                () = self.work.notified() => {}
                _ = adopted.changed() => {}
                () = rt::sleep(wait) => {}
            }
        }
        self.queue.lock().stop();
        self.machine.published.wake_all();
    }

    /// Proposes one entry; answers how long to wait if there was nothing to propose.
    async fn propose_next(&self, term: Term) -> Option<Duration> {
        if let Some(pause) = self.wait_for_clocks() {
            return Some(pause);
        }
        let command = self.queue.lock().pop_command();
        if let Some(QueuedCommand { command, answer }) = command {
            let applied = self.propose(term, &command, Batches::default()).await;
            let _ = answer.send(applied.map(|(_, reply)| reply).map_err(|error| self.cause(&error)));
            return None;
        }
        let now = rt::now();
        let adopted = |id| self.machine.published.get(id).is_some();
        let seen = |sent: &Sent| self.state().lock().has_seen_all_before(sent);
        let mut packed = self.queue.lock().pack(now, self.batch_bytes_max(), adopted, seen);
        if packed.batches.is_empty() {
            return Some(packed.next_deadline.map_or(IDLE, |deadline| deadline.since(now)));
        }
        let (command, batches) = packed.take_entry();
        let reply = self.propose(term, &command, batches).await;
        self.answer(packed, reply);
        None
    }

    async fn propose(
        &self,
        term: Term,
        command: &Command,
        batches: Batches,
    ) -> Result<(LogId, ApplyReply), ProposeError> {
        if let Command::SetClock { to_ms } = command {
            // Before it is proposed: whatever becomes of it, nothing behind it bears a stamp of before.
            self.clock.set(term, *to_ms);
        }
        let clock_ms = self.clock.stamp(term, self.applied_clock_ms());
        let proposal = Proposal { payload: command.encode(), batches, clock_ms };
        let mut role = self.role.clone();
        let Proposed { log_id, reply } = tokio::select! {
            biased;
            proposed = self.group.propose(proposal) => proposed?,
            // Nobody waits for what may never be decided: it may still come to be, and whoever sent it asks again.
            _ = role.wait_for(|role| !role.ready || role.term != term) => {
                return Err(ProposeError::NotLeader { leader: None });
            }
        };
        let reply = reply.take::<ApplyReply>();
        reply.map(|reply| (log_id, reply)).ok_or_else(|| ProposeError::Stopped("apply gave no answer".into()))
    }

    fn answer(&self, packed: Packed, reply: Result<(LogId, ApplyReply), ProposeError>) {
        match reply {
            Ok((log_id, ApplyReply::Data(outcomes))) if outcomes.len() == packed.batches.len() => {
                let (copies_max, mut waiting) = (self.copies_of(&packed), Vec::new());
                // All answers first: a connection that wakes up finds those of its whole burst.
                for (batch, outcome) in packed.batches.into_iter().zip(outcomes) {
                    if batch.copies > copies_max {
                        copies::answer_later(&*self.group, log_id.index, batch, outcome);
                    } else {
                        waiting.extend(batch.answer.set(Ok(outcome)));
                    }
                }
                waiting.into_iter().for_each(Waker::wake);
            }
            Ok((_, other)) => tracing::error!("shard={}: apply answered {other:?} to data", self.creation.shard),
            Err(error) => {
                let cause = AppendError::from(self.cause(&error));
                let mut queue = self.queue.lock();
                packed.batches.into_iter().for_each(|batch| queue.refuse(batch, cause.clone()));
            }
        }
    }

    /// How many voters have synced what is applied here, at least; asked only for batches that want more than one.
    fn copies_of(&self, packed: &Packed) -> usize {
        match packed.batches.iter().any(|batch| batch.copies > 1) {
            true => self.members().majority(),
            false => 1,
        }
    }

    /// What a failed proposal means to whoever asked.
    fn cause(&self, error: &ProposeError) -> PartitionError {
        tracing::debug!("shard={} replica={}: {error}", self.creation.shard, self.replica);
        let poisoned = self.directory.as_ref().is_some_and(|directory| directory.poisoned().is_some());
        match error {
            ProposeError::Stopped(_) if poisoned => PartitionError::Storage,
            ProposeError::TooLarge(_) => PartitionError::PolicyViolation("the command is too large for one entry"),
            ProposeError::Stopped(_)
            | ProposeError::NotLeader { .. }
            | ProposeError::LeaseExpired
            | ProposeError::Unknown => PartitionError::NotLeaderOrFollower,
        }
    }
}

/// True if partitions of such a shard keep groups.
pub(crate) fn keeps_groups(kind: ShardKind) -> bool {
    kind == ShardKind::ConsumerOffsets
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
