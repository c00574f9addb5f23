//! The simulated network as replicas see it: the transport that ships ([`PeerNetwork`]) over simulated machines, with an
//! observer of every message and the faults that a message alone can have.
//!
//! ```text
//!  call -> observed, lost, repeated -> PeerNetwork -> frames -> simulated streams -> PeerNetwork -> observed -> handler
//! ```
//! A message that is lost here stands for all that the transport cannot tell a caller: the caller waits for its whole
//! timeout. Delays, bandwidth, cut links and resets are those of [`SimNet`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ottla_env::rt;
use ottla_env::sim::net::{Conditions, SimNet};
use ottla_env::sim::{self, SimNode};
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::net::{
    Identity, Interceptor, Listening, Message, MessageHandler, Network, NoResponse, PeerDirectory, PeerNetwork,
    Priority, ReplicaLocation,
};

/// The faults of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Of the links between machines.
    pub links: Conditions,
    /// Messages lost, of a thousand.
    pub loss_per_mille: u64,
    /// Messages delivered twice, of a thousand.
    pub repeat_per_mille: u64,
}

/// Called with sender, receiver and message. Responses are observed as they are sent, except those to a pre-vote, which
/// promise nothing.
pub type Observer = Arc<dyn Fn(ReplicaId, ReplicaId, &Message) + Send + Sync>;

/// A message that a replica sends another one.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// The node of the sender.
    pub node: SimNode,
    /// The sender.
    pub from: ReplicaId,
    /// The receiver.
    pub to: ReplicaId,
    /// What it says.
    pub message: &'a Message,
}

/// Called with each message but responses; true if it gets lost.
pub type LostMessages = Arc<dyn Fn(&Sent<'_>) -> bool + Send + Sync>;

#[derive(Default)]
struct SimState {
    observer: Option<Observer>,
    /// The nodes whose transport was built by [`SimNetwork::for_node`], while they are up.
    nodes: BTreeMap<SimNode, (PeerNetwork, Option<Listening>)>,
    /// The true locations of replicas, which nodes may not know.
    locations: BTreeMap<ReplicaId, SimNode>,
    /// Replicas that neither send nor receive anything, whatever their nodes exchange.
    isolated: BTreeSet<ReplicaId>,
    /// Which messages get lost.
    lost_messages: Option<LostMessages>,
    loss_per_mille: u64,
    repeat_per_mille: u64,
}

/// A network between simulated nodes; cheap to clone.
#[derive(Clone, Default)]
pub struct SimNetwork {
    /// The machines and what is between them.
    pub machines: SimNet,
    state: Arc<Mutex<SimState>>,
}

/// The address at which a node listens for others.
#[must_use]
pub fn peer_address(node: SimNode) -> String {
    format!("node-{}:19092", node.0)
}

/// The addresses of simulated machines, for nodes that another directory knows.
struct MachineAddresses(Arc<dyn PeerDirectory>);

impl PeerDirectory for MachineAddresses {
    fn locate(&self, replica: ReplicaId) -> Option<ReplicaLocation> {
        self.0.locate(replica)
    }

    fn address(&self, node: NodeId) -> Option<String> {
        self.0.address(node)?;
        Some(peer_address(SimNode(node.0.unsigned_abs())))
    }
}

/// For clusters in which every node can locate every replica. Node n of the cluster is the simulated node n.
impl PeerDirectory for SimNetwork {
    fn locate(&self, replica: ReplicaId) -> Option<ReplicaLocation> {
        let node = self.location_of(replica)?;
        Some(ReplicaLocation { node: NodeId(i32::try_from(node.0).ok()?), is_urgent: false })
    }

    fn address(&self, node: NodeId) -> Option<String> {
        Some(peer_address(SimNode(node.0.unsigned_abs())))
    }
}

impl SimNetwork {
    /// The network of `node`, which locates others by `peers`; for groups without a broker around them, whose nodes
    /// have no node to build their transport.
    ///
    /// # Panics
    /// When the id of the node is out of range.
    #[must_use]
    pub fn for_node(&self, node: SimNode, peers: Arc<dyn PeerDirectory>) -> Arc<dyn Network> {
        let Ok(id) = i32::try_from(node.0) else { panic!("the id of node {} is out of range", node.0) };
        let identity = Identity { node: NodeId(id), directory: Uuid::from_u128(node.0.into()), cluster: None };
        let peers = Arc::new(MachineAddresses(peers));
        let network = PeerNetwork::new(identity, self.machines.connector(node), peers);
        self.state.lock().nodes.insert(node, (network.clone(), None));
        self.interceptor(node).network(Arc::new(network))
    }

    /// A node is up: messages for its replicas are delivered to `handler`.
    ///
    /// # Panics
    /// When [`Self::for_node`] was not called before.
    pub fn attach(&self, node: SimNode, handler: impl MessageHandler) {
        self.machines.power_on(node);
        let listener = self.machines.listen(node, &peer_address(node));
        let handler = self.interceptor(node).handler(Arc::new(handler));
        let mut state = self.state.lock();
        let Some((network, listening)) = state.nodes.get_mut(&node) else { panic!("node {} has no network", node.0) };
        *listening = Some(sim::on_node(node, || network.listen(listener, handler)));
    }

    /// A node is down.
    pub fn detach(&self, node: SimNode) {
        let ended = self.state.lock().nodes.remove(&node);
        drop(ended);
    }

    /// What observes and disturbs the messages of a node.
    #[must_use]
    pub fn interceptor(&self, node: SimNode) -> Arc<dyn Interceptor> {
        Arc::new(OneNode { network: self.clone(), node })
    }

    /// Sets the true location of a replica that has sent nothing yet; nodes do not learn it from this.
    pub fn set_location(&self, replica: ReplicaId, node: SimNode) {
        self.state.lock().locations.insert(replica, node);
    }

    /// The true location of a replica, if it was set or the replica has sent anything.
    #[must_use]
    pub fn location_of(&self, replica: ReplicaId) -> Option<SimNode> {
        self.state.lock().locations.get(&replica).copied()
    }

    /// Registers an observer of every message that a replica sends, whether it arrives or not.
    pub fn observe(&self, observer: Observer) {
        self.state.lock().observer = Some(observer);
    }

    fn observe_message(&self, from: ReplicaId, to: ReplicaId, message: &Message) {
        let observer = self.state.lock().observer.clone();
        if let Some(observer) = observer {
            observer(from, to, message);
        }
    }

    /// Sets the faults of the network.
    pub fn set_faults(&self, faults: Faults) {
        self.machines.set_conditions(faults.links);
        let mut state = self.state.lock();
        (state.loss_per_mille, state.repeat_per_mille) = (faults.loss_per_mille, faults.repeat_per_mille);
    }

    /// Cuts one direction between two nodes.
    pub fn cut(&self, from: SimNode, to: SimNode) {
        self.machines.cut(from, to);
    }

    /// Restores one direction between two nodes.
    pub fn restore(&self, from: SimNode, to: SimNode) {
        self.machines.restore(from, to);
    }

    /// Isolates one replica: its group continues without it, its node stays connected.
    pub fn isolate(&self, replica: ReplicaId) {
        self.state.lock().isolated.insert(replica);
    }

    /// Ends the isolation of a replica.
    pub fn rejoin(&self, replica: ReplicaId) {
        self.state.lock().isolated.remove(&replica);
    }

    /// Loses the messages that this chooses, responses apart; none with `None`.
    pub fn lose_messages(&self, chosen: Option<LostMessages>) {
        self.state.lock().lost_messages = chosen;
    }

    /// Restores all directions, ends all isolations and loses no more messages that were chosen.
    pub fn heal(&self) {
        self.machines.heal();
        self.state.lock().isolated.clear();
        self.lose_messages(None);
    }

    fn is_lost(&self) -> bool {
        let per_mille = self.state.lock().loss_per_mille;
        sim::random_below(1_000) < per_mille
    }

    fn is_chosen(&self, sent: &Sent<'_>) -> bool {
        let chosen = self.state.lock().lost_messages.clone();
        chosen.is_some_and(|chosen| chosen(sent))
    }

    fn is_repeated(&self) -> bool {
        let per_mille = self.state.lock().repeat_per_mille;
        sim::random_below(1_000) < per_mille
    }

    fn is_isolated(&self, ends: [ReplicaId; 2]) -> bool {
        let state = self.state.lock();
        ends.iter().any(|replica| state.isolated.contains(replica))
    }
}

/// Observes and disturbs the messages of one node.
#[derive(Clone)]
struct OneNode {
    network: SimNetwork,
    node: SimNode,
}

impl Interceptor for OneNode {
    fn network(&self, below: Arc<dyn Network>) -> Arc<dyn Network> {
        Arc::new(Outgoing { at: self.clone(), below })
    }

    fn handler(&self, above: Arc<dyn MessageHandler>) -> Arc<dyn MessageHandler> {
        Arc::new(Incoming { at: self.clone(), above })
    }
}

struct Outgoing {
    at: OneNode,
    below: Arc<dyn Network>,
}

impl Network for Outgoing {
    fn call(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        request: Message,
        priority: Priority,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Message, NoResponse>> {
        let OneNode { network, node } = self.at.clone();
        network.set_location(from, node);
        network.observe_message(from, to, &request);
        let below = self.below.clone();
        Box::pin(async move {
            let late = || Err(NoResponse("no answer in time".to_owned()));
            let is_chosen = |message| network.is_chosen(&Sent { node, from, to, message });
            if network.is_isolated([from, to]) || network.is_lost() || is_chosen(&request) {
                rt::sleep(timeout).await;
                return late();
            }
            if network.is_repeated() {
                rt::spawn(below.call(from, to, request.clone(), priority, timeout));
            }
            let began = rt::now();
            let response = below.call(from, to, request, priority, timeout).await;
            if network.is_lost() {
                rt::sleep(timeout.saturating_sub(rt::now().since(began))).await;
                return late();
            }
            response
        })
    }
}

struct Incoming {
    at: OneNode,
    above: Arc<dyn MessageHandler>,
}

impl MessageHandler for Incoming {
    fn deliver(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        request: Message,
    ) -> BoxFuture<'static, Result<Message, NoResponse>> {
        let OneNode { network, node } = self.at.clone();
        let promises = !matches!(request, Message::RequestVote { pre_vote: true, .. });
        let handled = self.above.deliver(from, to, request);
        Box::pin(async move {
            let response = handled.await;
            if let Ok(message) = &response {
                network.set_location(to, node);
                if promises {
                    network.observe_message(to, from, message);
                }
            }
            response
        })
    }
}
