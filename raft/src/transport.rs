//! openraft's network over our transport, both directions: requests sent, requests received.
//!
//! May not know: sockets, and what entries mean.

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered};
use futures_util::{FutureExt, Stream, StreamExt};
use openraft::AnyError;
use openraft::EmptyNode;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_storage::entry::Vote;
use ottla_storage::ids::{LogId, ReplicaId};

use crate::append_pipeline::{AppendPipeline, Outcome};
use crate::damage::Damage;
use crate::net::{Message, Network, NoResponse, Priority};
use crate::openraft_adapter::{Snapshot, StateMachineAdapter};
use crate::openraft_types::{
    LogEntry, RaftVote, TypeConfig, from_raft_log_id, from_raft_vote, to_raft_log_id, to_raft_vote,
};
use crate::role::RoleTracker;

/// Creates the transport to each member of a group.
pub(crate) struct TransportFactory {
    pub(crate) from: ReplicaId,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) damage: Arc<Damage>,
    pub(crate) role_tracker: Arc<RoleTracker>,
    /// The heartbeat interval.
    pub(crate) heartbeat: Duration,
}

impl TransportFactory {
    fn transport(&self, target: u64, heartbeat: Option<Duration>) -> Transport {
        let (network, damage, role_tracker) = (self.network.clone(), self.damage.clone(), self.role_tracker.clone());
        Transport { from: self.from, to: ReplicaId(target), network, damage, role_tracker, heartbeat }
    }
}

impl RaftNetworkFactory<TypeConfig> for TransportFactory {
    type Network = Transport;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Transport {
        self.transport(target, None)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &EmptyNode) -> Transport {
        self.transport(target, Some(self.heartbeat))
    }
}

/// Sends requests from one replica to another.
pub(crate) struct Transport {
    from: ReplicaId,
    to: ReplicaId,
    network: Arc<dyn Network>,
    damage: Arc<Damage>,
    role_tracker: Arc<RoleTracker>,
    /// Of a transport of heartbeats alone: how often a heartbeat without an answer is sent again.
    heartbeat: Option<Duration>,
}

fn unreachable(text: &str) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error(text)))
}

/// The first waits after a request without a response; later ones are `BACKOFF_MAX`.
const BACKOFF_MS: [u64; 5] = [20, 40, 80, 160, 320];
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// How long a follower has to respond with the state of its snapshot download, and how often the request is repeated.
const INSTALL_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);
const INSTALL_SNAPSHOT_INTERVAL: Duration = Duration::from_millis(100);

/// How long a follower has to answer entries after it has received them. Its disk may be slow; what is sent again is sent whole.
const APPEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The error of requests that a leader without a quorum does not send (`check_quorum`).
const HEARTBEATS_SUSPENDED: &str = "heartbeats are suspended: no majority acknowledges this leader";

/// Sends a request again and again until it is answered: over a long way heartbeats are not rarer than over a short one, and one
/// that is lost does not silence the leader.
async fn repeated(
    network: Arc<dyn Network>,
    from: ReplicaId,
    to: ReplicaId,
    request: Message,
    interval: Duration,
    timeout: Duration,
) -> Result<Message, NoResponse> {
    let until = rt::now() + timeout;
    let (mut calls, mut next) = (FuturesUnordered::new(), rt::now());
    loop {
        let now = rt::now();
        if now >= until {
            return Err(NoResponse("no answer in time".to_owned()));
        }
        if now >= next {
            next = now + interval;
            calls.push(network.call(from, to, request.clone(), Priority::Normal, until.since(now)));
        }
        tokio::select! {
            biased;
            // One of several that fails says nothing of the others.
            Some(response) = calls.next() => if response.is_ok() || calls.is_empty() { return response },
            () = rt::sleep(next.min(until).since(now)) => {}
        }
    }
}

impl Transport {
    async fn call(&self, request: Message, option: &RPCOption) -> Result<Message, RPCError<TypeConfig>> {
        let response = self.network.call(self.from, self.to, request, Priority::Normal, option.hard_ttl()).await;
        response.map_err(|NoResponse(why)| unreachable(&why))
    }

    /// Repeats the request until the follower has everything up to `last_included`; returns the vote.
    fn install_snapshot(
        &self,
        vote: Vote,
        last_included: LogId,
    ) -> impl Future<Output = Result<Vote, NoResponse>> + Send + use<> {
        let (network, role_tracker, from, to) = (self.network.clone(), self.role_tracker.clone(), self.from, self.to);
        async move {
            loop {
                if role_tracker.heartbeats_suspended(vote.term) {
                    return Err(NoResponse(HEARTBEATS_SUSPENDED.to_owned()));
                }
                match network
                    .call(
                        from,
                        to,
                        Message::InstallSnapshot { vote, last_included },
                        Priority::Normal,
                        INSTALL_SNAPSHOT_TIMEOUT,
                    )
                    .await?
                {
                    Message::InstallSnapshotResponse { done: true } => return Ok(vote),
                    Message::InstallSnapshotResponse { done: false } => rt::sleep(INSTALL_SNAPSHOT_INTERVAL).await,
                    Message::HigherVote(higher) => return Ok(higher),
                    _ => return Err(NoResponse("not a response to a snapshot".to_owned())),
                }
            }
        }
    }

    /// Sends an append. A heartbeat has `heartbeat_timeout` to be answered, whatever is in front of it elsewhere; entries have as
    /// long as the connection makes progress.
    fn append(
        &self,
        rpc: AppendEntriesRequest<TypeConfig>,
        heartbeat_timeout: Duration,
    ) -> BoxFuture<'static, Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>>> {
        if rpc.entries.is_empty() && self.damage.take_snapshot_due() {
            return ready(Err(unreachable("what comes next is damaged here"))).boxed();
        }
        let vote = from_raft_vote(&rpc.vote);
        if self.role_tracker.heartbeats_suspended(vote.term) {
            return ready(Err(unreachable(HEARTBEATS_SUSPENDED))).boxed();
        }
        let request = Message::AppendEntries {
            vote,
            prev_log_id: rpc.prev_log_id.as_ref().map(from_raft_log_id),
            entries: rpc.entries.into_iter().map(LogEntry::into_inner).collect(),
            leader_commit: rpc.leader_commit.as_ref().map(from_raft_log_id),
        };
        let (network, from, to) = (self.network.clone(), self.from, self.to);
        let response = match self.heartbeat {
            Some(interval) => repeated(network, from, to, request, interval, heartbeat_timeout).boxed(),
            None => network.call(from, to, request, Priority::InOrder, APPEND_TIMEOUT),
        };
        async move {
            let response = response.await;
            if response.is_err() && mutants::is_on(Bug::AckBeforeQuorum) {
                return Ok(AppendEntriesResponse::Success);
            }
            match response.map_err(|NoResponse(why)| unreachable(&why))? {
                Message::AppendEntriesSuccess => Ok(AppendEntriesResponse::Success),
                Message::AppendEntriesPartialSuccess(last) => {
                    Ok(AppendEntriesResponse::PartialSuccess(last.map(to_raft_log_id)))
                }
                Message::AppendEntriesConflict => Ok(AppendEntriesResponse::Conflict),
                Message::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(to_raft_vote(vote))),
                _ => Err(unreachable("not a response to an append")),
            }
        }
        .boxed()
    }

    async fn request_vote(
        &self,
        pre_vote: bool,
        rpc: VoteRequest<TypeConfig>,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = Message::RequestVote {
            pre_vote,
            vote: from_raft_vote(&rpc.vote),
            last_log_id: rpc.last_log_id.as_ref().map(from_raft_log_id),
            leadership_transfer: rpc.leadership_transfer,
        };
        match self.call(request, option).await? {
            Message::RequestVoteResponse { vote, last_log_id, granted } => {
                Ok(VoteResponse::new(to_raft_vote(vote), last_log_id.map(to_raft_log_id), granted))
            }
            _ => Err(unreachable("not a response to a vote request")),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Transport {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.append(rpc, option.hard_ttl()).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Outcome>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let transport = &*self;
        let send = move |rpc| transport.append(rpc, option.hard_ttl());
        let pipeline: BoxStream<'s, _> = Box::pin(AppendPipeline::new(input, send));
        // An error before the input is polled would be answered by the next attempt at once.
        Box::pin(std::future::ready(Ok(pipeline)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.request_vote(false, rpc, &option).await
    }

    // The default implementation grants: a replica cut off from all others would then campaign for ever.
    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.request_vote(true, rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let unreachable = |why: &str| StreamingError::Unreachable(Unreachable::new(&AnyError::error(why)));
        let Some(last_included) = snapshot.meta.last_log_id.as_ref().map(from_raft_log_id) else {
            return Err(unreachable("there is nothing in the snapshot"));
        };
        let installed = self.install_snapshot(from_raft_vote(&vote), last_included);
        tokio::select! {
            biased;
            installed = installed => match installed {
                Ok(vote) => Ok(SnapshotResponse::new(to_raft_vote(vote))),
                Err(NoResponse(why)) => Err(unreachable(&why)),
            },
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    // The default implementation fails: the leader could never transfer leadership.
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let target = ReplicaId(*req.to_node_id());
        let request = Message::TransferLeader {
            from_leader: from_raft_vote(req.from_leader()),
            to: target,
            last_log_id: req.last_log_id().map(from_raft_log_id),
        };
        let answer = match self.call(request, &option).await {
            Ok(Message::TransferLeaderResponse { accepted: true }) => return Ok(Ok(())),
            Ok(Message::TransferLeaderResponse { accepted: false }) => unreachable("transfer refused"),
            Ok(_) => unreachable("not a response to a transfer"),
            Err(error) => error,
        };
        // All voters are told; the others only let their lease of the leader go.
        if target == self.to {
            self.role_tracker.note_transfer_failed(target);
        }
        Err(answer)
    }

    fn backoff(&self) -> Option<Backoff> {
        let first = BACKOFF_MS.into_iter().map(Duration::from_millis);
        Some(Backoff::new(first.chain(std::iter::repeat(BACKOFF_MAX))))
    }
}

/// Passes a request to openraft and returns its response.
pub(crate) async fn dispatch(
    raft: &openraft::Raft<TypeConfig, StateMachineAdapter>,
    request: Message,
) -> Result<Message, NoResponse> {
    let stopped = |error: &dyn std::fmt::Display| NoResponse(error.to_string());
    match request {
        Message::AppendEntries { vote, prev_log_id, entries, leader_commit } => {
            let leader_commit = match entries.last() {
                Some(last) if mutants::is_on(Bug::ApplyBeforeCommit) => leader_commit.max(Some(last.log_id)),
                _ => leader_commit,
            };
            let rpc = AppendEntriesRequest {
                vote: to_raft_vote(vote),
                prev_log_id: prev_log_id.map(to_raft_log_id),
                entries: entries.into_iter().map(LogEntry::from).collect(),
                leader_commit: leader_commit.map(to_raft_log_id),
            };
            Ok(match raft.append_entries(rpc).await.map_err(|e| stopped(&e))? {
                AppendEntriesResponse::Success => Message::AppendEntriesSuccess,
                AppendEntriesResponse::PartialSuccess(last) => {
                    Message::AppendEntriesPartialSuccess(last.as_ref().map(from_raft_log_id))
                }
                AppendEntriesResponse::Conflict => Message::AppendEntriesConflict,
                AppendEntriesResponse::HigherVote(vote) => Message::HigherVote(from_raft_vote(&vote)),
            })
        }
        Message::RequestVote { pre_vote, vote, last_log_id, leadership_transfer } => {
            let mut rpc = VoteRequest::new(to_raft_vote(vote), last_log_id.map(to_raft_log_id));
            rpc.leadership_transfer = leadership_transfer;
            let response = if pre_vote { raft.pre_vote(rpc).await } else { raft.vote(rpc).await };
            let response = response.map_err(|e| stopped(&e))?;
            Ok(Message::RequestVoteResponse {
                vote: from_raft_vote(&response.vote),
                last_log_id: response.last_log_id.as_ref().map(from_raft_log_id),
                granted: response.vote_granted,
            })
        }
        Message::TransferLeader { from_leader, to, last_log_id } => {
            let rpc = TransferLeaderRequest::new(to_raft_vote(from_leader), to.0, last_log_id.map(to_raft_log_id));
            let response = raft.handle_transfer_leader(rpc).await.map_err(|e| stopped(&e))?;
            Ok(Message::TransferLeaderResponse { accepted: response.is_ok() })
        }
        other => Err(NoResponse(format!("not a request: {other:?}"))),
    }
}
