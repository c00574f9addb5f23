//! What all tables share: the two brokers, the turns A B A B, the file of results, and how long things take.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::loads::engine::{Engine, Group, Role, Span};
use crate::loads::java::Run;
use crate::loads::{Done, librdkafka};
use crate::peers::{Peer, Surroundings, kafka, nats, ottla};
use crate::results::Results;
use crate::table::{
    BROKER_CORES, CLIENT_CORES, CLIENT_CPU, CPU, CPU_REQUEST, ERRORS, P50, P99, P999, RATE, RECORDS, REQUESTS, Row,
    Sample,
};
use crate::wire::Topic;
use crate::{machine, process};

/// A peer's data on disk beyond which both are begun anew, between rows.
const DISK_MAX: u64 = 12 << 30;
/// Peers with more partitions than this are not used for another table.
const PARTITIONS_MAX: i32 = 1_000;
/// Nodes of a cluster.
const NODES: usize = 3;

/// Where things are and how thorough to be.
pub(crate) struct Setup {
    pub(crate) quick: bool,
    /// Turns of each peer for each row, if not the usual number.
    pub(crate) rounds: Option<usize>,
    /// Of the time and the data of a quick run: 1, or less where only the tables themselves are tried.
    pub(crate) scale: f64,
    pub(crate) data: PathBuf,
    pub(crate) ottla: PathBuf,
    pub(crate) jars: Option<PathBuf>,
}

/// The comparison while it runs.
pub(crate) struct Bench {
    pub(crate) setup: Setup,
    pub(crate) results: Results,
    pub(crate) cores: f64,
    table: String,
    peers: Vec<Peer>,
    /// What the peers that run, or are begun next, stand in.
    surroundings: Surroundings,
    client: Option<PathBuf>,
    fresh: u32,
    /// Partitions that the running peers have been given.
    partitions: i32,
}

impl Bench {
    pub(crate) fn new(setup: Setup, results: Results) -> Self {
        let cores = machine::cores();
        let (table, peers, surroundings) = Default::default();
        Self { setup, results, cores, table, peers, surroundings, client: None, fresh: 0, partitions: 0 }
    }

    pub(crate) fn begin(&mut self, table: &str, title: &str, about: &str) {
        println!("\n{title} ({table})");
        let mode = if self.setup.scale < 1.0 { "--smoke " } else { self.pick("--quick ", "") };
        let mode = format!("{mode}{}", self.setup.rounds.map_or(String::new(), |n| format!("--rounds {n} ")));
        self.table = table.to_owned();
        self.results.begin(table, title, about, &mode);
    }

    /// One of two values: for a quick run, for a full one.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.setup.quick { quick } else { full }
    }

    /// True if a row is left out: a quick run varies one thing at a time. `varied`: which things differ from the usual.
    pub(crate) fn leaves_out(&self, varied: &[bool]) -> bool {
        self.setup.quick && varied.iter().filter(|differs| **differs).count() > 1
    }

    /// Bytes of a test set of which each peer needs one: as wanted, or what the disk has room for.
    pub(crate) fn bytes(&self, quick: f64, full: f64) -> u64 {
        let wanted = self.pick(quick, full) * self.setup.scale;
        (wanted as u64).min(machine::free_bytes(&self.setup.data) / 3)
    }

    /// Seconds that a client is given.
    pub(crate) fn seconds(&self, quick: f64, full: f64) -> f64 {
        self.pick(quick, full) * self.setup.scale
    }

    /// Seconds of a measured window.
    pub(crate) fn span(&self, quick: f64, full: f64) -> Span {
        let window = self.seconds(quick, full);
        Span {
            ramp: Duration::from_secs_f64((window / 4.0).clamp(0.25 * self.setup.scale, 2.0)),
            window: Duration::from_secs_f64(window),
            bytes_max: u64::MAX,
        }
    }

    /// Both peers, one node each, not started, with empty directories. Those that run are ended first.
    pub(crate) fn prepare(&mut self) -> Vec<Peer> {
        self.prepare_nodes(1)
    }

    /// The same with a cluster of each.
    pub(crate) fn prepare_clusters(&mut self) -> Vec<Peer> {
        self.prepare_nodes(NODES)
    }

    fn prepare_nodes(&mut self, nodes: usize) -> Vec<Peer> {
        self.end_peers();
        self.fresh += 1;
        let place = |name: &str| self.setup.data.join(format!("{name}-{}", self.fresh));
        let mut peers = vec![ottla::prepare(&self.setup.ottla, place("ottla"), nodes, &self.surroundings)];
        if let Some(jars) = &self.setup.jars {
            peers.push(kafka::prepare(jars, place("kafka"), nodes, &self.surroundings));
        }
        if nodes > 1 {
            for peer in &peers {
                let name = format!("{}, the first of {nodes} nodes", peer.name);
                self.results.value["peers"][name] = serde_json::json!({"settings": peer.settings});
            }
        }
        peers
    }

    /// Ottla, running and warm, beside NATS; false where NATS cannot be had.
    pub(crate) fn begin_with_nats(&mut self) -> bool {
        let Some(binary) = nats::binary() else { return false };
        self.end_peers();
        self.fresh += 1;
        let (data, fresh) = (self.setup.data.clone(), self.fresh);
        let place = |name: &str| data.join(format!("{name}-{fresh}"));
        let mut ottla = ottla::prepare(&self.setup.ottla, place("ottla"), 1, &Surroundings::default());
        ottla.start();
        self.warm(&mut ottla);
        let mut nats = nats::prepare(&binary, place("nats"));
        nats::start(&mut nats);
        self.results.value["peers"]["nats"] = serde_json::json!({"settings": nats.settings});
        self.peers = vec![ottla, nats];
        true
    }

    /// What the peers wrote stays while the disk has room: pages of a removed file are free memory, which would have to be
    /// filled again before the next turn. Thousands of files are another matter: syncing them takes half a minute.
    pub(crate) fn end_peers(&mut self) {
        self.peers.clear();
        if self.partitions > PARTITIONS_MAX || machine::free_bytes(&self.setup.data) < 3 * DISK_MAX {
            for entry in std::fs::read_dir(&self.setup.data).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    machine::remove(&entry.path());
                }
            }
        }
        machine::sync();
    }

    /// Both peers with little in them: in a quick run those of the table before, if they still serve.
    pub(crate) fn begin_peers(&mut self) {
        self.begin_nodes(1);
    }

    /// The same with a cluster of each.
    pub(crate) fn begin_clusters(&mut self) {
        self.begin_nodes(NODES);
    }

    /// A cluster of each, whose nodes are so far apart.
    pub(crate) fn begin_clusters_in(&mut self, surroundings: Surroundings) {
        self.end_peers();
        self.surroundings = surroundings;
        self.start_anew(NODES);
    }

    /// Ends clusters whose nodes are apart: other tables begin others.
    pub(crate) fn end_clusters_apart(&mut self) {
        self.end_peers();
        self.surroundings = Surroundings::default();
    }

    fn begin_nodes(&mut self, nodes: usize) {
        let both = self.peers.iter().all(|peer| peer.name != "nats" && peer.nodes.len() == nodes);
        if !self.setup.quick || !both || self.partitions > PARTITIONS_MAX || !self.have_room() {
            self.start_anew(nodes);
        }
    }

    /// Begins both peers anew, with as many nodes as they have.
    pub(crate) fn begin_anew(&mut self) {
        let nodes = self.peers.first().map_or(1, |peer| peer.nodes.len());
        self.start_anew(nodes);
    }

    /// Warmed: a JVM compiles what is called often.
    fn start_anew(&mut self, nodes: usize) {
        let mut peers = self.prepare_nodes(nodes);
        for peer in &mut peers {
            peer.start();
            self.warm(peer);
        }
        machine::sync();
        self.peers = peers;
        self.partitions = 0;
    }

    fn warm(&mut self, peer: &mut Peer) {
        let topic = Topic { name: "warm".to_owned(), partitions: 4 };
        peer.create_topic(&topic);
        let (long, short) = self.pick((3.0, 1.5), (6.0, 3.0));
        if peer.nodes.len() > 1 {
            // The raw load does not look for leaders. Each node has a part of the work only.
            let program = self.librdkafka();
            for (what, seconds) in [("produce", 3.0 * long), ("consume", short)] {
                let seconds = format!("seconds={}", seconds * self.setup.scale);
                let options = ["topic=warm", "partitions=4", "ramp=0", &seconds, "set.acks=all"];
                librdkafka::run(&program, peer, what, &options.map(str::to_owned));
            }
            return;
        }
        let group = |role, connections, records| Group { role, topic: topic.clone(), connections, records, size: 1024 };
        let loads = [
            (group(Role::Produce { depth: 2 }, 8, 16), long),
            (group(Role::Produce { depth: 8 }, 16, 1), short),
            (group(Role::Replay { bytes_max: 1 << 20 }, 4, 1), short),
        ];
        for (group, seconds) in loads {
            let window = Duration::from_secs_f64(seconds * self.setup.scale);
            Engine::connect(peer.address(), &[group])
                .run(Span { ramp: Duration::ZERO, window, bytes_max: 1 << 30 }, || {});
        }
    }

    /// True if peers run; anew if they hold too much. What ran before is gone then, topics too.
    pub(crate) fn have_room(&self) -> bool {
        // The rest of a disk is for the next rows, and for whoever else is there.
        let used: u64 = self.peers.iter().map(|p| process::disk_bytes(&p.directory)).sum();
        let free = machine::free_bytes(&self.setup.data);
        !self.peers.is_empty() && used < 2 * DISK_MAX && (used < free || free > DISK_MAX)
    }

    /// Creates a topic at every peer that knows topics.
    pub(crate) fn create(&mut self, topic: &Topic) {
        for peer in self.peers.iter_mut().filter(|peer| peer.name != "nats") {
            peer.create_topic(topic);
        }
        self.partitions += topic.partitions;
    }

    pub(crate) fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// Turns that each peer takes: the figures of a row are medians of so many.
    pub(crate) fn rounds(&self) -> usize {
        self.setup.rounds.unwrap_or(self.pick(1, 3))
    }

    /// Takes turns, A B A B, and keeps the row. `turn` measures one peer once.
    pub(crate) fn row(&mut self, name: &str, turn: impl FnMut(&mut Peer) -> Sample) {
        let row = self.measure(name, turn);
        self.add(row);
    }

    /// Takes turns.
    pub(crate) fn measure(&mut self, name: &str, mut turn: impl FnMut(&mut Peer) -> Sample) -> Row {
        let mut samples: Vec<(String, Vec<Sample>)> =
            self.peers.iter().map(|p| (p.name.to_owned(), Vec::new())).collect();
        for _ in 0..self.rounds() {
            for (peer, (_, list)) in self.peers.iter_mut().zip(&mut samples) {
                machine::settle();
                list.push(turn(peer));
            }
        }
        Row { name: name.to_owned(), peers: samples }
    }

    /// Keeps and prints a row that was measured otherwise.
    pub(crate) fn add(&mut self, row: Row) {
        row.print(self.cores);
        self.results.add(&self.table, &row, self.cores);
    }

    /// The load by librdkafka, built when it is first asked for.
    pub(crate) fn librdkafka(&mut self) -> PathBuf {
        self.client.get_or_insert_with(librdkafka::build).clone()
    }

    pub(crate) fn jars(&self) -> Option<&Path> {
        self.setup.jars.as_deref()
    }
}

/// Where the raw load connects to: it does not look for leaders, so that a topic in a cluster has one partition.
fn leader(peer: &Peer, topic: &Topic) -> SocketAddr {
    if peer.nodes.len() == 1 {
        return peer.address();
    }
    let partitions = peer.layout(topic).partitions;
    let [partition] = &partitions[..] else { panic!("{}: {} partitions in a cluster", topic.name, partitions.len()) };
    peer.nodes.iter().find(|node| node.id == partition.leader).expect("the leader is one of the nodes").address
}

/// Runs groups against a peer; the results by group, and what broker and client used meanwhile.
pub(crate) fn drive(peer: &Peer, groups: &[Group], span: Span) -> (Vec<Done>, Cost) {
    let engine = Engine::connect(leader(peer, &groups[0].topic), groups);
    metered(peer, |edge| engine.run(span, edge))
}

/// Runs a load that calls back at both ends of its measured window and says how long that was.
pub(crate) fn metered<T>(peer: &Peer, load: impl FnOnce(&mut dyn FnMut()) -> (T, Duration)) -> (T, Cost) {
    let mut looks = Vec::new();
    let (done, window) = load(&mut || looks.push((peer.usage(), process::client_cpu())));
    let (before, after) = (looks[0], looks[1]);
    let cost = Cost { broker: after.0.since(before.0).cpu, client: after.1 - before.1, seconds: window.as_secs_f64() };
    (done, cost)
}

/// CPU seconds of both sides over a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) broker: f64,
    pub(crate) client: f64,
    pub(crate) seconds: f64,
}

impl Cost {
    /// The figures of a throughput load.
    pub(crate) fn throughput(self, done: &Done) -> Sample {
        let mut sample = self.sample(done.bytes as f64, done.records as f64, done.errors as f64);
        if done.requests > 0 {
            sample.insert(REQUESTS, done.requests as f64 / self.seconds);
            sample.insert(CPU_REQUEST, self.broker * 1e6 / done.requests as f64);
        }
        latencies(&mut sample, done);
        sample
    }

    fn sample(self, bytes: f64, records: f64, errors: f64) -> Sample {
        let gigabytes = (bytes / 1e9).max(1e-9);
        Sample::from([
            (RATE, bytes / 1e6 / self.seconds),
            (RECORDS, records / self.seconds),
            (CPU, self.broker / gigabytes),
            (CLIENT_CPU, self.client / gigabytes),
            (BROKER_CORES, self.broker / self.seconds),
            (CLIENT_CORES, self.client / self.seconds),
            (ERRORS, errors),
        ])
    }
}

pub(crate) fn latencies(sample: &mut Sample, done: &Done) {
    for (name, percent) in [(P50, 50.0), (P99, 99.0), (P999, 99.9)] {
        sample.insert(name, done.milliseconds_at(percent));
    }
}

/// The figures of a client that is a program of its own.
pub(crate) fn of_client(run: &Run) -> Sample {
    let cost = Cost { broker: run.broker_cpu, client: run.client_cpu, seconds: run.seconds };
    cost.sample(run.bytes, run.records, run.errors)
}
