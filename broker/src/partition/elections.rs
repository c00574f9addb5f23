//! ElectLeaders: the request names partitions, the leaders of their shards change, each with all partitions that it
//! carries.
//!
//! May not know: how leadership is transferred.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use ottla_protocol::error::ErrorCode;

use super::partitions::Partitions;
use crate::metadata::ShardId;
use crate::shard::ElectionOutcome;

/// The kind of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionKind {
    /// The preferred replica.
    Preferred,
    /// Any replica if there is no leader, even one that lacks records.
    Unclean,
}

/// Why no other leader was elected for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ElectionError {
    /// There is no such partition.
    #[error("This server does not host this topic-partition.")]
    UnknownPartition,
    /// The partition has that leader already.
    #[error("Leader election not needed for topic partition.")]
    NotNeeded,
    /// The preferred replica cannot lead.
    #[error("The preferred leader was not available.")]
    PreferredNotAvailable,
    /// No replica can lead.
    #[error(
        "No eligible leader is available: a majority of the replicas must be; none that lacks records is ever elected."
    )]
    EligibleNotAvailable,
    /// No outcome in time; leadership may have changed or not.
    #[error("The request timed out.")]
    TimedOut,
}

impl ElectionError {
    /// Kafka's code for it.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
            Self::NotNeeded => ErrorCode::ElectionNotNeeded,
            Self::PreferredNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
            Self::EligibleNotAvailable => ErrorCode::EligibleLeadersNotAvailable,
            Self::TimedOut => ErrorCode::RequestTimedOut,
        }
    }
}

/// A partition by its topic's name and its number, and the outcome of its election.
pub type Elected = (String, i32, Result<(), ElectionError>);

impl Partitions {
    /// Holds elections for these partitions, or for all; in the latter case those that need none are left out.
    pub async fn elect(&self, kind: ElectionKind, of: Option<Vec<(String, i32)>>, wait: Duration) -> Vec<Elected> {
        // A topic that was created on another node a moment ago must be found.
        self.shards.metadata().read_index().await;
        let image = self.shards.metadata().image();
        let all = of.is_none();
        let named = of.unwrap_or_else(|| {
            let each = image
                .topics
                .values()
                .flat_map(|topic| (0..topic.partition_count()).map(|index| (topic.name.to_string(), index)));
            each.collect()
        });
        let shard_of = |(topic, index): &(String, i32)| image.topic(topic)?.route(*index).map(|route| route.shard);
        let shards: BTreeMap<ShardId, ()> = named.iter().filter_map(shard_of).map(|shard| (shard, ())).collect();
        let held = shards.into_keys().map(|shard| async move { (shard, self.elect_in(shard, kind, wait).await) });
        let held: BTreeMap<ShardId, Result<(), ElectionError>> = join_all(held).await.into_iter().collect();
        let outcome = |shard: ShardId| held.get(&shard).copied().unwrap_or(Err(ElectionError::UnknownPartition));
        let outcomes = named.into_iter().map(|partition| {
            let outcome = shard_of(&partition).map_or(Err(ElectionError::UnknownPartition), outcome);
            (partition.0, partition.1, outcome)
        });
        outcomes.filter(|(_, _, outcome)| !all || *outcome != Err(ElectionError::NotNeeded)).collect()
    }

    async fn elect_in(&self, shard: ShardId, kind: ElectionKind, wait: Duration) -> Result<(), ElectionError> {
        match kind {
            ElectionKind::Unclean if self.shards.leader_of(shard).is_some() => Err(ElectionError::NotNeeded),
            ElectionKind::Unclean => Err(ElectionError::EligibleNotAvailable),
            ElectionKind::Preferred => match self.shards.elect_preferred(shard, wait).await {
                ElectionOutcome::Done => Ok(()),
                ElectionOutcome::NotNeeded => Err(ElectionError::NotNeeded),
                ElectionOutcome::NotAvailable | ElectionOutcome::NotLeader => Err(ElectionError::PreferredNotAvailable),
                ElectionOutcome::TimedOut => Err(ElectionError::TimedOut),
            },
        }
    }
}
