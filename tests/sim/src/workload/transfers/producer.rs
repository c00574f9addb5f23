//! A transactional producer: begins, sends to some partitions, commits or aborts, as a client library does.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, EndTxnResponse, FindCoordinatorRequest, InitProducerIdRequest,
    ProduceRequest, ProduceResponse, ProducerId, TopicName, TransactionalId,
};
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;
use ottla_protocol::error::ErrorCode;

use super::{PARTITIONS, TOPIC, target};
use crate::laws::Violation;
use crate::laws::transfers::Fate;
use crate::registry::node_of;
use crate::wire::{Client, text};
use crate::workload::{built, pause};
use crate::world::World;

const FIND: i16 = 4;
const INIT: i16 = 4;
const TRANSACTION: i8 = 1;
/// Of `transaction.version` 1: partitions are added by a request, epochs stay.
const ADD_PARTITIONS: i16 = 3;
const PRODUCE_BEFORE_BUMPS: i16 = 11;
const END_BEFORE_BUMPS: i16 = 3;
/// Of version 2: Produce adds partitions, the epoch grows with each transaction.
const PRODUCE_WITH_BUMPS: i16 = 12;
const END_WITH_BUMPS: i16 = 5;

/// Why a client cannot go on with its producer.
pub(super) struct Lost;

/// What came of a request that was sent until its end was known.
pub(super) enum Insisted {
    Done,
    Refused(SimNode, i16),
    Unknown,
}

/// What an answer says.
enum Told {
    Done,
    Again,
    Lost(i16),
}

fn told(code: i16) -> Told {
    match ErrorCode::from_code(code) {
        Some(ErrorCode::None) => Told::Done,
        Some(code) if code.is_retriable() => Told::Again,
        _ => Told::Lost(code),
    }
}

pub(super) struct Producer {
    pub(super) world: World,
    pub(super) client: Client,
    pub(super) id: String,
    coordinator: Option<SimNode>,
    /// `transaction.version` that the client follows.
    pub(super) bumps: bool,
    pub(super) producer: (i64, i16),
    /// Since when it is the only producer of its id, for [`Transfers::is_sole`](crate::laws::transfers::Transfers::is_sole).
    sole_since: Option<u64>,
    sequences: BTreeMap<i32, i32>,
}

/// Runs transactions until the workload ends, and aborts what is left open then. Two of these share each transactional id.
pub(crate) async fn transfers(world: World, number: u64) {
    let client = Client::new(world.clone(), &format!("transfers-{number}"));
    let id = format!("transfers-{}", number / 2);
    let (coordinator, sole_since, sequences) = Default::default();
    let bumps = sim::random_below(2) == 0;
    let mut producer = Producer { world, client, id, coordinator, bumps, producer: (-1, -1), sole_since, sequences };
    if super::topic(&producer.world, &mut producer.client).await.is_none() {
        return;
    }
    while producer.world.workload_runs() {
        producer.bumps = sim::random_below(2) == 0;
        if producer.begin_anew().await.is_err() {
            pause(200).await;
            continue;
        }
        // A zombie comes back after others have begun with its id.
        for _ in 0..1 + sim::random_below(12) {
            if producer.world.workload_runs() && producer.transaction().await.is_err() {
                break;
            }
            let aborts = producer.world.aborts_at_once() && producer.bumps && sim::random_below(4) == 0;
            if aborts && producer.abort_unsent().await.is_err() {
                break;
            }
            pause(if sim::random_below(8) == 0 { 3_000 } else { 30 }).await;
        }
    }
    while producer.world.broken().is_none() && producer.begin_anew().await.is_err() {
        pause(200).await;
    }
}

impl Producer {
    async fn find(&mut self) -> Option<SimNode> {
        if self.coordinator.is_none() {
            let keys = vec![text(&self.id)];
            let request = FindCoordinatorRequest::default().with_key_type(TRANSACTION).with_coordinator_keys(keys);
            let answer = self.client.call(self.world.random_node(), FIND, &request).await?;
            let found = answer.coordinators.first().filter(|found| found.error_code == 0)?;
            self.coordinator = Some(node_of(ottla_protocol::ids::NodeId(found.node_id.0)));
        }
        self.coordinator
    }

    /// Asks the coordinator until it says something final: whether every attempt before was answered, and what.
    pub(super) async fn ask<R: kafka_protocol::protocol::Request>(
        &mut self,
        version: i16,
        request: &R,
        code_of: impl Fn(&R::Response) -> i16,
    ) -> (bool, Result<R::Response, Lost>) {
        let mut is_certain = true;
        while self.world.broken().is_none() {
            let Some(node) = self.find().await else {
                pause(100).await;
                continue;
            };
            match self.client.call(node, version, request).await {
                Some(answer) => match told(code_of(&answer)) {
                    Told::Done => return (is_certain, Ok(answer)),
                    Told::Lost(code) => {
                        let line = format!("node {} tells {} {}: {code}", node.0, self.id, std::any::type_name::<R>());
                        self.world.trace(None, line);
                        self.judge_refusal(node, code);
                        return (is_certain, Err(Lost));
                    }
                    // What timed out may be written yet.
                    Told::Again => is_certain &= code_of(&answer) == ErrorCode::ConcurrentTransactions.code(),
                },
                None => is_certain = false,
            }
            if sim::random_below(2) == 0 {
                self.coordinator = None;
            }
            pause(80).await;
        }
        (false, Err(Lost))
    }

    /// The cluster has written transactions since the client was given its first producer: no node may say for good that it does not.
    pub(super) fn judge_refusal(&self, node: SimNode, code: i16) {
        if code == ErrorCode::TransactionalIdAuthorizationFailed.code() && self.producer.0 >= 0 {
            let what = format!("node {} tells {} that the cluster writes no transactions", node.0, self.id);
            self.world.judge::<()>(Err(Violation::new("a level that is reached stays", None, what)));
        }
    }

    /// InitProducerId: others that have the id are fenced, and what they have open is aborted.
    async fn begin_anew(&mut self) -> Result<(), Lost> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text(&self.id))))
            .with_transaction_timeout_ms(1_000 + i32::try_from(sim::random_below(8_000)).unwrap_or(0));
        self.world.oracle().transfers.asks_for(&self.id);
        let (is_certain, given) = self.ask(INIT, &request, |answer| answer.error_code).await;
        self.sole_since = self.world.oracle().transfers.was_answered(&self.id, is_certain);
        let given = given?;
        self.producer = (given.producer_id.0, given.producer_epoch);
        self.sequences.clear();
        let (id, (producer, epoch)) = (&self.id, self.producer);
        self.world.trace(None, format!("{id} has producer {producer} epoch {epoch}, bumps {}", self.bumps));
        Ok(())
    }

    async fn transaction(&mut self) -> Result<(), Lost> {
        let transaction = self.world.oracle().transfers.begin();
        let mut indexes: Vec<i32> = (0..PARTITIONS).collect();
        for _ in 0..1 + sim::random_below(3) {
            indexes.remove(usize::try_from(sim::random_below(indexes.len() as u64)).unwrap_or(0));
        }
        if !self.bumps {
            self.add(&indexes).await?;
        }
        // Some answers to readers end between two batches of a transaction.
        if sim::random_below(3) == 0 {
            indexes.extend(indexes.first().copied());
        }
        for index in indexes {
            let count = 1 + sim::random_below(2);
            let values: Vec<u64> = (0..count).map(|_| self.world.oracle().transfers.send(transaction, index)).collect();
            self.send(index, &values).await?;
            pause(15).await;
        }
        if sim::random_below(2) == 0 {
            self.commit_offset(transaction).await?;
        }
        // Longer than some transactions may stay open.
        if sim::random_below(15) == 0 {
            rt::sleep(Duration::from_secs(4)).await;
        }
        match sim::random_below(6) {
            0 => self.give_up(transaction).await,
            1 => self.end(transaction, false).await,
            _ => self.end(transaction, true).await,
        }
    }

    /// Aborts while a batch is under way, which may reach its partition after the marker has (the reason for KIP-890). A client cannot
    /// go on under the same epoch then: the batch would be one of its next transaction.
    async fn give_up(&mut self, transaction: usize) -> Result<(), Lost> {
        let index = i32::try_from(sim::random_below(PARTITIONS.unsigned_abs().into())).unwrap_or(0);
        if !self.bumps {
            self.add(&[index]).await?;
        }
        let value = self.world.oracle().transfers.send(transaction, index);
        let (version, request) = self.produce(index, &[value]);
        let world = self.world.clone();
        self.world.run_client("abandoned batch", None, async move {
            let mut client = Client::new(world.clone(), "abandoned-batch");
            client.call(target(&world, index), version, &request).await;
        });
        pause(5).await;
        self.end(transaction, false).await?;
        Err(Lost)
    }

    async fn add(&mut self, indexes: &[i32]) -> Result<(), Lost> {
        let topic = AddPartitionsToTxnTopic::default().with_name(TopicName(text(TOPIC)));
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(&self.id)))
            .with_v3_and_below_producer_id(ProducerId(self.producer.0))
            .with_v3_and_below_producer_epoch(self.producer.1)
            .with_v3_and_below_topics(vec![topic.with_partitions(indexes.to_vec())]);
        let code_of = |answer: &kafka_protocol::messages::AddPartitionsToTxnResponse| {
            let topics = answer.results_by_topic_v3_and_below.iter().flat_map(|topic| &topic.results_by_partition);
            topics.map(|one| one.partition_error_code).find(|code| *code != 0).unwrap_or(0)
        };
        self.ask(ADD_PARTITIONS, &request, code_of).await.1.map(drop)
    }

    fn batch(&self, index: i32, values: &[u64]) -> Bytes {
        let sequence = self.sequences.get(&index).copied().unwrap_or(0);
        let (producer, epoch) = self.producer;
        let mut builder = BatchBuilder::new(Codec::None).with_producer(producer, epoch, sequence).transactional();
        for value in values {
            let value = &value.to_be_bytes();
            builder.push(&NewRecord {
                timestamp: rt::wall_clock_ms(),
                key: Some(value),
                value: Some(value),
                headers: &[],
            });
        }
        built(builder)
    }

    /// The request with a batch, and its version.
    fn produce(&self, index: i32, values: &[u64]) -> (i16, ProduceRequest) {
        let data = PartitionProduceData::default().with_index(index).with_records(Some(self.batch(index, values)));
        let topic = TopicProduceData::default().with_name(TopicName(text(TOPIC))).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(Some(TransactionalId(text(&self.id))))
            .with_acks(-1)
            .with_timeout_ms(2_000)
            .with_topic_data(vec![topic]);
        (if self.bumps { PRODUCE_WITH_BUMPS } else { PRODUCE_BEFORE_BUMPS }, request)
    }

    /// Sends a batch until it is acknowledged.
    async fn send(&mut self, index: i32, values: &[u64]) -> Result<(), Lost> {
        let (version, request) = self.produce(index, values);
        let code_of =
            |answer: &ProduceResponse| Some(answer.responses.first()?.partition_responses.first()?.error_code);
        match self.insist(version, &request, |world| target(world, index), code_of, true).await {
            Insisted::Done => {
                *self.sequences.entry(index).or_default() += i32::try_from(values.len()).unwrap_or(0);
                Ok(())
            }
            Insisted::Refused(node, code) => {
                self.world.trace(None, format!("node {} refuses {values:?} of {}: {code}", node.0, self.id));
                self.judge_refusal(node, code);
                if code == ErrorCode::InvalidTxnState.code() {
                    // A coordinator that ends a transaction by itself fences the producer: another code.
                    let what = format!("node {} says that {} has ended its transaction", node.0, self.id);
                    self.world.judge::<()>(Err(Violation::new("an open transaction goes on", None, what)));
                }
                Err(Lost)
            }
            Insisted::Unknown => Err(Lost),
        }
    }

    /// Asks the node that `node` chooses until one says something final about the only part of a request. `is_repeatable`: also after
    /// an attempt without an answer.
    pub(super) async fn insist<R: kafka_protocol::protocol::Request>(
        &mut self,
        version: i16,
        request: &R,
        node: impl Fn(&World) -> SimNode,
        code_of: impl Fn(&R::Response) -> Option<i16>,
        is_repeatable: bool,
    ) -> Insisted {
        while self.world.broken().is_none() {
            let node = node(&self.world);
            let answer = self.client.call(node, version, request).await;
            match answer.as_ref().and_then(&code_of).map(told) {
                Some(Told::Done) => return Insisted::Done,
                Some(Told::Lost(code)) => return Insisted::Refused(node, code),
                None if !is_repeatable => return Insisted::Unknown,
                Some(Told::Again) | None => pause(80).await,
            }
        }
        Insisted::Unknown
    }

    /// Aborts a transaction of which nothing was sent, right after the one before has ended: its markers may not be written yet.
    async fn abort_unsent(&mut self) -> Result<(), Lost> {
        let (_, ended) = self.ask_to_end(false).await;
        let is_sole = self.world.oracle().transfers.is_sole(&self.id, self.sole_since);
        if ended.is_err() && is_sole && self.world.broken().is_none() {
            let what = format!("{} is refused, and has no other producer", self.id);
            self.world.judge::<()>(Err(Violation::new("only a later producer fences", None, what)));
        }
        self.goes_on_with(&ended?);
        Ok(())
    }

    /// EndTxn: whether every attempt before the last was answered, and what the last one was.
    async fn ask_to_end(&mut self, commits: bool) -> (bool, Result<EndTxnResponse, Lost>) {
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(&self.id)))
            .with_producer_id(ProducerId(self.producer.0))
            .with_producer_epoch(self.producer.1)
            .with_committed(commits);
        let version = if self.bumps { END_WITH_BUMPS } else { END_BEFORE_BUMPS };
        self.ask(version, &request, |answer| answer.error_code).await
    }

    /// The next transaction is that of the producer that the answer names.
    fn goes_on_with(&mut self, answer: &EndTxnResponse) {
        if self.bumps {
            self.producer = (answer.producer_id.0, answer.producer_epoch);
            self.sequences.clear();
        }
    }

    async fn end(&mut self, transaction: usize, commits: bool) -> Result<(), Lost> {
        if commits {
            self.world.oracle().transfers.ends(transaction, Fate::Asked);
        }
        let (is_certain, ended) = self.ask_to_end(commits).await;
        let fate = match (&ended, commits) {
            (Ok(_), true) => Fate::Committed,
            (_, false) => Fate::Aborted,
            (Err(Lost), true) if is_certain => Fate::Aborted,
            (Err(Lost), true) => Fate::Asked,
        };
        self.world.oracle().transfers.ends(transaction, fate);
        self.world.trace(None, format!("{} ends transaction {transaction}: {fate:?}", self.id));
        self.goes_on_with(&ended?);
        Ok(())
    }
}
