//! Consumer groups: list, members, committed offsets, and commits on behalf of a group.
//!
//! May not know: why offsets are set.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    DescribeGroupsRequest, GroupId, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;
use ottla_protocol::error::ErrorCode;

use super::assignment;
use super::cluster::{Cluster, TopicPartition, refused_group, topic_name};
use super::error::ClientError;
use super::retry::Retry;

/// The state of a group that does not exist.
const DEAD: &str = "Dead";

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its id.
    pub name: String,
    /// `Stable`, `Empty` and so on; empty if the broker's version does not send it.
    pub state: String,
    /// `classic` or `consumer`; empty if the broker's version does not send it.
    pub kind: String,
    /// `consumer` for consumers.
    pub protocol_type: String,
    /// The broker that coordinates it.
    pub coordinator: i32,
}

/// A group in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// Its id.
    pub name: String,
    /// `Stable`, `Empty` and so on; `Dead` if it does not exist.
    pub state: String,
    /// The assignor that its members agreed on.
    pub assignor: String,
    /// `consumer` for consumers.
    pub protocol_type: String,
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// The members of the group.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Given by the coordinator.
    pub id: String,
    /// `group.instance.id`.
    pub instance_id: Option<String>,
    /// The client id.
    pub client_id: String,
    /// The client's host.
    pub host: String,
    /// The assigned partitions; `None` if there are none yet or the group is not one of consumers.
    pub partitions: Option<Vec<TopicPartition>>,
}

/// A committed offset of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// The leader's epoch there; -1 if unknown.
    pub epoch: i32,
    /// The client's metadata of the commit.
    pub metadata: String,
}

/// An offset to commit on behalf of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// The next offset that the group is to read.
    pub offset: i64,
    /// The leader's epoch there; -1 if unknown.
    pub epoch: i32,
}

impl GroupView {
    /// False for a group that no broker knows.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.state != DEAD
    }
}

fn id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}

impl Cluster {
    /// The groups of all brokers, by name, and the errors of brokers that did not list theirs.
    ///
    /// # Errors
    /// When no broker responds.
    pub async fn groups(&mut self) -> Result<(Vec<ListedGroup>, Vec<ClientError>), ClientError> {
        let brokers = self.describe().await?.brokers;
        let (mut groups, mut failed) = (Vec::new(), Vec::new());
        for broker in brokers {
            match self.groups_of(broker.id).await {
                Ok(listed) => groups.extend(listed),
                Err(error) => failed.push(error),
            }
        }
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((groups, failed))
    }

    async fn groups_of(&mut self, broker: i32) -> Result<Vec<ListedGroup>, ClientError> {
        let mut retry = Retry::new();
        loop {
            let answer = self.brokers.send(broker, 0..=5, |_| ListGroupsRequest::default()).await?;
            match ClientError::check(answer.error_code, None, || format!("broker {broker}")) {
                Err(error) if error.is_retriable() && retry.backoff().await => continue,
                checked => checked?,
            }
            let listed = |group: &kafka_protocol::messages::list_groups_response::ListedGroup| ListedGroup {
                name: group.group_id.to_string(),
                state: group.group_state.to_string(),
                kind: group.group_type.to_string(),
                protocol_type: group.protocol_type.to_string(),
                coordinator: broker,
            };
            return Ok(answer.groups.iter().map(listed).collect());
        }
    }

    /// A group in detail; `Dead` if it does not exist.
    ///
    /// # Errors
    /// When its coordinator cannot be reached or refuses.
    pub async fn group(&mut self, group: &str) -> Result<GroupView, ClientError> {
        self.meet().await?;
        let mut retry = Retry::new();
        loop {
            match self.group_once(group).await {
                Err(error) if error.is_retriable() && retry.backoff().await => {}
                found => return found,
            }
        }
    }

    async fn group_once(&mut self, group: &str) -> Result<GroupView, ClientError> {
        let coordinator = self.coordinator(group).await?;
        let make = |_| DescribeGroupsRequest::default().with_groups(vec![id(group)]);
        let answer = self.brokers.send(coordinator, 0..=6, make).await?;
        let unavailable = ErrorCode::CoordinatorNotAvailable.code();
        let found = answer.groups.into_iter().next().ok_or_else(|| refused_group(group, unavailable, None))?;
        let is_gone = found.error_code == ErrorCode::GroupIdNotFound.code();
        if !is_gone {
            ClientError::check(found.error_code, found.error_message.as_deref(), || format!("group {group}"))?;
        }
        Ok(group_view(found, coordinator, is_gone))
    }

    /// The committed offsets of a group, by partition.
    ///
    /// # Errors
    /// When its coordinator cannot be reached or refuses.
    pub async fn committed(&mut self, group: &str) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        self.meet().await?;
        let mut retry = Retry::new();
        loop {
            match self.committed_once(group).await {
                Err(error) if error.is_retriable() && retry.backoff().await => {}
                found => return found,
            }
        }
    }

    async fn committed_once(&mut self, group: &str) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        let coordinator = self.coordinator(group).await?;
        let asked = OffsetFetchRequestGroup::default().with_group_id(id(group)).with_topics(None);
        let make = |version| {
            let asked = if version >= 9 { asked.with_member_epoch(-1) } else { asked };
            OffsetFetchRequest::default().with_groups(vec![asked])
        };
        let answer = self.brokers.send(coordinator, 8..=9, make).await?;
        let mut committed = BTreeMap::new();
        for found in answer.groups {
            match ErrorCode::from_code(found.error_code) {
                Some(ErrorCode::GroupIdNotFound) => continue,
                _ => ClientError::check(found.error_code, None, || format!("group {group}"))?,
            }
            for topic in found.topics {
                for partition in topic.partitions {
                    let at = (topic.name.to_string(), partition.partition_index);
                    let what = || format!("group {group}, topic {} partition {}", at.0, at.1);
                    ClientError::check(partition.error_code, None, what)?;
                    if partition.committed_offset >= 0 {
                        let metadata = partition.metadata.map(|text| text.to_string()).unwrap_or_default();
                        let (offset, epoch) = (partition.committed_offset, partition.committed_leader_epoch);
                        committed.insert(at, CommittedOffset { offset, epoch, metadata });
                    }
                }
            }
        }
        Ok(committed)
    }

    /// Commits offsets of a group without members; the result of each. Idempotent, so it is safe to retry.
    ///
    /// # Errors
    /// When its coordinator cannot be reached.
    pub async fn commit(
        &mut self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, Commit>,
    ) -> Result<BTreeMap<TopicPartition, Result<(), ClientError>>, ClientError> {
        self.meet().await?;
        let mut retry = Retry::new();
        loop {
            let outcome = match self.commit_once(group, offsets).await {
                Err(error) if error.is_retriable() && retry.backoff().await => continue,
                outcome => outcome?,
            };
            let is_moving = |outcome: &Result<(), ClientError>| outcome.as_ref().is_err_and(ClientError::is_retriable);
            if !outcome.values().any(is_moving) || !retry.backoff().await {
                return Ok(outcome);
            }
        }
    }

    async fn commit_once(
        &mut self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, Commit>,
    ) -> Result<BTreeMap<TopicPartition, Result<(), ClientError>>, ClientError> {
        let coordinator = self.coordinator(group).await?;
        let answer = self.brokers.send(coordinator, 2..=9, |version| commit_request(version, group, offsets)).await?;
        let mut outcomes = BTreeMap::new();
        for topic in answer.topics {
            for partition in topic.partitions {
                let at = (topic.name.to_string(), partition.partition_index);
                let what = || format!("group {group}, topic {} partition {}", at.0, at.1);
                let outcome = ClientError::check(partition.error_code, None, what);
                outcomes.insert(at, outcome);
            }
        }
        Ok(outcomes)
    }
}

fn commit_request(version: i16, group: &str, offsets: &BTreeMap<TopicPartition, Commit>) -> OffsetCommitRequest {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, index), commit) in offsets {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(*index)
            .with_committed_offset(commit.offset)
            .with_committed_metadata(Some(StrBytes::default()));
        let epoch = if version >= 6 { commit.epoch } else { -1 };
        topics.entry(topic).or_default().push(partition.with_committed_leader_epoch(epoch));
    }
    let topic = |(name, partitions): (&str, Vec<_>)| {
        OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(partitions)
    };
    // Generation -1, without a member: a group with members refuses it.
    OffsetCommitRequest::default()
        .with_group_id(id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics.into_iter().map(topic).collect())
}

fn group_view(found: DescribedGroup, coordinator: i32, is_gone: bool) -> GroupView {
    let is_consumers = found.protocol_type.as_str() == "consumer";
    let mut members: Vec<_> = found.members.iter().map(|member| member_view(member, is_consumers)).collect();
    members.sort_by(|a, b| a.id.cmp(&b.id));
    GroupView {
        name: found.group_id.to_string(),
        state: if is_gone { DEAD.to_owned() } else { found.group_state.to_string() },
        assignor: found.protocol_data.to_string(),
        protocol_type: found.protocol_type.to_string(),
        coordinator,
        members,
    }
}

fn member_view(member: &DescribedGroupMember, is_consumer: bool) -> GroupMember {
    GroupMember {
        id: member.member_id.to_string(),
        instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
        client_id: member.client_id.to_string(),
        host: member.client_host.trim_start_matches('/').to_owned(),
        partitions: if is_consumer { assignment::decode(&member.member_assignment) } else { None },
    }
}
