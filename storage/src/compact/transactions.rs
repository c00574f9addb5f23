//! Which transactions of a stretch of a partition were aborted, by their markers.
//!
//! A transaction may reach over a horizon on either side. The stretch begins at a former horizon, below which nothing is asked for, and has
//! all markers that were written; it goes on above the new one until all that began below has ended, as it has, below the last stable
//! offset. May not know: what is done with aborted records.

use std::collections::{BTreeMap, HashMap};

use ottla_protocol::batch::ControlRecord;
use ottla_protocol::ids::Offset;
use ottla_protocol::records;

use super::keeper::{RECORDS_BYTES_MAX, header_of};
use super::{CompactError, StoredBatch};

/// The transactions of a stretch.
#[derive(Debug, Default)]
pub struct Transactions {
    /// By producer: the first offset in the stretch of the one that is open.
    open: HashMap<i64, Offset>,
    /// By producer and first offset: that of the marker.
    aborted: BTreeMap<(i64, Offset), Offset>,
}

impl Transactions {
    /// Takes the next batch.
    pub fn see(&mut self, batch: &StoredBatch) -> Result<(), CompactError> {
        let header = header_of(batch)?;
        if header.attributes.is_control() {
            let first = self.open.remove(&header.producer_id);
            let marker = marker_of(batch)?;
            if let (Some(first), Some(ControlRecord::Abort { .. })) = (first, marker) {
                self.aborted.insert((header.producer_id, first), batch.base_offset);
            }
        } else if header.attributes.is_transactional() {
            self.open.entry(header.producer_id).or_insert(batch.base_offset);
        }
        Ok(())
    }

    /// True if no transaction that has an offset below the horizon is open.
    #[must_use]
    pub fn are_over_below(&self, horizon: Offset) -> bool {
        self.open.values().all(|first| *first >= horizon)
    }

    /// True if the transaction of a producer that has this offset was aborted.
    #[must_use]
    pub fn is_aborted(&self, producer_id: i64, offset: Offset) -> bool {
        let before = self.aborted.range(..=(producer_id, offset)).next_back();
        before.is_some_and(|((producer, _), marker)| *producer == producer_id && *marker > offset)
    }
}

/// The marker in a control batch; none if it has another control record.
fn marker_of(batch: &StoredBatch) -> Result<Option<ControlRecord>, CompactError> {
    let unreadable = |cause| CompactError::Unreadable { offset: batch.base_offset, cause };
    let records = records::open(&header_of(batch)?, &batch.data, RECORDS_BYTES_MAX).map_err(unreadable)?;
    let Some(record) = records.iter().next().transpose().map_err(unreadable)? else { return Ok(None) };
    let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
    Ok(ControlRecord::parse(key, value))
}

#[cfg(test)]
mod tests {
    use ottla_protocol::batch::{BatchBuilder, NewRecord, encode_control_batch};
    use ottla_protocol::compression::Codec;
    use ottla_protocol::ids::LeaderEpoch;
    use proptest::prelude::*;

    use super::*;

    fn stored(offset: i64, data: bytes::Bytes) -> StoredBatch {
        StoredBatch { base_offset: Offset(offset), epoch: LeaderEpoch(0), data }
    }

    fn records(producer: i64) -> bytes::Bytes {
        let mut builder = BatchBuilder::new(Codec::None).with_producer(producer, 0, 0).transactional();
        builder.push(&NewRecord { timestamp: 1, key: Some(b"k"), value: None, headers: &[] });
        builder.build().unwrap()
    }

    fn marker(producer: i64, commits: bool) -> bytes::Bytes {
        let coordinator_epoch = 1;
        let record = if commits {
            ControlRecord::Commit { coordinator_epoch }
        } else {
            ControlRecord::Abort { coordinator_epoch }
        };
        encode_control_batch(producer, 0, 5, record)
    }

    proptest! {
        /// Each step: a producer, and what it has: a record, a commit or an abort.
        #[test]
        fn a_record_is_aborted_if_the_next_marker_of_its_producer_says_so(
            steps in prop::collection::vec((0_i64..3, 0_u8..4), 1..60),
        ) {
            let mut transactions = Transactions::default();
            for (offset, (producer, kind)) in (100..).zip(&steps) {
                let data = if *kind < 2 { records(*producer) } else { marker(*producer, *kind == 2) };
                transactions.see(&stored(offset, data)).unwrap();
            }
            for (at, (producer, kind)) in steps.iter().enumerate().filter(|(_, (_, kind))| *kind < 2) {
                let next = steps[at..].iter().find(|(of, kind)| of == producer && *kind >= 2);
                let is_aborted = transactions.is_aborted(*producer, Offset(100 + at as i64));
                prop_assert_eq!(is_aborted, next.is_some_and(|(_, kind)| *kind == 3), "{} {}", at, kind);
            }
        }
    }
}
