//! Decides controller requests: from a request to the commands that carry it out, as pure functions of the image.
//!
//! Whatever depends on configuration is decided here, once, and carried in the commands. The image is current when a
//! decision is made: there is one writer, and it decides only after everything before is applied (`controller`).
//! May not know: which client sent the request, how commands are replicated.

use std::collections::{BTreeMap, BTreeSet};

use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use super::action::{KEPT_FROM, Step};
use super::balance::{self, BalanceStatus};
use super::command::{Command, IntentEnd};
use super::config_change;
use super::error::MetadataError;
use super::features;
use super::fencing;
use super::image::{IntentKey, MetadataImage, ReplicaRecord, ShardId, ShardKind, Topic};
use super::liveness::LivenessChange;
use super::log_dirs;
use super::merge_record::MergeStep;
use super::merges;
use super::moves;
use super::names;
use super::nodes;
use super::placement::{self, Placement, default_factor, factor_in_force};
use super::registration::{NodeRegistration, register};
use super::requests::{
    ConfigChange, CreatedTopic, FeatureUpdate, InternalTopic, MetadataQuorum, NewPartitions, NewTopic, Nodes, TopicName,
};
use super::splits;
use crate::config::Config;
use crate::config::topic::check_overrides;

/// Number of producer ids in a block.
const PRODUCER_IDS: u32 = 1_000;
/// The `cleanup.policy` of internal topics.
const COMPACT: &str = "compact";
/// The most nodes that a manual assignment may name for one partition.
const ASSIGNED_NODES_MAX: usize = 32;

/// A request to the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ControllerRequest {
    CreateTopic {
        topic: NewTopic,
        id: Uuid,
    },
    EnsureInternal {
        topic: InternalTopic,
        id: Uuid,
    },
    DeleteTopic(TopicName),
    CreatePartitions(NewPartitions),
    ChangeConfig(ConfigChange),
    AllocateProducerIds,
    EndIntents(Vec<(IntentKey, IntentEnd)>),
    RegisterNode(Box<NodeRegistration>),
    /// Moves a shard's replicas to these nodes, preferred leader first; replicas that are on them already stay.
    ChangeReplicas {
        shard: ShardId,
        nodes: Vec<NodeId>,
    },
    /// Moves a shard's replica on a node to another data directory of that node.
    ChangeDirectory {
        shard: ShardId,
        node: NodeId,
        directory: Uuid,
    },
    /// A shard's leader reports that the members are the intended ones (`reached`), and that `left` are no members any
    /// more.
    ForgetReplicas {
        shard: ShardId,
        reached: Vec<ReplicaId>,
        left: Vec<ReplicaId>,
    },
    /// Makes partitions of a shard a shard of their own.
    SplitShard {
        parent: ShardId,
        partitions: Vec<(Uuid, i32)>,
    },
    /// The leader of the shard that was split reports that this is carried out, up to an index of its log.
    EndSplit {
        child: ShardId,
        at: RaftIndex,
    },
    /// A step of a merge of two shards.
    Merge(MergeStep),
    /// Drains nodes, or ends that.
    Drain {
        nodes: Nodes,
        drain: bool,
    },
    /// Removes the node once it holds nothing.
    Unregister(NodeId),
    /// Moves the shards that are due to be moved.
    Balance,
    /// Takes a step by which load is spread.
    Rebalance(Step),
    /// Changes the levels of features: all of them or none.
    UpdateFeatures(Vec<FeatureUpdate>),
    /// Fences a node, or unfences it.
    SetLiveness(LivenessChange),
}

impl ControllerRequest {
    /// True if the request is idempotent, also when its duplicate is handled late and after other requests.
    pub(super) fn may_be_repeated(&self) -> bool {
        match self {
            Self::AllocateProducerIds
            | Self::EndIntents(_)
            | Self::EnsureInternal { .. }
            | Self::RegisterNode(_)
            | Self::ForgetReplicas { .. }
            | Self::EndSplit { .. }
            | Self::Merge(
                MergeStep::Sealed { .. }
                | MergeStep::Cancel { .. }
                | MergeStep::Cancelled { .. }
                | MergeStep::Absorbed { .. }
                | MergeStep::TakenOver { .. },
            )
            | Self::Balance
            | Self::Rebalance(_)
            | Self::SetLiveness(_) => true,
            Self::CreateTopic { .. }
            | Self::DeleteTopic(_)
            | Self::CreatePartitions(_)
            | Self::ChangeConfig(_)
            | Self::ChangeReplicas { .. }
            | Self::ChangeDirectory { .. }
            | Self::SplitShard { .. }
            | Self::Merge(MergeStep::Begin { .. })
            | Self::Drain { .. }
            | Self::Unregister(_)
            | Self::UpdateFeatures(_) => false,
        }
    }
}

/// The controller's response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ControllerResponse {
    Done,
    Topic(CreatedTopic),
    Deleted {
        name: String,
        id: Uuid,
    },
    ProducerIds {
        first: i64,
        count: u32,
    },
    /// The shard that was recorded.
    Shard(ShardId),
    /// The state of the leader, not a decision.
    Quorum(MetadataQuorum),
    /// The same: what its balancer plans and did.
    Balance(Box<BalanceStatus>),
}

/// Commands, and the response once they are applied. No commands: the request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ControllerResult {
    pub(super) commands: Vec<Command>,
    pub(super) response: ControllerResponse,
}

impl ControllerResult {
    /// These commands, and a response without content.
    fn done(commands: Vec<Command>) -> Self {
        Self { commands, response: ControllerResponse::Done }
    }
}

/// Decides a request.
///
/// # Errors
/// When the request is not allowed.
pub(super) fn decide(image: &MetadataImage, request: &ControllerRequest) -> Result<ControllerResult, MetadataError> {
    match request {
        ControllerRequest::CreateTopic { topic, id } => create_topic(image, topic, *id),
        ControllerRequest::EnsureInternal { topic, id } => ensure_internal(image, *topic, *id),
        ControllerRequest::DeleteTopic(name) => delete_topic(image, name),
        ControllerRequest::CreatePartitions(partitions) => create_partitions(image, partitions),
        ControllerRequest::ChangeConfig(change) => {
            let commands = config_change::decide(image, change)?;
            Ok(ControllerResult::done(commands))
        }
        ControllerRequest::AllocateProducerIds => Ok(ControllerResult {
            commands: vec![Command::AllocateProducerIds { count: PRODUCER_IDS }],
            response: ControllerResponse::ProducerIds { first: image.next_producer_id, count: PRODUCER_IDS },
        }),
        ControllerRequest::EndIntents(ends) => {
            let open = ends.iter().filter(|(key, _)| image.intents.contains_key(key));
            let commands = open.map(|(key, end)| Command::EndIntent { key: *key, end: *end }).collect();
            Ok(ControllerResult::done(commands))
        }
        ControllerRequest::RegisterNode(registration) => Ok(ControllerResult::done(register(image, registration)?)),
        ControllerRequest::Drain { nodes, drain } => Ok(ControllerResult::done(nodes::drain(image, nodes, *drain)?)),
        ControllerRequest::Unregister(node) => Ok(ControllerResult::done(nodes::unregister(image, *node)?)),
        ControllerRequest::Balance => Ok(ControllerResult::done(moves::due(image))),
        ControllerRequest::Rebalance(Step { action, at_ms }) => {
            let command = moves::balanced(image, action).ok_or_else(|| {
                MetadataError::InvalidRequest(format!(
                    "Shard {} is not as it was when this was planned.",
                    action.change.shard()
                ))
            })?;
            // A step that was planned while the level was being raised has no time: it would be one of 1970.
            let is_kept = image.level >= KEPT_FROM && *at_ms > 0;
            let record = is_kept.then(|| Command::RecordAction(balance::recorded(action, image, *at_ms)));
            Ok(ControllerResult::done([command].into_iter().chain(record).collect()))
        }
        ControllerRequest::UpdateFeatures(requested) => Ok(ControllerResult::done(features::update(image, requested)?)),
        ControllerRequest::SetLiveness(change) => {
            Ok(ControllerResult::done(fencing::decide(image, change).into_iter().collect()))
        }
        ControllerRequest::SplitShard { parent, partitions } => {
            let child = ControllerResponse::Shard(ShardId(image.next_shard_id));
            Ok(ControllerResult { commands: vec![splits::split(image, *parent, partitions)?], response: child })
        }
        ControllerRequest::EndSplit { child, at } => {
            Ok(ControllerResult::done(splits::end(image, *child, *at).into_iter().collect()))
        }
        ControllerRequest::Merge(step) => {
            Ok(ControllerResult::done(merges::decide(image, step)?.into_iter().collect()))
        }
        ControllerRequest::ChangeReplicas { shard, nodes } => change_replicas(image, *shard, nodes),
        ControllerRequest::ChangeDirectory { shard, node, directory } => {
            Ok(ControllerResult::done(log_dirs::decide(image, *shard, *node, *directory)?.into_iter().collect()))
        }
        ControllerRequest::ForgetReplicas { shard, reached, left } => {
            let record = image.shard(*shard).filter(|record| record.wanted() == reached.iter().copied().collect());
            let has_left = |replica: &ReplicaRecord| left.contains(&replica.id);
            let known = record.is_some_and(|record| !record.adding.is_empty() || record.leaving.iter().any(has_left));
            let forget = Command::ForgetReplicas { shard: *shard, reached: reached.clone(), left: left.clone() };
            Ok(ControllerResult::done(known.then_some(forget).into_iter().collect()))
        }
    }
}

fn create_topic(image: &MetadataImage, requested: &NewTopic, id: Uuid) -> Result<ControllerResult, MetadataError> {
    names::check_name(&requested.name)?;
    names::check_new(image, &requested.name)?;
    let overrides = check_overrides(&requested.configs)?;
    if let Some(internal) = InternalTopic::named(&requested.name) {
        return create_internal(image, internal, requested, overrides, id);
    }
    if names::is_internal(&requested.name) {
        return Err(MetadataError::InvalidTopic(format!("Topic '{}' is the controller's own", requested.name)));
    }
    let placement = if requested.assignments.is_empty() {
        place_by_factor(image, requested)?
    } else {
        place_by_hand(image, requested)?
    };
    Ok(creation(image, requested.name.clone(), id, false, overrides, placement))
}

fn creation(
    image: &MetadataImage,
    name: String,
    id: Uuid,
    internal: bool,
    overrides: BTreeMap<String, String>,
    placement: Placement,
) -> ControllerResult {
    let factor = placement.shards.first().map_or(0, |shard| replicas_of(image, &placement, *shard));
    let response = ControllerResponse::Topic(CreatedTopic {
        name: name.clone(),
        id,
        partitions: i32::try_from(placement.shards.len()).unwrap_or(i32::MAX),
        factor: i16::try_from(factor).unwrap_or(i16::MAX),
        overrides: overrides.clone(),
    });
    let create = Command::CreateTopic { name, id, internal, overrides, shards: placement.shards };
    let added = features::add_shards(image, &image.nodes, placement.new_shards);
    ControllerResult { commands: added.chain([create]).collect(), response }
}

fn replicas_of(image: &MetadataImage, placement: &Placement, shard: ShardId) -> usize {
    let recorded = image.shards.get(&shard).map(|shard| shard.replicas.len());
    let planned = || placement.new_shards.iter().find(|new| new.id == shard).map(|new| new.replicas.len());
    recorded.or_else(planned).unwrap_or(0)
}

fn check_positive(partitions: i32) -> Result<(), MetadataError> {
    if partitions > 0 {
        return Ok(());
    }
    Err(MetadataError::InvalidPartitions(
        "Number of partitions must be larger than 0, or -1 to use the default value.".to_owned(),
    ))
}

/// Checks the number of partitions of one topic and of all.
fn check_counts(image: &MetadataImage, topic_total: i64, added: i64) -> Result<(), MetadataError> {
    let limits = &image.config.topics;
    let per_topic = i64::from(limits.partitions_per_topic_max);
    if topic_total > per_topic {
        return Err(MetadataError::PolicyViolation(format!(
            "{topic_total} partitions are above ottla.topic.partitions.max, which is {per_topic}."
        )));
    }
    let all = image.partition_count().saturating_add(u64::try_from(added).unwrap_or(0));
    if all > limits.partitions_max {
        return Err(MetadataError::PolicyViolation(format!(
            "{all} partitions of all topics are above ottla.cluster.partitions.max, which is {}.",
            limits.partitions_max
        )));
    }
    Ok(())
}

fn place_by_factor(image: &MetadataImage, requested: &NewTopic) -> Result<Placement, MetadataError> {
    let count = requested.partitions.unwrap_or(image.config.topics.num_partitions);
    check_positive(count)?;
    check_counts(image, i64::from(count), i64::from(count))?;
    let nodes = image.nodes.len();
    let factor = match requested.factor {
        Some(factor) if factor <= 0 => {
            return Err(MetadataError::InvalidReplicationFactor(
                "Replication factor must be larger than 0, or -1 to use the default value.".to_owned(),
            ));
        }
        Some(factor) if factor != 1 || !mutants::is_on(Bug::FactorForgotten) => factor,
        _ => image.config.topics.default_replication_factor.unwrap_or(default_factor(image.expected_nodes())),
    };
    let Some(factor) = factor_in_force(factor, nodes) else {
        return Err(MetadataError::InvalidReplicationFactor(too_few_nodes(factor, nodes)));
    };
    let placement = placement::place_in_pool(image, factor, usize::try_from(count).unwrap_or(0));
    check_placed(placement, usize::try_from(count).unwrap_or(0))
}

/// The placement, if it covers all partitions: a pool without any shard on registered directories takes none.
fn check_placed(placement: Placement, count: usize) -> Result<Placement, MetadataError> {
    if placement.shards.len() == count {
        Ok(placement)
    } else {
        Err(MetadataError::InvalidReplicationFactor("No node can take the partitions.".to_owned()))
    }
}

fn check_assignments(
    image: &MetadataImage,
    assignments: &[Vec<NodeId>],
    factor: Option<usize>,
) -> Result<(), MetadataError> {
    let invalid = |why: String| Err(MetadataError::InvalidReplicaAssignment(why));
    let expected = factor.or_else(|| assignments.first().map(Vec::len)).unwrap_or(0);
    for nodes in assignments {
        if nodes.is_empty() || nodes.len() > ASSIGNED_NODES_MAX {
            return invalid("The manual partition assignment names no node, or too many, for a partition.".to_owned());
        }
        if nodes.iter().collect::<BTreeSet<_>>().len() != nodes.len() {
            return invalid("The manual partition assignment names a node twice for one partition.".to_owned());
        }
        if let Some(unknown) = nodes.iter().find(|node| !image.nodes.contains_key(node)) {
            return invalid(format!(
                "The manual partition assignment includes broker {}, but no such broker is registered.",
                unknown.0
            ));
        }
        if nodes.len() != expected {
            return invalid(format!(
                "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with others, which have {expected} replica(s).",
                nodes.len()
            ));
        }
    }
    Ok(())
}

/// A manual assignment for new partitions may not name nodes that are drained.
fn check_takers(image: &MetadataImage, assignments: &[Vec<NodeId>]) -> Result<(), MetadataError> {
    match assignments.iter().flatten().find(|node| !image.takes_replicas(**node)) {
        Some(node) => Err(MetadataError::InvalidReplicaAssignment(format!(
            "The manual partition assignment includes broker {}, which is being drained.",
            node.0
        ))),
        None => Ok(()),
    }
}

fn place_by_hand(image: &MetadataImage, requested: &NewTopic) -> Result<Placement, MetadataError> {
    if requested.factor.is_some() {
        return Err(MetadataError::InvalidRequest(
            "A manual partition assignment was specified, but replication factor was not set to -1.".to_owned(),
        ));
    }
    if requested.partitions.is_some() {
        return Err(MetadataError::InvalidRequest(
            "A manual partition assignment was specified, but numPartitions was not set to -1.".to_owned(),
        ));
    }
    let by_number: BTreeMap<i32, &Vec<NodeId>> =
        requested.assignments.iter().map(|(number, nodes)| (*number, nodes)).collect();
    if by_number.len() != requested.assignments.len() {
        return Err(MetadataError::InvalidReplicaAssignment(
            "Found multiple manual partition assignments for one partition.".to_owned(),
        ));
    }
    if by_number.keys().enumerate().any(|(place, number)| i32::try_from(place) != Ok(*number)) {
        return Err(MetadataError::InvalidReplicaAssignment(
            "Partitions should be a consecutive 0-based integer sequence.".to_owned(),
        ));
    }
    let count = i64::try_from(by_number.len()).unwrap_or(i64::MAX);
    check_counts(image, count, count)?;
    let assignments: Vec<Vec<NodeId>> = by_number.into_values().cloned().collect();
    check_assignments(image, &assignments, None)?;
    check_takers(image, &assignments)?;
    check_placed(placement::place_assigned(image, &assignments), assignments.len())
}

/// An internal topic that a client creates, as Kafka allows it: with the client's partitions, factor and configs, and otherwise as the
/// broker makes it itself. Its partitions lie in shards of their own, so they are not assigned by hand.
fn create_internal(
    image: &MetadataImage,
    topic: InternalTopic,
    requested: &NewTopic,
    overrides: BTreeMap<String, String>,
    id: Uuid,
) -> Result<ControllerResult, MetadataError> {
    let name = topic.name();
    if !requested.assignments.is_empty() {
        return Err(MetadataError::InvalidReplicaAssignment(format!(
            "Topic '{name}' is internal: it is not assigned by hand."
        )));
    }
    if overrides.get("cleanup.policy").is_some_and(|policy| policy != COMPACT) {
        return Err(config_change::must_stay_compacted(name));
    }
    requested.partitions.map_or(Ok(()), check_positive)?;
    let count = i64::from(requested.partitions.unwrap_or(0));
    check_counts(image, count, count)?;
    internal_creation(image, topic, (requested.factor, requested.partitions), overrides, id)
}

fn ensure_internal(image: &MetadataImage, topic: InternalTopic, id: Uuid) -> Result<ControllerResult, MetadataError> {
    if let Some(existing) = image.topic(topic.name()) {
        let response = ControllerResponse::Topic(CreatedTopic {
            name: topic.name().to_owned(),
            id: existing.id,
            partitions: existing.partition_count(),
            factor: image.replication_factor(existing),
            overrides: existing.overrides.as_ref().clone(),
        });
        return Ok(ControllerResult { commands: Vec::new(), response });
    }
    internal_creation(image, topic, (None, None), BTreeMap::new(), id)
}

/// As Kafka says it.
fn too_few_nodes(factor: i16, nodes: usize) -> String {
    format!(
        "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached because only {nodes} broker(s) are registered."
    )
}

fn internal_creation(
    image: &MetadataImage,
    topic: InternalTopic,
    (asked_factor, asked_count): (Option<i16>, Option<i32>),
    overrides: BTreeMap<String, String>,
    id: Uuid,
) -> Result<ControllerResult, MetadataError> {
    let config: &Config = &image.config;
    let (kind, factor, count) = match topic {
        InternalTopic::ConsumerOffsets => {
            (ShardKind::ConsumerOffsets, config.offsets.topic_replication_factor, config.offsets.topic_partitions)
        }
        InternalTopic::TransactionState => (
            ShardKind::TransactionState,
            config.transaction.topic_replication_factor,
            config.transaction.topic_partitions,
        ),
    };
    let own_factor = factor.min(i16::try_from(image.expected_nodes()).unwrap_or(i16::MAX));
    let (factor, count) = (asked_factor.unwrap_or(own_factor), asked_count.unwrap_or(count));
    let nodes = image.nodes.len();
    let Some(factor) = factor_in_force(factor, nodes) else {
        return Err(MetadataError::InvalidReplicationFactor(match asked_factor {
            Some(_) => too_few_nodes(factor, nodes),
            // No client asked for the topic now: the controller creates it as soon as the nodes are there.
            None => format!(
                "Topic '{}' waits: {factor} nodes are to hold it and only {nodes} are registered.",
                topic.name()
            ),
        }));
    };
    let count = usize::try_from(count).unwrap_or(1);
    let placement = check_placed(placement::place_internal(image, kind, factor, count), count)?;
    let mut all = BTreeMap::from([
        ("cleanup.policy".to_owned(), COMPACT.to_owned()),
        ("compression.type".to_owned(), "producer".to_owned()),
    ]);
    if topic == InternalTopic::TransactionState {
        let min = config.transaction.topic_min_isr.min(i32::from(factor));
        all.insert("min.insync.replicas".to_owned(), min.to_string());
    }
    all.extend(overrides);
    Ok(creation(image, topic.name().to_owned(), id, true, all, placement))
}

/// The topic of that name, if clients may change it.
fn changeable<'a>(image: &'a MetadataImage, name: &str) -> Result<&'a Topic, MetadataError> {
    let topic = image.topic(name).ok_or(MetadataError::UnknownTopic)?;
    if topic.internal {
        return Err(MetadataError::InvalidTopic(format!("Topic '{name}' is internal: the broker keeps it as it is")));
    }
    Ok(topic)
}

fn delete_topic(image: &MetadataImage, name: &TopicName) -> Result<ControllerResult, MetadataError> {
    let name = match name {
        TopicName::Name(name) => name.clone(),
        TopicName::Id(id) => image.topic_by_id(id).ok_or(MetadataError::UnknownTopicId)?.name.to_string(),
    };
    let topic = image.topic(&name).ok_or(MetadataError::UnknownTopic)?;
    if !image.config.topics.delete_enable {
        return Err(MetadataError::DeletionDisabled);
    }
    Ok(ControllerResult {
        commands: vec![Command::DeleteTopic { id: topic.id }],
        response: ControllerResponse::Deleted { name, id: topic.id },
    })
}

fn create_partitions(image: &MetadataImage, requested: &NewPartitions) -> Result<ControllerResult, MetadataError> {
    let topic = changeable(image, &requested.topic)?;
    let before = topic.partition_count();
    if requested.count == before {
        return Err(MetadataError::InvalidPartitions(format!("Topic already has {before} partition(s).")));
    }
    if requested.count < before {
        return Err(MetadataError::InvalidPartitions(format!(
            "The topic {} currently has {before} partition(s); {} would not be an increase.",
            requested.topic, requested.count
        )));
    }
    let added = requested.count - before;
    check_counts(image, i64::from(requested.count), i64::from(added))?;
    let count = usize::try_from(added).unwrap_or(0);
    let factor = image.replication_factor(topic);
    let placement = match &requested.assignments {
        Some(assignments) if assignments.len() != count => {
            return Err(MetadataError::InvalidReplicaAssignment(format!(
                "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            )));
        }
        Some(assignments) => {
            check_assignments(image, assignments, usize::try_from(factor).ok())?;
            check_takers(image, assignments)?;
            placement::place_assigned(image, assignments)
        }
        None => match pinned_nodes(image, topic) {
            Some(nodes) => placement::place_assigned(image, &vec![nodes; count]),
            None => placement::place_in_pool(image, factor, count),
        },
    };
    let placement = check_placed(placement, count)?;
    let add = Command::AddPartitions {
        id: topic.id,
        count_before: u32::try_from(before).unwrap_or(0),
        shards: placement.shards,
    };
    let commands = features::add_shards(image, &image.nodes, placement.new_shards).chain([add]).collect();
    Ok(ControllerResult::done(commands))
}

/// The nodes that a client assigned to the topic's first partition, if it did: a shard that was split off says nothing of it, but
/// the one that was split first.
fn pinned_nodes(image: &MetadataImage, topic: &Topic) -> Option<Vec<NodeId>> {
    let mut shard = image.shard(topic.route(0)?.shard)?;
    while let Some(split) = &shard.split {
        shard = image.shard(split.parent)?;
    }
    matches!(shard.kind, ShardKind::Pool { pinned: true, .. }).then(|| image.replica_nodes(topic, 0))
}

/// Moves the shard's replicas to these nodes.
fn change_replicas(image: &MetadataImage, shard: ShardId, nodes: &[NodeId]) -> Result<ControllerResult, MetadataError> {
    check_assignments(image, &[nodes.to_vec()], None)?;
    let record = image.shard(shard).ok_or(MetadataError::UnknownTopic)?;
    if image.is_resizing(shard) {
        return Err(MetadataError::InvalidRequest(format!("Shard {shard} is being split or merged: try again.")));
    }
    let replicas = placement::moved(image, record, nodes);
    let set =
        Command::SetReplicas { shard, before: record.replicas.iter().map(|replica| replica.id).collect(), replicas };
    let changes = matches!(&set, Command::SetReplicas { replicas, .. } if *replicas != record.replicas);
    Ok(ControllerResult::done(changes.then_some(set).into_iter().collect()))
}
