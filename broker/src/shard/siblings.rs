//! What the replicas of a node know of each other, for splits and merges.
//!
//! May not know: when a shard is split or merged.

use std::sync::Arc;

use super::merge_partners::MergePartners;
use super::seeded_children::SeededChildren;

/// The children that splits have made here, and the replicas that merges take over.
#[derive(Default)]
pub struct Siblings {
    pub(crate) children: SeededChildren,
    pub(crate) partners: Arc<MergePartners>,
}

impl Siblings {
    pub(super) fn partners(&self) -> Arc<MergePartners> {
        self.partners.clone()
    }
}
