//! Compaction keeps the last value of every key, and brings no deleted key back (design section 12).
//!
//! May not know: passes, horizons, replicas.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;

const LAW: &str = "a reader from the beginning finds the last value of every key, and no deleted key";

/// A record: its key, and a value that no other record has, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keyed {
    pub(crate) key: u64,
    pub(crate) value: Option<u64>,
}

/// By key: the offset and the value of its last record.
pub(crate) type LastOfKeys = BTreeMap<u64, (i64, Option<u64>)>;

/// What clients have sent to a compacted topic, and what is known of it.
#[derive(Debug, Default)]
pub(crate) struct Compacted {
    values: u64,
    /// The key of each value that was sent, and the keys that were deleted.
    sent: BTreeMap<u64, u64>,
    deleted: BTreeSet<u64>,
    /// By partition: the records that were acknowledged or read, by offset.
    known: BTreeMap<i32, BTreeMap<i64, Keyed>>,
    reads: u64,
}

fn broken(index: i32, what: String) -> Violation {
    Violation::new(LAW, None, format!("partition {index} of the compacted topic: {what}"))
}

impl Compacted {
    /// A record is sent.
    pub(crate) fn send(&mut self, key: u64, deletes: bool) -> Keyed {
        if deletes {
            self.deleted.insert(key);
            return Keyed { key, value: None };
        }
        self.values += 1;
        self.sent.insert(self.values, key);
        Keyed { key, value: Some(self.values) }
    }

    /// A record was acknowledged or read at an offset.
    pub(crate) fn learn(&mut self, index: i32, offset: i64, record: Keyed) -> Result<(), Violation> {
        let was_sent = match record.value {
            Some(value) => self.sent.get(&value) == Some(&record.key),
            None => self.deleted.contains(&record.key),
        };
        if !was_sent {
            return Err(broken(index, format!("{record:?} at {offset} was never sent")));
        }
        let known = self.known.entry(index).or_default().entry(offset).or_insert(record);
        if *known != record {
            return Err(broken(index, format!("{record:?} at {offset}, where {known:?} was before")));
        }
        Ok(())
    }

    /// What is known now.
    pub(crate) fn last_of_keys(&self, index: i32) -> LastOfKeys {
        let records = self.known.get(&index).into_iter().flatten();
        records.map(|(offset, record)| (record.key, (*offset, record.value))).collect()
    }

    /// A reader has read all from the beginning to an end that it was told while it read. `floor`: what was known before.
    /// `in_time`: it took less than tombstones are kept.
    pub(crate) fn judge(
        &mut self,
        index: i32,
        floor: &LastOfKeys,
        read: &LastOfKeys,
        end: i64,
        in_time: bool,
    ) -> Result<(), Violation> {
        self.reads += 1;
        for (key, (at, value)) in floor.iter().filter(|(_, (at, _))| *at < end) {
            let found = read.get(key);
            if found.is_some_and(|(offset, _)| offset >= at) {
                continue;
            }
            let is_gone = found.is_none_or(|(_, value)| value.is_none());
            match value {
                Some(_) => {
                    let what = format!("key {key} has {value:?} at {at}, and a reader up to {end} found {found:?}");
                    return Err(broken(index, what));
                }
                None if in_time && !is_gone => {
                    let what = format!("key {key} was deleted at {at}, and a reader up to {end} found {found:?}");
                    return Err(broken(index, what));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Readings from the beginning that were judged.
    pub(crate) fn reads(&self) -> u64 {
        self.reads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_value_that_is_not_there_and_a_deleted_key_that_returns_are_found() {
        let mut compacted = Compacted::default();
        let (old, new) = (compacted.send(1, false), compacted.send(1, false));
        let (kept, deleted) = (compacted.send(2, false), compacted.send(2, true));
        for (offset, record) in [(0, old), (1, new), (2, kept), (3, deleted)] {
            assert!(compacted.learn(0, offset, record).is_ok());
        }
        assert!(compacted.learn(0, 3, kept).is_err(), "another record at an offset");
        assert!(compacted.learn(0, 4, Keyed { key: 1, value: kept.value }).is_err(), "a value of another key");
        let floor = compacted.last_of_keys(0);
        let mut judge = |read: &[(u64, (i64, Option<u64>))], end, in_time| {
            compacted.judge(0, &floor, &read.iter().copied().collect(), end, in_time).is_ok()
        };
        let (first, last) = ((1, (0, old.value)), (1, (1, new.value)));
        assert!(judge(&[last], 4, true) && judge(&[last, (2, (3, None))], 4, true));
        assert!(!judge(&[], 4, true) && !judge(&[first], 4, true), "the last value of key 1 is not there");
        assert!(judge(&[first], 1, true), "it was not read that far");
        assert!(!judge(&[last, (2, (2, kept.value))], 4, true), "key 2 has returned");
        assert!(judge(&[last, (2, (2, kept.value))], 4, false), "the tombstone's time was over");
        assert!(judge(&[(1, (9, Some(9))), (2, (8, Some(8)))], 10, true), "written since");
    }
}
