//! The simulated network: machines, their ports, the links between them and the connections over these.
//!
//! A node connects to `host:port` as to a real one; what is not listening there refuses at once, what has no power or
//! is cut off never answers. May not know: protocols.

mod link;
mod pipe;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, pending};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

pub use link::Conditions;
use link::Link;
pub use pipe::SimStream;
use pipe::{Pair, Power, connection};

use super::SimNode;
use crate::net::{Connector, Listener, Stream};
use crate::rt;

/// The conditions between clients and the listener that they connect to.
const CLIENT_CONDITIONS: Conditions = Conditions {
    delay_min: Duration::from_micros(50),
    delay_max: Duration::from_micros(1_550),
    bytes_per_second: None,
    loss_per_mille: 0,
};

/// Buffers of a client's connection, in each direction.
const CLIENT_BYTES_MAX: usize = 64 << 10;
/// Buffers of a connection between nodes, in each direction: what a TCP window grows to.
const PEER_BYTES_MAX: usize = 1 << 20;

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<SimStream>,
    acceptor: Option<Waker>,
}

/// A port of a simulated node; cheap to clone.
#[derive(Clone)]
pub struct SimListener {
    backlog: Arc<Mutex<Backlog>>,
    power: Arc<Power>,
    conditions: Arc<Mutex<Conditions>>,
}

impl Default for SimListener {
    fn default() -> Self {
        let conditions = Arc::new(Mutex::new(CLIENT_CONDITIONS));
        Self { backlog: Arc::default(), power: Arc::default(), conditions }
    }
}

impl SimListener {
    /// Connects a client.
    #[must_use]
    pub fn connect(&self) -> SimStream {
        let link = || Arc::new(Link::new(self.conditions.clone()));
        let (client, served, _) = connection((link(), link()), (Arc::default(), self.power.clone()), CLIENT_BYTES_MAX);
        self.enqueue(served);
        client
    }

    /// From now on no client is told that its connection has ended.
    pub fn lose_power(&self) {
        self.power.lose();
    }

    fn enqueue(&self, served: SimStream) {
        let mut backlog = self.backlog.lock();
        backlog.waiting.push_back(served);
        let acceptor = backlog.acceptor.take();
        drop(backlog);
        if let Some(acceptor) = acceptor {
            acceptor.wake();
        }
    }
}

impl Listener for SimListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn Stream>, SocketAddr)>> {
        let mut backlog = self.backlog.lock();
        match backlog.waiting.pop_front() {
            Some(stream) => Poll::Ready(Ok((Box::new(stream), SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000))))),
            None => {
                backlog.acceptor = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[derive(Default)]
struct Machine {
    /// Of the process that runs, or of the next one.
    power: Arc<Power>,
    /// The machine is off: nothing answers there.
    is_off: bool,
}

#[derive(Default)]
struct State {
    machines: BTreeMap<SimNode, Machine>,
    ports: BTreeMap<String, SimListener>,
    links: BTreeMap<(SimNode, SimNode), Arc<Link>>,
    conditions: Arc<Mutex<Conditions>>,
    connections: Vec<((SimNode, SimNode), Pair)>,
}

impl State {
    fn link(&mut self, from: SimNode, to: SimNode) -> Arc<Link> {
        let conditions = &self.conditions;
        self.links.entry((from, to)).or_insert_with(|| Arc::new(Link::new(conditions.clone()))).clone()
    }

    fn power(&mut self, node: SimNode) -> Arc<Power> {
        self.machines.entry(node).or_default().power.clone()
    }

    fn connections_of(&mut self, node: SimNode) -> impl Iterator<Item = &Pair> {
        self.connections.retain(|(_, pair)| !pair.is_over());
        self.connections.iter().filter(move |((from, to), _)| *from == node || *to == node).map(|(_, pair)| pair)
    }
}

/// The network between simulated machines; cheap to clone.
#[derive(Clone, Default)]
pub struct SimNet(Arc<Mutex<State>>);

impl SimNet {
    /// How a node reaches the others.
    #[must_use]
    pub fn connector(&self, node: SimNode) -> Arc<dyn Connector> {
        Arc::new(NodeConnector { net: self.clone(), node })
    }

    /// Opens a port of a node: others can connect until the listener is dropped. A process takes its port over from the
    /// one before it, which may not have ended yet.
    pub fn listen(&self, node: SimNode, address: &str) -> Box<dyn Listener> {
        let mut state = self.0.lock();
        let listener = SimListener { power: state.power(node), ..SimListener::default() };
        let before = state.ports.insert(address.to_owned(), listener.clone());
        drop(state);
        drop(before);
        Box::new(OpenPort { net: self.clone(), address: address.to_owned(), listener })
    }

    /// Sets how all links behave from now on.
    pub fn set_conditions(&self, conditions: Conditions) {
        *self.0.lock().conditions.lock() = conditions;
    }

    /// Cuts one direction between two nodes: nothing arrives until it is restored.
    pub fn cut(&self, from: SimNode, to: SimNode) {
        let link = self.0.lock().link(from, to);
        link.cut();
    }

    /// Restores one direction between two nodes; what was sent meanwhile arrives.
    pub fn restore(&self, from: SimNode, to: SimNode) {
        let link = self.0.lock().link(from, to);
        link.restore();
    }

    /// Restores all directions.
    pub fn heal(&self) {
        let links: Vec<_> = self.0.lock().links.values().cloned().collect();
        links.iter().for_each(|link| link.restore());
    }

    /// Resets every connection of a node, as a firewall that lost its state does. Its port stays open.
    pub fn reset_connections(&self, node: SimNode) {
        self.0.lock().connections_of(node).for_each(Pair::reset);
    }

    /// A machine loses power, before its tasks end: its connections end in silence, and nothing answers there.
    pub fn lose_power(&self, node: SimNode) {
        let mut state = self.0.lock();
        let machine = state.machines.entry(node).or_default();
        machine.power.lose();
        machine.is_off = true;
    }

    /// A machine is up, or up again: it resets connections of before when bytes arrive on them.
    pub fn power_on(&self, node: SimNode) {
        let mut state = self.0.lock();
        let machine = state.machines.entry(node).or_default();
        if std::mem::take(&mut machine.is_off) {
            std::mem::take(&mut machine.power).come_back();
            state.connections_of(node).for_each(Pair::answer_retransmissions);
        }
    }

    /// True if a packet from one node reaches the other and one comes back.
    fn answers(&self, from: SimNode, to: SimNode) -> bool {
        let mut state = self.0.lock();
        let is_off = state.machines.get(&to).is_some_and(|machine| machine.is_off);
        !is_off && !state.link(from, to).is_cut() && !state.link(to, from).is_cut()
    }

    async fn connect(&self, from: SimNode, address: &str) -> io::Result<SimStream> {
        let target = target_of(address)?;
        let round_trip = {
            let mut state = self.0.lock();
            state.link(from, target).delay() + state.link(target, from).delay()
        };
        rt::sleep(round_trip).await;
        if !self.answers(from, target) {
            return pending().await;
        }
        let mut state = self.0.lock();
        let Some(listener) = state.ports.get(address).cloned() else {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error()));
        };
        let links = (state.link(from, target), state.link(target, from));
        let powers = (state.power(from), state.power(target));
        let (client, served, pair) = connection(links, powers, PEER_BYTES_MAX);
        state.connections.retain(|(_, pair)| !pair.is_over());
        state.connections.push(((from, target), pair));
        drop(state);
        listener.enqueue(served);
        Ok(client)
    }
}

/// The machine of an address, `node-3:19092` being on machine 3.
fn target_of(address: &str) -> io::Result<SimNode> {
    let number = address.strip_prefix("node-").and_then(|rest| rest.split_once(':')).map(|(number, _)| number.parse());
    match number {
        Some(Ok(number)) => Ok(SimNode(number)),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("{address}: no machine has this name"))),
    }
}

struct NodeConnector {
    net: SimNet,
    node: SimNode,
}

impl Connector for NodeConnector {
    fn connect<'a>(
        &'a self,
        address: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>> {
        Box::pin(async move { Ok(Box::new(self.net.connect(self.node, address).await?) as Box<dyn Stream>) })
    }
}

/// A port that is open until this is dropped.
struct OpenPort {
    net: SimNet,
    address: String,
    listener: SimListener,
}

impl Listener for OpenPort {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn Stream>, SocketAddr)>> {
        self.listener.poll_accept(cx)
    }
}

impl Drop for OpenPort {
    fn drop(&mut self) {
        // The connections that were not accepted end after the lock is released: their ends wake tasks.
        let port = {
            let mut state = self.net.0.lock();
            let is_own = |port: &SimListener| Arc::ptr_eq(&port.backlog, &self.listener.backlog);
            if state.ports.get(&self.address).is_some_and(is_own) { state.ports.remove(&self.address) } else { None }
        };
        drop(port);
    }
}
