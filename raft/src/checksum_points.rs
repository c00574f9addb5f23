//! The checksums of a replica's state after some entries, and what a comparison with other replicas says.
//!
//! May not know: how the others are asked, and what a verdict leads to.

use std::collections::{BTreeMap, VecDeque};

use ottla_storage::ids::RaftIndex;

/// How checksums are computed. A release that computes another one of the same state has another number: they are not
/// compared.
pub(crate) const CHECKSUM_FORMAT: u8 = 1;
/// Checksums kept: at ten thousand entries a second those of the last three seconds.
const POINTS_MAX: usize = 128;

/// The checksums of a state after some of its last entries.
#[derive(Debug, Default)]
pub(crate) struct ChecksumPoints(VecDeque<(RaftIndex, u64)>);

impl ChecksumPoints {
    /// Notes the checksum after the entry.
    pub(crate) fn note(&mut self, index: RaftIndex, checksum: u64) {
        if self.0.len() == POINTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((index, checksum));
    }

    /// The newest one.
    pub(crate) fn newest(&self) -> Option<(RaftIndex, u64)> {
        self.0.back().copied()
    }

    /// The checksum after the entry, if it is kept.
    pub(crate) fn at(&self, index: RaftIndex) -> Option<u64> {
        let at = self.0.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        self.0.get(at).map(|(_, checksum)| *checksum)
    }

    /// Forgets all: another state was installed.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// What the members say of the state after one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateVerdict {
    /// No voter that is known has another checksum.
    Equal,
    /// A majority has another state than this replica.
    DiffersFromMajority,
    /// States differ, and no majority has another one than this replica.
    Differ,
}

/// Compares this replica's checksum with those of the other voters, as far as they are known.
pub(crate) fn judge(own: u64, others: &[u64], voters: usize) -> StateVerdict {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    others.iter().for_each(|checksum| *counts.entry(*checksum).or_default() += 1);
    let majority = voters / 2 + 1;
    match counts.iter().any(|(checksum, count)| *checksum != own && *count >= majority) {
        true => StateVerdict::DiffersFromMajority,
        false if others.iter().any(|checksum| *checksum != own) => StateVerdict::Differ,
        false => StateVerdict::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_all_voters_decides() {
        use StateVerdict::{Differ, DiffersFromMajority, Equal};
        let cases: [(&[u64], usize, StateVerdict); 9] = [
            (&[], 3, Equal),
            (&[1, 1], 3, Equal),
            (&[1], 3, Equal),
            (&[2], 3, Differ),
            (&[1, 2], 3, Differ),
            (&[2, 3], 3, Differ),
            (&[2, 2], 3, DiffersFromMajority),
            (&[2, 2, 1, 1], 5, Differ),
            (&[2, 2, 2], 5, DiffersFromMajority),
        ];
        for (others, voters, verdict) in cases {
            assert_eq!(judge(1, others, voters), verdict, "{others:?} of {voters}");
        }
        assert_eq!(judge(1, &[2], 2), Differ, "of two nobody knows who is right");
    }

    #[test]
    fn the_last_checksums_are_kept() {
        let mut points = ChecksumPoints::default();
        assert_eq!((points.newest(), points.at(RaftIndex(0))), (None, None));
        (1..=POINTS_MAX as u64 + 2).for_each(|number| points.note(RaftIndex(number * 10), number));
        assert_eq!(points.newest(), Some((RaftIndex(POINTS_MAX as u64 * 10 + 20), POINTS_MAX as u64 + 2)));
        assert_eq!(
            (points.at(RaftIndex(20)), points.at(RaftIndex(30)), points.at(RaftIndex(35))),
            (None, Some(3), None)
        );
        points.clear();
        assert_eq!(points.at(RaftIndex(30)), None);
    }
}
