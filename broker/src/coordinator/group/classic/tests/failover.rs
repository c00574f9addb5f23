//! A new coordinator goes on from the last record.

use super::dialogue::{Dialogue, SETTINGS, join};
use crate::coordinator::group::classic::{Group, Settings, State};
use crate::coordinator::group::error::GroupError;

fn moved(d: &Dialogue, settings: Settings) -> Dialogue {
    let (group, outputs) = Group::load(settings, d.now(), d.records.last().unwrap());
    assert!(outputs.is_empty());
    Dialogue::with(group)
}

#[test]
fn a_stable_group_goes_on_as_if_nothing_had_happened() {
    let mut old = Dialogue::new(SETTINGS);
    let ids = old.stable(2);
    let mut d = moved(&old, SETTINGS);
    assert_eq!((d.group.state(), d.group.generation()), (State::Stable, 1));
    for id in &ids {
        assert_eq!(d.heartbeat(id, 1), Ok(()));
        assert_eq!(d.commit(id, 1), Ok(()));
        let request = d.sync(id, 1, &[]);
        assert_eq!(d.synced(request).unwrap().assignment, format!("share of {id}"));
    }
}

#[test]
fn a_rebalance_is_carried_on_where_it_stood() {
    let mut old = Dialogue::new(SETTINGS);
    let ids = old.completing([join(""), join("")]);
    let mut d = moved(&old, SETTINGS);
    assert_eq!(d.group.state(), State::CompletingRebalance);
    let follower = d.sync(&ids[1], 1, &[]);
    assert!(d.is_parked(follower));
    d.sync(&ids[0], 1, &[(&ids[0], "a"), (&ids[1], "b")]);
    assert_eq!(d.synced(follower).unwrap().assignment, "b");
    // A member of the generation before it cannot commit into it.
    assert_eq!(d.commit(&ids[0], 0), Err(GroupError::IllegalGeneration));
}

#[test]
fn members_that_do_not_find_the_new_coordinator_are_dropped() {
    let mut old = Dialogue::new(SETTINGS);
    old.stable(2);
    let mut d = moved(&old, SETTINGS);
    d.pass(200_000);
    assert_eq!(d.group.state(), State::Empty);
    assert_eq!(d.records.last().unwrap().members.len(), 0);
    assert!(d.group.generation() > 1);
}

#[test]
fn a_group_above_a_lowered_maximum_rebalances() {
    let mut old = Dialogue::new(SETTINGS);
    let ids = old.stable(3);
    let small = Settings { members_max: 2, ..SETTINGS };
    let mut d = moved(&old, small);
    assert_eq!(d.group.state(), State::PreparingRebalance);
    let joins: Vec<_> = ids.iter().map(|id| d.join(join(id))).collect();
    let refused = joins.iter().filter(|request| !d.is_parked(**request)).count();
    assert!(refused >= 1);
}
