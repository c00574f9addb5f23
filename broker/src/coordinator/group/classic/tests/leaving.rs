//! Leaving, falling silent, and committing without being a member.

use super::dialogue::{Dialogue, SETTINGS, join};
use crate::coordinator::group::classic::State;
use crate::coordinator::group::error::GroupError;

#[test]
fn silence_ends_a_membership() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(2);
    d.pass(9_999);
    assert_eq!(d.heartbeat(&ids[0], 1), Ok(()));
    d.pass(1);
    assert_eq!(d.heartbeat(&ids[1], 1), Err(GroupError::UnknownMemberId));
    assert_eq!(d.heartbeat(&ids[0], 1), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_commit_keeps_a_session_alive() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(1);
    for _ in 0..4 {
        d.pass(6_000);
        assert_eq!(d.commit(&ids[0], 1), Ok(()));
    }
    assert_eq!(d.heartbeat(&ids[0], 1), Ok(()));
}

#[test]
fn the_last_to_leave_empties_the_group_and_its_generation_rises() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(1);
    assert_eq!(d.leave(&[(&ids[0], None)])[0].outcome, Ok(()));
    assert_eq!(d.group.state(), State::Empty);
    let last = d.records.last().unwrap();
    assert_eq!((last.generation, last.members.len(), last.leader.as_deref()), (2, 0, None));
    assert_eq!(last.protocol_type, "consumer");
    assert!(d.group.is_idle());
    let back = d.join(join(""));
    d.pass(3_000);
    assert_eq!(d.joined(back).1.generation, 3);
}

#[test]
fn several_leave_at_once_each_with_an_outcome() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(3);
    let left = d.leave(&[(&ids[1], None), ("ghost", None), (&ids[2], None), ("", None)]);
    let outcomes: Vec<_> = left.iter().map(|one| one.outcome).collect();
    let unknown = Err(GroupError::UnknownMemberId);
    assert_eq!(outcomes, [Ok(()), unknown, Ok(()), unknown]);
    assert_eq!(d.group.state(), State::PreparingRebalance);
    let request = d.join(join(&ids[0]));
    assert_eq!(d.joined(request).1.members.len(), 1);
}

#[test]
fn nobody_leaving_changes_nothing() {
    let mut d = Dialogue::new(SETTINGS);
    d.stable(2);
    d.leave(&[("ghost", None)]);
    assert_eq!(d.group.state(), State::Stable);
}

#[test]
fn one_that_leaves_is_not_left_waiting() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(2);
    let parked = d.join(join(&ids[0]));
    d.leave(&[(&ids[0], None)]);
    assert_eq!(d.join_refusal(parked), GroupError::UnknownMemberId);

    let mut d = Dialogue::new(SETTINGS);
    let joins = [d.join(join("")), d.join(join(""))];
    d.pass(6_000);
    let follower = d.joined(joins[1]).0;
    let parked = d.sync(&follower, 1, &[]);
    d.leave(&[(&follower, None)]);
    assert_eq!(d.synced(parked), Err(GroupError::UnknownMemberId));
}

#[test]
fn when_the_leader_leaves_another_leads() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(3);
    d.leave(&[(&ids[0], None)]);
    let joins = [d.join(join(&ids[1])), d.join(join(&ids[2]))];
    let (first, second) = (d.joined(joins[0]).1, d.joined(joins[1]).1);
    assert_eq!(first.leader, second.leader);
    assert!(ids[1..].contains(&first.leader));
    assert_eq!(first.members.len() + second.members.len(), 2);
}

#[test]
fn without_membership_one_commits_only_to_an_empty_group() {
    let mut d = Dialogue::new(SETTINGS);
    assert_eq!(d.commit("", -1), Ok(()));
    let ids = d.stable(1);
    assert_eq!(d.commit("", -1), Err(GroupError::UnknownMemberId));
    assert_eq!(d.commit("ghost", 1), Err(GroupError::UnknownMemberId));
    assert_eq!(d.commit(&ids[0], -1), Err(GroupError::IllegalGeneration));
    d.leave(&[(&ids[0], None)]);
    assert_eq!(d.commit("", -1), Ok(()));
    assert_eq!(d.commit(&ids[0], 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn unloading_answers_whatever_is_parked() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(2);
    let parked = d.join(join(&ids[0]));
    let outputs = d.group.unload(GroupError::NotCoordinator);
    assert_eq!(outputs.len(), 1);
    assert!(d.is_parked(parked));
    assert_eq!(d.heartbeat(&ids[0], 1), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(d.group.next_deadline_ms(), None);
}
