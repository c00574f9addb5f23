//! Static members (KIP-345, KIP-814): an identity that outlives its process.

use super::dialogue::{Dialogue, SETTINGS, join, protocols, who};
use crate::coordinator::group::classic::{Join, State};
use crate::coordinator::group::error::GroupError;

fn fixed(instance: &str) -> Join {
    Join { instance_id: Some(instance.into()), skips_assignment: true, ..join("") }
}

/// Two static members, stable; ids, the leader first.
fn two() -> (Dialogue, Vec<String>) {
    let mut d = Dialogue::new(SETTINGS);
    let joins = [d.join(fixed("one")), d.join(fixed("two"))];
    d.pass(6_000);
    let ids = d.settle(&joins);
    (d, ids)
}

#[test]
fn a_restarted_member_takes_its_place_without_a_rebalance() {
    let (mut d, ids) = two();
    let request = d.join(fixed("two"));
    let (new_id, generation) = d.joined(request);
    assert_ne!(new_id, ids[1]);
    assert_eq!((generation.generation, generation.skip_assignment), (1, false));
    assert_eq!(d.group.state(), State::Stable);
    assert!(d.records.last().unwrap().members.iter().any(|member| member.member_id == new_id));
    let sync = d.sync(&new_id, 1, &[]);
    assert_eq!(d.synced(sync).unwrap().assignment, format!("share of {}", ids[1]));
}

#[test]
fn the_former_process_is_fenced_whatever_it_says() {
    let (mut d, ids) = two();
    d.join(fixed("two"));
    let fenced = Err(GroupError::FencedInstanceId);
    assert_eq!(d.heartbeat_as(who(&ids[1], Some("two"), 1)), fenced);
    let now = d.now();
    assert_eq!(d.group.validate_commit(now, &who(&ids[1], Some("two"), 1), false), fenced);
    let again = d.join(Join { member_id: ids[1].clone(), ..fixed("two") });
    assert_eq!(d.join_refusal(again), GroupError::FencedInstanceId);
    assert_eq!(d.leave(&[(&ids[1], Some("two"))])[0].outcome, fenced);
    assert_eq!(d.heartbeat_as(who("x", Some("three"), 1)), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_restarted_leader_need_not_assign_again() {
    let (mut d, ids) = two();
    let request = d.join(fixed("one"));
    let (new_id, generation) = d.joined(request);
    assert_eq!(generation.leader, new_id);
    assert!(generation.skip_assignment);
    assert_eq!(generation.members.len(), 2);

    // Before v9 it must not learn that it leads, or it would assign anew.
    let (mut d, _) = (two().0, ());
    let request = d.join(Join { skips_assignment: false, ..fixed("one") });
    let (new_id, generation) = d.joined(request);
    assert_ne!(generation.leader, new_id);
    assert_eq!(generation.leader, ids[0]);
    assert!(!generation.skip_assignment && generation.members.is_empty());
}

#[test]
fn a_change_of_protocol_rebalances_after_all() {
    let (mut d, ids) = two();
    let request = d.join(Join { protocols: protocols(&["roundrobin"]), ..fixed("two") });
    assert!(d.is_parked(request));
    assert_eq!(d.group.state(), State::PreparingRebalance);
    assert_eq!(d.heartbeat_as(who(&ids[0], Some("one"), 1)), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_restart_during_a_rebalance_answers_the_former_process() {
    let (mut d, ids) = two();
    let parked = d.join(Join { member_id: ids[0].clone(), ..fixed("one") });
    let replaced = d.join(fixed("one"));
    assert_eq!(d.join_refusal(parked), GroupError::FencedInstanceId);
    d.join(Join { member_id: ids[1].clone(), ..fixed("two") });
    assert_eq!(d.joined(replaced).1.generation, 2);
}

#[test]
fn a_restart_while_the_leader_assigns_starts_over() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.completing([fixed("one"), fixed("two")]);
    let parked = d.sync(&ids[1], 1, &[]);
    d.join(fixed("two"));
    assert_eq!(d.synced(parked), Err(GroupError::FencedInstanceId));
    assert_eq!(d.group.state(), State::PreparingRebalance);
}

#[test]
fn a_missing_static_member_keeps_its_place_until_its_session_ends() {
    let mut d = Dialogue::new(SETTINGS);
    let patient = |instance: &str| Join { session_timeout_ms: 120_000, ..fixed(instance) };
    let joins = [d.join(patient("one")), d.join(patient("two"))];
    d.pass(6_000);
    let ids = d.settle(&joins);
    let leader = d.join(Join { member_id: ids[0].clone(), ..patient("one") });
    d.pass(60_000);
    let (_, generation) = d.joined(leader);
    assert_eq!(generation.members.len(), 2, "the missing one is assigned to as well");
}

#[test]
fn an_administrator_removes_by_instance_id() {
    let (mut d, _) = two();
    let left = d.leave(&[("", Some("two")), ("", Some("nine"))]);
    assert_eq!(left[0].outcome, Ok(()));
    assert_eq!(left[1].outcome, Err(GroupError::UnknownMemberId));
    assert_eq!(d.group.state(), State::PreparingRebalance);
}

#[test]
fn if_only_static_members_are_left_and_none_is_back_the_group_waits_for_their_sessions() {
    let mut d = Dialogue::new(SETTINGS);
    let patient = Join { session_timeout_ms: 150_000, ..fixed("one") };
    let joins = [d.join(patient), d.join(join(""))];
    d.pass(6_000);
    let ids = d.settle(&joins);
    let dynamic = ids.iter().find(|id| *id == "m2").unwrap().clone();
    d.leave(&[(&dynamic, None)]);
    assert_eq!(d.group.state(), State::PreparingRebalance);
    d.pass(61_000);
    assert_eq!(d.group.state(), State::PreparingRebalance);
    d.pass(90_000);
    assert_eq!(d.group.state(), State::Empty);
}
