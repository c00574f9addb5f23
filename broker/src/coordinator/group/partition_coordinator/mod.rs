//! The coordinator of the groups of one led partition of `__consumer_offsets`: one task, from the start of this node's
//! leadership to its end. It steps the groups' state machines, keeps their deadlines, appends their records, and holds
//! an answer back until the record that it depends on is applied.
//!
//! Live groups (with members, or with requests that wait) are state machines in memory; all others are only in the
//! store. May not know: sockets, wire versions, how leadership is won.

mod command;
mod expiration;
mod expiration_schedule;
mod live_group;
mod offsets;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use ottla_env::critical::Owner;
use ottla_env::{rt, watch};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use uuid::Uuid;

pub(super) use command::{Command, PendingAppends};
pub use command::{Commit, CommitTransaction, DeletedTopic, Described, Listed, NewOffset};
pub(super) use settings::CoordinatorSettings;

use super::classic::{Answer, Group, Input, Now, Output, RequestId, State};
use super::coordinator_log::{CoordinatorLog, append_refusal};
use super::error::GroupError;
use crate::coordinator::topic_log::{AppendFuture, Leadership};
use crate::replicated::group::guard::Guard;
use crate::replicated::group::records::{GUARD_CARRIES_AWAITS_FROM, GroupValue, Record};
use crate::replicated::group::store::{GroupStore, StoredGroup};
use command::PendingReply;
use expiration_schedule::ExpirationSchedule;
use live_group::LiveGroup;

/// Commands that may wait for the coordinator; further ones wait with their connections.
const COMMANDS_MAX: usize = 1_024;

/// Live groups of one partition; a request that would add one is answered COORDINATOR_NOT_AVAILABLE (I10).
const LIVE_GROUPS_MAX: usize = 100_000;

/// A busy coordinator checks a few groups for expiration after this many requests, an idle one without pause.
const ROUNDS_PER_EXPIRATION_STEP: u64 = 16;

/// What the coordinator waits for beside commands.
enum Event {
    /// A membership record was applied, or could not be.
    Written { group: Arc<str>, sequence: u64, outcome: Result<(), GroupError> },
    /// These topics are deleted.
    TopicsDeleted(Vec<(Arc<str>, Uuid)>),
    /// Tombstones of an expiration round were applied, or could not be.
    ExpirationWritten,
}

pub(super) struct PartitionCoordinator {
    partition: i32,
    leadership: Leadership,
    settings: CoordinatorSettings,
    log: Arc<dyn CoordinatorLog>,
    store: Arc<Mutex<GroupStore>>,
    live: BTreeMap<Arc<str>, LiveGroup>,
    deadlines: BTreeSet<(i64, Arc<str>)>,
    pending_replies: BTreeMap<RequestId, PendingReply>,
    last_request: u64,
    last_sequence: u64,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    expiration: ExpirationSchedule,
}

fn monotonic_ms() -> i64 {
    rt::now().0 / 1_000_000
}

impl PartitionCoordinator {
    /// Starts a coordinator. It ends by itself when the epoch ends, when the topic is deleted, or when the last sender is dropped.
    pub(super) fn start(
        partition: i32,
        leadership: Leadership,
        settings: CoordinatorSettings,
        log: Arc<dyn CoordinatorLog>,
        store: Arc<Mutex<GroupStore>>,
        task_owner: Owner,
    ) -> mpsc::Sender<Command> {
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let coordinator = Self {
            partition,
            leadership,
            settings,
            log,
            store,
            live: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            pending_replies: BTreeMap::new(),
            last_request: 0,
            last_sequence: 0,
            events: FuturesUnordered::new(),
            expiration: ExpirationSchedule::new(monotonic_ms(), settings.expiration_interval_ms),
        };
        rt::spawn_critical("group-coordinator", task_owner, coordinator.run(commands));
        sender
    }

    /// The time now: sessions use the node's monotonic clock, records and their expiration the partition's clock.
    fn now(&self) -> Now {
        let recorded = self.log.topic().clock(self.partition).map(|clock| clock.now_ms);
        Now { monotonic_ms: monotonic_ms(), wall_ms: recorded.unwrap_or_else(rt::wall_clock_ms) }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut leadership = self.log.topic().leadership_changes();
        let mut deletions = self.log.topic_deletions();
        self.load_all();
        let mut rounds = 0_u64;
        while self.still_leads() {
            rounds = rounds.wrapping_add(1);
            // Checked before the selection below: a stream of requests must not keep silent members alive.
            if self.next_deadline_ms() <= monotonic_ms() {
                self.on_deadline();
            }
            if rounds.is_multiple_of(ROUNDS_PER_EXPIRATION_STEP) {
                self.expire_some();
            }
            let wake_at = rt::Instant(self.next_deadline_ms().saturating_mul(1_000_000));
            tokio::select! {
                biased;
                changed = leadership.changed() => {
                    if changed.is_err() { break }
                }
                changed = deletions.changed() => match changed {
                    Ok(()) => self.expiration.schedule_topic_check(monotonic_ms()),
                    Err(watch::RecvError) => break,
                },
                Some(event) = self.events.next(), if !self.events.is_empty() => self.on_event(event),
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                () = Self::sleep_until(wake_at) => {}
                () = rt::yield_now(), if self.expiration.is_running() => self.expire_some(),
            }
        }
        self.stop(commands);
    }

    async fn sleep_until(at: rt::Instant) {
        rt::sleep_until(at).await;
    }

    fn still_leads(&self) -> bool {
        self.log.topic().leadership(self.partition) == Some(self.leadership)
    }

    /// Leadership has gone, or the node stops: pending requests are answered NOT_COORDINATOR.
    fn stop(mut self, mut commands: mpsc::Receiver<Command>) {
        commands.close();
        while let Ok(command) = commands.try_recv() {
            // Dropping the sender inside answers the caller likewise.
            drop(command);
        }
        for (_, reply) in std::mem::take(&mut self.pending_replies) {
            reply.refuse(GroupError::NotCoordinator);
        }
        if !self.live.is_empty() {
            let (partition, epoch) = (self.partition, self.leadership.epoch.0);
            tracing::info!(partition, epoch, groups = self.live.len(), "groups with members handed over");
        }
    }

    /// Loads every group with members, so that members that send no heartbeat are noticed.
    fn load_all(&mut self) {
        let stored: Vec<(Arc<str>, Arc<GroupValue>)> = {
            let store = self.store.lock();
            let with_members = |stored: &StoredGroup| stored.membership.clone().filter(|v| !v.members.is_empty());
            store.groups().filter_map(|(id, stored)| Some((id.clone(), with_members(stored)?))).collect()
        };
        if !stored.is_empty() {
            let (partition, epoch) = (self.partition, self.leadership.epoch.0);
            tracing::info!(partition, epoch, groups = stored.len(), "groups with members taken over");
        }
        for (group, value) in stored {
            self.load(group, &value);
        }
    }

    fn load(&mut self, group: Arc<str>, value: &GroupValue) {
        let (machine, outputs) = Group::load(self.settings.group, self.now(), value);
        self.live.insert(group.clone(), LiveGroup::new(machine));
        self.handle_outputs(&group, outputs);
    }

    fn stored_membership(&self, group: &str) -> Option<Arc<GroupValue>> {
        self.store.lock().group(group).and_then(|stored| stored.membership.clone())
    }

    fn exists(&self, group: &str) -> bool {
        self.live.contains_key(group) || self.store.lock().group(group).is_some()
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Join(group, join, reply) => {
                // A member id can only come from a group that exists.
                if !join.member_id.is_empty() && !self.exists(&group) {
                    return PendingReply::Join(reply).refuse_join(join.member_id, GroupError::UnknownMemberId);
                }
                if !self.live.contains_key(&group) && self.live.len() >= LIVE_GROUPS_MAX {
                    return PendingReply::Join(reply).refuse_join(join.member_id, GroupError::CoordinatorNotAvailable);
                }
                self.activate(&group);
                self.step_group(&group, PendingReply::Join(reply), |request| Input::Join(request, join));
            }
            Command::Sync(group, sync, reply) => {
                self.step_group(&group, PendingReply::Sync(reply), |r| Input::Sync(r, sync))
            }
            Command::Heartbeat(group, who, reply) => {
                self.step_group(&group, PendingReply::Heartbeat(reply), |request| Input::Heartbeat(request, who));
            }
            Command::Leave(group, members, reply) => {
                self.step_group(&group, PendingReply::Leave(reply), |request| Input::Leave(request, members));
            }
            Command::Commit(group, commit, reply) => drop(reply.send(self.commit(&group, commit))),
            Command::Delete(group, reply) => drop(reply.send(self.delete(&group))),
            Command::DeleteOffsets(group, topics, reply) => drop(reply.send(self.delete_offsets(&group, topics))),
            Command::Describe(groups, reply) => {
                drop(reply.send(groups.iter().map(|group| self.describe(group)).collect()));
            }
            Command::List(reply) => drop(reply.send(self.list())),
        }
    }

    /// Makes a group live; its generation continues from its record.
    fn activate(&mut self, group: &Arc<str>) {
        if self.live.contains_key(group) {
            return;
        }
        let machine = match self.stored_membership(group) {
            Some(value) => Group::load(self.settings.group, self.now(), &value).0,
            None => Group::new(self.settings.group),
        };
        self.live.insert(group.clone(), LiveGroup::new(machine));
    }

    /// Steps the group's state machine with a request.
    fn step_group(&mut self, group: &Arc<str>, reply: PendingReply, input: impl FnOnce(RequestId) -> Input) {
        let now = self.now();
        let Some(live) = self.live.get_mut(group) else {
            // The group has no members.
            return reply.refuse(GroupError::UnknownMemberId);
        };
        if live.failed {
            return reply.refuse(GroupError::CoordinatorNotAvailable);
        }
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.pending_replies.insert(request, reply);
        let input = input(request);
        let outputs = tracing::info_span!("group", id = ?group).in_scope(|| live.machine.step(now, input));
        self.handle_outputs(group, outputs);
    }

    /// Carries out the outputs of a state machine, then updates its deadline or drops it.
    fn handle_outputs(&mut self, group: &Arc<str>, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Record(value) => self.write_membership(group, value),
                Output::Answer(request, answer) => {
                    let free = match self.live.get_mut(group) {
                        Some(live) => live.hold(request, answer),
                        None => Some(answer),
                    };
                    if let Some(answer) = free {
                        self.answer(request, answer);
                    }
                }
            }
        }
        self.reschedule(group);
    }

    fn answer(&mut self, request: RequestId, answer: Answer) {
        if let Some(reply) = self.pending_replies.remove(&request) {
            reply.answer(answer);
        }
    }

    /// Updates the group's deadline; drops a state machine that holds no more than its record does.
    fn reschedule(&mut self, group: &Arc<str>) {
        let Some(live) = self.live.get_mut(group) else { return };
        let idle = live.machine.is_idle() && !live.is_writing();
        let wanted = if idle || live.failed { None } else { live.machine.next_deadline_ms() };
        let entered = std::mem::replace(&mut live.deadline_ms, wanted);
        if entered != wanted {
            if let Some(at) = entered {
                self.deadlines.remove(&(at, group.clone()));
            }
            if let Some(at) = wanted {
                self.deadlines.insert((at, group.clone()));
            }
        }
        if idle && !live.failed {
            self.live.remove(group);
        }
    }

    fn write_membership(&mut self, group: &Arc<str>, mut value: GroupValue) {
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        let in_guard = self.log.level() >= GUARD_CARRIES_AWAITS_FROM;
        let guard = Guard::Membership {
            group: group.to_string(),
            generation: value.generation,
            awaits_assignment: in_guard && value.awaits_assignment,
        };
        value.awaits_assignment &= !in_guard;
        let record = Record::Group { group: group.to_string(), value: Some(value) };
        let appends = self.append_all(&[record], self.now().wall_ms, &guard, None);
        if let Some(live) = self.live.get_mut(group) {
            live.begin(sequence);
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
                let Some(live) = self.live.get_mut(&group) else { return };
                let free = live.applied(sequence);
                for (request, answer) in free {
                    self.answer(request, answer);
                }
                self.after_write(&group);
            }
            Event::Written { group, sequence, outcome: Err(error) } => self.on_write_failure(&group, sequence, error),
            Event::TopicsDeleted(topics) => {
                let expiry_ms = self.log.topic().clock(self.partition).and_then(|clock| clock.for_expiry_ms);
                self.expiration.begin(self.now(), topics, self.settings, expiry_ms);
            }
            Event::ExpirationWritten => {}
        }
    }

    /// A record could not be written: every request whose answer depends on it, or that waits, is answered with a
    /// retriable error, and the state machine is rebuilt from what is recorded.
    fn on_write_failure(&mut self, group: &Arc<str>, sequence: u64, error: GroupError) {
        tracing::warn!(group = ?group, %error, "membership could not be written; the group starts over from its last record");
        // A batch that is too large will not be smaller the next time: a final error stops the client.
        let error = if error == GroupError::CommitTooLarge { GroupError::Internal } else { error };
        let Some(live) = self.live.get_mut(group) else { return };
        let held = live.fail(sequence);
        let parked = live.machine.unload(error);
        for request in held {
            if let Some(reply) = self.pending_replies.remove(&request) {
                reply.refuse(error);
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
        let start_over = self.live.get(group).is_some_and(|live| live.failed && !live.is_writing());
        if start_over {
            self.reschedule(group);
            self.live.remove(group);
            if let Some(value) = self.stored_membership(group).filter(|value| !value.members.is_empty()) {
                self.load(group.clone(), &value);
            }
        } else {
            self.reschedule(group);
        }
    }

    fn next_deadline_ms(&self) -> i64 {
        let group = self.deadlines.first().map_or(i64::MAX, |(at, _)| *at);
        group.min(self.expiration.next_ms())
    }

    fn on_deadline(&mut self) {
        let now = self.now();
        while let Some((at, group)) = self.deadlines.first().cloned() {
            if at > now.monotonic_ms {
                break;
            }
            self.deadlines.pop_first();
            let Some(live) = self.live.get_mut(&group) else { continue };
            live.deadline_ms = None;
            let span = tracing::info_span!("group", id = ?group);
            let outputs = span.in_scope(|| live.machine.step(now, Input::Tick));
            self.handle_outputs(&group, outputs);
        }
        if self.expiration.next_ms() <= now.monotonic_ms {
            self.begin_expiration();
        }
    }

    fn describe(&self, group: &str) -> Option<Described> {
        let (state, value) = match self.live.get(group) {
            Some(live) => (live.machine.state(), live.machine.to_value()),
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
        let live = self.live.iter().map(|(group, live)| Listed {
            group: group.clone(),
            protocol_type: live.machine.protocol_type().unwrap_or_default().to_string(),
            state: live.machine.state(),
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

/// Waits for all appends; fails with the first failure.
pub(super) async fn wait_for_all(appends: Vec<AppendFuture>) -> Result<(), GroupError> {
    let outcomes = futures_util::future::join_all(appends).await;
    outcomes.into_iter().collect::<Result<Vec<()>, _>>().map(drop).map_err(|error| append_refusal(&error))
}

impl PendingReply {
    /// Refuses a join with the member id that the client sent.
    fn refuse_join(self, member_id: String, error: GroupError) {
        use super::classic::JoinAnswer;
        match self {
            Self::Join(reply) => drop(reply.send(JoinAnswer { member_id, outcome: Err(error) })),
            other => other.refuse(error),
        }
    }
}
