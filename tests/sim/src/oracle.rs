//! The model of the cluster's state as clients have observed it: acknowledged and read records, ends, committed group
//! offsets.
//!
//! May not know: nodes, replicas, faults.

use std::collections::{BTreeMap, BTreeSet};

use crate::laws::Violation;
use crate::laws::compaction::Compacted;
use crate::laws::epochs::Epochs;
use crate::laws::groups::GroupAnswers;
use crate::laws::i9_topics::Steps;
use crate::laws::transfers::Transfers;
use crate::laws::{i2_dense, i5_once};
use uuid::Uuid;

/// How a client observed a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Its producer got the acknowledgement.
    Acknowledged,
    /// A consumer read it.
    Read,
}

/// One partition as clients have observed it.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The value at each observed offset.
    pub(crate) values: BTreeMap<i64, u64>,
    /// The offset of each observed value.
    pub(crate) offsets: BTreeMap<u64, i64>,
    /// Acknowledged offsets.
    pub(crate) acknowledged: BTreeSet<i64>,
    /// Every value that was sent.
    pub(crate) sent: BTreeSet<u64>,
    /// The greatest offset up to which a client requested deletion.
    pub(crate) deleted: i64,
}

impl Known {
    /// One beyond the greatest observed offset.
    pub(crate) fn end(&self) -> i64 {
        self.values.last_key_value().map_or(0, |(offset, _)| offset + 1)
    }
}

/// The commits of one group's offset of one partition.
#[derive(Debug, Default, Clone)]
pub(crate) struct Commits {
    /// The greatest acknowledged offset.
    pub(crate) acknowledged: i64,
    /// The greatest offset that was sent.
    pub(crate) attempted: i64,
    /// Offsets that got no answer: they may be committed late, behind a newer one.
    pub(crate) unanswered: BTreeSet<i64>,
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) partitions: BTreeMap<i32, Known>,
    pub(crate) commits: BTreeMap<String, Commits>,
    /// Groups with members.
    pub(crate) groups: BTreeMap<String, GroupAnswers>,
    /// Topics that are created and deleted during the run, by name.
    pub(crate) topics: BTreeMap<String, Steps>,
    /// Transactions.
    pub(crate) transfers: Transfers,
    /// A compacted topic.
    pub(crate) compacted: Compacted,
    /// Producer ids and topic ids, and what they were assigned to.
    pub(crate) producer_ids: BTreeMap<i64, String>,
    pub(crate) topic_ids: BTreeMap<Uuid, String>,
    /// Leader epochs of batches, by partition.
    pub(crate) epochs: BTreeMap<i32, Epochs>,
    /// Counts of checked answers to ListOffsets, and of records read.
    pub(crate) lists: u64,
    pub(crate) reads: u64,
}

impl Oracle {
    pub(crate) fn partition(&mut self, index: i32) -> &mut Known {
        self.partitions.entry(index).or_default()
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.partitions.values().map(|known| known.acknowledged.len()).sum()
    }

    /// A client observed `value` at `offset`.
    pub(crate) fn learn(&mut self, index: i32, offset: i64, value: u64, how: Learned) -> Result<(), Violation> {
        let known = self.partition(index);
        i2_dense::one_value_an_offset(index, known, offset, value)?;
        i5_once::one_offset_a_value(index, known, offset, value)?;
        known.values.insert(offset, value);
        known.offsets.insert(value, offset);
        if how == Learned::Acknowledged {
            known.acknowledged.insert(offset);
        } else {
            self.reads += 1;
        }
        Ok(())
    }
}
