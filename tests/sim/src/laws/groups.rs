//! Groups as their members observe them (I4, I9):
//! - generations never fall;
//! - a generation has one leader and one assignment;
//! - a member stays one as long as it keeps its timeouts, also after a change of the coordinator;
//! - no commit of an older generation is acknowledged once a newer generation was answered.
//!
//! A deposed coordinator that does not know it yet may answer from its memory, as Kafka's does: its answers are not
//! judged against those of a newer one. Its writes are refused, so commits are always judged.
//!
//! A group without members and without a committed offset is removed, as by Kafka, and begins with generation 1 again:
//! generations are compared from the first commit on.

use std::collections::BTreeMap;

use super::Violation;

const FALLS: &str = "I4 generations never fall";
const ONE: &str = "a generation has one leader and one assignment";
const FORGOTTEN: &str = "who was told that it is a member is one";
const ZOMBIE: &str = "nobody commits for an older generation";

/// The answers to the members of one group.
#[derive(Debug, Default)]
pub(crate) struct GroupAnswers {
    /// The greatest leader epoch of a coordinator that answered.
    pub(crate) epoch: i32,
    /// The greatest generation in any answer.
    pub(crate) generation: i32,
    /// By generation: its leader, and its members if the leader got its answer.
    begun: BTreeMap<i32, (String, Option<Vec<String>>)>,
    /// By generation: a random number that identifies the assignment.
    assigned: BTreeMap<i32, u64>,
    /// The last offset that any member tried to commit; offsets only grow.
    pub(crate) offset: i64,
    /// The generation that all static members have synced; they cause no other one.
    pub(crate) settled: Option<i32>,
    /// The last generation that each static member has synced.
    synced: BTreeMap<String, i32>,
    /// A commit was acknowledged: the group stays, for no run lasts as long as its retention.
    pub(crate) has_committed: bool,
}

impl GroupAnswers {
    /// A member joined `generation`; `before` is the greatest in any answer before it sent the request, `None` if that
    /// cannot be judged. Only the leader gets the members.
    pub(crate) fn joined(
        &mut self,
        group: &str,
        before: Option<i32>,
        generation: i32,
        (leader, members): (String, Option<Vec<String>>),
    ) -> Result<(), Violation> {
        let is_known = self.begun.get(&generation).is_some_and(|(known, _)| *known == leader);
        if !self.has_committed && generation <= self.generation && !is_known {
            *self = Self { epoch: self.epoch, offset: self.offset, ..Self::default() };
        } else if let Some(before) = before.filter(|before| generation < *before) {
            let what = format!("group {group}: a member joined generation {generation} after {before} had been told");
            return Err(Violation::new(FALLS, None, what));
        }
        self.generation = self.generation.max(generation);
        let known = self.begun.entry(generation).or_insert_with(|| (leader.clone(), None));
        let other = members.as_ref().is_some_and(|members| known.1.get_or_insert_with(|| members.clone()) != members);
        if known.0 != leader || other {
            let what = format!(
                "group {group}, generation {generation}: {leader} leads {members:?}, and {} was told to lead {:?}",
                known.0, known.1
            );
            return Err(Violation::new(ONE, None, what));
        }
        Ok(())
    }

    /// A static member has synced `generation`; `members` are all.
    pub(crate) fn synced(&mut self, instance: String, generation: i32, members: usize) {
        self.synced.insert(instance, generation);
        if self.synced.values().filter(|synced| **synced == generation).count() == members {
            self.settled.get_or_insert(generation);
        }
    }

    /// A member of `generation` got its part of the assignment `mark`, which was made for generation `of`.
    pub(crate) fn assigned(&mut self, group: &str, generation: i32, of: i32, mark: u64) -> Result<(), Violation> {
        let known = *self.assigned.entry(generation).or_insert(mark);
        if (of, mark) == (generation, known) {
            return Ok(());
        }
        let what = format!(
            "group {group}, generation {generation}: an assignment of generation {of}, number {mark:x}; {known:x} was given before"
        );
        Err(Violation::new(ONE, None, what))
    }
}

/// A coordinator has no member that kept its timeouts.
pub(crate) fn forgotten(group: &str, member: &str, generation: i32, who: &str) -> Violation {
    let what =
        format!("group {group}: {who} does not know {member}, which joined generation {generation} and kept its times");
    Violation::new(FORGOTTEN, None, what)
}

/// A commit of `generation` was acknowledged; `newest` had been answered before it was sent.
pub(crate) fn committed(group: &str, generation: i32, newest: i32) -> Result<(), Violation> {
    if generation >= newest {
        return Ok(());
    }
    let what =
        format!("group {group}: a commit of generation {generation} was acknowledged, {newest} had been told before");
    Err(Violation::new(ZOMBIE, None, what))
}
