//! The simulated network: loss, delay, duplication, reordering and partitions, all from the seed.
//!
//! A message travels on a task outside all nodes and is handled on a task of the receiving node. A lost response takes
//! the caller's whole timeout: no node learns of a crash at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::net::{Message, MessageHandler, Network, NoResponse, PeerDirectory, Priority, ReplicaLocation};

/// The simulated node of tasks that belong to no node.
const OUTSIDE: SimNode = SimNode(0);

/// The faults of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// Shortest delay, one direction.
    pub delay_min: Duration,
    /// Longest delay; the difference causes reordering.
    pub delay_max: Duration,
    /// Messages lost, of a thousand.
    pub loss_per_mille: u64,
    /// Messages delivered twice, of a thousand.
    pub repeat_per_mille: u64,
}

impl Default for Faults {
    fn default() -> Self {
        let (delay_min, delay_max) = (Duration::from_micros(50), Duration::from_micros(500));
        Faults { delay_min, delay_max, loss_per_mille: 0, repeat_per_mille: 0 }
    }
}

/// Called with sender, receiver and message. Responses are observed as they are sent, except those to a pre-vote, which
/// promise nothing.
pub type Observer = Arc<dyn Fn(ReplicaId, ReplicaId, &Message) + Send + Sync>;

#[derive(Default)]
struct SimState {
    observer: Option<Observer>,
    handlers: BTreeMap<SimNode, Arc<dyn MessageHandler>>,
    /// The true locations of replicas, which nodes may not know.
    locations: BTreeMap<ReplicaId, SimNode>,
    /// Directions between two nodes that carry nothing.
    cut: BTreeSet<(SimNode, SimNode)>,
    /// Replicas that neither send nor receive anything, whatever their nodes exchange.
    isolated: BTreeSet<ReplicaId>,
    faults: Faults,
}

/// A network between simulated nodes; cheap to clone.
#[derive(Clone, Default)]
pub struct SimNetwork(Arc<Mutex<SimState>>);

/// The network of one node: it reaches the replicas that the node can locate. Node n of the cluster is the simulated
/// node n.
struct NodeNetwork {
    network: SimNetwork,
    own: SimNode,
    peers: Arc<dyn PeerDirectory>,
}

/// For clusters in which every node can locate every replica.
impl PeerDirectory for SimNetwork {
    fn locate(&self, replica: ReplicaId) -> Option<ReplicaLocation> {
        let node = self.location_of(replica)?;
        Some(ReplicaLocation { node: NodeId(i32::try_from(node.0).ok()?), is_urgent: false })
    }

    fn address(&self, node: NodeId) -> Option<String> {
        Some(node.0.to_string())
    }
}

impl SimNetwork {
    /// The network of `node`, which locates others by `peers`.
    #[must_use]
    pub fn for_node(&self, node: SimNode, peers: Arc<dyn PeerDirectory>) -> Arc<dyn Network> {
        Arc::new(NodeNetwork { network: self.clone(), own: node, peers })
    }

    /// A node is up: messages for its replicas are delivered to `handler`.
    pub fn attach(&self, node: SimNode, handler: impl MessageHandler) {
        self.0.lock().handlers.insert(node, Arc::new(handler));
    }

    /// A node is down: messages for it are lost.
    pub fn detach(&self, node: SimNode) {
        let handler = self.0.lock().handlers.remove(&node);
        drop(handler);
    }

    /// Sets the true location of a replica that has sent nothing yet; nodes do not learn it from this.
    pub fn set_location(&self, replica: ReplicaId, node: SimNode) {
        self.0.lock().locations.insert(replica, node);
    }

    /// The true location of a replica, if it was set or the replica has sent anything.
    #[must_use]
    pub fn location_of(&self, replica: ReplicaId) -> Option<SimNode> {
        self.0.lock().locations.get(&replica).copied()
    }

    /// Registers an observer of every message that a replica sends, whether it arrives or not.
    pub fn observe(&self, observer: Observer) {
        self.0.lock().observer = Some(observer);
    }

    fn observe_message(&self, from: ReplicaId, to: ReplicaId, message: &Message) {
        let observer = self.0.lock().observer.clone();
        if let Some(observer) = observer {
            observer(from, to, message);
        }
    }

    /// Sets the faults of the network.
    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Cuts one direction between two nodes.
    pub fn cut(&self, from: SimNode, to: SimNode) {
        self.0.lock().cut.insert((from, to));
    }

    /// Restores one direction between two nodes.
    pub fn restore(&self, from: SimNode, to: SimNode) {
        self.0.lock().cut.remove(&(from, to));
    }

    /// Isolates one replica: its group continues without it, its node stays connected.
    pub fn isolate(&self, replica: ReplicaId) {
        self.0.lock().isolated.insert(replica);
    }

    /// Ends the isolation of a replica.
    pub fn rejoin(&self, replica: ReplicaId) {
        self.0.lock().isolated.remove(&replica);
    }

    /// Restores all directions and ends all isolations.
    pub fn heal(&self) {
        let mut state = self.0.lock();
        state.cut.clear();
        state.isolated.clear();
    }

    /// The delay of a message; `None` if it is lost.
    fn delay(&self) -> Option<Duration> {
        let faults = self.0.lock().faults;
        if sim::random_below(1_000) < faults.loss_per_mille {
            return None;
        }
        let spread = faults.delay_max.saturating_sub(faults.delay_min);
        let spread_ns = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX);
        Some(faults.delay_min + Duration::from_nanos(sim::random_below(spread_ns.max(1))))
    }

    fn repeats(&self) -> bool {
        let per_mille = self.0.lock().faults.repeat_per_mille;
        sim::random_below(1_000) < per_mille
    }

    async fn travel(&self, from: SimNode, to: SimNode) -> Option<()> {
        rt::sleep(self.delay()?).await;
        (!self.0.lock().cut.contains(&(from, to))).then_some(())
    }

    /// Delivers one request and returns the response.
    async fn exchange(
        &self,
        (source, target): (SimNode, SimNode),
        (from, to): (ReplicaId, ReplicaId),
        request: Message,
    ) -> Option<Result<Message, NoResponse>> {
        if [from, to].iter().any(|replica| self.0.lock().isolated.contains(replica)) {
            return None;
        }
        self.travel(source, target).await?;
        let promises = !matches!(request, Message::RequestVote { pre_vote: true, .. });
        let handler = self.0.lock().handlers.get(&target).cloned()?;
        let handled = sim::spawn_on(target, async move { handler.deliver(from, to, request).await });
        // The node may crash meanwhile.
        let answer = handled.await.ok()?;
        if answer.is_ok() {
            self.set_location(to, target);
        }
        if let Ok(message) = &answer
            && promises
        {
            self.observe_message(to, from, message);
        }
        self.travel(target, source).await?;
        Some(answer)
    }
}

impl NodeNetwork {
    /// The node of a replica, if this node can locate it.
    fn target(&self, to: ReplicaId) -> Option<SimNode> {
        let location = self.peers.locate(to)?;
        self.peers.address(location.node)?;
        Some(SimNode(location.node.0.unsigned_abs()))
    }
}

impl Network for NodeNetwork {
    fn call(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        request: Message,
        _priority: Priority,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Message, NoResponse>> {
        let Some(target) = self.target(to) else { return NoResponse::unknown_location(to) };
        let (network, path) = (self.network.clone(), (self.own, target));
        network.set_location(from, self.own);
        network.observe_message(from, to, &request);
        Box::pin(async move {
            let (sender, answer) = oneshot::channel();
            let repeated = network.repeats().then(|| request.clone());
            let carrier = network.clone();
            sim::spawn_on(OUTSIDE, async move {
                if let Some(answer) = carrier.exchange(path, (from, to), request).await {
                    let _ = sender.send(answer);
                }
            });
            if let Some(request) = repeated {
                sim::spawn_on(OUTSIDE, async move { network.exchange(path, (from, to), request).await });
            }
            let answered = async {
                match answer.await {
                    Ok(answer) => answer,
                    Err(_lost) => std::future::pending().await,
                }
            };
            rt::timeout(timeout, answered).await.unwrap_or_else(|_| Err(NoResponse("no answer in time".to_owned())))
        })
    }
}
