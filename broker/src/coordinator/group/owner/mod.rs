//! The owner of the groups of one led partition of `__consumer_offsets`: one task, from the day leadership comes to the
//! day it goes. It feeds the machines, keeps their time, appends their records and holds answers back until they are
//! true.
//!
//! Live groups (members, or somebody expected) are machines in memory; all others are only in the store. May not know:
//! sockets, wire versions, how leadership is won.

mod command;
mod offsets;
mod settings;
mod slot;
mod sweep;
mod sweeping;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use ottla_protocol::ids::LeaderEpoch;
use ottla_storage::env::critical::Owner as Supervisor;
use ottla_storage::env::{rt, watch};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use uuid::Uuid;

pub(super) use command::{Begun, Command};
pub use command::{Commit, DeletedTopic, Described, Listed, NewOffset};
pub(super) use settings::OwnerSettings;

use super::batch;
use super::classic::{Answer, Group, Input, Now, Output, RequestId, State};
use super::error::GroupError;
use super::guard::Guard;
use super::journal::{Journal, append_refusal};
use super::records::{GUARD_CARRIES_AWAITS_FROM, GroupValue, Record};
use super::store::{GroupStore, StoredGroup};
use command::Asker;
use slot::Slot;
use sweep::Sweep;

/// Requests that may wait for the owner; further ones wait with their connections.
const COMMANDS_MAX: usize = 1_024;

/// Live groups of one partition; requests that would make more are told to try again (I10).
const LIVE_GROUPS_MAX: usize = 100_000;

/// A busy owner sweeps a few groups after this many requests, an idle one without pause.
const ROUNDS_PER_SWEEP_STEP: u64 = 16;

/// What the owner waits for beside commands.
enum Event {
    /// A membership record was applied or not.
    Written { group: Arc<str>, sequence: u64, outcome: Result<(), GroupError> },
    /// These topics do not exist any more.
    Gone(Vec<(Arc<str>, Uuid)>),
    /// Removals of a sweep, whatever became of them.
    Swept,
}

pub(super) struct Owner {
    partition: i32,
    epoch: LeaderEpoch,
    settings: OwnerSettings,
    journal: Arc<dyn Journal>,
    store: Arc<Mutex<GroupStore>>,
    live: BTreeMap<Arc<str>, Slot>,
    deadlines: BTreeSet<(i64, Arc<str>)>,
    askers: BTreeMap<RequestId, Asker>,
    last_request: u64,
    last_sequence: u64,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    sweep: Sweep,
}

fn monotonic_ms() -> i64 {
    rt::now().0 / 1_000_000
}

impl Owner {
    /// Starts an owner. It ends by itself when the epoch does, or when nobody holds the sender any more.
    pub(super) fn start(
        partition: i32,
        epoch: LeaderEpoch,
        settings: OwnerSettings,
        journal: Arc<dyn Journal>,
        store: Arc<Mutex<GroupStore>>,
        supervisor: Supervisor,
    ) -> mpsc::Sender<Command> {
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let owner = Self {
            partition,
            epoch,
            settings,
            journal,
            store,
            live: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            askers: BTreeMap::new(),
            last_request: 0,
            last_sequence: 0,
            events: FuturesUnordered::new(),
            sweep: Sweep::new(monotonic_ms(), settings.sweep_interval_ms),
        };
        rt::spawn_critical("group-coordinator", supervisor, owner.run(commands));
        sender
    }

    /// The present: sessions go by the node's own monotonic clock, what is recorded and expires by the partition's.
    fn now(&self) -> Now {
        let recorded = self.journal.clock(self.partition).map(|clock| clock.now_ms);
        Now { monotonic_ms: monotonic_ms(), wall_ms: recorded.unwrap_or_else(rt::wall_clock_ms) }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut leadership = self.journal.leadership_changes();
        let mut deletions = self.journal.topic_deletions();
        self.load_all();
        let mut rounds = 0_u64;
        while self.still_leads() {
            rounds = rounds.wrapping_add(1);
            // Not left to the selection below: a stream of requests must not keep silent members alive.
            if self.next_deadline_ms() <= monotonic_ms() {
                self.on_time();
            }
            if rounds.is_multiple_of(ROUNDS_PER_SWEEP_STEP) {
                self.sweep_some();
            }
            let wake_at = rt::Instant(self.next_deadline_ms().saturating_mul(1_000_000));
            tokio::select! {
                biased;
                changed = leadership.changed() => {
                    if changed.is_err() { break }
                }
                changed = deletions.changed() => match changed {
                    Ok(()) => self.sweep.hasten(monotonic_ms()),
                    Err(watch::RecvError) => break,
                },
                Some(event) = self.events.next(), if !self.events.is_empty() => self.on_event(event),
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                () = Self::sleep_until(wake_at) => {}
                () = rt::yield_now(), if self.sweep.is_running() => self.sweep_some(),
            }
        }
        self.stop(commands);
    }

    async fn sleep_until(at: rt::Instant) {
        rt::sleep_until(at).await;
    }

    fn still_leads(&self) -> bool {
        self.journal.leader_epoch(self.partition) == Some(self.epoch)
    }

    /// Leadership has gone, or the node stops: whoever waits is sent on.
    fn stop(mut self, mut commands: mpsc::Receiver<Command>) {
        commands.close();
        while let Ok(command) = commands.try_recv() {
            // Dropping the sender inside tells the asker the same.
            drop(command);
        }
        for (_, asker) in std::mem::take(&mut self.askers) {
            asker.refuse(GroupError::NotCoordinator);
        }
        if !self.live.is_empty() {
            let (partition, epoch) = (self.partition, self.epoch.0);
            tracing::info!(partition, epoch, groups = self.live.len(), "groups with members handed over");
        }
    }

    /// Every group with members comes alive, so that members that stay away are noticed.
    fn load_all(&mut self) {
        let stored: Vec<(Arc<str>, Arc<GroupValue>)> = {
            let store = self.store.lock();
            let with_members = |stored: &StoredGroup| stored.membership.clone().filter(|v| !v.members.is_empty());
            store.groups().filter_map(|(id, stored)| Some((id.clone(), with_members(stored)?))).collect()
        };
        if !stored.is_empty() {
            let (partition, epoch) = (self.partition, self.epoch.0);
            tracing::info!(partition, epoch, groups = stored.len(), "groups with members taken over");
        }
        for (group, value) in stored {
            self.load(group, &value);
        }
    }

    fn load(&mut self, group: Arc<str>, value: &GroupValue) {
        let (machine, outputs) = Group::load(self.settings.group, self.now(), value);
        self.live.insert(group.clone(), Slot::new(machine));
        self.carry_out(&group, outputs);
    }

    fn stored_membership(&self, group: &str) -> Option<Arc<GroupValue>> {
        self.store.lock().group(group).and_then(|stored| stored.membership.clone())
    }

    fn exists(&self, group: &str) -> bool {
        self.live.contains_key(group) || self.store.lock().group(group).is_some()
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Join(group, join, asker) => {
                // A member id can only come from a group that exists.
                if !join.member_id.is_empty() && !self.exists(&group) {
                    return Asker::Join(asker).refuse_join(join.member_id, GroupError::UnknownMemberId);
                }
                if !self.live.contains_key(&group) && self.live.len() >= LIVE_GROUPS_MAX {
                    return Asker::Join(asker).refuse_join(join.member_id, GroupError::CoordinatorNotAvailable);
                }
                self.bring_alive(&group);
                self.ask(&group, Asker::Join(asker), |request| Input::Join(request, join));
            }
            Command::Sync(group, sync, asker) => self.ask(&group, Asker::Sync(asker), |r| Input::Sync(r, sync)),
            Command::Heartbeat(group, who, asker) => {
                self.ask(&group, Asker::Heartbeat(asker), |request| Input::Heartbeat(request, who));
            }
            Command::Leave(group, members, asker) => {
                self.ask(&group, Asker::Leave(asker), |request| Input::Leave(request, members));
            }
            Command::Commit(group, commit, asker) => drop(asker.send(self.commit(&group, commit))),
            Command::Delete(group, asker) => drop(asker.send(self.delete(&group))),
            Command::DeleteOffsets(group, topics, asker) => drop(asker.send(self.delete_offsets(&group, topics))),
            Command::Describe(groups, asker) => {
                drop(asker.send(groups.iter().map(|group| self.describe(group)).collect()));
            }
            Command::List(asker) => drop(asker.send(self.list())),
        }
    }

    /// A group without members becomes a machine again, its generation going on from its record.
    fn bring_alive(&mut self, group: &Arc<str>) {
        if self.live.contains_key(group) {
            return;
        }
        let machine = match self.stored_membership(group) {
            Some(value) => Group::load(self.settings.group, self.now(), &value).0,
            None => Group::new(self.settings.group),
        };
        self.live.insert(group.clone(), Slot::new(machine));
    }

    /// Feeds a request to the group's machine.
    fn ask(&mut self, group: &Arc<str>, asker: Asker, input: impl FnOnce(RequestId) -> Input) {
        let now = self.now();
        let Some(slot) = self.live.get_mut(group) else {
            // Nobody is a member of it.
            return asker.refuse(GroupError::UnknownMemberId);
        };
        if slot.failed {
            return asker.refuse(GroupError::CoordinatorNotAvailable);
        }
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.askers.insert(request, asker);
        let input = input(request);
        let outputs = tracing::info_span!("group", id = ?group).in_scope(|| slot.machine.step(now, input));
        self.carry_out(group, outputs);
    }

    /// Does what a machine wants, then sees when it is next needed, or whether it is at all.
    fn carry_out(&mut self, group: &Arc<str>, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Record(value) => self.write_membership(group, value),
                Output::Answer(request, answer) => {
                    let free = match self.live.get_mut(group) {
                        Some(slot) => slot.hold(request, answer),
                        None => Some(answer),
                    };
                    if let Some(answer) = free {
                        self.answer(request, answer);
                    }
                }
            }
        }
        self.settle(group);
    }

    fn answer(&mut self, request: RequestId, answer: Answer) {
        if let Some(asker) = self.askers.remove(&request) {
            asker.answer(answer);
        }
    }

    /// Updates the group's deadline; lets go of a machine that says no more than its record does.
    fn settle(&mut self, group: &Arc<str>) {
        let Some(slot) = self.live.get_mut(group) else { return };
        let idle = slot.machine.is_idle() && !slot.is_writing();
        let wanted = if idle || slot.failed { None } else { slot.machine.next_deadline_ms() };
        let entered = std::mem::replace(&mut slot.deadline_ms, wanted);
        if entered != wanted {
            if let Some(at) = entered {
                self.deadlines.remove(&(at, group.clone()));
            }
            if let Some(at) = wanted {
                self.deadlines.insert((at, group.clone()));
            }
        }
        if idle && !slot.failed {
            self.live.remove(group);
        }
    }

    fn write_membership(&mut self, group: &Arc<str>, mut value: GroupValue) {
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        let in_guard = self.journal.level() >= GUARD_CARRIES_AWAITS_FROM;
        let guard = Guard::Membership {
            group: group.to_string(),
            generation: value.generation,
            awaits_assignment: in_guard && value.awaits_assignment,
        };
        value.awaits_assignment &= !in_guard;
        let record = Record::Group { group: group.to_string(), value: Some(value) };
        let batches = batch::build(&[record], self.now().wall_ms);
        let appends: Vec<_> =
            batches.into_iter().map(|batch| self.journal.append(self.partition, batch, guard.encode())).collect();
        if let Some(slot) = self.live.get_mut(group) {
            slot.begin(sequence);
        }
        let group = group.clone();
        self.events.push(Box::pin(async move {
            let outcome = wait_for_all(appends).await;
            Event::Written { group, sequence, outcome }
        }));
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Written { group, sequence, outcome: Ok(()) } => {
                let Some(slot) = self.live.get_mut(&group) else { return };
                let free = slot.applied(sequence);
                for (request, answer) in free {
                    self.answer(request, answer);
                }
                self.after_write(&group);
            }
            Event::Written { group, sequence, outcome: Err(error) } => self.on_write_failure(&group, sequence, error),
            Event::Gone(topics) => {
                let expiry_ms = self.journal.clock(self.partition).and_then(|clock| clock.for_expiry_ms);
                self.sweep.begin(self.now(), topics, self.settings, expiry_ms);
            }
            Event::Swept => {}
        }
    }

    /// What was to be true is not: everybody who was told, or waits, is told to try again, and the machine is
    /// rebuilt from what is recorded.
    fn on_write_failure(&mut self, group: &Arc<str>, sequence: u64, error: GroupError) {
        tracing::warn!(group = ?group, %error, "membership could not be written; the group starts over from its last record");
        // A batch that is too large will not be smaller the next time: a final error stops the client.
        let error = if error == GroupError::CommitTooLarge { GroupError::Internal } else { error };
        let Some(slot) = self.live.get_mut(group) else { return };
        let held = slot.fail(sequence);
        let parked = slot.machine.unload(error);
        for request in held {
            if let Some(asker) = self.askers.remove(&request) {
                asker.refuse(error);
            }
        }
        for output in parked {
            if let Output::Answer(request, answer) = output {
                self.answer(request, answer);
            }
        }
        self.after_write(group);
    }

    fn after_write(&mut self, group: &Arc<str>) {
        let start_over = self.live.get(group).is_some_and(|slot| slot.failed && !slot.is_writing());
        if start_over {
            self.settle(group);
            self.live.remove(group);
            if let Some(value) = self.stored_membership(group).filter(|value| !value.members.is_empty()) {
                self.load(group.clone(), &value);
            }
        } else {
            self.settle(group);
        }
    }

    fn next_deadline_ms(&self) -> i64 {
        let group = self.deadlines.first().map_or(i64::MAX, |(at, _)| *at);
        group.min(self.sweep.next_ms())
    }

    fn on_time(&mut self) {
        let now = self.now();
        while let Some((at, group)) = self.deadlines.first().cloned() {
            if at > now.monotonic_ms {
                break;
            }
            self.deadlines.pop_first();
            let Some(slot) = self.live.get_mut(&group) else { continue };
            slot.deadline_ms = None;
            let span = tracing::info_span!("group", id = ?group);
            let outputs = span.in_scope(|| slot.machine.step(now, Input::Tick));
            self.carry_out(&group, outputs);
        }
        if self.sweep.next_ms() <= now.monotonic_ms {
            self.begin_sweep();
        }
    }

    fn describe(&self, group: &str) -> Option<Described> {
        let (state, value) = match self.live.get(group) {
            Some(slot) => (slot.machine.state(), slot.machine.to_value()),
            None => {
                let store = self.store.lock();
                let stored = store.group(group)?;
                let nothing = || Described {
                    state: State::Empty,
                    protocol_type: String::new(),
                    protocol: String::new(),
                    members: Vec::new(),
                };
                let Some(value) = stored.membership.as_deref() else { return Some(nothing()) };
                (State::Empty, value.clone())
            }
        };
        let stable = state == State::Stable;
        let mut members = value.members;
        if !stable {
            for member in &mut members {
                member.subscription.clear();
                member.assignment.clear();
            }
        }
        let protocol = value.protocol.filter(|_| stable).unwrap_or_default();
        Some(Described { state, protocol_type: value.protocol_type, protocol, members })
    }

    fn list(&self) -> Vec<Listed> {
        let live = self.live.iter().map(|(group, slot)| Listed {
            group: group.clone(),
            protocol_type: slot.machine.protocol_type().unwrap_or_default().to_string(),
            state: slot.machine.state(),
        });
        let mut listed: Vec<Listed> = live.collect();
        let store = self.store.lock();
        let idle = store.groups().filter(|(group, _)| !self.live.contains_key(*group));
        listed.extend(idle.map(|(group, stored)| Listed {
            group: group.clone(),
            protocol_type: stored.membership.as_ref().map(|v| v.protocol_type.clone()).unwrap_or_default(),
            state: State::Empty,
        }));
        listed
    }
}

/// Waits for all; the first failure speaks for all.
pub(super) async fn wait_for_all(appends: Vec<super::journal::AppendFuture>) -> Result<(), GroupError> {
    let outcomes = futures_util::future::join_all(appends).await;
    outcomes.into_iter().collect::<Result<Vec<()>, _>>().map(drop).map_err(|error| append_refusal(&error))
}

impl Asker {
    /// A join keeps the id that the client knows.
    fn refuse_join(self, member_id: String, error: GroupError) {
        use super::classic::JoinAnswer;
        match self {
            Self::Join(asker) => drop(asker.send(JoinAnswer { member_id, outcome: Err(error) })),
            other => other.refuse(error),
        }
    }
}
