//! Transactions are atomic, and readers of committed data see what is committed, in order, and nothing else (KIP-98, KIP-890).
//!
//! May not know: producers, epochs, markers.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;

const LAW: &str = "transactions are atomic, and readers of committed data see no other";

/// What a transaction's client knows of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nobody has asked for its commit.
    Open,
    /// Its commit was asked for, and what came of it is not known.
    Asked,
    /// Its commit was acknowledged.
    Committed,
    /// It was aborted, or its commit was refused for good.
    Aborted,
}

/// All transactions of a run, by number, and their records.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    fates: Vec<Fate>,
    /// The records of a transaction: partition and value.
    records: BTreeMap<usize, Vec<(i32, u64)>>,
    of_value: BTreeMap<u64, usize>,
    /// What each reader was given of each partition, in order.
    delivered: BTreeMap<(u64, i32), Vec<u64>>,
    /// The transactions that commit an offset of a group, which is their number and one more, in the order in which they began.
    offsets: BTreeMap<String, BTreeSet<usize>>,
    /// The transactions whose offset was read.
    offsets_seen: BTreeMap<String, BTreeSet<usize>>,
    begins: BTreeMap<String, Begins>,
}

/// The requests by which clients become the producer of a transactional id.
#[derive(Debug, Default)]
struct Begins {
    asked: u64,
    answered: u64,
    /// One of them got no answer, and may come any time.
    is_uncertain: bool,
}

fn broken(index: i32, what: String) -> Violation {
    Violation::new(LAW, None, format!("transfers-{index}: {what}"))
}

impl Transfers {
    /// A client asks to become the producer of a transactional id.
    pub(crate) fn asks_for(&mut self, id: &str) {
        self.begins.entry(id.to_owned()).or_default().asked += 1;
    }

    /// It was answered, for certain if each of its attempts was. Returns when that was, for [`Self::is_sole`]; `None` if another client may
    /// become the producer without asking again.
    pub(crate) fn was_answered(&mut self, id: &str, is_certain: bool) -> Option<u64> {
        let begins = self.begins.entry(id.to_owned()).or_default();
        begins.answered += 1;
        begins.is_uncertain |= !is_certain;
        (!begins.is_uncertain && begins.asked == begins.answered).then_some(begins.asked)
    }

    /// True if no other client can have become the producer of an id since.
    pub(crate) fn is_sole(&self, id: &str, since: Option<u64>) -> bool {
        since.is_some() && since == self.begins.get(id).map(|begins| begins.asked)
    }

    /// A new transaction.
    pub(crate) fn begin(&mut self) -> usize {
        self.fates.push(Fate::Open);
        self.fates.len() - 1
    }

    /// One of its records is sent; the value.
    pub(crate) fn send(&mut self, transaction: usize, index: i32) -> u64 {
        let value = u64::try_from(self.of_value.len()).unwrap_or(0);
        self.of_value.insert(value, transaction);
        self.records.entry(transaction).or_default().push((index, value));
        value
    }

    /// Its client has learned something of its end.
    pub(crate) fn ends(&mut self, transaction: usize, fate: Fate) {
        self.fates[transaction] = fate;
    }

    /// A transaction commits an offset of a group; the offset.
    pub(crate) fn commits_offset(&mut self, transaction: usize, group: &str) -> i64 {
        self.offsets.entry(group.to_owned()).or_default().insert(transaction);
        i64::try_from(transaction + 1).unwrap_or(i64::MAX)
    }

    /// The least stable offset of a group from now on, 0 for none: that of the last transaction whose commit is acknowledged. One that
    /// began later with the same transactional id is committed later.
    pub(crate) fn offset_floor(&self, group: &str) -> i64 {
        let sent = self.offsets.get(group).into_iter().flatten();
        let committed = sent.filter(|transaction| self.fates[**transaction] == Fate::Committed).max();
        committed.map_or(0, |transaction| i64::try_from(transaction + 1).unwrap_or(i64::MAX))
    }

    /// A stable offset of a group is read, -1 for none. `floor`: what it was at least when it was asked for.
    pub(crate) fn read_offset(&mut self, group: &str, floor: i64, offset: i64) -> Result<(), Violation> {
        let broken = |what: String| Err(Violation::new(LAW, None, format!("{group}: {what}")));
        if offset.max(0) < floor {
            return broken(format!("the stable offset is {offset}, and {floor} was committed before"));
        }
        let Some(transaction) = usize::try_from(offset - 1).ok() else { return Ok(()) };
        if !self.offsets.get(group).is_some_and(|sent| sent.contains(&transaction)) {
            return broken(format!("offset {offset} was never sent"));
        }
        match self.fates[transaction] {
            Fate::Asked | Fate::Committed => {}
            fate => return broken(format!("offset {offset} is that of transaction {transaction}, which is {fate:?}")),
        }
        self.offsets_seen.entry(group.to_owned()).or_default().insert(transaction);
        Ok(())
    }

    /// Offsets and records of a transaction are committed together. `all`: the records that are there in the end, after which the offsets
    /// of all groups were read.
    fn judge_offsets(&self, all: &BTreeSet<u64>) -> Result<(), Violation> {
        let is_visible = |transaction: usize| {
            let records = self.records.get(&transaction).map_or(&[][..], Vec::as_slice);
            records.iter().any(|(_, value)| all.contains(value))
        };
        for (group, sent) in &self.offsets {
            let seen = self.offsets_seen.get(group).cloned().unwrap_or_default();
            let broken = |what: String| Err(Violation::new(LAW, None, format!("{group}: {what}")));
            if let Some(transaction) = seen.iter().find(|transaction| !is_visible(**transaction)) {
                return broken(format!(
                    "the offset of transaction {transaction} was read, and its records are not there"
                ));
            }
            let last = sent.iter().rev().find(|transaction| is_visible(**transaction));
            if last > seen.last() {
                return broken(format!(
                    "the records of transaction {last:?} are there, the last offset is of {:?}",
                    seen.last()
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn count(&self, fate: Fate) -> usize {
        self.fates.iter().filter(|known| **known == fate).count()
    }

    fn fate_of(&self, index: i32, value: u64) -> Result<(usize, Fate), Violation> {
        let transaction = self.of_value.get(&value);
        let transaction = *transaction.ok_or_else(|| broken(index, format!("{value} was never sent")))?;
        Ok((transaction, self.fates[transaction]))
    }

    /// A reader is given a committed record.
    pub(crate) fn read(&mut self, reader: u64, index: i32, value: u64) -> Result<(), Violation> {
        self.may_be_seen(index, value)?;
        self.delivered.entry((reader, index)).or_default().push(value);
        Ok(())
    }

    fn may_be_seen(&self, index: i32, value: u64) -> Result<(), Violation> {
        match self.fate_of(index, value)? {
            (_, Fate::Asked | Fate::Committed) => Ok(()),
            (transaction, fate) => {
                Err(broken(index, format!("a reader sees {value} of transaction {transaction}, which is {fate:?}")))
            }
        }
    }

    /// All that a reader of committed data sees of each partition in the end, in order.
    pub(crate) fn judge(&self, seen: &BTreeMap<i32, Vec<u64>>) -> Result<(), Violation> {
        let all: BTreeSet<u64> = seen.values().flatten().copied().collect();
        for (index, values) in seen {
            values.iter().try_for_each(|value| self.may_be_seen(*index, *value))?;
            if values.iter().collect::<BTreeSet<_>>().len() != values.len() {
                return Err(broken(*index, "a record is there twice".to_owned()));
            }
        }
        for (transaction, records) in &self.records {
            let visible = records.iter().filter(|(_, value)| all.contains(value)).count();
            let fate = self.fates[*transaction];
            let is_absent = visible == 0 && fate != Fate::Committed;
            if visible != records.len() && !is_absent {
                let what = format!("of transaction {transaction}, {fate:?}, {visible} of {records:?} are there");
                return Err(broken(records.first().map_or(0, |(index, _)| *index), what));
            }
        }
        for ((reader, index), values) in &self.delivered {
            let there = seen.get(index).map_or(&[][..], Vec::as_slice);
            if !there.starts_with(values) {
                let at = values.iter().zip(there).take_while(|(given, there)| given == there).count();
                let what = format!(
                    "reader {reader} was given {:?} after {at} records, where {:?} is",
                    values.get(at),
                    there.get(at)
                );
                return Err(broken(*index, what));
            }
        }
        self.judge_offsets(&all)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn transfer(known: &mut Transfers, fate: Fate) -> (u64, u64) {
        let transaction = known.begin();
        let both = (known.send(transaction, 0), known.send(transaction, 1));
        known.ends(transaction, fate);
        both
    }

    fn judged(known: &Transfers, zero: &[u64], one: &[u64]) -> Result<(), Violation> {
        known.judge(&BTreeMap::from([(0, zero.to_vec()), (1, one.to_vec())]))
    }

    #[test]
    fn what_is_committed_is_there_as_a_whole_and_what_is_not_is_not() {
        let mut known = Transfers::default();
        let committed = transfer(&mut known, Fate::Committed);
        let aborted = transfer(&mut known, Fate::Aborted);
        let open = transfer(&mut known, Fate::Open);
        let asked = transfer(&mut known, Fate::Asked);
        assert!(judged(&known, &[committed.0], &[committed.1]).is_ok());
        assert!(judged(&known, &[committed.0, asked.0], &[asked.1, committed.1]).is_ok());
        for (zero, one) in [
            (vec![], vec![committed.1]),
            (vec![], vec![]),
            (vec![committed.0, asked.0], vec![committed.1]),
            (vec![committed.0, committed.0], vec![committed.1]),
            (vec![committed.0, aborted.0], vec![committed.1, aborted.1]),
            (vec![committed.0, open.0], vec![committed.1, open.1]),
            (vec![committed.0, 99], vec![committed.1]),
        ] {
            assert!(judged(&known, &zero, &one).is_err(), "{zero:?} {one:?}");
        }
    }

    #[test]
    fn offsets_are_committed_with_the_records_or_not_at_all() {
        let begun = |fate: Fate| {
            let mut known = Transfers::default();
            let transaction = known.begin();
            let both = (known.send(transaction, 0), known.send(transaction, 1));
            let offset = known.commits_offset(transaction, "g");
            known.ends(transaction, fate);
            (known, both, offset)
        };
        let (mut known, both, offset) = begun(Fate::Committed);
        assert_eq!(known.offset_floor("g"), offset);
        assert!(known.read_offset("g", offset, -1).is_err(), "a commit is forgotten");
        assert!(known.read_offset("g", 0, offset + 1).is_err(), "an offset that nobody has sent");
        assert!(judged(&known, &[both.0], &[both.1]).is_err(), "records without the offset");
        known.read_offset("g", offset, offset).unwrap();
        assert!(judged(&known, &[both.0], &[both.1]).is_ok());
        for fate in [Fate::Aborted, Fate::Open] {
            let (mut known, _, offset) = begun(fate);
            known.read_offset("g", known.offset_floor("g"), -1).unwrap();
            assert!(known.read_offset("g", 0, offset).is_err(), "an offset of one that is {fate:?}");
        }
        let (mut known, _, offset) = begun(Fate::Asked);
        known.read_offset("g", 0, offset).unwrap();
        assert!(judged(&known, &[], &[]).is_err(), "the offset without the records");
    }

    #[test]
    fn a_reader_gets_what_is_there_in_the_end_from_the_first_on() {
        let mut known = Transfers::default();
        let (first, second) = (transfer(&mut known, Fate::Committed), transfer(&mut known, Fate::Committed));
        known.read(1, 0, first.0).unwrap();
        known.read(2, 0, second.0).unwrap();
        assert!(judged(&known, &[first.0, second.0], &[first.1, second.1]).is_err(), "reader 2 has missed one");
        let open = transfer(&mut known, Fate::Open);
        assert!(known.read(1, 0, open.0).is_err());
    }
}
