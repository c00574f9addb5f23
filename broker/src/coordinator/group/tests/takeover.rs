//! Leadership goes and comes; the log stands or refuses. Nobody is left waiting, nothing untrue is said.

use std::time::Duration;

use ottla_storage::env::{rt, sim};

use super::fake_journal::{Log, commit, fetched, join, settled, start, sync, who};
use crate::coordinator::group::error::GroupError;

#[test]
fn parked_requests_are_sent_on_when_leadership_goes() {
    sim::run(21, || async {
        let (journal, groups) = start();
        let (member, generation) = settled(&groups, "g").await;
        let newcomer = rt::spawn({
            let groups = groups.clone();
            async move { groups.join("g", join("")).await }
        });
        rt::sleep(Duration::from_millis(500)).await;
        journal.lose_leadership();
        let told = rt::timeout(Duration::from_secs(1), newcomer).await.unwrap().unwrap();
        assert_eq!(told.outcome, Err(GroupError::NotCoordinator));
        assert_eq!(groups.heartbeat("g", who(&member, generation)).await, Err(GroupError::NotCoordinator));
        let refused = groups.commit("g", commit(who(&member, generation), &[("t", 0, 1)])).await;
        assert_eq!(refused, [Err(GroupError::NotCoordinator)]);
        assert_eq!(groups.fetch("g", |_| ()).await, Err(GroupError::NotCoordinator));
        assert_eq!(groups.describe("g").await, Err(GroupError::NotCoordinator));
        assert!(groups.list().await.is_empty());

        journal.win_leadership();
        assert_eq!(groups.heartbeat("g", who(&member, generation)).await, Ok(()));
        assert_eq!(groups.commit("g", commit(who(&member, generation), &[("t", 0, 1)])).await, [Ok(())]);
    });
}

#[test]
fn members_that_stay_away_are_noticed_though_nobody_asks() {
    sim::run(22, || async {
        let (journal, groups) = start();
        let (_, generation) = settled(&groups, "g").await;
        journal.lose_leadership();
        rt::sleep(Duration::from_secs(100)).await;
        let recorded = || journal.store.lock().group("g").unwrap().membership.clone().unwrap();
        assert_eq!(recorded().members.len(), 1, "not ours to decide");
        journal.win_leadership();
        rt::sleep(Duration::from_secs(12)).await;
        assert_eq!((recorded().members.len(), recorded().generation), (0, generation + 1));
    });
}

#[test]
fn no_generation_is_announced_before_it_is_recorded() {
    sim::run(23, || async {
        let (journal, groups) = start();
        journal.log_now(Log::Stands);
        let joining = rt::spawn({
            let groups = groups.clone();
            async move { groups.join("g", join("")).await }
        });
        rt::sleep(Duration::from_secs(5)).await;
        assert!(journal.store.lock().group("g").is_none());
        // A leader that loses its place with the record under way takes the generation with it.
        journal.lose_leadership();
        assert_eq!(joining.await.unwrap().outcome, Err(GroupError::NotCoordinator));

        journal.log_now(Log::Applies);
        rt::sleep(Duration::from_millis(10)).await;
        journal.win_leadership();
        // The record was committed after all: the next generation is a greater one.
        assert_eq!(groups.join("g", join("")).await.outcome.map(|g| g.generation > 1), Ok(true));
    });
}

#[test]
fn a_record_that_cannot_be_written_takes_nothing_with_it() {
    sim::run(24, || async {
        let (journal, groups) = start();
        let (member, generation) = settled(&groups, "g").await;
        journal.log_now(Log::Refuses);
        let told = groups.join("g", join(&member)).await;
        assert_eq!(told.outcome, Err(GroupError::CoordinatorNotAvailable));
        let told = groups.commit("g", commit(who(&member, generation), &[("t", 0, 1)])).await;
        assert_eq!(told, [Err(GroupError::CoordinatorNotAvailable)]);
        journal.log_now(Log::Applies);
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
        let (journal, groups) = start();
        journal.log_now(Log::Stands);
        let before = rt::now();
        let told = groups.commit("g", commit(who("", -1), &[("t", 0, 1)])).await;
        assert_eq!(told, [Err(GroupError::CoordinatorNotAvailable)]);
        assert_eq!(rt::now().since(before).as_secs(), 5);
        journal.log_now(Log::Applies);
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
        let (journal, groups) = start();
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
        let members = journal.store.lock().group("g").unwrap().membership.as_ref().unwrap().members.len();
        assert_eq!(members, 0);
    });
}
