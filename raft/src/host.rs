//! All replicas of a node: created, opened, found by id, stopped.
//!
//! May not know: which shards there should be.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_env::mutants::{self, Bug};
use ottla_env::watch;
use ottla_storage::data_dir::RecoveredReplica;
use ottla_storage::entry::EntryKind;
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId};
use ottla_storage::log::{EntryRange, GroupCreation};
use parking_lot::Mutex;

use crate::applier::InitialState;
use crate::checksum_points::CHECKSUM_FORMAT;
use crate::directory::{Directory, EntryLog};
use crate::error::{Failure, RaftError};
use crate::failure_detector::FailureDetector;
use crate::group::{Group, Start};
use crate::handle::GroupHandle;
use crate::membership::{Creation, Membership};
use crate::net::{Message, MessageHandler, Network, NoResponse, Priority};
use crate::openraft_types::{StoredMembership, decode_stored_membership, from_raft_membership};
use crate::options::RaftOptions;
use crate::resize;
use crate::state_machine::StateMachine;
use crate::transport::dispatch;

/// How far the term of a message may lie ahead: a replica that took a greater one from a stranger would burn the terms
/// that leader epochs have, and no cluster elects a million leaders while one of its members is away.
const TERM_STEP_MAX: u64 = 1 << 20;

/// Bytes of entries read at once while looking for memberships.
const MEMBERSHIP_READ_BYTES: usize = 4 << 20;

/// The membership in force at the end of the log.
pub(crate) async fn latest_membership(
    log: &dyn EntryLog,
    applied: Option<LogId>,
    stored: &StoredMembership,
    first: &Membership,
) -> io::Result<Membership> {
    let stored = from_raft_membership(stored.membership());
    let mut newest = if stored.voters.is_empty() { first.clone() } else { stored };
    let Some(last) = log.last_log_id() else { return Ok(newest) };
    let mut next = applied.max(log.purged()).map_or(0, |id| id.index.0 + 1);
    if next == 0 && log.log_id(RaftIndex(0)).is_none() {
        next = 1;
    }
    while next <= last.index.0 {
        let range = EntryRange { first: RaftIndex(next), last: last.index };
        let part = log.read_to_apply(range, MEMBERSHIP_READ_BYTES).await?;
        let Some(end) = part.last().map(|entry| entry.log_id.index.0 + 1) else { break };
        for entry in part.into_iter().filter(|entry| entry.kind == EntryKind::Membership) {
            let what = || io::Error::new(io::ErrorKind::InvalidData, format!("entry {}: its members", entry.log_id));
            newest = Membership::decode(entry.payload.clone()).ok_or_else(what)?;
        }
        next = end;
    }
    Ok(newest)
}

/// Answers requests sent to a replica here, given the sending replica; `None`: no response, as if the request were
/// lost.
pub type Service = Arc<dyn Fn(ReplicaId, Bytes) -> BoxFuture<'static, Option<Bytes>> + Send + Sync>;

pub(crate) struct Inner {
    network: Arc<dyn Network>,
    options: RaftOptions,
    services: Mutex<BTreeMap<ReplicaId, Service>>,
    groups: Mutex<BTreeMap<ReplicaId, Arc<Group>>>,
    failures: watch::Sender<BTreeMap<ReplicaId, Failure>>,
    pub(crate) failure_detector: FailureDetector,
}

/// All replicas of a node; cheap to clone.
#[derive(Clone)]
pub struct RaftHost(pub(crate) Arc<Inner>);

/// A weak reference to a host.
#[derive(Clone)]
pub struct WeakHost(Weak<Inner>);

impl WeakHost {
    /// The host, if it still exists.
    #[must_use]
    pub fn upgrade(&self) -> Option<RaftHost> {
        self.0.upgrade().map(RaftHost)
    }
}

impl RaftHost {
    /// A host without replicas.
    #[must_use]
    pub fn new(network: Arc<dyn Network>, options: RaftOptions) -> Self {
        let failures = watch::Sender::new(BTreeMap::new());
        let (services, groups, failure_detector) = Default::default();
        RaftHost(Arc::new(Inner { network, options, services, groups, failures, failure_detector }))
    }

    /// Creates a replica of a new group in `directory` and starts it. `shard` is stored for the shard and returned as
    /// [`Creation::shard`] of a recovered replica. A sole voter campaigns at once.
    pub async fn create(
        &self,
        directory: Arc<dyn Directory>,
        replica: ReplicaId,
        shard: Bytes,
        members: Membership,
        state_machine: Box<dyn StateMachine>,
    ) -> Result<GroupHandle, RaftError> {
        let creation = Creation { members, shard, seed: None };
        let payload = creation.encode();
        let group = GroupCreation { replica, payload, vote: None, purged: None };
        let log = directory.create_replica(group).await.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => RaftError::Exists(replica),
            _ => RaftError::Storage { replica, what: e.to_string() },
        })?;
        self.start(directory, log, InitialState::default(), creation.members, state_machine).await
    }

    /// Starts a recovered replica. `state_machine` already holds `recovered.state`; entries after `recovered.applied`
    /// are applied again. `splits_at`: the last entry at which a child was split off that has no state yet, which proves that
    /// the entry is committed.
    pub async fn open(
        &self,
        directory: Arc<dyn Directory>,
        recovered: &RecoveredReplica,
        splits_at: Option<LogId>,
        mut state_machine: Box<dyn StateMachine>,
    ) -> Result<GroupHandle, RaftError> {
        let replica = recovered.id;
        let damaged = |what: &str| RaftError::Damaged { replica, what: what.to_owned() };
        if let Some(what) = &recovered.lost
            && !mutants::is_on(Bug::LostReplicaVotes)
        {
            // I11: it takes part in no quorum until it is a new member.
            return Err(damaged(&format!("it may have lost what it acknowledged ({what}) and must not take part")));
        }
        if let Some(split) = recovered.unseeded {
            return Err(damaged(&format!("it is the child of a split at entry {split}, and has no state yet")));
        }
        let creation = Creation::decode(recovered.creation.clone()).ok_or_else(|| damaged("its creation"))?;
        let membership = decode_stored_membership(recovered.membership.clone());
        let membership = membership.ok_or_else(|| damaged("its membership in the checkpoint"))?;
        let log = directory.replica_log(replica).ok_or_else(|| damaged("it has no log"))?;
        let unapplied = |id: &&LogId| Some(**id) > recovered.applied && state_machine.needs_records();
        let unusable = recovered.damaged.iter().find(unapplied).copied();
        if let Some(entry) = recovered.damaged_unproven.or(unusable) {
            let members = latest_membership(&*log, recovered.applied, &membership, &creation.members).await;
            let members = members.map_err(|e| RaftError::Storage { replica, what: e.to_string() })?;
            if !members.is_sole_voter(replica) {
                return Err(damaged(&format!(
                    "the records of entry {entry} are damaged; it may have acknowledged them, or cannot apply them, and must not take part; replace it"
                )));
            }
        }
        let damaged = recovered.damaged.iter().map(|id| id.index).max();
        // Applied at once, if they are known to be committed:
        // - a damaged entry: only then can a checkpoint contain it, so that it need not be sent to other members;
        // - what no checkpoint contains: until it is applied the whole directory writes none, and this shard may find no
        //   majority that tells what is committed;
        // - an entry that has split off a child without a state: only its parent can give it one.
        let at_once = damaged.is_some() || recovered.applied.is_none();
        let committed = Some(recovered.committed).filter(|_| at_once).and_then(|index| log.log_id(index));
        let committed = committed.max(recovered.applied).max(splits_at);
        let committed = resize::before_merge(&*log, &mut *state_machine, recovered.applied, committed).await;
        let committed = committed.map_err(|e| RaftError::Storage { replica, what: e.to_string() })?;
        let initial = InitialState { applied: recovered.applied, committed, membership, damaged };
        self.start(directory, log, initial, creation.members, state_machine).await
    }

    pub(crate) async fn start(
        &self,
        directory: Arc<dyn Directory>,
        log: Arc<dyn EntryLog>,
        initial: InitialState,
        initial_membership: Membership,
        state_machine: Box<dyn StateMachine>,
    ) -> Result<GroupHandle, RaftError> {
        let replica = log.id();
        if self.group(replica).is_some() {
            return Err(RaftError::Exists(replica));
        }
        let weak = Arc::downgrade(&self.0);
        let on_failure = Arc::new(move |replica, failure| {
            if let Some(inner) = weak.upgrade() {
                inner.failures.send_modify(|failures| {
                    failures.insert(replica, failure);
                });
            }
        });
        let network = self.0.network.clone();
        let options = self.0.options.clone();
        let start = Start { directory, log, initial, initial_membership, state_machine, network, options, on_failure };
        let group = Group::start(start).await?;
        self.0.groups.lock().insert(replica, group.clone());
        Ok(GroupHandle(group))
    }

    /// A replica that runs here.
    #[must_use]
    pub fn group(&self, replica: ReplicaId) -> Option<GroupHandle> {
        self.0.groups.lock().get(&replica).cloned().map(GroupHandle)
    }

    /// All replicas that run here.
    pub(crate) fn groups(&self) -> Vec<GroupHandle> {
        self.0.groups.lock().values().cloned().map(GroupHandle).collect()
    }

    /// The number of replicas here by role: `leader`, `follower`, `learner` (not a voter, or not yet), `stopped`.
    #[must_use]
    pub fn roles(&self) -> BTreeMap<&'static str, usize> {
        let mut roles = BTreeMap::from(["leader", "follower", "learner", "stopped"].map(|role| (role, 0)));
        for GroupHandle(group) in self.groups() {
            let role = group.role();
            let name = match role.leader {
                _ if role.stopped => "stopped",
                _ if !group.members().is_voter(group.replica) => "learner",
                Some(leader) if leader == group.replica => "leader",
                _ => "follower",
            };
            *roles.entry(name).or_default() += 1;
        }
        roles
    }

    /// A weak reference to this host.
    #[must_use]
    pub fn downgrade(&self) -> WeakHost {
        WeakHost(Arc::downgrade(&self.0))
    }

    /// Replicas that stopped by themselves, with the reason.
    #[must_use]
    pub fn failures(&self) -> watch::Receiver<BTreeMap<ReplicaId, Failure>> {
        self.0.failures.subscribe()
    }

    /// Registers `service` for requests sent to `replica`. It should not keep the host alive.
    pub fn serve(&self, replica: ReplicaId, service: Service) {
        self.0.services.lock().insert(replica, service);
    }

    /// Sends a request to the service that another node has registered for a replica ([`Self::serve`]). Without a
    /// response it is unknown whether the request was acted upon.
    pub async fn request(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        payload: Bytes,
        priority: Priority,
        timeout: Duration,
    ) -> Result<Bytes, NoResponse> {
        match self.0.network.call(from, to, Message::Request(payload), priority, timeout).await? {
            Message::Response(response) => Ok(response),
            _ => Err(NoResponse("not a response to a request".to_owned())),
        }
    }

    /// Handles a message from another node. A message for a replica that is not here is dropped: it never creates one.
    async fn handle(&self, from: ReplicaId, to: ReplicaId, message: Message) -> Result<Message, NoResponse> {
        if let Message::Request(request) = message {
            let service = self.0.services.lock().get(&to).cloned();
            let Some(service) = service else {
                return Err(NoResponse(format!("no service is registered for replica {to} here")));
            };
            let response = service(from, request).await;
            return response
                .map(Message::Response)
                .ok_or_else(|| NoResponse("the service gave no response".to_owned()));
        }
        let Some(GroupHandle(group)) = self.group(to) else {
            return Err(NoResponse(format!("replica {to} is not here")));
        };
        if let Some(vote) = message.vote()
            && vote.term.0 > group.role().term.0.saturating_add(TERM_STEP_MAX)
        {
            tracing::error!(replica = to.0, from = from.0, term = vote.term.0, "a message from a term that cannot be");
            return Err(NoResponse(format!("term {} is too far ahead of replica {to}", vote.term.0)));
        }
        group.touch();
        match message {
            Message::InstallSnapshot { vote, last_included } => Ok(group.install_snapshot(from, vote, last_included)),
            Message::FetchState { resume } => group.serve_state(resume).await,
            Message::FetchWholeState => group.serve_whole_state().await,
            Message::CheckState { index, format } => {
                let checksum = group.applier.checksum_at(index).filter(|_| format == CHECKSUM_FORMAT);
                Ok(Message::CheckStateResponse(checksum))
            }
            Message::FetchBatches { partition, from, up_to, bytes_max } => {
                group.serve_batches(partition, from, up_to, bytes_max).await
            }
            Message::RequestVote { pre_vote: true, vote, last_log_id, leadership_transfer: true } => {
                Ok(group.pre_vote_for_failed_leader(from, vote, last_log_id))
            }
            // The log keeps room for what frees space: votes, truncations, verdicts, and the commands of the metadata and of
            // shards. The leader sends the records again, and counts this replica as not in sync meanwhile.
            Message::AppendEntries { ref entries, .. }
                if entries.iter().any(|entry| !entry.batches.is_empty()) && !group.directory.accepts_replicated() =>
            {
                Err(NoResponse(format!("the disk of replica {to} is full")))
            }
            message => {
                let leader_vote = match &message {
                    Message::AppendEntries { vote, .. } => Some((vote.term, vote.voted_for)),
                    _ => None,
                };
                let is_append = leader_vote.is_some();
                // It is answered when it is durable: a disk that stalls must not make the leader look silent.
                let known = group.log.vote().map(|vote| (vote.term, vote.voted_for));
                if is_append
                    && leader_vote == known
                    && !group.role().stopped
                    && !mutants::is_on(Bug::StalledFollowerSuspects)
                {
                    group.note_leader_contact();
                }
                let response = dispatch(&group.raft, message).await;
                if is_append && !matches!(response, Ok(Message::HigherVote(_)) | Err(_)) {
                    group.note_leader_contact();
                }
                response
            }
        }
    }

    /// Stops one replica and forgets it; its state stays on disk.
    pub async fn close(&self, replica: ReplicaId) {
        let group = self.0.groups.lock().remove(&replica);
        if let Some(group) = group {
            group.shutdown().await;
        }
    }

    /// Stops all replicas; nothing is applied afterwards. A last checkpoint can still read their state until the host
    /// is dropped.
    pub async fn shutdown(&self) {
        let groups: Vec<_> = self.0.groups.lock().values().cloned().collect();
        futures_util::future::join_all(groups.iter().map(|group| group.shutdown())).await;
    }
}

impl MessageHandler for RaftHost {
    fn deliver(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        request: Message,
    ) -> BoxFuture<'static, Result<Message, NoResponse>> {
        let host = self.clone();
        Box::pin(async move { host.handle(from, to, request).await })
    }
}
