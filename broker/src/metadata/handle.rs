//! `MetadataHandle`: the handle through which the other modules read the image and request changes.
//!
//! May not know: the wire; partitions' contents.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use ottla_env::{rt, watch};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::{NodeId, ProducerId};
use ottla_raft::{GroupHandle, RaftHost};
use ottla_storage::ids::{RaftIndex, ReplicaId};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::action::Step;
use super::balance::BalanceStatus;
use super::command::IntentEnd;
use super::config_change;
use super::controller::{Controller, QUEUED_REQUESTS_MAX};
use super::controller_client::ControllerClient;
use super::decide::{ControllerRequest, ControllerResponse};
use super::error::MetadataError;
use super::first_epochs::ShardTerms;
use super::image::{IntentKey, MetadataImage, ShardId, Topic};
use super::merge_record::MergeStep;
use super::merges;
use super::names;
use super::registration::NodeRegistration;
use super::requests::{
    ConfigChange, CreatedTopic, FeatureUpdate, InternalTopic, MetadataQuorum, NewPartitions, NewTopic, Nodes, TopicName,
};
use super::single_flight::{Coalesced, SingleFlight};
use super::splits;
use crate::config::Config;
use crate::levels::Levels;

/// The most topics that are auto-created at the same time: a request that names a million topics must not overload the
/// controller.
const AUTO_CREATE_MAX: usize = 256;
/// Ends of intents reported in one request.
const INTENT_ENDS_MAX: usize = 2_048;
/// Before a node that could not register retries.
pub(super) const REGISTRATION_RETRY: Duration = Duration::from_millis(500);
/// The same for a node that was rejected: the cause does not pass by itself.
pub(super) const REJECTED_RETRY: Duration = Duration::from_secs(10);
/// How long a change waits for its entry where the caller gives no timeout.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// The metadata as of this node's replica, and the means to change it. Cheap to clone.
#[derive(Clone)]
pub struct MetadataHandle(Arc<Inner>);

pub(super) struct Inner {
    node_id: NodeId,
    client: Arc<ControllerClient>,
    creating: SingleFlight<Result<CreatedTopic, MetadataError>>,
    reading: Coalesced<Result<(), MetadataError>>,
    producer_ids: tokio::sync::Mutex<std::ops::Range<i64>>,
    /// This node's own registration.
    registration: NodeRegistration,
    /// This node's replica of the metadata, once another node has responded that it is not part of the group any more.
    removed: watch::Sender<Option<ReplicaId>>,
    /// True once this node has announced its stop and sends no heartbeat any more.
    stopping: AtomicBool,
    /// The terms of shards, for the controller.
    terms: ShardTerms,
}

impl std::fmt::Debug for MetadataHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MetadataHandle(index {})", self.image().index.0)
    }
}

/// A random id, version 4, never zero.
pub(super) fn random_uuid() -> Uuid {
    let bits = u128::from(rt::random_u64()) << 64 | u128::from(rt::random_u64());
    uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
}

impl MetadataHandle {
    /// The handle of a running group; starts its controller task.
    pub(super) fn new(
        node_id: NodeId,
        host: RaftHost,
        group: GroupHandle,
        images: watch::Receiver<Arc<MetadataImage>>,
        base: Arc<Config>,
        registration: NodeRegistration,
    ) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUED_REQUESTS_MAX);
        let terms = ShardTerms::default();
        let controller =
            Controller { group: group.clone(), images: images.clone(), queue: receiver, base, terms: terms.clone() };
        rt::spawn_critical("controller", group.owner(), controller.run());
        Self(Arc::new(Inner {
            node_id,
            client: ControllerClient::start(host, group, images, queue),
            creating: SingleFlight::new(AUTO_CREATE_MAX),
            reading: Coalesced::new(),
            producer_ids: tokio::sync::Mutex::new(0..0),
            registration,
            removed: watch::Sender::new(None),
            stopping: AtomicBool::new(false),
            terms,
        }))
    }

    /// Sets whom to ask for the terms in which shards are led, once.
    pub fn set_shard_terms(&self, terms: impl Fn(ShardId) -> Option<u64> + Send + Sync + 'static) {
        self.0.terms.set(Box::new(terms));
    }

    /// The image as of the last entry applied on this node.
    #[must_use]
    pub fn image(&self) -> Arc<MetadataImage> {
        Arc::clone(&self.0.client.images.borrow())
    }

    /// This node's configuration, dynamic settings included.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.0.client.images.borrow().config)
    }

    /// The image and its changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.0.client.images.clone()
    }

    /// This node's replica of the metadata, once another node has responded that it is not part of the group any more:
    /// it gets no entries, and is to be removed.
    #[must_use]
    pub fn removed_from_cluster(&self) -> watch::Receiver<Option<ReplicaId>> {
        self.0.removed.subscribe()
    }

    pub(super) fn set_removed_from_cluster(&self) {
        self.0.removed.send_replace(Some(self.group().replica()));
    }

    /// This node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.0.node_id
    }

    /// The feature levels that this node understands.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.0.registration.node.levels
    }

    /// The active controller: the metadata group's leader, if it is known.
    #[must_use]
    pub fn controller_id(&self) -> Option<NodeId> {
        let leader = self.0.client.group.role().borrow().leader?;
        let image = self.image();
        let shard = image.shard(ShardId::METADATA)?;
        shard.replicas.iter().find(|replica| replica.id == leader).map(|replica| replica.node)
    }

    /// The metadata group's replica on this node.
    #[must_use]
    pub fn group(&self) -> &GroupHandle {
        &self.0.client.group
    }

    /// The client of the metadata group's leader.
    pub(super) fn controller_client(&self) -> &ControllerClient {
        &self.0.client
    }

    /// True once this node has announced its stop.
    pub(super) fn stopping(&self) -> &AtomicBool {
        &self.0.stopping
    }

    /// For how long this node has known no leader of the metadata; `None` while it knows one, or is the only node.
    #[must_use]
    pub fn out_of_contact_for(&self) -> Option<Duration> {
        self.group().leaderless_for().filter(|_| self.image().nodes.len() > 1)
    }

    /// Returns when everything that was committed before the call is in the image. Calls that come together share one.
    ///
    /// # Errors
    /// When no leader that a majority confirms responds, or this node's replica has stopped.
    pub async fn read_index(&self) -> Result<(), MetadataError> {
        let client = Arc::clone(&self.0.client);
        let read = move || {
            let client = Arc::clone(&client);
            async move { client.read_index().await }
        };
        self.0.reading.run(read).await.unwrap_or(Err(MetadataError::Stopped("the node stops".to_owned())))
    }

    /// The progress of the metadata group's members, as its leader has it.
    ///
    /// # Errors
    /// When no leader that a majority confirms responds.
    pub async fn describe_quorum(&self) -> Result<MetadataQuorum, MetadataError> {
        match self.0.client.describe_quorum().await? {
            ControllerResponse::Quorum(quorum) => Ok(quorum),
            other => Err(unexpected(&other)),
        }
    }

    /// A weak handle.
    pub(super) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.0)
    }

    pub(super) fn upgrade(weak: &Weak<Inner>) -> Option<Self> {
        weak.upgrade().map(Self)
    }

    pub(super) async fn request(
        &self,
        request: ControllerRequest,
        validate_only: bool,
        timeout: Duration,
    ) -> Result<ControllerResponse, MetadataError> {
        self.0.client.submit(request, validate_only, timeout).await
    }

    /// Creates topics. Each outcome is returned when the topic is committed and in this node's image.
    pub async fn create_topics(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
        timeout: Duration,
    ) -> Vec<Result<CreatedTopic, MetadataError>> {
        let all = topics.into_iter().map(|topic| self.create_topic(topic, validate_only, timeout));
        join_all(all).await
    }

    async fn create_topic(
        &self,
        topic: NewTopic,
        validate_only: bool,
        timeout: Duration,
    ) -> Result<CreatedTopic, MetadataError> {
        let request = ControllerRequest::CreateTopic { topic, id: random_uuid() };
        self.request(request, validate_only, timeout).await.and_then(created)
    }

    /// Deletes topics. Each outcome, with name and id, is returned when the deletion is committed and in this node's
    /// image.
    pub async fn delete_topics(
        &self,
        topics: Vec<TopicName>,
        timeout: Duration,
    ) -> Vec<Result<(String, Uuid), MetadataError>> {
        let all = topics.into_iter().map(|topic| async move {
            match self.request(ControllerRequest::DeleteTopic(topic), false, timeout).await? {
                ControllerResponse::Deleted { name, id } => Ok((name, id)),
                other => Err(unexpected(&other)),
            }
        });
        join_all(all).await
    }

    /// Adds partitions to topics.
    pub async fn create_partitions(
        &self,
        topics: Vec<NewPartitions>,
        validate_only: bool,
        timeout: Duration,
    ) -> Vec<Result<(), MetadataError>> {
        let all = topics.into_iter().map(|topic| async move {
            self.request(ControllerRequest::CreatePartitions(topic), validate_only, timeout).await.map(|_| ())
        });
        join_all(all).await
    }

    /// Changes configurations, each of them whole or not at all.
    pub async fn alter_configs(
        &self,
        changes: Vec<ConfigChange>,
        validate_only: bool,
    ) -> Vec<Result<(), MetadataError>> {
        let all = changes.into_iter().map(|change| async move {
            // A controller of the release before could not read the request.
            config_change::check_level(&self.image(), &change.owner)?;
            self.request(ControllerRequest::ChangeConfig(change), validate_only, TIMEOUT).await.map(|_| ())
        });
        join_all(all).await
    }

    /// The topic called `name`, created with the defaults if it does not exist: for clients that request a missing
    /// topic, where `auto.create.topics.enable` allows it. Calls for one name share one creation.
    ///
    /// # Errors
    /// As for a topic that a client creates; `Overloaded` when too many are being created.
    pub async fn auto_create(&self, name: &str) -> Result<Arc<Topic>, MetadataError> {
        if let Some(topic) = self.image().topic(name) {
            return Ok(Arc::clone(topic));
        }
        if let Some(internal) = InternalTopic::named(name) {
            return self.ensure_internal(internal).await;
        }
        names::check_name(name)?;
        let (metadata, topic) = (self.clone(), NewTopic { name: name.to_owned(), ..NewTopic::default() });
        let work = || async move { metadata.create_topic(topic, false, TIMEOUT).await };
        match self.0.creating.run(name, work).await {
            Some(Ok(_) | Err(MetadataError::TopicExists(_))) => {
                self.image().topic(name).cloned().ok_or(MetadataError::UnknownTopic)
            }
            Some(Err(error)) => Err(error),
            None => Err(MetadataError::Overloaded),
        }
    }

    /// As [`MetadataHandle::auto_create`], for handlers that respond with an error code.
    ///
    /// # Errors
    /// The code to respond; retriable when too many topics are being created.
    pub async fn auto_create_topic(&self, name: &str) -> Result<Arc<Topic>, ErrorCode> {
        self.auto_create(name).await.map_err(|error| match error {
            MetadataError::Overloaded | MetadataError::TimedOut | MetadataError::NotController { .. } => {
                ErrorCode::LeaderNotAvailable
            }
            error => error.code(),
        })
    }

    /// An internal topic, created if it does not exist.
    ///
    /// # Errors
    /// When it cannot be created now.
    pub async fn ensure_internal(&self, topic: InternalTopic) -> Result<Arc<Topic>, MetadataError> {
        if let Some(topic) = self.image().topic(topic.name()) {
            return Ok(Arc::clone(topic));
        }
        let metadata = self.clone();
        let work = || async move {
            let request = ControllerRequest::EnsureInternal { topic, id: random_uuid() };
            metadata.request(request, false, TIMEOUT).await.and_then(created)
        };
        match self.0.creating.run(topic.name(), work).await {
            Some(Ok(_)) => self.image().topic(topic.name()).cloned().ok_or(MetadataError::UnknownTopic),
            Some(Err(error)) => Err(error),
            None => Err(MetadataError::Overloaded),
        }
    }

    /// A producer id that was never given before. This node takes blocks of them from the metadata group.
    ///
    /// # Errors
    /// When no block can be allocated now.
    pub async fn allocate_producer_id(&self) -> Result<ProducerId, MetadataError> {
        let mut block = self.0.producer_ids.lock().await;
        if block.is_empty() {
            match self.request(ControllerRequest::AllocateProducerIds, false, TIMEOUT).await? {
                ControllerResponse::ProducerIds { first, count } => {
                    *block = first..first.saturating_add(i64::from(count))
                }
                other => return Err(unexpected(&other)),
            }
        }
        block.next().map(ProducerId).ok_or(MetadataError::TimedOut)
    }

    /// Reports, on behalf of a shard's leader, intents that ended in the shard's log. The leader repeats the report
    /// until they are gone from the image.
    ///
    /// # Errors
    /// When that cannot be recorded now.
    pub async fn end_intents(&self, ends: Vec<(IntentKey, IntentEnd)>) -> Result<(), MetadataError> {
        for chunk in ends.chunks(INTENT_ENDS_MAX) {
            self.request(ControllerRequest::EndIntents(chunk.to_vec()), false, TIMEOUT).await?;
        }
        Ok(())
    }

    /// Makes partitions of a shard a shard of their own, on the same nodes. Returns the new shard when that is recorded; the
    /// shard's leader carries it out.
    ///
    /// # Errors
    /// When the shard does not carry them, is being moved or split, or this cannot be recorded now.
    pub async fn split_shard(&self, parent: ShardId, partitions: Vec<(Uuid, i32)>) -> Result<ShardId, MetadataError> {
        // A controller of an older release would not understand the request.
        splits::check_level(&self.image())?;
        match self.request(ControllerRequest::SplitShard { parent, partitions }, false, TIMEOUT).await? {
            ControllerResponse::Shard(child) => Ok(child),
            other => Err(unexpected(&other)),
        }
    }

    /// Reports, on behalf of the leader of the shard that was split, that its log up to `at` has the split.
    ///
    /// # Errors
    /// When that cannot be recorded now.
    pub async fn end_split(&self, child: ShardId, at: RaftIndex) -> Result<(), MetadataError> {
        self.request(ControllerRequest::EndSplit { child, at }, false, TIMEOUT).await.map(|_| ())
    }

    /// Requests or reports a step of a merge of two shards. Returns when it is recorded.
    ///
    /// # Errors
    /// When the shards cannot be merged, the merge cannot be cancelled any more, or this cannot be recorded now.
    pub async fn merge(&self, step: MergeStep) -> Result<(), MetadataError> {
        // A controller of an older release would not understand the request.
        merges::check_level(&self.image())?;
        self.request(ControllerRequest::Merge(step), false, TIMEOUT).await.map(|_| ())
    }

    /// Drains nodes, or (`drain` false) ends that: leaderships are transferred and replicas moved to other nodes, a few
    /// shards at a time. Returns when the request is recorded.
    ///
    /// # Errors
    /// When there is no such node, or no other node that could take its replicas.
    pub async fn drain(&self, nodes: Nodes, drain: bool) -> Result<(), MetadataError> {
        self.request(ControllerRequest::Drain { nodes, drain }, false, TIMEOUT).await.map(|_| ())
    }

    /// Unregisters a node: its replicas are moved, and it is removed once it holds none. Returns when the request is
    /// recorded.
    ///
    /// # Errors
    /// When there is no such node, or too few others for its replicas.
    pub async fn unregister(&self, node: NodeId) -> Result<(), MetadataError> {
        self.request(ControllerRequest::Unregister(node), false, TIMEOUT).await.map(|_| ())
    }

    /// Changes the levels of features, all of them or none. Returns when they are committed and in this node's image.
    ///
    /// # Errors
    /// When a registered node does not understand a level, or it is lower than the one in force.
    pub async fn update_features(
        &self,
        requested: Vec<FeatureUpdate>,
        validate_only: bool,
        timeout: Duration,
    ) -> Result<(), MetadataError> {
        self.request(ControllerRequest::UpdateFeatures(requested), validate_only, timeout).await.map(|_| ())
    }

    /// Takes a step by which load is spread.
    pub(super) async fn rebalance(&self, step: Step) -> Result<(), MetadataError> {
        self.request(ControllerRequest::Rebalance(step), false, TIMEOUT).await.map(|_| ())
    }

    /// What the balancer of the metadata's leader plans and did; `apply`: it carries its plan out, also where that is disabled.
    ///
    /// # Errors
    /// When the leader does not answer.
    pub async fn balance_status(&self, apply: bool) -> Result<BalanceStatus, MetadataError> {
        match self.0.client.balance_status(apply).await? {
            ControllerResponse::Balance(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Moves the shards that are due to be moved.
    pub(super) async fn balance(&self) -> Result<(), MetadataError> {
        self.request(ControllerRequest::Balance, false, TIMEOUT).await.map(|_| ())
    }

    /// Reports, on behalf of a shard's leader, that the intended members are reached and which replicas have left.
    ///
    /// # Errors
    /// When that cannot be recorded now.
    pub async fn forget_replicas(
        &self,
        shard: ShardId,
        reached: Vec<ReplicaId>,
        left: Vec<ReplicaId>,
    ) -> Result<(), MetadataError> {
        self.request(ControllerRequest::ForgetReplicas { shard, reached, left }, false, TIMEOUT).await.map(|_| ())
    }

    /// Reports replicas on this node's disks that lost entries: they are to be rebuilt under new ids. Returns at once.
    pub fn report_lost(&self, lost: Vec<ReplicaId>) {
        let registration = NodeRegistration { lost, ..self.0.registration.clone() };
        rt::spawn_critical("registration", self.group().owner(), self.clone().keep_registering(registration));
    }

    /// Registers the node, with retries until the group can record it; a group without a quorum does not stop a node.
    pub(super) async fn keep_registering(self, registration: NodeRegistration) {
        loop {
            match self.register(registration.clone()).await {
                Ok(()) => return,
                Err(MetadataError::Stopped(why)) => return tracing::error!("this node is not registered: {why}"),
                Err(MetadataError::UnsupportedVersion(why)) => {
                    tracing::error!("this node is not registered: {why}");
                    rt::sleep(REJECTED_RETRY).await;
                }
                Err(error) => tracing::warn!("this node is not registered yet: {error}"),
            }
            rt::sleep(REGISTRATION_RETRY).await;
        }
    }

    /// Registers a node that starts.
    pub(super) async fn register(&self, registration: NodeRegistration) -> Result<(), MetadataError> {
        self.request(ControllerRequest::RegisterNode(Box::new(registration)), false, TIMEOUT).await.map(|_| ())
    }
}

fn created(response: ControllerResponse) -> Result<CreatedTopic, MetadataError> {
    match response {
        ControllerResponse::Topic(topic) => Ok(topic),
        other => Err(unexpected(&other)),
    }
}

/// A response of another kind than the request: a bug in this module.
fn unexpected(response: &ControllerResponse) -> MetadataError {
    debug_assert!(false, "unexpected response {response:?}");
    MetadataError::Stopped("unexpected response of the controller".to_owned())
}
