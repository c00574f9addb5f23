//! A cluster of real brokers, each in a zone of its own, and clients that fail over.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kafka_protocol::messages::ProduceRequest;

use crate::batch::TestBatch;
use crate::process::{Broker, free_address};
use crate::raw::Raw;

/// How long a cluster may take to do by itself what it has to.
const PATIENCE: Duration = Duration::from_secs(60);

/// The brokers of a cluster; node n is `brokers[n - 1]`.
pub struct Cluster {
    pub brokers: Vec<Broker>,
    seeds: String,
}

impl Cluster {
    /// Starts so many nodes at once and waits until all serve.
    pub fn start(nodes: usize, settings: &[(&str, &str)]) -> Self {
        let mut cluster = Self::prepare(nodes, settings);
        cluster.brokers.iter_mut().for_each(Broker::spawn);
        cluster.brokers.iter_mut().for_each(Broker::wait_until_ready);
        cluster
    }

    /// So many nodes that have not been started yet.
    pub fn prepare(nodes: usize, settings: &[(&str, &str)]) -> Self {
        Self::prepare_in(nodes, settings, |place| place)
    }

    /// The same; `way_to` says at which address other nodes reach the one that listens at a place.
    pub fn prepare_in(nodes: usize, settings: &[(&str, &str)], way_to: impl Fn(SocketAddr) -> SocketAddr) -> Self {
        let places: Vec<_> = (0..nodes).map(|_| free_address()).map(|place| (place, way_to(place))).collect();
        let seeds = places.iter().map(|(_, way)| way.to_string()).collect::<Vec<_>>().join(",");
        let mut cluster = Self { brokers: Vec::new(), seeds };
        for (place, way) in places {
            cluster.add(place, settings).set("OTTLA_CLUSTER_ADVERTISED_LISTENER", &way.to_string());
        }
        cluster
    }

    /// One more node, not started yet.
    pub fn add(&mut self, place: SocketAddr, settings: &[(&str, &str)]) -> &mut Broker {
        let node = (self.brokers.len() + 1).to_string();
        let mut broker = Broker::prepare(settings);
        broker.set("KAFKA_NODE_ID", &node);
        broker.set("KAFKA_BROKER_RACK", &format!("zone-{node}"));
        broker.set("OTTLA_CLUSTER_LISTENER", &place.to_string());
        broker.set("OTTLA_CLUSTER_SEEDS", &self.seeds);
        self.brokers.push(broker);
        self.brokers.last_mut().unwrap()
    }

    /// Where clients reach the nodes.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.brokers.iter().map(Broker::address).collect()
    }

    /// Creates a topic at any node that does it.
    pub fn create_topic(&self, name: &str, partitions: i32, factor: i16) {
        let addresses = self.addresses();
        until("the topic is created", || {
            addresses.iter().any(|to| {
                let code = try_at(*to, |raw| raw.try_create_topic(name, partitions, factor, &[]));
                // 36: it was made, but the answer was lost.
                matches!(code, Some(0 | 36))
            })
        });
    }

    /// The node that leads a partition, as any node answers.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<usize> {
        let addresses = self.addresses();
        let node = addresses.iter().find_map(|to| leader_at(*to, topic, partition))?;
        usize::try_from(node).ok()
    }

    /// Reads a partition whole from its leader.
    pub fn read_all(&self, topic: &str, partition: i32) -> BTreeMap<i64, Vec<u8>> {
        let mut found = None;
        until("a partition can be read", || {
            let Some(leader) = self.leader(topic, partition) else { return false };
            let to = self.brokers[leader - 1].address();
            found = try_at(to, |raw| raw.read_all(topic, partition));
            found.is_some()
        });
        found.unwrap().into_iter().map(|(offset, value)| (offset, value.to_vec())).collect()
    }
}

/// Waits for something that happens by itself in time.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Does something at a node that may be gone; `None` if it is.
pub fn try_at<T>(to: SocketAddr, work: impl FnOnce(&mut Raw) -> T) -> Option<T> {
    std::net::TcpStream::connect_timeout(&to, Duration::from_millis(500)).ok()?;
    catch_unwind(AssertUnwindSafe(|| work(&mut Raw::connect(to)))).ok()
}

/// The node that leads a partition, as one node answers.
pub fn leader_at(to: SocketAddr, topic: &str, partition: i32) -> Option<i32> {
    let metadata = try_at(to, |raw| raw.metadata(&[topic]))?;
    let topic = metadata.topics.first()?;
    let found = topic.partitions.iter().find(|found| found.partition_index == partition)?;
    (found.error_code == 0 && found.leader_id.0 > 0).then_some(found.leader_id.0)
}

/// (partition, offset) -> the value that was acknowledged there.
pub type Acknowledged = Arc<Mutex<BTreeMap<(i32, i64), Vec<u8>>>>;

/// Producers, one a partition, that go on through all faults until they are stopped.
pub struct Writers {
    stop: Arc<AtomicBool>,
    pub acknowledged: Acknowledged,
    /// How many requests were answered with an error.
    refused: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    pub fn start(addresses: &[SocketAddr], topic: &str, partitions: i32) -> Self {
        let (stop, acknowledged, refused): (Arc<AtomicBool>, Acknowledged, Arc<AtomicU64>) = Default::default();
        let next = Arc::new(AtomicU64::new(0));
        let threads = (0..partitions).map(|partition| {
            let (stop, acknowledged, refused, next) =
                (stop.clone(), acknowledged.clone(), refused.clone(), next.clone());
            let (addresses, topic) = (addresses.to_vec(), topic.to_owned());
            let write = move || {
                while !stop.load(Ordering::Relaxed) {
                    let leader = addresses.iter().find_map(|to| leader_at(*to, &topic, partition));
                    let place = leader.and_then(|leader| addresses.get(usize::try_from(leader).ok()?.checked_sub(1)?));
                    if let Some(to) = place {
                        let ended = try_at(*to, |raw| write(raw, &topic, partition, &next, &acknowledged, &stop));
                        refused.fetch_add(u64::from(ended == Some(Ended::Refused)), Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            };
            std::thread::Builder::new().name("writer".to_owned()).spawn(write).unwrap()
        });
        let threads = threads.collect();
        Self { stop, acknowledged, refused, threads }
    }

    /// How many requests were answered with an error.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits until so many more records are acknowledged.
    pub fn wait_for(&self, more: usize) {
        let before = self.acknowledged.lock().unwrap().len();
        until("records are acknowledged", || self.acknowledged.lock().unwrap().len() >= before + more);
    }

    /// Ends them.
    pub fn stop(self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.acknowledged
    }
}

/// Why a writer leaves a node.
#[derive(PartialEq, Eq)]
enum Ended {
    Stopped,
    Disconnected,
    Refused,
}

/// Writes at one node until it refuses.
fn write(
    raw: &mut Raw,
    topic: &str,
    partition: i32,
    next: &AtomicU64,
    acknowledged: &Acknowledged,
    stop: &AtomicBool,
) -> Ended {
    while !stop.load(Ordering::Relaxed) {
        let first = next.fetch_add(3, Ordering::Relaxed);
        let values: Vec<Vec<u8>> = (first..first + 3).map(|n| format!("value-{n}").into_bytes()).collect();
        let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let request = Raw::produce_request(topic, partition, -1, Some(TestBatch::of(&slices).encode()));
        let asked = raw.ask(9, &request);
        let Some(answer) = raw.answer::<ProduceRequest>(9, asked) else { return Ended::Disconnected };
        let placed = &answer.responses[0].partition_responses[0];
        if placed.error_code != 0 {
            return Ended::Refused;
        }
        let mut all = acknowledged.lock().unwrap();
        for (offset, value) in (placed.base_offset..).zip(values) {
            assert!(all.insert((partition, offset), value).is_none(), "offset {offset} was given twice");
        }
    }
    Ended::Stopped
}

/// Reads everything and holds it against what was acknowledged.
pub fn check(cluster: &Cluster, topic: &str, partitions: i32, acknowledged: &Acknowledged) {
    let all = acknowledged.lock().unwrap();
    for partition in 0..partitions {
        let found = cluster.read_all(topic, partition);
        let dense = found.keys().copied().eq(0..i64::try_from(found.len()).unwrap());
        assert!(dense, "offsets of partition {partition} are dense from 0");
        for ((_, offset), value) in all.range((partition, 0)..(partition + 1, 0)) {
            assert_eq!(found.get(offset), Some(value), "partition {partition}, offset {offset}");
        }
        let values: HashSet<_> = found.values().collect();
        assert_eq!(values.len(), found.len(), "no value is there twice");
    }
}

/// Kills the leader of the first partition while clients write, brings it back, then kills all nodes at once: what was
/// acknowledged is there.
pub fn keeps_all(cluster: &mut Cluster, topic: &str, partitions: i32, writers: Writers) {
    let leader = cluster.leader(topic, 0).unwrap();
    cluster.brokers[leader - 1].kill();
    until("another node leads", || cluster.leader(topic, 0).is_some_and(|now| now != leader));
    writers.wait_for(200);
    cluster.brokers[leader - 1].run();
    writers.wait_for(200);
    keeps_all_when_killed(cluster, topic, partitions, writers);
}

/// Ends the clients and kills all nodes at once: what was acknowledged is there.
pub fn keeps_all_when_killed(cluster: &mut Cluster, topic: &str, partitions: i32, writers: Writers) {
    let acknowledged = writers.stop();
    cluster.brokers.iter_mut().for_each(Broker::kill);
    cluster.brokers.iter_mut().for_each(Broker::spawn);
    cluster.brokers.iter_mut().for_each(Broker::wait_until_ready);
    until("every partition is led", || (0..partitions).all(|index| cluster.leader(topic, index).is_some()));
    check(cluster, topic, partitions, &acknowledged);
}
