//! Applies commands that merge shards, and that remove those that carry nothing any more.
//!
//! May not know: what the shards' logs do.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_storage::ids::RaftIndex;

use super::{MetadataStateMachine, Refusal, topic_record};
use crate::metadata::image::{PartitionRoute, ShardId, ShardRecord, Topic};
use crate::metadata::merge_record::{MergePhase, MergeRecord, MergeStep, SealReport, merged_epoch_base};
use crate::metadata::merges;
use crate::metadata::records::{Record, RecordKey};

impl MetadataStateMachine {
    pub(super) fn merge(&mut self, index: RaftIndex, step: MergeStep) -> Result<(), Refusal> {
        let absorbed = step.absorbed();
        let mut record = self.image.shards.get(&absorbed).ok_or(Refusal::Shard)?.as_ref().clone();
        if !merges::is_due(&self.image, &step) {
            return Err(Refusal::Merge);
        }
        match (step, record.merge.as_mut()) {
            (MergeStep::Begin { survivor, .. }, _) => {
                let into = self.image.shards.get(&survivor).ok_or(Refusal::Shard)?;
                let replicas = merges::pairs(into, &record).ok_or(Refusal::Replicas)?;
                let (phase, sealed) = (MergePhase::Seal, SealReport::default());
                record.merge = Some(MergeRecord { survivor, intent: index, phase, replicas, sealed });
            }
            (MergeStep::Sealed { sealed, .. }, Some(merge)) => {
                (merge.phase, merge.sealed) = (MergePhase::Absorb, sealed);
            }
            (MergeStep::Cancel { .. }, Some(merge)) => merge.phase = MergePhase::Cancel,
            (MergeStep::Cancelled { .. }, Some(_)) => record.merge = None,
            (MergeStep::Absorbed { term, .. }, Some(merge)) => {
                merge.phase = MergePhase::Drain;
                let merge = merge.clone();
                self.put_shard(record);
                self.reroute_all(absorbed, &merge, term);
                self.pass_on_intents(absorbed, merge.survivor);
                return Ok(());
            }
            (MergeStep::TakenOver { replica, .. }, Some(merge)) => {
                merge.replicas.retain(|pair| pair.survivor != replica)
            }
            (_, None) => return Err(Refusal::Merge),
        }
        self.put_shard(record);
        Ok(())
    }

    fn reroute_all(&mut self, from: ShardId, merge: &MergeRecord, term: u64) {
        let to = merge.survivor;
        let carries = |topic: &Topic| topic.routed_to(from).next().is_some();
        let topics: Vec<_> = self.image.topics.values().filter(|topic| carries(topic)).cloned().collect();
        for topic in topics {
            let route = |route: &PartitionRoute| {
                let epoch_base = merged_epoch_base(route.epoch_base, merge.sealed.term, term);
                let moved = PartitionRoute { shard: to, intent: merge.intent, epoch_base };
                if route.shard == from { moved } else { *route }
            };
            let moved = i64::try_from(topic.routed_to(from).count()).unwrap_or(i64::MAX);
            let partitions = Arc::new(topic.partitions.iter().map(route).collect());
            self.count_partitions([from].into_iter(), -moved);
            self.count_partitions([to].into_iter(), moved);
            let topic = Topic { partitions, ..topic.as_ref().clone() };
            self.note(&Record::Topic(topic_record(&topic)));
            self.put_topic(topic);
        }
    }

    /// What the absorbed shard has not carried out is the survivor's: its topics were deleted meanwhile, say.
    fn pass_on_intents(&mut self, from: ShardId, to: ShardId) {
        let open: Vec<_> = self.image.intents_of(from).map(|(key, intent)| (*key, Arc::clone(intent))).collect();
        for (key, intent) in open {
            self.image.intents.remove(&key);
            self.forget(RecordKey::Intent(key).encode());
            let partitions = BTreeMap::from([(to, intent.partitions.clone())]);
            self.put_intents(key.index, intent.kind, &key.topic, partitions);
        }
    }

    pub(super) fn drop_shard(&mut self, shard: ShardId) -> Result<(), Refusal> {
        let record: &ShardRecord = self.image.shards.get(&shard).ok_or(Refusal::Shard)?;
        if !merges::is_spent(&self.image, record) {
            return Err(Refusal::Shard);
        }
        Arc::make_mut(&mut self.image.shards).remove(&shard);
        Arc::make_mut(&mut self.image.partitions_by_shard).remove(&shard);
        self.forget(RecordKey::Shard(shard).encode());
        Ok(())
    }
}
