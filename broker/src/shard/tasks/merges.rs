//! Carries out the merge of two shards: the leader of the absorbed one seals it, the leader of the survivor takes it over
//! (design section 8).
//!
//! ```text
//!  absorbed shard   led where the survivor is led -> Seal -> every member has it -> reported
//!  survivor         Absorb -> reported
//! ```
//! A shard is sealed only while all its members are in sync, and one that does not have its Seal on all of them soon is unsealed
//! again: meanwhile its partitions take no writes. Apply carries each step out once, so proposing it twice does no harm. May not
//! know: how a state is taken over.

use std::collections::BTreeSet;
use std::time::Duration;

use ottla_env::mutants::{self, Bug};
use ottla_env::rt::{self, Instant};
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::RaftIndex;

use crate::metadata::{MergePhase, MergeRecord, MergeStep, MetadataImage, SealReport, ShardId, ShardRecord};
use crate::replicated::command::{Absorb, Command, Seal};
use crate::replicated::error::PartitionError;
use crate::replicated::shard_state::ApplyReply;
use crate::shard::{MetadataView, Shard};

/// For so long a sealed shard waits until all members have its Seal.
const SEAL_WAIT: Duration = Duration::from_secs(1);
/// A merge that could not be begun for so long is cancelled: it keeps the replicas of both shards where they are.
const PATIENCE: Duration = Duration::from_secs(20);

/// The node that leads a shard, as far as this one knows.
pub(crate) type LeaderOf = Box<dyn Fn(ShardId) -> Option<NodeId> + Send + Sync>;

/// The merges of one shard, as its leader here knows them.
#[derive(Debug, Default)]
pub(crate) struct Merges {
    /// The merge that is to be begun, and since when this is known.
    waiting: Option<(RaftIndex, Instant)>,
}

/// Not now: tried again soon.
const LATER: Result<(), PartitionError> = Err(PartitionError::LeaderNotAvailable);

impl Merges {
    /// Does what is due for the merges of the shard.
    pub(crate) async fn reconcile(
        &mut self,
        shard: &Shard,
        metadata: &dyn MetadataView,
        image: &MetadataImage,
        leader_of: &LeaderOf,
    ) -> Result<(), PartitionError> {
        let id = shard.creation.shard;
        if let Some((absorbed, merge)) = image.open_merge_into(id)
            && merge.phase == MergePhase::Absorb
        {
            return absorb(shard, metadata, image, (absorbed, merge)).await;
        }
        let Some(record) = image.shard(id) else { return Ok(()) };
        let Some(merge) = &record.merge else { return Ok(()) };
        match merge.phase {
            MergePhase::Seal => self.seal(shard, metadata, image, (record, merge), leader_of).await,
            MergePhase::Cancel => unseal(shard, metadata, (record, merge)).await,
            MergePhase::Absorb | MergePhase::Drain => Ok(()),
        }
    }

    async fn seal(
        &mut self,
        shard: &Shard,
        metadata: &dyn MetadataView,
        image: &MetadataImage,
        (record, merge): (&ShardRecord, &MergeRecord),
        leader_of: &LeaderOf,
    ) -> Result<(), PartitionError> {
        let (absorbed, intent) = (record.id, merge.intent);
        let known = self.waiting.filter(|(waiting, _)| *waiting == intent);
        let (_, since) = *self.waiting.insert(known.unwrap_or_else(|| (intent, rt::now())));
        let is_sealed = || shard.state().lock().sealed.filter(|sealed| sealed.intent == intent);
        if is_sealed().is_none() {
            let is_ready = is_ready(shard, image, (record, merge), leader_of).await;
            let replicas = merge.replicas.iter().map(|pair| pair.absorbed).collect();
            if !is_ready || shard.command(Command::Seal(Seal { intent, replicas })).await? == ApplyReply::OtherMembers {
                if rt::now().since(since) >= PATIENCE {
                    tracing::warn!("shard={absorbed}: not merged into shard {}: {}", merge.survivor, NOT_READY);
                    metadata.report_merge(MergeStep::Cancel { absorbed, intent }).await;
                }
                return LATER;
            }
        }
        let Some(sealed) = is_sealed() else { return LATER };
        let everywhere = shard.group().synced_by(sealed.index, merge.replicas.len());
        let has_all = mutants::is_on(Bug::SealReportedEarly) || rt::timeout(SEAL_WAIT, everywhere).await == Ok(true);
        if !has_all {
            if shard.leading().is_some() {
                tracing::warn!("shard={absorbed}: not all replicas have been sealed in time: unsealed again");
                metadata.report_merge(MergeStep::Cancel { absorbed, intent }).await;
            }
            return LATER;
        }
        let sealed = SealReport { index: sealed.index, term: sealed.term, checksum: sealed.checksum };
        if metadata.report_merge(MergeStep::Sealed { absorbed, intent, sealed }).await { Ok(()) } else { LATER }
    }
}

const NOT_READY: &str =
    "its replicas are not all in sync, its clock is not confirmed, or the shards are not led by one node; cancelled";

/// True if the log of a shard has to carry out something else before the merge: intents are carried out in their order.
fn has_older_intent(image: &MetadataImage, shard: ShardId, merge: &MergeRecord) -> bool {
    image.first_intent_of(shard).is_some_and(|first| first < merge.intent)
}

/// True if the shard may be sealed now. It is led where the survivor is led, so that what clients send meanwhile is handed over
/// there: if not, leadership is transferred.
async fn is_ready(
    shard: &Shard,
    image: &MetadataImage,
    (record, merge): (&ShardRecord, &MergeRecord),
    leader_of: &LeaderOf,
) -> bool {
    if has_older_intent(image, record.id, merge) || has_older_intent(image, merge.survivor, merge) {
        return false;
    }
    let members: BTreeSet<_> = merge.replicas.iter().map(|pair| pair.absorbed).collect();
    let in_sync: BTreeSet<_> = shard.in_sync().iter().copied().collect();
    if in_sync != members || shard.clock_for_expiry().is_none() {
        return false;
    }
    let Some(leader) = leader_of(merge.survivor) else { return false };
    let Some(beside) = record.replicas.iter().find(|replica| replica.node == leader) else { return false };
    if beside.id == shard.replica {
        return true;
    }
    if shard.group().could_lead(beside.id) {
        let _tried_again = shard.group().transfer_leadership(beside.id).await;
    }
    false
}

async fn unseal(
    shard: &Shard,
    metadata: &dyn MetadataView,
    (record, merge): (&ShardRecord, &MergeRecord),
) -> Result<(), PartitionError> {
    let intent = merge.intent;
    shard.command(Command::Unseal { intent }).await?;
    let step = MergeStep::Cancelled { absorbed: record.id, intent };
    if metadata.report_merge(step).await { Ok(()) } else { LATER }
}

async fn absorb(
    shard: &Shard,
    metadata: &dyn MetadataView,
    image: &MetadataImage,
    (absorbed, merge): (&ShardRecord, &MergeRecord),
) -> Result<(), PartitionError> {
    let intent = merge.intent;
    let done = || Some(shard.state().lock().last_merge).filter(|last| last.intent >= intent);
    if done().is_none() {
        if has_older_intent(image, shard.creation.shard, merge) {
            return LATER;
        }
        let (sealed, checksum) = (merge.sealed.index, merge.sealed.checksum);
        let absorb = Absorb { intent, shard: absorbed.id.0, sealed, checksum, replicas: merge.replicas.clone() };
        if shard.command(Command::Absorb(absorb)).await? == ApplyReply::OtherMembers {
            return LATER;
        }
    }
    let Some(last) = done() else { return LATER };
    let step = MergeStep::Absorbed { absorbed: absorbed.id, intent, term: last.term };
    if metadata.report_merge(step).await { Ok(()) } else { LATER }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use ottla_env::sim;
    use ottla_storage::ids::ReplicaId;

    use super::*;
    use crate::config::TopicConfig;
    use crate::metadata::{MergeReplica, ReplicaRecord, ShardKind};
    use crate::replicated::error::PartitionError;
    use crate::shard::fake::{FakeGroup, FakeMetadata, NODE, REPLICA, SHARD, image_with_topic};

    const POOL: ShardKind = ShardKind::Pool { factor: 1, pinned: true };
    const SURVIVOR: ShardId = ShardId(90);
    const INTENT: RaftIndex = RaftIndex(50);
    const OTHER: (ReplicaId, NodeId) = (ReplicaId(REPLICA.0 + 1), NodeId(2));

    /// The shard is to be absorbed; it has these replicas.
    fn merging(phase: MergePhase, replicas: &[(ReplicaId, NodeId)]) -> MetadataImage {
        let mut image = image_with_topic(2, TopicConfig::default());
        image.intents = Default::default();
        let pair = |(absorbed, _): &(ReplicaId, NodeId)| MergeReplica {
            survivor: ReplicaId(absorbed.0 + 100),
            absorbed: *absorbed,
        };
        let merge = MergeRecord {
            survivor: SURVIVOR,
            intent: INTENT,
            phase,
            replicas: replicas.iter().map(pair).collect(),
            sealed: SealReport::default(),
        };
        let of = image.shard(SHARD).unwrap().as_ref().clone();
        let replica = |(id, node): &(ReplicaId, NodeId)| ReplicaRecord { id: *id, node: *node, ..of.replicas[0] };
        let replicas = replicas.iter().map(replica).collect();
        let record = ShardRecord { merge: Some(merge), replicas, ..of };
        Arc::make_mut(&mut image.shards).insert(SHARD, Arc::new(record));
        image
    }

    fn led_by(node: NodeId) -> LeaderOf {
        Box::new(move |shard| (shard == SURVIVOR).then_some(node))
    }

    fn seals(group: &FakeGroup) -> usize {
        group.commands().iter().filter(|command| matches!(command, Command::Seal(_))).count()
    }

    #[tokio::test]
    async fn a_shard_is_sealed_once_and_reported_until_it_is_recorded() {
        let (group, shard) = FakeGroup::leading_with(POOL, 2).await;
        let image = merging(MergePhase::Seal, &[(REPLICA, NODE)]);
        let (metadata, mut merges) = (FakeMetadata::new(image.clone()), Merges::default());
        for _ in 0..2 {
            merges.reconcile(&shard, &metadata, &image, &led_by(NODE)).await.unwrap();
        }
        let sealed = shard.state().lock().sealed.unwrap();
        let sealed = SealReport { index: sealed.index, term: sealed.term, checksum: sealed.checksum };
        let step = MergeStep::Sealed { absorbed: SHARD, intent: INTENT, sealed };
        assert_eq!((seals(&group), metadata.merge_steps.lock().clone()), (1, vec![step, step]));
    }

    /// Its partitions take no writes from then on: only if it can be over soon.
    #[tokio::test]
    async fn a_shard_is_not_sealed_before_all_is_ready() {
        let (group, shard) = FakeGroup::leading_with(POOL, 2).await;
        let image = merging(MergePhase::Seal, &[(REPLICA, NODE)]);
        let (metadata, mut merges) = (FakeMetadata::new(image.clone()), Merges::default());
        let leaderless: LeaderOf = Box::new(|_| None);
        assert!(merges.reconcile(&shard, &metadata, &image, &leaderless).await.is_err());
        group.in_sync.send_replace(0);
        assert!(merges.reconcile(&shard, &metadata, &image, &led_by(NODE)).await.is_err());
        group.in_sync.send_replace(1);
        let mut waiting = image.clone();
        let (key, intent) =
            image_with_topic(1, TopicConfig::default()).intents.iter().next().map(|(k, i)| (*k, i.clone())).unwrap();
        for shard_of_intent in [SHARD, SURVIVOR] {
            waiting.intents = Default::default();
            let older = crate::metadata::IntentKey { shard: shard_of_intent, index: RaftIndex(INTENT.0 - 1), ..key };
            waiting.intents.insert(older, intent.clone());
            assert!(merges.reconcile(&shard, &metadata, &waiting, &led_by(NODE)).await.is_err());
        }
        assert_eq!((seals(&group), metadata.merge_steps.lock().len()), (0, 0));
        merges.reconcile(&shard, &metadata, &image, &led_by(NODE)).await.unwrap();
        assert_eq!(seals(&group), 1);
    }

    /// The patience is that of one merge: another one of the same shard has its own.
    #[test]
    fn a_merge_that_never_becomes_ready_is_cancelled() {
        sim::run(1, || async {
            let (_group, shard) = FakeGroup::leading_with(POOL, 2).await;
            let image = merging(MergePhase::Seal, &[(REPLICA, NODE)]);
            let (metadata, mut merges) = (FakeMetadata::new(image.clone()), Merges::default());
            let leaderless: LeaderOf = Box::new(|_| None);
            let mut again = image.clone();
            let mut record = again.shard(SHARD).unwrap().as_ref().clone();
            record.merge.as_mut().unwrap().intent = RaftIndex(INTENT.0 + 1);
            Arc::make_mut(&mut again.shards).insert(SHARD, Arc::new(record));
            for (image, intent) in [(&image, INTENT), (&again, RaftIndex(INTENT.0 + 1))] {
                assert!(merges.reconcile(&shard, &metadata, image, &leaderless).await.is_err());
                assert!(metadata.merge_steps.lock().is_empty(), "it may still become ready");
                rt::sleep(PATIENCE).await;
                assert!(merges.reconcile(&shard, &metadata, image, &leaderless).await.is_err());
                let steps = std::mem::take(&mut *metadata.merge_steps.lock());
                assert_eq!(steps, [MergeStep::Cancel { absorbed: SHARD, intent }]);
            }
        });
    }

    /// What waits for the merge can only be handed over within a node.
    #[tokio::test]
    async fn leadership_goes_where_the_survivor_is_led_first() {
        let (group, shard) = FakeGroup::leading_with(POOL, 2).await;
        group.in_sync.send_replace(2);
        group.transfer_targets.lock().insert(OTHER.0);
        let image = merging(MergePhase::Seal, &[(REPLICA, NODE), OTHER]);
        let (metadata, mut merges) = (FakeMetadata::new(image.clone()), Merges::default());
        assert!(merges.reconcile(&shard, &metadata, &image, &led_by(OTHER.1)).await.is_err());
        assert_eq!((shard.role().leader, seals(&group)), (Some(OTHER.0), 0));
    }

    /// Found by the simulation (seed 124249): the absorbed shard elected a leader once more where the merge was not known yet, and
    /// what the survivor had appended was out of range there.
    #[tokio::test]
    async fn a_sealed_shard_does_not_say_where_its_partitions_end() {
        let (_group, shard) = FakeGroup::leading_with(POOL, 2).await;
        assert_eq!(shard.read_index().await, Ok(()));
        let (image, mut merges) = (merging(MergePhase::Seal, &[(REPLICA, NODE)]), Merges::default());
        let metadata = FakeMetadata::new(image.clone());
        merges.reconcile(&shard, &metadata, &image, &led_by(NODE)).await.unwrap();
        assert_eq!(shard.read_index().await, Err(PartitionError::NotLeaderOrFollower));
        let image = merging(MergePhase::Cancel, &[(REPLICA, NODE)]);
        merges.reconcile(&shard, &metadata, &image, &led_by(NODE)).await.unwrap();
        assert_eq!(shard.read_index().await, Ok(()));
    }

    #[tokio::test]
    async fn a_cancelled_merge_is_unsealed_and_what_waited_goes_on() {
        let (group, shard) = FakeGroup::leading_with(POOL, 2).await;
        let image = merging(MergePhase::Seal, &[(REPLICA, NODE)]);
        let (metadata, mut merges) = (FakeMetadata::new(image.clone()), Merges::default());
        merges.reconcile(&shard, &metadata, &image, &led_by(NODE)).await.unwrap();
        assert!(shard.is_sealed());
        metadata.merge_steps.lock().clear();
        let image = merging(MergePhase::Cancel, &[(REPLICA, NODE)]);
        merges.reconcile(&shard, &metadata, &image, &led_by(NODE)).await.unwrap();
        assert!(!shard.is_sealed());
        let step = MergeStep::Cancelled { absorbed: SHARD, intent: INTENT };
        assert_eq!(*metadata.merge_steps.lock(), [step]);
        assert!(matches!(group.commands().last(), Some(Command::Unseal { intent: INTENT })));
    }
}
