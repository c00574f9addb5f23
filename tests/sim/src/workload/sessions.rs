//! Consumers with a fetch session, over the wire, one for each node: they read what their node leads, name only
//! partitions that changed, wait for more, forget partitions and take them again. Records that the node showed before a
//! request must be in the answer.

use std::collections::BTreeMap;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use ottla_env::sim::{self, SimNode};

use super::fetched::{self, Got};
use super::{NAME, pause};
use crate::laws::reads;
use crate::registry::{PARTITIONS, TOPIC};
use crate::wire::{Client, text};
use crate::world::World;

/// From this version on requests name topics by id.
const BY_ID: i16 = 13;
/// An answer of so many bytes may leave partitions out.
const MUCH_BYTES: usize = 200_000;

struct Reader {
    world: World,
    client: Client,
    node: SimNode,
    version: i16,
    /// Its process in the history, as long as it continues at its positions.
    process: u32,
    /// Session id, and the epoch of the next request; 0: there is no session.
    session: (i32, i32),
    /// Its position in each partition.
    at: BTreeMap<i32, i64>,
    /// The positions that the session has.
    known: BTreeMap<i32, i64>,
}

/// Reads until the workload ends.
pub(crate) async fn reader(world: World, node: SimNode) {
    let client = Client::new(world.clone(), &format!("session-{}", node.0));
    let (at, known) = (BTreeMap::new(), BTreeMap::new());
    let process = world.history().process();
    let mut reader = Reader { world, client, node, version: BY_ID, process, session: (0, 0), at, known };
    while reader.world.workload_runs() {
        reader.turn().await;
        pause(6).await;
    }
}

impl Reader {
    /// The partitions that its node leads, except one that it leaves out now and then.
    fn wanted(&self) -> Vec<i32> {
        let Some(running) = self.world.running_node(self.node) else { return Vec::new() };
        let without = i32::try_from(sim::random_below(200)).unwrap_or(0);
        let led = |index: &i32| {
            let found = running.partitions.find_now(NAME, *index).ok().flatten();
            *index != without && found.is_some_and(|partition| partition.leader_epoch().is_some())
        };
        (0..PARTITIONS).filter(led).collect()
    }

    fn at(&self, index: i32) -> i64 {
        self.at.get(&index).copied().unwrap_or(0)
    }

    /// The ends that the node shows, of partitions in which there is something to read.
    fn shown(&self, wanted: &[i32]) -> BTreeMap<i32, i64> {
        let Some(running) = self.world.running_node(self.node) else { return BTreeMap::new() };
        let shown = wanted.iter().filter_map(|index| Some((*index, running.marks(self.world.partition(*index))?.1)));
        shown.filter(|(index, end)| *end > self.at(*index)).collect()
    }

    fn lose_session(&mut self) {
        self.session = (0, 0);
        self.known.clear();
    }

    async fn turn(&mut self) {
        let wanted = self.wanted();
        if wanted.is_empty() || sim::random_below(100) == 0 {
            self.lose_session();
            return pause(40).await;
        }
        if self.session.0 == 0 {
            self.version = BY_ID - 5 + i16::try_from(sim::random_below(10)).unwrap_or(0);
        }
        let request = self.request(&wanted);
        let shown = self.shown(&wanted);
        let Some(answer) = self.client.call(self.node, self.version, &request).await else {
            return self.lose_session();
        };
        if answer.error_code != 0 {
            return self.lose_session();
        }
        self.known = wanted.iter().map(|index| (*index, self.at(*index))).collect();
        self.session = if answer.session_id == 0 { (0, 0) } else { (answer.session_id, self.session.1 + 1) };
        self.judge_withheld(&shown, &answer);
        for told in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            self.take(told);
        }
    }

    fn request(&self, wanted: &[i32]) -> FetchRequest {
        let (topic, id) = if self.version >= BY_ID {
            (TopicName::default(), self.world.partition(0).topic)
        } else {
            (TopicName(text(TOPIC)), uuid::Uuid::nil())
        };
        let changed = wanted.iter().filter(|index| self.known.get(index) != Some(&self.at(**index)));
        let named = changed.map(|index| {
            FetchPartition::default()
                .with_partition(*index)
                .with_fetch_offset(self.at(*index))
                .with_current_leader_epoch(-1)
                .with_partition_max_bytes(1 << 20)
        });
        let named: Vec<_> = named.collect();
        let forgotten: Vec<i32> = self.known.keys().filter(|index| !wanted.contains(index)).copied().collect();
        let none = forgotten.is_empty();
        let forgotten =
            ForgottenTopic::default().with_topic(topic.clone()).with_topic_id(id).with_partitions(forgotten);
        let topics = if named.is_empty() {
            Vec::new()
        } else {
            vec![FetchTopic::default().with_topic(topic).with_topic_id(id).with_partitions(named)]
        };
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(i32::try_from(sim::random_below(800)).unwrap_or(0))
            .with_min_bytes([1, 1, 500, 20_000][usize::try_from(sim::random_below(4)).unwrap_or(0)])
            .with_max_bytes(1 << 24)
            .with_isolation_level(i8::try_from(sim::random_below(2)).unwrap_or(0))
            .with_session_id(self.session.0)
            .with_session_epoch(self.session.1)
            .with_topics(topics)
            .with_forgotten_topics_data(if none { Vec::new() } else { vec![forgotten] })
    }

    /// Judges that the answer has everything that the node showed before the request, or an error instead.
    fn judge_withheld(&self, shown: &BTreeMap<i32, i64>, answer: &FetchResponse) {
        let told = || answer.responses.iter().flat_map(|topic| &topic.partitions);
        let bytes = |told: &PartitionData| told.records.as_ref().map_or(0, bytes::Bytes::len);
        if told().map(bytes).sum::<usize>() >= MUCH_BYTES {
            return;
        }
        for (index, end) in shown {
            let given = told().find(|told| told.partition_index == *index);
            if given.is_none_or(|told| told.error_code == 0 && bytes(told) == 0) {
                let violation = reads::withheld(*index, self.node.0, self.at(*index), *end);
                self.world.judge::<()>(Err(violation));
            }
        }
    }

    fn take(&mut self, told: &PartitionData) {
        let (index, from) = (told.partition_index, self.at(told.partition_index));
        match fetched::judge(&self.world, self.node, from, told) {
            Got::Nothing => {}
            Got::Deleted(upto) => {
                self.at.insert(index, upto);
                self.process = self.world.history().process();
            }
            Got::Records(values) => {
                self.world.history().polled(self.process, index, &values);
                let next = values.last().map_or(from, |(offset, _)| offset + 1);
                self.at.insert(index, next);
                self.world.trace(Some(index), format!("node {} gave {from}..{next} to a session", self.node.0));
            }
        }
    }
}
