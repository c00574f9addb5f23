//! The new offset of a group in one partition after a reset. Pure: computed from the partition's offsets and the
//! target.

/// The target of a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scenario {
    /// To the first record.
    Earliest,
    /// Behind the last record.
    Latest,
    /// To an offset.
    Offset(i64),
    /// To the first record of a time, milliseconds since 1970, or later.
    Time(i64),
    /// So many records further, or back.
    Shift(i64),
}

/// The offsets of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// The group's committed offset.
    pub(super) committed: Option<i64>,
    /// The log start offset.
    pub(super) earliest: i64,
    /// The end offset, after the last record.
    pub(super) latest: i64,
    /// The first offset of the requested time, if a record is as young.
    pub(super) at_time: Option<i64>,
}

/// The new offset, always within the log; `None` where there is no committed offset to shift.
pub(super) fn target(scenario: Scenario, known: Known) -> Option<i64> {
    let wanted = match scenario {
        Scenario::Earliest => known.earliest,
        Scenario::Latest => known.latest,
        Scenario::Offset(offset) => offset,
        Scenario::Time(_) => known.at_time.unwrap_or(known.latest),
        Scenario::Shift(by) => known.committed?.saturating_add(by),
    };
    Some(wanted.min(known.latest).max(known.earliest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_never_leaves_what_is_there() {
        let known = Known { committed: Some(12), earliest: 10, latest: 20, at_time: Some(15) };
        let to = |scenario| target(scenario, known);
        assert_eq!([to(Scenario::Earliest), to(Scenario::Latest)], [Some(10), Some(20)]);
        assert_eq!(
            [to(Scenario::Offset(11)), to(Scenario::Offset(3)), to(Scenario::Offset(99))],
            [Some(11), Some(10), Some(20)]
        );
        assert_eq!(
            [to(Scenario::Shift(3)), to(Scenario::Shift(-9)), to(Scenario::Shift(i64::MAX))],
            [Some(15), Some(10), Some(20)]
        );
        assert_eq!(to(Scenario::Time(0)), Some(15));
        assert_eq!(target(Scenario::Time(0), Known { at_time: None, ..known }), Some(20), "nothing is as young");
        assert_eq!(target(Scenario::Shift(1), Known { committed: None, ..known }), None);
    }
}
