//! Membership through the handle.

use std::time::Duration;

use ottla_env::{rt, sim};

use super::fake_log::{commit, join, settled, start, sync, who};
use crate::coordinator::group::classic::{Leaving, State};
use crate::coordinator::group::error::GroupError;
use crate::replicated::group::store::GroupStore;

#[test]
fn two_consumers_share_and_one_leaves() {
    sim::run(1, || async {
        let (_, groups) = start();
        let first = rt::spawn({
            let groups = groups.clone();
            async move { groups.join("g", join("")).await }
        });
        let second = groups.join("g", join("")).await;
        let first = first.await.unwrap();
        let generation = first.outcome.clone().unwrap();
        let (leader, follower) = if generation.leader == first.member_id { (first, second) } else { (second, first) };
        let ids = [leader.member_id.clone(), follower.member_id.clone()];
        let waiting = rt::spawn({
            let (groups, id) = (groups.clone(), follower.member_id.clone());
            async move { groups.sync("g", sync(&id, 1, &[])).await }
        });
        rt::sleep(Duration::from_millis(50)).await;
        groups.sync("g", sync(&leader.member_id, 1, &ids)).await.unwrap();
        let share = waiting.await.unwrap().unwrap().assignment;
        assert_eq!(share, format!("for {}", follower.member_id));
        assert_eq!(groups.heartbeat("g", who(&follower.member_id, 1)).await, Ok(()));

        let leaving = Leaving { member_id: leader.member_id.clone(), instance_id: None, reason: None };
        assert_eq!(groups.leave("g", vec![leaving]).await.unwrap()[0].outcome, Ok(()));
        let told = groups.heartbeat("g", who(&follower.member_id, 1)).await;
        assert_eq!(told, Err(GroupError::RebalanceInProgress));
        let again = groups.join("g", join(&follower.member_id)).await;
        assert_eq!(again.outcome.unwrap().generation, 2);
    });
}

#[test]
fn a_silent_members_group_empties_and_leaves_memory_but_not_the_store() {
    sim::run(2, || async {
        let (log, groups) = start();
        let (_, generation) = settled(&groups, "g").await;
        rt::sleep(Duration::from_secs(11)).await;
        let described = groups.describe(&["g"]).await.remove(0).unwrap().unwrap();
        assert_eq!((described.state, described.members.len()), (State::Empty, 0));
        assert_eq!(described.protocol_type, "consumer");
        let recorded = log.store.lock().group("g").unwrap().membership.clone().unwrap();
        assert_eq!(recorded.generation, generation + 1);
        // It goes on from there.
        assert_eq!(groups.join("g", join("")).await.outcome.unwrap().generation, generation + 2);
    });
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_happens() {
    sim::run(3, || async {
        let (_, groups) = start();
        let refused = groups.join("", join("")).await.outcome;
        assert_eq!(refused, Err(GroupError::InvalidGroupId));
        for timeout_ms in [999, 60_001, -1] {
            let mut hasty = join("");
            hasty.session_timeout_ms = timeout_ms;
            assert_eq!(groups.join("g", hasty).await.outcome, Err(GroupError::InvalidSessionTimeout));
        }
        assert_eq!(groups.heartbeat("", who("m", 1)).await, Err(GroupError::InvalidGroupId));
        assert_eq!(groups.heartbeat("g", who("ghost", 1)).await, Err(GroupError::UnknownMemberId));
        assert_eq!(groups.sync("g", sync("ghost", 1, &[])).await, Err(GroupError::UnknownMemberId));
        let ghost = groups.join("g", join("ghost")).await;
        assert_eq!((ghost.member_id.as_str(), ghost.outcome), ("ghost", Err(GroupError::UnknownMemberId)));
        let leaving = Leaving { member_id: "ghost".into(), instance_id: None, reason: None };
        let left = groups.leave("g", vec![leaving]).await.unwrap();
        assert_eq!(left[0].outcome, Err(GroupError::UnknownMemberId));
        assert_eq!(groups.describe(&["g"]).await, [Ok(None)]);
        assert!(groups.list().await.is_empty());
    });
}

#[test]
fn groups_are_listed_described_and_deleted() {
    sim::run(4, || async {
        let (log, groups) = start();
        let (member, generation) = settled(&groups, "live").await;
        let simple = super::fake_log::commit(who("", -1), &[("t", 0, 7)]);
        assert_eq!(groups.commit("simple", simple).await, [Ok(())]);
        let mut listed: Vec<_> = groups.list().await.into_iter().map(|l| (l.group.to_string(), l.state)).collect();
        listed.sort();
        assert_eq!(listed, [("live".to_string(), State::Stable), ("simple".to_string(), State::Empty)]);
        let described = groups.describe(&["live"]).await.remove(0).unwrap().unwrap();
        assert_eq!(described.protocol, "range");
        assert_eq!(described.members[0].assignment, format!("for {member}"));

        assert_eq!(groups.delete("live").await, Err(GroupError::NonEmptyGroup));
        assert_eq!(groups.delete("none").await, Err(GroupError::GroupIdNotFound));
        assert_eq!(groups.delete("simple").await, Ok(()));
        let leaving = Leaving { member_id: member, instance_id: None, reason: None };
        groups.leave("live", vec![leaving]).await.unwrap();
        assert_eq!(groups.delete("live").await, Ok(()));
        assert!(groups.list().await.is_empty());
        assert_eq!(log.store.lock().groups().count(), 0);
        assert_eq!(log.store.lock().checksum(), 0);
        let _ = generation;
    });
}

/// A read index costs a round among the replicas: tools ask for thousands of groups in one request.
#[test]
fn many_groups_of_a_partition_take_one_read_index() {
    sim::run(5, || async {
        let (log, groups) = start();
        let (member, _) = settled(&groups, "g-7").await;
        for at in [3, 7, 250] {
            let name = format!("g-{at}");
            let who = if at == 7 { who(&member, 1) } else { who("", -1) };
            assert_eq!(groups.commit(&name, commit(who, &[("t", 0, at)])).await, [Ok(())]);
        }
        let names: Vec<String> = (0..300).map(|at| format!("g-{at}")).collect();
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        *log.read_indexes.lock() = 0;
        let described = groups.describe(&asked).await;
        assert_eq!(*log.read_indexes.lock(), 1);
        let state = |at: usize| described[at].as_ref().unwrap().as_ref().map(|found| found.state);
        let known: Vec<_> = (0..300).filter_map(|at| Some((at, state(at)?))).collect();
        assert_eq!(known, [(3, State::Empty), (7, State::Stable), (250, State::Empty)]);
        let read =
            |at: usize, store: &GroupStore| Some((at, store.group(asked[at])?.offsets.get("t")?.get(&0)?.offset));
        let fetched: Vec<_> = groups.fetch(&asked, read).await.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(*log.read_indexes.lock(), 2);
        assert_eq!(fetched, [(3, 3), (7, 7), (250, 250)]);
    });
}
