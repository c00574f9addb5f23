//! Transactions between nodes: markers go to the leaders of partitions, questions to the coordinator of an id.
//!
//! May not know: what a transition or a marker does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use ottla_env::rt;
use ottla_protocol::batch::{ControlRecord, encode_control_batch};
use ottla_protocol::ids::NodeId;

use super::error::TransactionError;
use super::peer_requests::{PeerRequest, TopicIndexes, decode_answer, encode_answer, listed};
use super::runtime::Transactions;
use super::transaction_log::MarkerOutcome;
use super::transitions::{Partitions, Producer};
use crate::metadata::{InternalTopic, MetadataImage};
use crate::partition::{
    AppendError, AppendOptions, Origin, PartitionError, Partitions as NodePartitions, TopicRef, TransactionDecision,
    TransactionPart,
};
use crate::replicated::transactions::Marker;
use crate::shard::{MetadataView, PeerService};

/// How long the leader of a partition has to write a marker.
const MARKER_WAIT: Duration = Duration::from_secs(10);
/// How long a coordinator has to answer a question.
const QUESTION_WAIT: Duration = Duration::from_secs(10);
/// Longer requests are sent in parts.
const PARTITIONS_PER_REQUEST_MAX: usize = 2_000;

/// Where partitions and coordinators are led.
#[derive(Clone)]
pub struct TransactionPeers(Arc<Inner>);

struct Inner {
    metadata: Arc<dyn MetadataView>,
    partitions: NodePartitions,
}

type Outcomes = Vec<(Arc<str>, i32, MarkerOutcome)>;

impl std::fmt::Debug for TransactionPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TransactionPeers")
    }
}

impl TransactionPeers {
    pub(super) fn new(metadata: Arc<dyn MetadataView>, partitions: NodePartitions) -> Self {
        Self(Arc::new(Inner { metadata, partitions }))
    }

    /// Writes the markers of a transaction into these partitions: for each what became of it.
    pub(super) async fn write_markers(&self, producer: Producer, marker: Marker, partitions: Partitions) -> Outcomes {
        let (mut by_leader, unknown) = self.by_leader(&partitions);
        let mut outcomes = self.unknown(unknown).await;
        let own = by_leader.remove(&Some(self.0.partitions.node())).unwrap_or_default();
        let unled = by_leader.remove(&None).unwrap_or_default();
        outcomes.extend(each(&unled).map(|(topic, index)| (topic, index, MarkerOutcome::Retry)));
        let elsewhere = by_leader.into_iter().filter_map(|(node, partitions)| Some((node?, partitions)));
        let elsewhere = elsewhere.map(|(node, partitions)| self.ask_for_markers(node, producer, marker, partitions));
        let here = async {
            let written = self.write_markers_here(producer, marker, &each(&own).collect::<Vec<_>>()).await;
            each(&own).zip(written).map(|((topic, index), outcome)| (topic, index, outcome)).collect::<Outcomes>()
        };
        let (here, elsewhere) = tokio::join!(here, join_all(elsewhere));
        outcomes.extend(here);
        outcomes.extend(elsewhere.into_iter().flatten());
        outcomes
    }

    /// Partitions by the node that leads them, if any is known to; and those that this node's metadata does not have.
    fn by_leader(&self, partitions: &Partitions) -> (BTreeMap<Option<NodeId>, Partitions>, Partitions) {
        let (image, mut leaders) = (self.0.metadata.image(), self.0.partitions.leaders());
        let (mut by_leader, mut unknown) = (BTreeMap::<_, Partitions>::new(), Partitions::new());
        for (topic, index) in each(partitions) {
            let record = image.topic(&topic).filter(|record| record.route(index).is_some());
            let into = match record {
                Some(record) => by_leader.entry(leaders.of(record, index).node).or_default(),
                None => &mut unknown,
            };
            into.entry(topic).or_default().insert(index);
        }
        (by_leader, unknown)
    }

    /// A partition that is certainly deleted needs no marker.
    async fn unknown(&self, unknown: Partitions) -> Outcomes {
        if unknown.is_empty() {
            return Vec::new();
        }
        let is_current = self.0.metadata.read_index().await;
        let image = self.0.metadata.image();
        let one = |(topic, index): (Arc<str>, i32)| {
            let is_deleted = is_current && !is_there(&image, &topic, index);
            (topic, index, if is_deleted { MarkerOutcome::Done } else { MarkerOutcome::Retry })
        };
        each(&unknown).map(one).collect()
    }

    async fn ask_for_markers(
        &self,
        node: NodeId,
        producer: Producer,
        marker: Marker,
        partitions: Partitions,
    ) -> Outcomes {
        let all: Vec<(Arc<str>, i32)> = each(&partitions).collect();
        let mut outcomes = Vec::with_capacity(all.len());
        for some in all.chunks(PARTITIONS_PER_REQUEST_MAX) {
            let mut part = Partitions::new();
            for (topic, index) in some {
                part.entry(topic.clone()).or_default().insert(*index);
            }
            let request = PeerRequest::WriteMarkers { producer, marker, partitions: listed(&part) }.encode();
            let answer = self.0.partitions.ask_transactions(node, request, MARKER_WAIT).await;
            let answers = answer.and_then(|answer| decode_answer::<MarkerOutcome>(&answer, some.len()));
            let answers = answers.unwrap_or_else(|| vec![MarkerOutcome::Retry; some.len()]);
            outcomes.extend(some.iter().zip(answers).map(|((topic, index), outcome)| (topic.clone(), *index, outcome)));
        }
        outcomes
    }

    /// Writes markers into partitions that this node leads: for each in order what became of it.
    pub async fn write_markers_here(
        &self,
        producer: Producer,
        marker: Marker,
        partitions: &[(Arc<str>, i32)],
    ) -> Vec<MarkerOutcome> {
        let append = |(topic, index): &(Arc<str>, i32)| self.append_marker(producer, marker, topic, *index);
        // Enqueued one after the other, so that those of one shard are in one entry; then waited for.
        let appended: Vec<_> = partitions.iter().map(append).collect();
        join_all(appended).await
    }

    fn append_marker(
        &self,
        producer: Producer,
        marker: Marker,
        topic: &str,
        index: i32,
    ) -> BoxFuture<'static, MarkerOutcome> {
        let partition = match self.0.partitions.find_now(TopicRef::Name(topic), index) {
            Ok(Some(partition)) => partition,
            // Another node leads it, or it was deleted: the coordinator looks where.
            Ok(None) | Err(_) => return std::future::ready(MarkerOutcome::Retry).boxed(),
        };
        let coordinator_epoch = marker.coordinator_epoch;
        let record = match marker.commits {
            true => ControlRecord::Commit { coordinator_epoch },
            false => ControlRecord::Abort { coordinator_epoch },
        };
        let now_ms = partition.time().map_or_else(rt::wall_clock_ms, |time| time.now_ms);
        let batch = encode_control_batch(producer.id.0, producer.epoch, now_ms, record);
        let options = AppendOptions::new(Origin::Transaction, MARKER_WAIT);
        let options =
            AppendOptions { transaction: Some(TransactionPart::Decides(TransactionDecision::Ends(marker))), ..options };
        let appended = partition.append(batch, &options);
        async move { marked(&appended.await.map(drop)) }.boxed()
    }

    /// Answers other nodes from now on, as long as handles are kept: the shards, to which these lead, keep the service.
    pub(super) fn serve(&self, transactions: &Transactions) {
        let (peers, transactions) = (Arc::downgrade(&self.0), transactions.downgrade());
        let service: PeerService = Arc::new(move |request| {
            let (peers, transactions) = (peers.upgrade().map(Self), transactions.upgrade());
            async move { peers?.answer(&transactions?, &request).await }.boxed()
        });
        self.0.partitions.serve_transactions(service);
    }

    async fn answer(&self, transactions: &Transactions, request: &[u8]) -> Option<Bytes> {
        let (id, producer, partitions, added_by) = match PeerRequest::decode(request).ok()? {
            PeerRequest::WriteMarkers { producer, marker, partitions } => {
                return Some(encode_answer(&self.write_markers_here(producer, marker, &all(&partitions)).await));
            }
            PeerRequest::Add { id, producer, partitions, client_version } => {
                (id, producer, partitions, Some(client_version))
            }
            PeerRequest::Verify { id, producer, partitions } => (id, producer, partitions, None),
        };
        let question = Question { id: &id, producer, partitions: &all(&partitions), added_by };
        Some(encode_answer(&question.decide(transactions).await))
    }

    /// Asks the coordinator of an id whether the producer's batches may open its transaction in these partitions: for each in order.
    /// `added_by`: under this version the partitions are added to the transaction.
    ///
    /// # Errors
    /// NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE: it could not be asked.
    pub async fn ask(
        &self,
        transactions: &Transactions,
        id: &str,
        producer: Producer,
        partitions: &[(Arc<str>, i32)],
        added_by: Option<i16>,
    ) -> Result<Vec<Result<(), TransactionError>>, TransactionError> {
        let index = transactions.coordinator_partition(id);
        let image = self.0.metadata.image();
        let topic = image.topic(InternalTopic::TransactionState.name()).ok_or(TransactionError::NotCoordinator)?;
        let coordinator = self.0.partitions.leaders().of(topic, index).node.ok_or(TransactionError::NotCoordinator)?;
        let question = Question { id, producer, partitions, added_by };
        if coordinator == self.0.partitions.node() {
            return Ok(question.decide(transactions).await);
        }
        let answer = self.0.partitions.ask_transactions(coordinator, question.encode(), QUESTION_WAIT).await;
        let answer = answer.and_then(|answer| decode_answer(&answer, partitions.len()));
        answer.ok_or(TransactionError::CoordinatorNotAvailable)
    }
}

/// Whether batches may open a transaction.
struct Question<'a> {
    id: &'a str,
    producer: Producer,
    partitions: &'a [(Arc<str>, i32)],
    added_by: Option<i16>,
}

impl Question<'_> {
    fn encode(&self) -> Bytes {
        let one = |(topic, index): &(Arc<str>, i32)| TopicIndexes { topic: topic.to_string(), indexes: vec![*index] };
        let (id, producer) = (self.id.to_owned(), self.producer);
        let partitions = self.partitions.iter().map(one).collect();
        match self.added_by {
            Some(client_version) => PeerRequest::Add { id, producer, partitions, client_version }.encode(),
            None => PeerRequest::Verify { id, producer, partitions }.encode(),
        }
    }

    /// What the coordinator here says.
    async fn decide(&self, transactions: &Transactions) -> Vec<Result<(), TransactionError>> {
        let count = self.partitions.len();
        let outcome = match self.added_by {
            Some(client_version) => {
                let mut added = Partitions::new();
                for (topic, index) in self.partitions {
                    added.entry(topic.clone()).or_default().insert(*index);
                }
                let added = transactions.add(self.id, self.producer, added, client_version).await;
                added.map(|()| vec![Ok(()); count])
            }
            None => transactions.verify(self.id, self.producer, self.partitions).await,
        };
        outcome.unwrap_or_else(|error| vec![Err(error); count])
    }
}

/// The partitions of a request, in order.
fn all(partitions: &[TopicIndexes]) -> Vec<(Arc<str>, i32)> {
    let of_topic = |named: &TopicIndexes| {
        let topic: Arc<str> = Arc::from(&*named.topic);
        named.indexes.iter().map(|index| (topic.clone(), *index)).collect::<Vec<_>>()
    };
    partitions.iter().flat_map(of_topic).collect()
}

fn each(partitions: &Partitions) -> impl Iterator<Item = (Arc<str>, i32)> {
    let of_topic = |(topic, indexes): (&Arc<str>, &BTreeSet<i32>)| {
        let topic = topic.clone();
        indexes.iter().map(move |index| (topic.clone(), *index)).collect::<Vec<_>>()
    };
    partitions.iter().flat_map(of_topic)
}

fn is_there(image: &MetadataImage, topic: &str, index: i32) -> bool {
    image.topic(topic).is_some_and(|topic| topic.route(index).is_some())
}

/// What became of a marker whose append has ended.
fn marked(outcome: &Result<(), AppendError>) -> MarkerOutcome {
    match outcome {
        Ok(()) => MarkerOutcome::Done,
        Err(AppendError::TransactionCoordinatorFenced) => MarkerOutcome::CoordinatorFenced,
        Err(AppendError::InvalidProducerEpoch) => MarkerOutcome::ProducerFenced,
        Err(AppendError::Partition(PartitionError::NotLeaderOrFollower)) => MarkerOutcome::Retry,
        Err(error) => {
            tracing::debug!("a marker is not written: {error}");
            MarkerOutcome::Retry
        }
    }
}
