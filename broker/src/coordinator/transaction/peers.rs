//! Transactions between nodes: markers go to the leaders of partitions, questions to the coordinator of an id.
//!
//! May not know: what a transition or a marker does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use ottla_env::rt;
use ottla_protocol::ids::NodeId;

use super::error::TransactionError;
use super::partitions::{NamedPartition, by_topic};
use super::peer_requests::{PeerRequest, decode_answer, encode_answer, listed, unlisted};
use super::runtime::Transactions;
use super::transaction_log::MarkerOutcome;
use super::transitions::Producer;
use crate::metadata::InternalTopic;
use crate::partition::marker::append_of;
use crate::partition::{AppendError, PartitionError, Partitions as NodePartitions, TopicRef};
use crate::replicated::transactions::Marker;
use crate::shard::{MetadataView, PeerService, transactions_request};

/// How long the leader of a partition has to write a marker.
const MARKER_WAIT: Duration = Duration::from_secs(10);
/// How long a coordinator has to answer a question.
const QUESTION_WAIT: Duration = Duration::from_secs(10);
/// How long a question waits for a coordinator to ask: as long as the internal topic takes to be created, or a leader to be elected.
/// A client that is refused meanwhile counts a failure.
const COORDINATOR_WAIT: Duration = Duration::from_secs(5);
/// Between two attempts to find one.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(200);
/// Longer requests are sent in parts.
const PARTITIONS_PER_REQUEST_MAX: usize = 2_000;

/// Where partitions and coordinators are led.
#[derive(Clone)]
pub struct TransactionPeers(Arc<Inner>);

struct Inner {
    metadata: Arc<dyn MetadataView>,
    partitions: NodePartitions,
}

type Outcomes = Vec<(NamedPartition, MarkerOutcome)>;

impl std::fmt::Debug for TransactionPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TransactionPeers")
    }
}

impl TransactionPeers {
    pub(super) fn new(metadata: Arc<dyn MetadataView>, partitions: NodePartitions) -> Self {
        Self(Arc::new(Inner { metadata, partitions }))
    }

    /// Writes the markers of a transaction into these partitions: for each, in any order, what became of it.
    pub(super) async fn write_markers(
        &self,
        producer: Producer,
        marker: Marker,
        partitions: &[NamedPartition],
    ) -> Outcomes {
        let (mut by_leader, unknown) = self.by_leader(partitions);
        let mut outcomes = self.unknown(unknown).await;
        let own = by_leader.remove(&Some(self.0.partitions.node())).unwrap_or_default();
        let unled = by_leader.remove(&None).unwrap_or_default();
        outcomes.extend(unled.into_iter().map(|partition| (partition, MarkerOutcome::Retry)));
        let elsewhere = by_leader.into_iter().filter_map(|(node, partitions)| Some((node?, partitions)));
        let elsewhere = elsewhere.map(|(node, partitions)| self.ask_for_markers(node, producer, marker, partitions));
        let (here, elsewhere) = tokio::join!(self.write_markers_here(producer, marker, &own), join_all(elsewhere));
        outcomes.extend(own.into_iter().zip(here));
        outcomes.extend(elsewhere.into_iter().flatten());
        outcomes
    }

    /// Partitions by the node that leads them, if any is known to; and those that this node's metadata does not have.
    fn by_leader(
        &self,
        partitions: &[NamedPartition],
    ) -> (BTreeMap<Option<NodeId>, Vec<NamedPartition>>, Vec<NamedPartition>) {
        let (image, mut leaders) = (self.0.metadata.image(), self.0.partitions.leaders());
        let (mut by_leader, mut unknown) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        for (topic, index) in partitions {
            let record = image.topic(topic).filter(|record| record.route(*index).is_some());
            let into = match record {
                Some(record) => by_leader.entry(leaders.of(record, *index).node).or_default(),
                None => &mut unknown,
            };
            into.push((topic.clone(), *index));
        }
        (by_leader, unknown)
    }

    /// A partition that is certainly deleted needs no marker.
    async fn unknown(&self, unknown: Vec<NamedPartition>) -> Outcomes {
        if unknown.is_empty() {
            return Vec::new();
        }
        let is_current = self.0.metadata.read_index().await;
        let image = self.0.metadata.image();
        let one = |(topic, index): NamedPartition| {
            let is_deleted = is_current && !image.has_partition(&topic, index);
            ((topic, index), if is_deleted { MarkerOutcome::Done } else { MarkerOutcome::Retry })
        };
        unknown.into_iter().map(one).collect()
    }

    async fn ask_for_markers(
        &self,
        node: NodeId,
        producer: Producer,
        marker: Marker,
        partitions: Vec<NamedPartition>,
    ) -> Outcomes {
        let mut outcomes = Vec::with_capacity(partitions.len());
        for some in partitions.chunks(PARTITIONS_PER_REQUEST_MAX) {
            let request = PeerRequest::WriteMarkers { producer, marker, partitions: listed(some) }.encode();
            let answer = self.0.partitions.ask_transactions(node, request, MARKER_WAIT).await;
            let answers = answer.and_then(|answer| decode_answer::<MarkerOutcome>(&answer, some.len()));
            let answers = answers.unwrap_or_else(|| vec![MarkerOutcome::Retry; some.len()]);
            outcomes.extend(some.iter().cloned().zip(answers));
        }
        outcomes
    }

    /// Writes markers into partitions that this node leads: for each in order what became of it.
    pub async fn write_markers_here(
        &self,
        producer: Producer,
        marker: Marker,
        partitions: &[NamedPartition],
    ) -> Vec<MarkerOutcome> {
        let append = |(topic, index): &NamedPartition| self.append_marker(producer, marker, topic, *index);
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
        let now_ms = partition.time().map_or_else(rt::wall_clock_ms, |time| time.now_ms);
        let (batch, options) = append_of(marker, (producer.id.0, producer.epoch), now_ms, MARKER_WAIT);
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
                return Some(encode_answer(&self.write_markers_here(producer, marker, &unlisted(&partitions)).await));
            }
            PeerRequest::Add { id, producer, partitions, client_version } => {
                (id, producer, partitions, Some(client_version))
            }
            PeerRequest::Verify { id, producer, partitions } => (id, producer, partitions, None),
        };
        let question = Question { id: &id, producer, partitions: &unlisted(&partitions), added_by };
        Some(encode_answer(&question.decide(transactions).await))
    }

    /// Asks the coordinator of an id whether the producer's batches may open its transaction in these partitions: for each in order.
    /// `added_by`: under this version the partitions are added to the transaction. Waits a while for a coordinator.
    pub async fn ask(
        &self,
        transactions: &Transactions,
        id: &str,
        producer: Producer,
        partitions: &[NamedPartition],
        added_by: Option<i16>,
    ) -> Vec<Result<(), TransactionError>> {
        let question = Question { id, producer, partitions, added_by };
        let deadline = rt::now() + COORDINATOR_WAIT;
        let mut pause = RETRY_MIN;
        loop {
            let answers = self.ask_now(transactions, &question).await;
            let answers = answers.unwrap_or_else(|error| vec![Err(error); partitions.len()]);
            if !answers.iter().any(is_unavailable) || rt::now() + pause >= deadline {
                return answers;
            }
            rt::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Asks the node that coordinates the id as far as this one knows.
    async fn ask_now(
        &self,
        transactions: &Transactions,
        question: &Question<'_>,
    ) -> Result<Vec<Result<(), TransactionError>>, TransactionError> {
        let index = transactions.coordinator_partition(question.id);
        let image = self.0.metadata.image();
        let topic = image.topic(InternalTopic::TransactionState.name()).ok_or(TransactionError::NotCoordinator)?;
        let coordinator = self.0.partitions.leaders().of(topic, index).node.ok_or(TransactionError::NotCoordinator)?;
        if coordinator == self.0.partitions.node() {
            return Ok(question.decide(transactions).await);
        }
        let answer = self.0.partitions.ask_transactions(coordinator, question.encode(), QUESTION_WAIT).await;
        let answer = answer.and_then(|answer| decode_answer(&answer, question.partitions.len()));
        answer.ok_or(TransactionError::CoordinatorNotAvailable)
    }
}

/// The producer whose markers a request between nodes wants written; `None` if it is another request. For those who watch what nodes
/// send each other.
#[must_use]
pub fn marked_producer(request: &[u8]) -> Option<Producer> {
    match PeerRequest::decode(&transactions_request(request)?).ok()? {
        PeerRequest::WriteMarkers { producer, .. } => Some(producer),
        PeerRequest::Add { .. } | PeerRequest::Verify { .. } => None,
    }
}

/// True if no coordinator has decided.
fn is_unavailable(answer: &Result<(), TransactionError>) -> bool {
    matches!(answer, Err(TransactionError::NotCoordinator | TransactionError::CoordinatorNotAvailable))
}

/// Whether batches may open a transaction.
struct Question<'a> {
    id: &'a str,
    producer: Producer,
    partitions: &'a [NamedPartition],
    added_by: Option<i16>,
}

impl Question<'_> {
    fn encode(&self) -> Bytes {
        let (id, producer, partitions) = (self.id.to_owned(), self.producer, listed(self.partitions));
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
                let added = by_topic(self.partitions);
                let added = transactions.add(self.id, self.producer, added, client_version).await;
                added.map(|()| vec![Ok(()); count])
            }
            None => transactions.verify(self.id, self.producer, self.partitions).await,
        };
        outcome.unwrap_or_else(|error| vec![Err(error); count])
    }
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
