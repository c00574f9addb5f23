//! What the balancer did and why, and what is not done for that reason: a shard rests where it was put, and does not go back for a
//! while.
//!
//! A controller begins with what the metadata has kept of those before it. May not know: why anything was done, beyond the sentence.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ottla_env::rt::Instant;
use ottla_protocol::ids::NodeId;
use uuid::Uuid;

use crate::metadata::action::{Action, ActionRecord, Change, Done};
use crate::metadata::clock::Clock;
use crate::metadata::image::{ACTIONS_KEPT, MetadataImage, ShardId, Topic};

/// How long a shard stays where it has been put.
const REST: Duration = Duration::from_secs(60);
/// How long no load brings a replica back to a node that it has left.
const AWAY: Duration = Duration::from_secs(3_600);

/// The newest actions, and when each was taken.
#[derive(Debug, Default)]
pub(super) struct History {
    done: VecDeque<(Instant, Arc<ActionRecord>)>,
}

/// What is not to be done, since something else was done a short time ago.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::metadata) struct Recent {
    /// Shards that stay as they are.
    pub(super) resting: BTreeSet<ShardId>,
    /// Nodes that shards have left.
    pub(in crate::metadata) left: BTreeSet<(ShardId, NodeId)>,
    /// Topics whose shards were split or merged.
    pub(super) topics: BTreeSet<Uuid>,
}

/// What is remembered of an action; `image`: before it was taken.
pub(in crate::metadata) fn recorded(action: &Action, image: &MetadataImage, at_ms: i64) -> ActionRecord {
    let mut action = action.clone();
    let (mut left, mut topic) = (Vec::new(), None);
    match &mut action.change {
        Change::Replicas { shard, nodes, .. } => {
            let before = image.shard(*shard).into_iter().flat_map(|record| record.nodes());
            left = before.filter(|node| !nodes.contains(node)).collect();
        }
        Change::Split { partitions, .. } => {
            topic = std::mem::take(partitions).first().map(|(topic, _)| *topic);
        }
        Change::Merge { shard, .. } => {
            let has = |topic: &&Arc<Topic>| topic.routed_to(*shard).next().is_some();
            topic = image.topics.values().find(has).map(|topic| topic.id);
        }
    }
    ActionRecord { done: Done { at_ms, action }, left, topic }
}

impl History {
    /// What the metadata has kept.
    pub(super) fn kept(image: &MetadataImage, clock: &Clock) -> Self {
        let dated = |action: &Arc<ActionRecord>| (clock.instant_of(action.done.at_ms), action.clone());
        Self { done: image.actions.values().map(dated).collect() }
    }

    /// `image`: before that.
    pub(super) fn add(&mut self, action: &Action, image: &MetadataImage, clock: &Clock) {
        if self.done.len() == ACTIONS_KEPT {
            self.done.pop_front();
        }
        self.done.push_back((clock.now, Arc::new(recorded(action, image, clock.wall_ms))));
    }

    pub(super) fn recent(&self, now: Instant) -> Recent {
        let mut recent = Recent::default();
        for (at, action) in self.done.iter().filter(|(at, _)| now.since(*at) < AWAY) {
            let shard = action.done.action.change.shard();
            recent.left.extend(action.left.iter().map(|node| (shard, *node)));
            if now.since(*at) < REST {
                recent.resting.insert(shard);
                recent.topics.extend(action.topic);
            }
        }
        recent
    }

    /// The newest ones last.
    pub(super) fn all(&self) -> Vec<Done> {
        self.done.iter().map(|(_, action)| action.done.clone()).collect()
    }
}
