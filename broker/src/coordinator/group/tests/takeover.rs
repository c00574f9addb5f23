//! Leadership goes and comes; the log stands or refuses. Nobody is left waiting, nothing untrue is said.

use std::time::Duration;

use bytes::Bytes;
use ottla_env::{rt, sim};

use super::fake_log::{LogState, commit, fetched, join, settled, start, sync, who};
use crate::coordinator::group::classic::{JoinAnswer, State};
use crate::coordinator::group::error::GroupError;
use crate::coordinator::group::runtime::Groups;
use crate::metadata::FeatureLevel;
use crate::replicated::group::batch;

/// A new member of the group, whose join waits.
fn joins(groups: &Groups) -> rt::JoinHandle<JoinAnswer> {
    let groups = groups.clone();
    rt::spawn(async move { groups.join("g", join("")).await })
}

#[test]
fn parked_requests_are_sent_on_when_leadership_goes() {
    sim::run(21, || async {
        let (log, groups) = start();
        let (member, generation) = settled(&groups, "g").await;
        let newcomer = joins(&groups);
        rt::sleep(Duration::from_millis(500)).await;
        log.lose_leadership();
        let told = rt::timeout(Duration::from_secs(1), newcomer).await.unwrap().unwrap();
        assert_eq!(told.outcome, Err(GroupError::NotCoordinator));
        assert_eq!(groups.heartbeat("g", who(&member, generation)).await, Err(GroupError::NotCoordinator));
        let refused = groups.commit("g", commit(who(&member, generation), &[("t", 0, 1)])).await;
        assert_eq!(refused, [Err(GroupError::NotCoordinator)]);
        assert_eq!(groups.fetch(&["g"], |_, _| ()).await, [Err(GroupError::NotCoordinator)]);
        assert_eq!(groups.describe(&["g"]).await, [Err(GroupError::NotCoordinator)]);
        assert!(groups.list().await.is_empty());

        log.win_leadership();
        assert_eq!(groups.heartbeat("g", who(&member, generation)).await, Ok(()));
        assert_eq!(groups.commit("g", commit(who(&member, generation), &[("t", 0, 1)])).await, [Ok(())]);
    });
}

/// Its coordinator would answer from what it remembers of the deleted one, whose partitions began in the same epoch.
#[test]
fn a_topic_that_is_created_anew_has_coordinators_of_its_own() {
    sim::run(25, || async {
        let (log, groups) = start();
        let (member, generation) = settled(&groups, "g").await;
        let newcomer = joins(&groups);
        rt::sleep(Duration::from_millis(500)).await;
        log.create_anew();
        let told = rt::timeout(Duration::from_secs(1), newcomer).await.unwrap().unwrap();
        assert_eq!(told.outcome, Err(GroupError::NotCoordinator));
        assert_eq!(groups.heartbeat("g", who(&member, generation)).await, Err(GroupError::UnknownMemberId));
        let refused = groups.commit("g", commit(who(&member, generation), &[("t", 0, 1)])).await;
        assert_eq!(refused, [Err(GroupError::GroupIdNotFound)]);
        let (again, generation) = settled(&groups, "g").await;
        assert_eq!((generation, groups.heartbeat("g", who(&again, generation)).await), (1, Ok(())));
    });
}

#[test]
fn members_that_stay_away_are_noticed_though_nobody_asks() {
    sim::run(22, || async {
        let (log, groups) = start();
        let (_, generation) = settled(&groups, "g").await;
        log.lose_leadership();
        rt::sleep(Duration::from_secs(100)).await;
        let recorded = || log.store.lock().group("g").unwrap().membership.clone().unwrap();
        assert_eq!(recorded().members.len(), 1, "not ours to decide");
        log.win_leadership();
        rt::sleep(Duration::from_secs(12)).await;
        assert_eq!((recorded().members.len(), recorded().generation), (0, generation + 1));
    });
}

#[test]
fn no_generation_is_announced_before_it_is_recorded() {
    sim::run(23, || async {
        let (log, groups) = start();
        log.set_state(LogState::Stalls);
        let joining = joins(&groups);
        rt::sleep(Duration::from_secs(5)).await;
        assert!(log.store.lock().group("g").is_none());
        // A leader that loses its place with the record under way takes the generation with it.
        log.lose_leadership();
        assert_eq!(joining.await.unwrap().outcome, Err(GroupError::NotCoordinator));

        log.set_state(LogState::Applies);
        rt::sleep(Duration::from_millis(10)).await;
        log.win_leadership();
        // The record was committed after all: the next generation is a greater one.
        assert_eq!(groups.join("g", join("")).await.outcome.map(|g| g.generation > 1), Ok(true));
    });
}

/// Versions of the group values in the log, in order.
fn versions(written: &[Bytes]) -> Vec<i16> {
    let records = written.iter().flat_map(|batch| batch::records(batch).unwrap());
    records.map(|(_, value)| value.map_or(-1, |value| i16::from_be_bytes([value[0], value[1]]))).collect()
}

/// Kafka's v3 from feature level 2 on; below it, what the release before can read. Either way the next coordinator
/// knows that the leader's assignment is still to come.
#[test]
fn an_incomplete_generation_is_written_as_kafka_writes_groups_and_taken_over_as_incomplete() {
    for (level, expected) in [(1, [4, 3]), (2, [3, 3])] {
        sim::run(27, move || async move {
            let (log, groups) = start();
            *log.level.lock() = FeatureLevel(level);
            let joined = groups.join("g", join("")).await;
            let generation = joined.outcome.unwrap().generation;
            log.lose_leadership();
            rt::sleep(Duration::from_millis(500)).await;
            log.win_leadership();
            let found = groups.describe(&["g"]).await.remove(0).unwrap().unwrap();
            assert_eq!((found.state, found.members.len()), (State::CompletingRebalance, 1), "level {level}");
            let share = sync(&joined.member_id, generation, std::slice::from_ref(&joined.member_id));
            assert_eq!(groups.sync("g", share).await.unwrap().assignment, format!("for {}", joined.member_id));
            assert_eq!(versions(&log.written.lock()), expected, "level {level}");
        });
    }
}

#[test]
fn a_record_that_cannot_be_written_takes_nothing_with_it() {
    sim::run(24, || async {
        let (log, groups) = start();
        let (member, generation) = settled(&groups, "g").await;
        log.set_state(LogState::Refuses);
        let told = groups.join("g", join(&member)).await;
        assert_eq!(told.outcome, Err(GroupError::CoordinatorNotAvailable));
        let told = groups.commit("g", commit(who(&member, generation), &[("t", 0, 1)])).await;
        assert_eq!(told, [Err(GroupError::CoordinatorNotAvailable)]);
        log.set_state(LogState::Applies);
        // The generation that could not be recorded never was.
        assert_eq!(groups.heartbeat("g", who(&member, generation)).await, Ok(()));
        let again = groups.join("g", join(&member)).await.outcome.unwrap();
        assert_eq!(again.generation, generation + 1);
        groups.sync("g", sync(&member, generation + 1, std::slice::from_ref(&member))).await.unwrap();
    });
}

#[test]
fn a_commit_that_hangs_is_answered_in_time() {
    sim::run(25, || async {
        let (log, groups) = start();
        log.set_state(LogState::Stalls);
        let before = rt::now();
        let told = groups.commit("g", commit(who("", -1), &[("t", 0, 1)])).await;
        assert_eq!(told, [Err(GroupError::CoordinatorNotAvailable)]);
        assert_eq!(rt::now().since(before).as_secs(), 5);
        log.set_state(LogState::Applies);
        rt::sleep(Duration::from_millis(10)).await;
        assert_eq!(fetched(&groups, "g", "t").await, Some(1), "it was only slow");
    });
}

#[test]
fn stopping_answers_everybody() {
    sim::run(26, || async {
        let (_, groups) = start();
        settled(&groups, "g").await;
        let parked = rt::spawn({
            let groups = groups.clone();
            async move { groups.join("g", join("")).await }
        });
        rt::sleep(Duration::from_millis(500)).await;
        groups.stop();
        let told = rt::timeout(Duration::from_secs(1), parked).await.unwrap().unwrap();
        assert_eq!(told.outcome, Err(GroupError::NotCoordinator));
        assert_eq!(groups.join("g", join("")).await.outcome, Err(GroupError::NotCoordinator));
    });
}

#[test]
fn a_stream_of_requests_does_not_keep_silent_members_alive() {
    sim::run(27, || async {
        let (log, groups) = start();
        settled(&groups, "g").await;
        let busy = rt::spawn({
            let groups = groups.clone();
            async move {
                loop {
                    let asked = (0..64).map(|_| groups.heartbeat("g", who("ghost", 1)));
                    futures_util::future::join_all(asked).await;
                    rt::sleep(Duration::from_millis(1)).await;
                }
            }
        });
        rt::sleep(Duration::from_secs(12)).await;
        busy.abort();
        let members = log.store.lock().group("g").unwrap().membership.as_ref().unwrap().members.len();
        assert_eq!(members, 0);
    });
}

/// Its groups would have no coordinator until the next request: a member that is gone would keep its partitions.
#[test]
fn an_owner_that_panics_is_started_again_though_nobody_asks() {
    sim::run(28, || async {
        let (log, groups) = start();
        let (_, generation) = settled(&groups, "g").await;
        let tasks = sim::critical_tasks(sim::SimNode::default());
        let coordinators = tasks.iter().filter(|(_, name)| *name == "group-coordinator");
        coordinators.for_each(|(task, _)| {
            sim::make_panic(*task);
        });
        rt::sleep(Duration::from_secs(100)).await;
        let recorded = log.store.lock().group("g").unwrap().membership.clone().unwrap();
        assert_eq!((recorded.members.len(), recorded.generation), (0, generation + 1), "the silent member is out");
        assert!(sim::take_panics().is_empty());
    });
}
