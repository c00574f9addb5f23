//! When the members of a group last had all that their leader had.
//!
//! May not know: openraft.

use std::collections::BTreeMap;

use ottla_storage::env::rt;

/// When members had everything: looked at from time to time, since nobody writes it down.
#[derive(Debug, Default)]
pub(crate) struct CaughtUp {
    term: u64,
    /// When it was looked last, and what the leader had then.
    before: Option<(rt::Instant, u64)>,
    at: BTreeMap<u64, rt::Instant>,
}

/// The last entry that a member is known to have, and when it answered last.
pub(crate) type Known = (Option<u64>, Option<rt::Instant>);

impl CaughtUp {
    /// Members have the entries up to these, and answered last then, while the leader has entries up to `last`.
    pub(crate) fn look(&mut self, term: u64, now: rt::Instant, last: u64, members: &BTreeMap<u64, Known>) {
        if self.term != term {
            *self = Self { term, ..Self::default() };
        }
        self.at.retain(|member, _| members.contains_key(member));
        for (member, (matched, heard)) in members {
            let Some(matched) = matched else { continue };
            // Who has now what the leader had then was caught up then.
            let then = self.before.filter(|(_, had)| matched >= had).map(|(then, _)| then);
            let caught_up = if *matched >= last { *heard } else { then };
            if let Some(caught_up) = caught_up {
                let at = self.at.entry(*member).or_insert(caught_up);
                *at = caught_up.max(*at);
            }
        }
        self.before = Some((now, last));
    }

    /// When this member last had everything.
    pub(crate) fn at(&self, member: u64) -> Option<rt::Instant> {
        self.at.get(&member).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_has_what_the_leader_had_at_the_last_look_was_caught_up_then() {
        let at = |second: u64| rt::Instant(0) + Duration::from_secs(second);
        let mut looks = CaughtUp::default();
        let members =
            |two: Option<u64>, heard: u64| BTreeMap::from([(1, (Some(99), None)), (2, (two, Some(at(heard))))]);
        looks.look(3, at(1), 10, &members(None, 1));
        assert_eq!(looks.at(2), None, "nothing is known of it");
        looks.look(3, at(2), 20, &members(Some(10), 2));
        assert_eq!(looks.at(2), Some(at(1)));
        looks.look(3, at(3), 30, &members(Some(15), 3));
        assert_eq!(looks.at(2), Some(at(1)), "it falls behind");
        looks.look(3, at(4), 30, &members(Some(30), 4));
        assert_eq!(looks.at(2), Some(at(4)));
        looks.look(3, at(9), 30, &members(Some(30), 5));
        assert_eq!(looks.at(2), Some(at(5)), "it says nothing any more");
        looks.look(3, at(10), 30, &BTreeMap::from([(1, (Some(30), None))]));
        assert_eq!(looks.at(2), None, "it is no member any more");
        looks.look(4, at(11), 30, &members(Some(10), 11));
        assert_eq!(looks.at(2), None, "another term knows nothing of the one before");
    }
}
