//! Applies commands that split a shard: the record of its child, and the routes of what has moved.
//!
//! May not know: what the parent's log does.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_env::mutants::{self, Bug};
use ottla_storage::ids::RaftIndex;
use uuid::Uuid;

use super::{MetadataStateMachine, Refusal, topic_record};
use crate::metadata::command::NewShard;
use crate::metadata::image::{IntentKind, PartitionRoute, ShardId, SplitRecord, SplitReplica, Topic};
use crate::metadata::records::Record;

impl MetadataStateMachine {
    pub(super) fn split_shard(
        &mut self,
        index: RaftIndex,
        parent: ShardId,
        child: NewShard,
        partitions: Vec<(Uuid, Vec<i32>)>,
    ) -> Result<(), Refusal> {
        let record = self.image.shards.get(&parent).ok_or(Refusal::Shard)?;
        if self.image.is_resizing(parent) {
            return Err(Refusal::Split);
        }
        let of_parent = record.replicas.iter().map(|replica| (replica.node, replica.directory));
        let of_child = child.replicas.iter().map(|replica| (replica.node, replica.directory));
        if record.is_moving() || !of_parent.eq(of_child) {
            return Err(Refusal::Replicas);
        }
        let is_carried = |topic: &Uuid, index: i32| {
            let topic = self.image.topics_by_id.get(topic);
            topic.and_then(|topic| topic.route(index)).is_some_and(|route| route.shard == parent)
        };
        let mut named = partitions.iter().flat_map(|(topic, indexes)| indexes.iter().map(move |index| (topic, *index)));
        if !named.all(|(topic, index)| is_carried(topic, index)) {
            return Err(Refusal::NoSuchTopic);
        }
        let pairs = record.replicas.iter().zip(&child.replicas);
        let replicas = pairs.map(|(parent, child)| SplitReplica { parent: parent.id, child: child.id }).collect();
        let split = SplitRecord { parent, intent: index, replicas, done: None, partitions };
        // No replica founds the child's group: the split makes it.
        self.record_shard(index, child, Vec::new(), Some(split))
    }

    pub(super) fn end_split(&mut self, index: RaftIndex, child: ShardId, at: RaftIndex) -> Result<(), Refusal> {
        let mut record = self.image.shards.get(&child).ok_or(Refusal::Shard)?.as_ref().clone();
        let Some(split) = record.split.as_mut().filter(|split| split.done.is_none()) else {
            return Err(Refusal::Split);
        };
        split.done = Some(at);
        let (parent, intent) = (split.parent, split.intent);
        let moved = std::mem::take(&mut split.partitions);
        self.put_shard(record);
        for (topic, indexes) in moved {
            match self.image.topics_by_id.get(&topic).map(Arc::clone) {
                Some(topic) => self.reroute(&topic, &indexes, parent, child, intent),
                None if mutants::is_on(Bug::SplitDropForgotten) => {}
                // Deleted meanwhile: the child may have it.
                None => self.drop_in(child, index, &topic, &indexes),
            }
        }
        Ok(())
    }

    fn reroute(&mut self, topic: &Topic, indexes: &[i32], from: ShardId, to: ShardId, intent: RaftIndex) {
        let mut partitions = topic.partitions.as_ref().clone();
        for index in indexes {
            let route = usize::try_from(*index).ok().and_then(|index| partitions.get_mut(index));
            if let Some(route) = route.filter(|route| route.shard == from) {
                *route = PartitionRoute { shard: to, intent, ..*route };
                self.count_partitions([from].into_iter(), -1);
                self.count_partitions([to].into_iter(), 1);
            }
        }
        let topic = Topic { partitions: Arc::new(partitions), ..topic.clone() };
        self.note(&Record::Topic(topic_record(&topic)));
        self.put_topic(topic);
    }

    fn drop_in(&mut self, shard: ShardId, index: RaftIndex, topic: &Uuid, indexes: &[i32]) {
        let partitions = BTreeMap::from([(shard, indexes.iter().map(|index| (*index, 0)).collect())]);
        self.put_intents(index, IntentKind::Drop, topic, partitions);
    }
}
