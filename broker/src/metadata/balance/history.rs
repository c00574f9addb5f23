//! What the balancer did and why, in the memory of the controller, and what is not done for that reason: a shard rests where it was
//! put, and does not go back for a while.
//!
//! May not know: why anything was done, beyond the sentence.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ottla_env::rt::Instant;
use ottla_protocol::ids::NodeId;
use uuid::Uuid;

use super::action::{Action, Change};
use crate::codec::record;
use crate::metadata::image::{MetadataImage, ShardId, Topic};

/// The newest actions that are kept.
const KEPT: usize = 200;
/// How long a shard stays where it has been put.
const REST: Duration = Duration::from_secs(60);
/// How long no load brings a replica back to a node that it has left.
const AWAY: Duration = Duration::from_secs(3_600);

/// An action that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Wall clock of the controller, milliseconds.
    pub at_ms: i64,
    /// What was done.
    pub action: Action,
}

record! {
    Done { at_ms, action }
}

/// One of them.
#[derive(Debug)]
struct Entry {
    at: Instant,
    done: Done,
    /// The nodes from which replicas went elsewhere.
    left: Vec<NodeId>,
    /// The topic whose shards were split or merged.
    topic: Option<Uuid>,
}

/// The newest actions of this controller.
#[derive(Debug, Default)]
pub(super) struct History {
    done: VecDeque<Entry>,
}

/// What is not to be done, since something else was done a short time ago.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Shards that stay as they are.
    pub(super) resting: BTreeSet<ShardId>,
    /// Nodes that shards have left.
    pub(super) left: BTreeSet<(ShardId, NodeId)>,
    /// Topics whose shards were split or merged.
    pub(super) topics: BTreeSet<Uuid>,
}

impl History {
    /// `image`: before that.
    pub(super) fn add(&mut self, action: Action, image: &MetadataImage, now: Instant, at_ms: i64) {
        if self.done.len() == KEPT {
            self.done.pop_front();
        }
        let mut left = Vec::new();
        if let (Change::Replicas { nodes, .. }, Some(record)) = (&action.change, image.shard(action.change.shard())) {
            let before = record.replicas.iter().map(|replica| replica.node);
            left = before.filter(|node| !nodes.contains(node)).collect();
        }
        let topic = match &action.change {
            Change::Replicas { .. } => None,
            Change::Split { partitions, .. } => partitions.first().map(|(topic, _)| *topic),
            Change::Merge { shard, .. } => {
                let has = |topic: &&Arc<Topic>| topic.routed_to(*shard).next().is_some();
                image.topics.values().find(has).map(|topic| topic.id)
            }
        };
        self.done.push_back(Entry { at: now, done: Done { at_ms, action }, left, topic });
    }

    pub(super) fn recent(&self, now: Instant) -> Recent {
        let mut recent = Recent::default();
        for entry in self.done.iter().rev().take_while(|entry| now.since(entry.at) < AWAY) {
            let (shard, age) = (entry.done.action.change.shard(), now.since(entry.at));
            recent.left.extend(entry.left.iter().map(|node| (shard, *node)));
            if age < REST {
                recent.resting.insert(shard);
                recent.topics.extend(entry.topic);
            }
        }
        recent
    }

    /// The newest ones last.
    pub(super) fn all(&self) -> Vec<Done> {
        self.done.iter().map(|entry| entry.done.clone()).collect()
    }
}
