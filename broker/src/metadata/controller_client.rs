//! The client of the active controller, the leader of the metadata group: a request is decided on this node if it
//! leads, else forwarded to the leader.
//!
//! - A forwarded request names the leader's term and is handled at most once: a duplicate, and one that comes after its
//!   term, is dropped.
//! - The effect of a request without a response is unknown; only requests that may be repeated are retried.
//! - A response is returned once this node has applied everything that the leader had applied.
//!
//! May not know: what is decided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_env::{rt, watch};
use ottla_raft::{GroupHandle, Priority, RaftHost, Role};
use ottla_storage::ids::{RaftIndex, ReplicaId};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::balance::{BalanceState, LoadReport};
use super::clock::Clock;
use super::controller::{QueuedRequest, from_read_index, not_controller};
use super::decide::{ControllerRequest, ControllerResponse};
use super::error::MetadataError;
use super::forward_codec::{ForwardedRequest, ForwardedResponse, RequestKind};
use super::image::{MetadataImage, ReplicaRecord, ShardId};
use super::quorum;
use super::requests::MetadataQuorum;
use super::sessions::{Heartbeat, Sessions};

/// How long a change waits for the group to have a leader.
const LEADER_WAIT: Duration = Duration::from_secs(5);
/// Timeout of one attempt of a request that may be repeated.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two attempts.
const RETRY_BACKOFF: Duration = Duration::from_millis(50);
/// The most attempts of a read index.
const READ_ATTEMPTS_MAX: u32 = 3;

// All attempts of a read index fit in the time that a change waits for a leader.
const _: () = assert!(ATTEMPT_TIMEOUT.as_millis() * READ_ATTEMPTS_MAX as u128 <= LEADER_WAIT.as_millis());
/// How long a forwarded request waits for its entry on the leader.
const FORWARDED_WAIT: Duration = Duration::from_secs(30);
/// The most sessions (starts of nodes) whose requests a leader remembers.
const SESSIONS_MAX: usize = 256;

/// Numbers of the requests in flight.
#[derive(Debug, Default)]
struct InFlight {
    next: u64,
    waiting: BTreeSet<u64>,
}

/// The requests that the leader of one term has handled, by session of the sender.
#[derive(Debug, Default)]
struct Deduplicator {
    term: u64,
    sessions: BTreeMap<u64, (u64, BTreeSet<u64>)>,
    order: std::collections::VecDeque<u64>,
}

impl Deduplicator {
    /// True once for each request of a term, and never for one whose sender has stopped waiting.
    fn is_first(&mut self, request: &ForwardedRequest) -> bool {
        if request.term != self.term {
            *self = Self { term: request.term, ..Self::default() };
        }
        if !self.sessions.contains_key(&request.session) {
            self.order.push_back(request.session);
            if self.order.len() > SESSIONS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.sessions.remove(&oldest);
            }
        }
        let (floor, numbers) = self.sessions.entry(request.session).or_default();
        *floor = (*floor).max(request.floor);
        *numbers = numbers.split_off(floor);
        request.number >= *floor && numbers.insert(request.number)
    }
}

/// The controller as seen by one node: local, or over the network.
pub(super) struct ControllerClient {
    pub(super) group: GroupHandle,
    pub(super) images: watch::Receiver<Arc<MetadataImage>>,
    host: RaftHost,
    queue: mpsc::Sender<QueuedRequest>,
    session: u64,
    in_flight: Mutex<InFlight>,
    deduplicator: Mutex<Deduplicator>,
    /// While this node leads: which nodes have a session.
    pub(super) sessions: Mutex<Sessions>,
    /// Grows when a node that is fenced sends a heartbeat.
    fenced_heartbeats: watch::Sender<u64>,
    /// While this node leads: what its balancer knows.
    pub(super) balance: Mutex<BalanceState>,
}

impl ControllerClient {
    /// Starts to serve requests of other nodes.
    pub(super) fn start(
        host: RaftHost,
        group: GroupHandle,
        images: watch::Receiver<Arc<MetadataImage>>,
        queue: mpsc::Sender<QueuedRequest>,
    ) -> Arc<Self> {
        let (session, own) = (rt::random_u64(), group.replica());
        let (in_flight, deduplicator, sessions, balance) = Default::default();
        let (shared, fenced_heartbeats) = (host.clone(), watch::Sender::new(0));
        let client = Arc::new(Self {
            group,
            images,
            host: shared,
            queue,
            session,
            in_flight,
            deduplicator,
            sessions,
            fenced_heartbeats,
            balance,
        });
        let weak = Arc::downgrade(&client);
        let service = move |_from: ReplicaId, request: bytes::Bytes| -> BoxFuture<'static, Option<bytes::Bytes>> {
            let client = weak.upgrade();
            async move { Some(client?.handle(ForwardedRequest::decode(&request).ok()?).await?.encode()) }.boxed()
        };
        host.serve(own, Arc::new(service));
        client
    }

    fn role(&self) -> Role {
        *self.group.role().borrow()
    }

    /// Submits a request to the controller task of this node.
    pub(super) async fn submit_locally(
        &self,
        request: ControllerRequest,
        validate_only: bool,
        timeout: Duration,
    ) -> Result<ControllerResponse, MetadataError> {
        let (reply, receiver) = oneshot::channel();
        match self.queue.try_send(QueuedRequest { request, validate_only, reply }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(MetadataError::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(stopped()),
        }
        match rt::timeout(timeout, receiver).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => Err(stopped()),
            Err(_) => Err(MetadataError::TimedOut),
        }
    }

    /// Handles a request of another node; `None`: no response, since the request was handled before.
    async fn handle(&self, request: ForwardedRequest) -> Option<ForwardedResponse> {
        let role = self.role();
        let outcome = if !role.ready || role.term.0 != request.term {
            Err(not_controller(&self.images.borrow(), role.leader))
        } else {
            match request.kind {
                RequestKind::ReadIndex => {
                    let outcome = self.local_read_index().await;
                    let index = *outcome.as_ref().unwrap_or(&RaftIndex(0));
                    return Some(ForwardedResponse { index, outcome: outcome.map(|_| ControllerResponse::Done) });
                }
                RequestKind::Quorum => self.local_quorum().await.map(ControllerResponse::Quorum),
                RequestKind::Heartbeat(heartbeat) => {
                    self.record_heartbeat(heartbeat);
                    Ok(ControllerResponse::Done)
                }
                RequestKind::Load(report) => {
                    self.record_load(report, role);
                    Ok(ControllerResponse::Done)
                }
                RequestKind::Balance { apply } => self.local_balance(apply).await,
                RequestKind::Change { .. } if !self.deduplicator.lock().is_first(&request) => return None,
                RequestKind::Change { request, validate_only } => {
                    self.submit_locally(request, validate_only, FORWARDED_WAIT).await
                }
            }
        };
        Some(ForwardedResponse { index: self.group.applied().map_or(RaftIndex(0), |applied| applied.index), outcome })
    }

    /// Records a heartbeat, as the leader.
    fn record_heartbeat(&self, heartbeat: Heartbeat) {
        self.sessions.lock().record_heartbeat(heartbeat, rt::now());
        if self.images.borrow().is_fenced(heartbeat.node) {
            self.fenced_heartbeats.send_modify(|version| *version += 1);
        }
    }

    /// Takes in the load of a node, as the leader.
    fn record_load(&self, report: LoadReport, role: Role) {
        self.balance.lock().report(report, role.term.0, &self.images.borrow(), &Clock::now());
    }

    /// Sends the load of this node to the leader, whether that is this node or another.
    pub(super) async fn send_load(&self, report: LoadReport, wait: Duration) -> Result<(), MetadataError> {
        let role = self.role();
        match role.leader {
            _ if role.ready => {
                self.record_load(report, role);
                Ok(())
            }
            Some(leader) if leader != self.group.replica() => {
                self.forward(leader, role, RequestKind::Load(report), wait).await?.map(|_| ())
            }
            leader => Err(not_controller(&self.images.borrow(), leader)),
        }
    }

    /// What the balancer of this node, which leads, plans and did.
    async fn local_balance(&self, apply: bool) -> Result<ControllerResponse, MetadataError> {
        self.local_read_index().await?;
        let image = self.images.borrow().clone();
        let status = self.balance.lock().status(self.role().term.0, &image, &Clock::now(), apply);
        Ok(ControllerResponse::Balance(Box::new(status)))
    }

    /// Changes when a node that is fenced sends a heartbeat to this node.
    pub(super) fn fenced_heartbeats(&self) -> watch::Receiver<u64> {
        self.fenced_heartbeats.subscribe()
    }

    /// Sends a heartbeat to the leader, whether that is this node or another.
    pub(super) async fn send_heartbeat(&self, heartbeat: Heartbeat, wait: Duration) -> Result<(), MetadataError> {
        let role = self.role();
        match role.leader {
            _ if role.ready => {
                self.record_heartbeat(heartbeat);
                Ok(())
            }
            Some(leader) if leader != self.group.replica() => {
                self.forward(leader, role, RequestKind::Heartbeat(heartbeat), wait).await?.map(|_| ())
            }
            leader => Err(not_controller(&self.images.borrow(), leader)),
        }
    }

    /// Submits a request to the leader, whether that is this node or another.
    pub(super) async fn submit(
        &self,
        request: ControllerRequest,
        validate_only: bool,
        timeout: Duration,
    ) -> Result<ControllerResponse, MetadataError> {
        let deadline = rt::now() + timeout;
        let leader_deadline = rt::now() + timeout.min(LEADER_WAIT);
        let is_repeatable = validate_only || request.may_be_repeated();
        loop {
            let role = self.role();
            let left = deadline.since(rt::now());
            let outcome = match role.leader {
                _ if role.stopped => Err(stopped()),
                _ if role.ready => self.submit_locally(request.clone(), validate_only, left).await,
                Some(leader) if leader != self.group.replica() => {
                    let kind = RequestKind::Change { request: request.clone(), validate_only };
                    let wait = if is_repeatable { left.min(ATTEMPT_TIMEOUT) } else { left };
                    self.forward(leader, role, kind, wait).await.and_then(|outcome| outcome)
                }
                leader => Err(not_controller(&self.images.borrow(), leader)),
            };
            let until = match &outcome {
                // The request changed nothing.
                Err(MetadataError::NotController { .. }) => leader_deadline,
                Err(MetadataError::TimedOut) if is_repeatable => deadline,
                _ => return outcome,
            };
            if rt::now() + RETRY_BACKOFF >= until {
                return outcome;
            }
            rt::sleep(RETRY_BACKOFF).await;
        }
    }

    /// Forwards a request to the leader; the outer error: its effect is unknown.
    async fn forward(
        &self,
        leader: ReplicaId,
        role: Role,
        kind: RequestKind,
        wait: Duration,
    ) -> Result<Result<ControllerResponse, MetadataError>, MetadataError> {
        let deadline = rt::now() + wait;
        let (number, floor) = {
            let mut in_flight = self.in_flight.lock();
            in_flight.next += 1;
            let number = in_flight.next;
            in_flight.waiting.insert(number);
            (number, in_flight.waiting.first().copied().unwrap_or(number))
        };
        let guard = InFlightGuard { in_flight: &self.in_flight, number };
        let request = ForwardedRequest { session: self.session, number, floor, term: role.term.0, kind };
        let response = self.host.request(self.group.replica(), leader, request.encode(), Priority::Normal, wait).await;
        drop(guard);
        let response =
            response.ok().and_then(|bytes| ForwardedResponse::decode(&bytes).ok()).ok_or(MetadataError::TimedOut)?;
        // The caller must find the change in this node's image.
        let applied = rt::timeout_at(deadline, self.group.wait_applied(response.index)).await;
        match applied {
            Ok(Ok(())) => Ok(of_the_leader(response.outcome)),
            Ok(Err(why)) => Err(MetadataError::Stopped(why.to_string())),
            Err(_) => Err(MetadataError::TimedOut),
        }
    }

    pub(super) async fn local_read_index(&self) -> Result<RaftIndex, MetadataError> {
        match rt::timeout(LEADER_WAIT, self.group.read_index()).await {
            Ok(Ok(index)) => Ok(index),
            Ok(Err(error)) => Err(from_read_index(&error, &self.images.borrow())),
            Err(_) => Err(MetadataError::TimedOut),
        }
    }

    /// The state of the group that this node leads.
    async fn local_quorum(&self) -> Result<MetadataQuorum, MetadataError> {
        // A deposed leader that has not noticed it has stale progress of its followers.
        self.local_read_index().await?;
        let image = self.images.borrow().clone();
        let record = image.shard(ShardId::METADATA);
        let own = |replica: &&ReplicaRecord| replica.id == self.group.replica();
        let leader = record.and_then(|record| record.members().find(own));
        match (record, leader, self.group.quorum()) {
            (Some(record), Some(leader), Some(quorum)) => {
                Ok(quorum::described(record, &quorum, leader.node, &Clock::now()))
            }
            _ => Err(not_controller(&image, self.role().leader)),
        }
    }

    /// Sends a request that may be repeated to the leader.
    async fn query(&self, kind: RequestKind) -> Result<ControllerResponse, MetadataError> {
        let mut attempts = 0;
        loop {
            let role = self.role();
            let outcome = match (role.leader, &kind) {
                (Some(leader), _) if leader != self.group.replica() => {
                    self.forward(leader, role, kind.clone(), ATTEMPT_TIMEOUT).await.and_then(|outcome| outcome)
                }
                (_, RequestKind::Quorum) => self.local_quorum().await.map(ControllerResponse::Quorum),
                (_, RequestKind::Balance { apply }) => self.local_balance(*apply).await,
                _ => self.local_read_index().await.map(|_| ControllerResponse::Done),
            };
            attempts += 1;
            match outcome {
                Err(MetadataError::NotController { .. } | MetadataError::TimedOut) if attempts < READ_ATTEMPTS_MAX => {
                    rt::sleep(RETRY_BACKOFF).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Returns when everything that was committed before the call is applied here.
    pub(super) async fn read_index(&self) -> Result<(), MetadataError> {
        self.query(RequestKind::ReadIndex).await.map(|_| ())
    }

    /// What the leader's balancer plans and did; `apply`: it is to carry its plan out.
    pub(super) async fn balance_status(&self, apply: bool) -> Result<ControllerResponse, MetadataError> {
        self.query(RequestKind::Balance { apply }).await
    }

    /// The progress of the group's members, as the leader has it.
    pub(super) async fn describe_quorum(&self) -> Result<ControllerResponse, MetadataError> {
        self.query(RequestKind::Quorum).await
    }
}

/// An outcome that the leader had. Where the leader's replica has stopped this node's has not, and whether the request has an
/// effect the next leader decides.
fn of_the_leader(outcome: Result<ControllerResponse, MetadataError>) -> Result<ControllerResponse, MetadataError> {
    outcome.map_err(|error| match error {
        MetadataError::Stopped(_) => MetadataError::TimedOut,
        other => other,
    })
}

fn stopped() -> MetadataError {
    MetadataError::Stopped("the node stops".to_owned())
}

/// Removes a request from those in flight when it is dropped, so also when its caller gives up.
struct InFlightGuard<'a> {
    in_flight: &'a Mutex<InFlight>,
    number: u64,
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.in_flight.lock().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use ottla_protocol::error::ErrorCode;

    use super::*;

    fn request(session: u64, number: u64, floor: u64, term: u64) -> ForwardedRequest {
        ForwardedRequest { session, number, floor, term, kind: RequestKind::ReadIndex }
    }

    #[test]
    fn a_request_is_handled_once_in_any_order() {
        let mut deduplicator = Deduplicator::default();
        assert!(deduplicator.is_first(&request(1, 2, 1, 5)));
        assert!(deduplicator.is_first(&request(1, 1, 1, 5)));
        assert!(!deduplicator.is_first(&request(1, 2, 1, 5)));
        assert!(!deduplicator.is_first(&request(1, 1, 1, 5)));
        assert!(deduplicator.is_first(&request(2, 1, 1, 5)), "another session has numbers of its own");
        assert!(deduplicator.is_first(&request(1, 9, 7, 5)));
        assert!(!deduplicator.is_first(&request(1, 3, 3, 5)), "its sender has stopped waiting");
        assert!(deduplicator.is_first(&request(1, 8, 7, 5)));
        assert_eq!(deduplicator.sessions[&1].1.len(), 2, "what is below the floor is forgotten");
    }

    /// Found by the simulation (seed 126111): a node that was registering took it for its own end, and stayed fenced.
    #[test]
    fn that_the_leader_has_stopped_does_not_mean_that_this_node_has() {
        let code = |error| of_the_leader(Err(error)).unwrap_err().code();
        assert_eq!(code(MetadataError::Stopped("its disk has failed".into())), ErrorCode::RequestTimedOut);
        assert_eq!(code(MetadataError::Overloaded), MetadataError::Overloaded.code());
        assert!(of_the_leader(Ok(ControllerResponse::Done)).is_ok());
    }

    #[test]
    fn remembered_sessions_are_bounded() {
        let mut deduplicator = Deduplicator::default();
        for session in 0..2 * SESSIONS_MAX as u64 {
            assert!(deduplicator.is_first(&request(session, 1, 1, 1)));
        }
        assert_eq!((deduplicator.sessions.len(), deduplicator.order.len()), (SESSIONS_MAX, SESSIONS_MAX));
    }
}
