//! Joining, syncing, rebalancing: what Kafka's clients see.

use super::dialogue::{Dialogue, SETTINGS, join, protocols};
use crate::coordinator::group::classic::{Settings, State};
use crate::coordinator::group::error::GroupError;

#[test]
fn the_first_generation_waits_for_more_members() {
    let mut d = Dialogue::new(SETTINGS);
    let first = d.join(join(""));
    d.pass(2_999);
    assert!(d.is_parked(first));
    let second = d.join(join(""));
    // Somebody came within the delay: it runs once more.
    d.pass(2_999);
    assert!(d.is_parked(first) && d.is_parked(second));
    d.pass(2);
    let (leader, generation) = d.joined(first);
    assert_eq!((generation.generation, &generation.leader), (1, &leader));
    assert_eq!(generation.members.len(), 2);
    let (_, generation) = d.joined(second);
    assert_eq!((generation.generation, generation.members.len()), (1, 0));
    assert_eq!(d.group.state(), State::CompletingRebalance);
}

#[test]
fn the_initial_delay_ends_with_the_rebalance_timeout() {
    let mut d = Dialogue::new(SETTINGS);
    let mut hasty = join("");
    hasty.rebalance_timeout_ms = 5_000;
    let first = d.join(hasty.clone());
    for _ in 0..5 {
        d.pass(1_000);
        d.join(hasty.clone());
    }
    // 3 s, then what is left of 5 s, whoever comes.
    assert!(!d.is_parked(first));
}

#[test]
fn an_id_is_required_only_of_dynamic_members_that_know_the_error() {
    let mut d = Dialogue::new(SETTINGS);
    let mut v4 = join("");
    v4.id_required = true;
    let request = d.join(v4.clone());
    let answer = d.join_answer(request);
    assert_eq!(answer.outcome, Err(GroupError::MemberIdRequired));
    assert_eq!(d.group.state(), State::Empty);
    v4.member_id = answer.member_id.clone();
    let again = d.join(v4);
    d.pass(3_000);
    assert_eq!(d.joined(again).0, answer.member_id);

    let mut fixed = join("");
    (fixed.id_required, fixed.instance_id) = (true, Some("one".into()));
    let request = d.join(fixed);
    assert!(d.is_parked(request), "a static member needs no second round");
}

#[test]
fn an_id_that_nobody_came_for_is_forgotten() {
    let mut d = Dialogue::new(SETTINGS);
    let mut v4 = join("");
    v4.id_required = true;
    let request = d.join(v4);
    let id = d.join_answer(request).member_id;
    assert!(!d.group.is_idle());
    d.pass(10_000);
    assert!(d.group.is_idle());
    let late = d.join(join(&id));
    assert_eq!(d.join_refusal(late), GroupError::UnknownMemberId);
}

#[test]
fn a_pending_member_holds_up_a_rebalance_until_its_session_ends() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(1);
    let mut v4 = join("");
    (v4.id_required, v4.session_timeout_ms) = (true, 6_000);
    let pending = d.join(v4);
    assert_eq!(d.join_refusal(pending), GroupError::MemberIdRequired);
    let leader = d.join(join(&ids[0]));
    assert!(d.is_parked(leader));
    d.pass(6_000);
    assert_eq!(d.joined(leader).1.generation, 2);
}

#[test]
fn everybody_gets_their_share_and_the_same_one_again() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(3);
    for id in &ids {
        let request = d.sync(id, 1, &[]);
        assert_eq!(d.synced(request).unwrap().assignment, format!("share of {id}"));
    }
    assert_eq!(d.records.len(), 2, "one record as the generation begins, one with its assignment");
    assert!(d.records[0].awaits_assignment && !d.records[1].awaits_assignment);
    assert_eq!(d.records[1].members.len(), 3);
}

#[test]
fn whoever_the_leader_forgot_gets_an_empty_share() {
    let mut d = Dialogue::new(SETTINGS);
    let joins = [d.join(join("")), d.join(join(""))];
    d.pass(6_000);
    let (leader, _) = d.joined(joins[0]);
    let (other, _) = d.joined(joins[1]);
    let parked = d.sync(&other, 1, &[]);
    assert!(d.is_parked(parked));
    d.sync(&leader, 1, &[(&leader, "all")]);
    assert!(d.synced(parked).unwrap().assignment.is_empty());
}

#[test]
fn a_newcomer_makes_all_rejoin_and_generations_rise() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(2);
    let newcomer = d.join(join(""));
    assert_eq!(d.group.state(), State::PreparingRebalance);
    assert_eq!(d.heartbeat(&ids[0], 1), Err(GroupError::RebalanceInProgress));
    assert_eq!(d.commit(&ids[0], 1), Ok(()), "offsets of the old generation are still taken");
    let sync = d.sync(&ids[0], 1, &[]);
    assert_eq!(d.synced(sync), Err(GroupError::RebalanceInProgress));
    let old = [d.join(join(&ids[0])), d.join(join(&ids[1]))];
    assert_eq!(d.commit(&ids[0], 2), Err(GroupError::RebalanceInProgress));
    assert_eq!(d.heartbeat(&ids[0], 2), Ok(()));
    assert_eq!(d.heartbeat(&ids[0], 1), Err(GroupError::IllegalGeneration));
    let ids = d.settle(&[newcomer, old[0], old[1]]);
    assert_eq!(ids.len(), 3);
    assert_eq!(d.group.generation(), 2);
    assert_eq!(d.commit(&ids[0], 1), Err(GroupError::IllegalGeneration));
}

#[test]
fn those_who_do_not_rejoin_in_time_are_left_behind() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(2);
    let leader = d.join(join(&ids[0]));
    for _ in 0..11 {
        d.pass(5_000);
        assert_eq!(d.heartbeat(&ids[1], 1), Err(GroupError::RebalanceInProgress));
    }
    assert!(d.is_parked(leader));
    d.pass(5_000);
    assert_eq!(d.joined(leader).1.members.len(), 1);
    assert_eq!(d.heartbeat(&ids[1], 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_follower_that_changes_nothing_is_told_its_generation_again() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(2);
    let follower = d.join(join(&ids[1]));
    assert_eq!(d.joined(follower).1.generation, 1);
    assert_eq!(d.group.state(), State::Stable);
    let mut changed = join(&ids[1]);
    changed.protocols = protocols(&["range"]);
    let request = d.join(changed);
    assert!(d.is_parked(request));
    assert_eq!(d.group.state(), State::PreparingRebalance);
}

/// Seen where the record of a generation took longer than a session to be committed: the client had given its join up, asked again, was
/// told that it is a member, and was removed at once.
#[test]
fn who_is_told_its_generation_again_has_a_sessions_time_from_then_on() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.completing([join(""), join("")]);
    let session_ms = i64::from(join("").session_timeout_ms);
    for _ in 0..3 {
        d.pass(session_ms - 1);
        for id in &ids {
            let request = d.join(join(id));
            assert_eq!(d.joined(request).1.generation, 1);
        }
    }
    assert_eq!(d.group.state(), State::CompletingRebalance);
    d.sync(&ids[0], 1, &[]);
    d.pass(session_ms - 1);
    let request = d.join(join(&ids[1]));
    assert_eq!(d.joined(request).1.generation, 1);
    d.pass(session_ms - 1);
    assert_eq!(d.heartbeat(&ids[0], 1), Err(GroupError::UnknownMemberId), "it said nothing for two sessions");
}

#[test]
fn a_leader_that_joins_again_wants_a_rebalance() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(1);
    let request = d.join(join(&ids[0]));
    assert_eq!(d.joined(request).1.generation, 2);
}

#[test]
fn members_that_wait_for_the_leader_start_over_when_somebody_joins() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.completing([join(""), join("")]);
    let parked = d.sync(&ids[1], 1, &[]);
    d.join(join(""));
    assert_eq!(d.synced(parked), Err(GroupError::RebalanceInProgress));
}

#[test]
fn the_protocol_most_members_want_wins_and_all_must_know_it() {
    let mut d = Dialogue::new(SETTINGS);
    let wishes: [&[&str]; 3] = [&["a", "b", "c"], &["b", "a"], &["b", "a", "d"]];
    let joins: Vec<_> = wishes
        .iter()
        .map(|names| {
            let mut join = join("");
            join.protocols = protocols(names);
            d.join(join)
        })
        .collect();
    d.pass(6_000);
    let (_, generation) = d.joined(joins[0]);
    assert_eq!(generation.protocol.as_deref(), Some("b"));
    assert!(generation.members.iter().all(|member| member.metadata == "likes b"));
    let mut stranger = join("");
    stranger.protocols = protocols(&["d"]);
    let request = d.join(stranger.clone());
    assert_eq!(d.join_refusal(request), GroupError::InconsistentGroupProtocol);
    (stranger.protocols, stranger.protocol_type) = (protocols(&["b"]), "connect".into());
    let request = d.join(stranger);
    assert_eq!(d.join_refusal(request), GroupError::InconsistentGroupProtocol);
}

#[test]
fn any_protocol_type_will_do_but_none_will_not() {
    for kind in ["connect", "sr", "whatever"] {
        let mut d = Dialogue::new(SETTINGS);
        let mut worker = join("");
        worker.protocol_type = kind.into();
        let request = d.join(worker);
        d.pass(3_000);
        assert_eq!(d.joined(request).1.protocol_type.as_deref(), Some(kind));
    }
    let mut d = Dialogue::new(SETTINGS);
    let mut nothing = join("");
    nothing.protocol_type.clear();
    let request = d.join(nothing.clone());
    assert_eq!(d.join_refusal(request), GroupError::InconsistentGroupProtocol);
    (nothing.protocol_type, nothing.protocols) = ("consumer".into(), Vec::new());
    let request = d.join(nothing);
    assert_eq!(d.join_refusal(request), GroupError::InconsistentGroupProtocol);
}

#[test]
fn a_full_group_turns_newcomers_away() {
    let mut d = Dialogue::new(Settings { members_max: 2, ..SETTINGS });
    let ids = d.stable(2);
    let third = d.join(join(""));
    assert_eq!(d.join_refusal(third), GroupError::GroupMaxSizeReached);
    assert_eq!(d.group.state(), State::Stable);
    assert_eq!(d.heartbeat(&ids[1], 1), Ok(()));
}

#[test]
fn a_member_that_never_asks_for_its_share_is_dropped() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.completing([join(""), join("")]);
    let leader = d.sync(&ids[0], 1, &[(&ids[0], "a"), (&ids[1], "b")]);
    assert!(d.synced(leader).is_ok());
    for _ in 0..12 {
        d.pass(5_000);
        // Both live, but one never syncs.
        let _ = (d.heartbeat(&ids[0], 1), d.heartbeat(&ids[1], 1));
    }
    assert_eq!(d.heartbeat(&ids[1], 1), Err(GroupError::UnknownMemberId));
    assert_eq!(d.heartbeat(&ids[0], 1), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_member_that_joins_twice_is_answered_twice() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(2);
    let first = d.join(join(&ids[0]));
    let second = d.join(join(&ids[0]));
    assert_eq!(d.join_refusal(first), GroupError::RebalanceInProgress);
    d.join(join(&ids[1]));
    assert_eq!(d.joined(second).1.generation, 2);
}

#[test]
fn a_parked_newcomer_is_given_up_after_five_minutes() {
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(1);
    let mut slow = join("");
    slow.rebalance_timeout_ms = 600_000;
    let newcomer = d.join(slow);
    for _ in 0..59 {
        d.pass(5_000);
        let _ = d.heartbeat(&ids[0], 1);
    }
    assert!(d.is_parked(newcomer));
    d.pass(5_000);
    let answer = d.join_answer(newcomer);
    assert_eq!((answer.member_id.as_str(), answer.outcome), ("", Err(GroupError::UnknownMemberId)));
}

#[test]
fn a_sync_that_contradicts_the_group_is_refused() {
    use crate::coordinator::group::classic::{Input, Sync};
    let mut d = Dialogue::new(SETTINGS);
    let ids = d.stable(1);
    for (kind, protocol) in [(Some("connect"), None), (None, Some("roundrobin"))] {
        let request = d.request();
        let sync = Sync {
            member_id: ids[0].clone(),
            instance_id: None,
            generation: 1,
            protocol_type: kind.map(str::to_string),
            protocol: protocol.map(str::to_string),
            assignments: Vec::new(),
        };
        d.step(Input::Sync(request, sync));
        assert_eq!(d.synced(request), Err(GroupError::InconsistentGroupProtocol));
    }
    for (member, generation, error) in
        [("ghost", 1, GroupError::UnknownMemberId), (ids[0].as_str(), 7, GroupError::IllegalGeneration)]
    {
        let request = d.sync(member, generation, &[]);
        assert_eq!(d.synced(request), Err(error));
    }
}
