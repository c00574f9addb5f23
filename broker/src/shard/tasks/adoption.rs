//! Carries out the intents of one shard: adopts and drops partitions by entries, then reports them done (design section
//! 6).
//!
//! The shard's log decides; an entry names its intents' metadata indexes and apply refuses what is not newer than what
//! it has, so doing it twice does no harm. Partitions for which a request waits go first. May not know: which request
//! waits.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::{LeaderEpoch, PartitionId};
use ottla_storage::ids::RaftIndex;

use crate::metadata::{IntentKey, IntentKind, MetadataImage};
use crate::replicated::command::{AdoptedPartition, Command, DroppedPartition, PARTITIONS_PER_ENTRY_MAX};
use crate::replicated::error::PartitionError;
use crate::replicated::shard_state::epoch_of;
use crate::shard::{MetadataView, Shard};

/// The intents of one shard that it has not carried out.
#[derive(Debug, Default)]
struct Open {
    adopt: VecDeque<AdoptedPartition>,
    drop: VecDeque<DroppedPartition>,
    keys: Vec<IntentKey>,
}

/// Adoption of one shard. Intents that were reported done are remembered until the metadata removes them.
#[derive(Debug, Default)]
pub(crate) struct Adoption {
    reported: BTreeSet<IntentKey>,
}

impl Adoption {
    /// Carries out the intents that the image has for the shard. Stops early if this replica leads no longer.
    pub(crate) async fn reconcile(
        &mut self,
        shard: &Arc<Shard>,
        metadata: &dyn MetadataView,
        image: &MetadataImage,
    ) -> Result<(), PartitionError> {
        let mut open = self.open_intents(shard, image);
        if mutants::is_on(Bug::IntentEndedEarly) && !open.keys.is_empty() {
            metadata.end_intents(open.keys.clone()).await;
        }
        while !open.adopt.is_empty() {
            bring_forward(&mut open.adopt, &shard.take_adoption_requests());
            let count = open.adopt.len().min(PARTITIONS_PER_ENTRY_MAX);
            shard.command(Command::Adopt(open.adopt.drain(..count).collect())).await?;
        }
        while !open.drop.is_empty() {
            let count = open.drop.len().min(PARTITIONS_PER_ENTRY_MAX);
            shard.command(Command::Drop(open.drop.drain(..count).collect())).await?;
        }
        let _answered_by_adoption = shard.take_adoption_requests();
        if open.keys.is_empty() {
            return Ok(());
        }
        if !metadata.end_intents(open.keys.clone()).await {
            // Not recorded: reported again soon.
            return Err(PartitionError::LeaderNotAvailable);
        }
        self.reported.extend(open.keys);
        Ok(())
    }

    fn open_intents(&mut self, shard: &Shard, image: &MetadataImage) -> Open {
        let mut open = Open::default();
        let mut known = BTreeSet::new();
        let term = shard.leading();
        let state = shard.state().lock();
        // They are the survivor's, or wait until it is unsealed.
        if state.is_sealed() {
            return open;
        }
        for (key, intent) in image.intents_of(shard.creation.shard) {
            known.insert(*key);
            if self.reported.contains(key) {
                continue;
            }
            open.keys.push(*key);
            for (index, epoch_base) in &intent.partitions {
                let id = PartitionId { topic: key.topic, index: *index };
                if !state.is_newer(id, key.index) {
                    continue;
                }
                match intent.kind {
                    IntentKind::Adopt => {
                        // The controller knew of a leader of a later term: this leader is deposed and has not heard of it.
                        if term.is_none_or(|term| epoch_of(*epoch_base, term.0) < LeaderEpoch(0)) {
                            return Open::default();
                        }
                        open.adopt.push_back(AdoptedPartition { id, intent: key.index, epoch_base: *epoch_base });
                    }
                    IntentKind::Drop => open.drop.push_back(DroppedPartition { id, intent: key.index }),
                }
            }
        }
        self.reported.retain(|key| known.contains(key));
        open
    }
}

/// Moves the wanted partitions to the front; the others keep their order.
fn bring_forward(adopt: &mut VecDeque<AdoptedPartition>, wanted: &[PartitionId]) {
    if wanted.is_empty() {
        return;
    }
    let wanted: BTreeSet<_> = wanted.iter().collect();
    adopt.make_contiguous().sort_by_key(|adopted| !wanted.contains(&adopted.id));
}

/// The metadata index up to which every intent for the shard is done, if tombstones can be forgotten by it.
pub(crate) fn floor(shard: &Shard, image: &MetadataImage) -> Option<RaftIndex> {
    let id = shard.creation.shard;
    let split = image.open_split_of(id).map(|(_, split)| split.intent);
    let merges = image.open_merges().filter(|(record, merge)| record.id == id || merge.survivor == id);
    let merge = merges.map(|(_, merge)| merge.intent).min();
    let first_open = image.first_intent_of(id).into_iter().chain(split).chain(merge).min();
    let floor = first_open.map_or(image.index, |index| RaftIndex(index.0.saturating_sub(1)));
    let state = shard.state().lock();
    (floor > state.floor && state.dropped.values().any(|dropped| *dropped <= floor)).then_some(floor)
}
