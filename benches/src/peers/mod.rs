//! A broker under comparison, of one process or of several that are a cluster: started, asked, stopped and killed.
//!
//! Knows when a broker serves, who leads and who is in sync; what is measured on it is the tables' business.

pub(crate) mod kafka;
pub(crate) mod nats;
pub(crate) mod node;
pub(crate) mod ottla;
mod surroundings;
pub(crate) mod wires;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::node::Node;
pub(crate) use self::surroundings::Surroundings;
use crate::process::{Memory, Usage};
use crate::wire::{Layout, Topic, Wire, batch};

/// How long a peer may take to serve or to end.
const PATIENCE: Duration = Duration::from_secs(300);

/// One broker and how to start it again.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Everything that its processes write lies below it. Who made it removes it.
    pub(crate) directory: PathBuf,
    /// Its settings as they are printed: whatever is not at its default.
    pub(crate) settings: Vec<String>,
    pub(crate) nodes: Vec<Node>,
    topics: u32,
}

/// An empty directory; what was there before is removed.
pub(crate) fn fresh_directory(path: &Path) {
    let _ = std::fs::remove_dir_all(path);
    std::fs::create_dir_all(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// The racks of the nodes of a cluster, in their order.
fn rack(at: usize) -> String {
    ["a", "b", "c"][at % 3].to_owned()
}

impl Peer {
    fn new(name: &'static str, directory: PathBuf, nodes: Vec<Node>) -> Self {
        Self { name, directory, settings: Vec::new(), nodes, topics: 0 }
    }

    /// How many nodes have each record.
    fn copies(&self) -> i16 {
        i16::try_from(self.nodes.len()).unwrap()
    }

    /// Where the first node answers: all there is of a peer of one.
    pub(crate) fn address(&self) -> SocketAddr {
        self.nodes[0].address
    }

    /// Where clients reach it.
    pub(crate) fn bootstrap(&self) -> String {
        self.nodes.iter().map(|node| node.address.to_string()).collect::<Vec<_>>().join(",")
    }

    /// Spawns and waits for the first acknowledged record of a new topic; the time from one to the other. Nodes of a cluster
    /// have found each other then.
    pub(crate) fn start(&mut self) -> Duration {
        let began = Instant::now();
        self.nodes.iter_mut().for_each(Node::spawn);
        self.topics += 1;
        let topic = Topic { name: format!("ready-{}", self.topics), partitions: 1 };
        let mut made = false;
        let took = self.wait(began, |peer, wire| {
            made = made || wire.try_create_topic(&topic, peer.copies());
            made && peer.leader_of(&topic).is_some_and(|mut leader| leader.try_produce(&topic.name, 0, batch(1, 100)))
        });
        self.wait_until_whole(&topic);
        took
    }

    /// Spawns and waits until a topic that exists takes a record and gives back an old one.
    pub(crate) fn start_again(&mut self, topic: &Topic, offset: i64) -> Duration {
        let began = Instant::now();
        self.nodes.iter_mut().for_each(Node::spawn);
        self.wait(began, |peer, _| {
            peer.leader_of(topic).is_some_and(|mut leader| {
                leader.try_produce(&topic.name, 0, batch(1, 100))
                    && leader.try_fetch(&topic.name, 0, offset).is_some_and(|bytes| bytes > 0)
            })
        })
    }

    fn wait(&mut self, began: Instant, mut serves: impl FnMut(&Self, &mut Wire) -> bool) -> Duration {
        loop {
            let mut wire = self.nodes[0].try_wire();
            if wire.as_mut().is_some_and(Wire::answers) && wire.as_mut().is_some_and(|wire| serves(self, wire)) {
                return began.elapsed();
            }
            self.assert_runs();
            assert!(began.elapsed() < PATIENCE, "{} does not serve:\n{}", self.name, self.log_tail());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn assert_runs(&mut self) {
        let ended = self.nodes.iter_mut().find_map(|node| node.ended().map(|how| (how, node.log_tail())));
        if let Some((how, log)) = ended {
            panic!("a node of {} ended ({how}):\n{log}", self.name);
        }
    }

    pub(crate) fn log_tail(&self) -> String {
        self.nodes.iter().map(Node::log_tail).collect::<Vec<_>>().join("\n\n")
    }

    /// The leader of a topic's first partition.
    fn leader_of(&self, topic: &Topic) -> Option<Wire> {
        let layout = self.try_layout(0, topic)?;
        let leader = layout.partitions.first()?.leader;
        self.nodes.iter().find(|node| node.id == leader)?.try_wire()
    }

    /// Creates a topic with a replica on each node and waits until each partition takes part: has a leader that answers for
    /// its end, and all replicas in sync.
    pub(crate) fn create_topic(&mut self, topic: &Topic) {
        self.create(topic);
        self.wait_until_whole(topic);
    }

    /// The same without waiting for it.
    pub(crate) fn create(&mut self, topic: &Topic) {
        let copies = self.copies();
        assert!(self.wire().try_create_topic(topic, copies), "topic {} could not be created", topic.name);
    }

    /// Waits until all nodes are there, and every replica of a topic is in sync.
    pub(crate) fn wait_until_whole(&mut self, topic: &Topic) {
        self.wait_until(&format!("topic {} is whole", topic.name), |peer| peer.is_whole(topic));
    }

    /// Waits for something that happens by itself.
    pub(crate) fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let asked = Instant::now();
            if is_so(self) {
                return;
            }
            self.assert_runs();
            assert!(Instant::now() < deadline, "{}: waited {PATIENCE:?} until {what}", self.name);
            // Looking at thousands of partitions is work, too.
            std::thread::sleep((2 * asked.elapsed()).max(Duration::from_millis(20)));
        }
    }

    /// True if each node says so.
    pub(crate) fn is_whole(&self, topic: &Topic) -> bool {
        self.nodes.iter().enumerate().all(|(at, node)| {
            self.try_layout(at, topic).is_some_and(|layout| {
                let all = layout.partitions.iter().all(|p| p.leader >= 0 && p.in_sync.len() == self.nodes.len());
                // Metadata may be ahead of the partitions themselves: each has to answer for its end.
                all && layout.brokers == self.nodes.len() && self.try_ends_at(node, topic, &layout).is_some()
            })
        })
    }

    /// The ends of those partitions that a node leads.
    fn try_ends_at(&self, node: &Node, topic: &Topic, layout: &Layout) -> Option<Vec<i64>> {
        let led = layout.partitions.iter().enumerate().filter(|(_, p)| p.leader == node.id);
        let led: Vec<i32> = led.map(|(at, _)| i32::try_from(at).unwrap()).collect();
        if led.is_empty() { Some(Vec::new()) } else { node.try_wire()?.try_ends(topic, &led) }
    }

    /// Records of a topic, of which nothing was ever deleted.
    pub(crate) fn records(&self, topic: &Topic) -> u64 {
        let layout = self.layout(topic);
        let ends = self.nodes.iter().map(|node| self.try_ends_at(node, topic, &layout).expect("the ends of a topic"));
        ends.flatten().sum::<i64>() as u64
    }

    /// What the node with that index knows of a topic, if it answers and knows it whole.
    pub(crate) fn try_layout(&self, at: usize, topic: &Topic) -> Option<Layout> {
        self.nodes[at].try_wire()?.try_layout(topic)
    }

    pub(crate) fn layout(&self, topic: &Topic) -> Layout {
        self.try_layout(0, topic).unwrap_or_else(|| panic!("{} does not tell of topic {}", self.name, topic.name))
    }

    /// What all its processes have used.
    pub(crate) fn usage(&self) -> Usage {
        self.nodes.iter().map(Node::usage).fold(Usage::default(), Usage::and)
    }

    /// Memory of all its processes.
    pub(crate) fn memory_mib(&self, memory: Memory) -> f64 {
        self.nodes.iter().map(|node| node.memory(memory)).sum::<u64>() as f64 / f64::from(1 << 20)
    }

    /// A connection to the first node.
    pub(crate) fn wire(&self) -> Wire {
        Wire::connect(self.address())
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.nodes.iter_mut().for_each(Node::kill);
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(&mut self) {
        self.nodes.iter_mut().for_each(Node::stop);
    }
}
