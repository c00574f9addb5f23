//! Offsets through the handle: committed, fetched, refused, expired.

use std::sync::Arc;
use std::time::Duration;

use ottla_env::rt;
use ottla_env::sim::{self, SimNode};

use super::fake_log::{commit, fetched, join, settled, start, who};
use crate::coordinator::group::error::GroupError;

#[test]
fn a_commit_is_seen_once_it_is_answered() {
    sim::run(11, || async {
        let (_, groups) = start();
        let (member, generation) = settled(&groups, "g").await;
        for offset in 1..20 {
            let outcome = groups.commit("g", commit(who(&member, generation), &[("t", 0, offset)])).await;
            assert_eq!(outcome, [Ok(())]);
            assert_eq!(fetched(&groups, "g", "t").await, Some(offset));
        }
        assert_eq!(fetched(&groups, "g", "u").await, None);
        assert_eq!(fetched(&groups, "nobody", "t").await, None);
    });
}

#[test]
fn only_members_commit_to_a_group_with_members() {
    sim::run(12, || async {
        let (_, groups) = start();
        let (member, generation) = settled(&groups, "g").await;
        let try_as = async |member: &str, generation| {
            groups.commit("g", commit(who(member, generation), &[("t", 0, 1)])).await[0]
        };
        assert_eq!(try_as("", -1).await, Err(GroupError::UnknownMemberId));
        assert_eq!(try_as("ghost", generation).await, Err(GroupError::UnknownMemberId));
        assert_eq!(try_as(&member, generation - 1).await, Err(GroupError::IllegalGeneration));
        assert_eq!(try_as(&member, generation).await, Ok(()));
        let mut nobody = commit(who("ghost", 3), &[("t", 0, 1)]);
        assert_eq!(groups.commit("none", nobody.clone()).await, [Err(GroupError::GroupIdNotFound)]);
        nobody.knows_group_not_found = false;
        assert_eq!(groups.commit("none", nobody).await, [Err(GroupError::IllegalGeneration)]);
    });
}

#[test]
fn metadata_that_is_too_long_fails_alone() {
    sim::run(13, || async {
        let (_, groups) = start();
        let mut both = commit(who("", -1), &[("t", 0, 1), ("u", 0, 2)]);
        both.offsets[0].metadata = "eleven byte".into();
        let outcomes = groups.commit("g", both).await;
        assert_eq!(outcomes, [Err(GroupError::OffsetMetadataTooLarge), Ok(())]);
        assert_eq!(fetched(&groups, "g", "t").await, None);
        assert_eq!(fetched(&groups, "g", "u").await, Some(2));
    });
}

#[test]
fn offsets_are_deleted_unless_they_are_read() {
    sim::run(14, || async {
        let (_, groups) = start();
        let (member, generation) = settled(&groups, "g").await;
        groups.commit("g", commit(who(&member, generation), &[("t", 0, 1), ("u", 0, 2)])).await;
        let topics = ["t", "u"].map(|topic| (Arc::from(topic), vec![0, 1])).to_vec();
        let outcomes = groups.delete_offsets("g", topics.clone()).await.unwrap();
        assert_eq!(outcomes[0].1, Err(GroupError::GroupSubscribedToTopic));
        assert_eq!(outcomes[1].1, Ok(()));
        assert_eq!(fetched(&groups, "g", "t").await, Some(1));
        assert_eq!(fetched(&groups, "g", "u").await, None);
        assert_eq!(groups.delete_offsets("none", topics.clone()).await, Err(GroupError::GroupIdNotFound));
        assert_eq!(groups.delete_offsets("", topics.clone()).await, Err(GroupError::InvalidGroupId));

        let mut worker = join("");
        worker.protocol_type = "connect".into();
        groups.join("c", worker).await.outcome.unwrap();
        assert_eq!(groups.delete_offsets("c", topics).await, Err(GroupError::NonEmptyGroup));
    });
}

#[test]
fn a_simple_consumers_offsets_expire_and_an_active_ones_do_not() {
    sim::run(15, || async {
        let (log, groups) = start();
        assert_eq!(groups.commit("simple", commit(who("", -1), &[("t", 0, 1)])).await, [Ok(())]);
        let (member, generation) = settled(&groups, "live").await;
        groups.commit("live", commit(who(&member, generation), &[("t", 0, 2)])).await;
        for _ in 0..1_000 {
            rt::sleep(Duration::from_secs(5)).await;
            assert_eq!(groups.heartbeat("live", who(&member, generation)).await, Ok(()));
        }
        assert_eq!(fetched(&groups, "simple", "t").await, None);
        assert_eq!(fetched(&groups, "live", "t").await, Some(2));
        assert_eq!(log.store.lock().groups().count(), 1);
        // The last member goes; an hour later its offsets do.
        rt::sleep(Duration::from_secs(3_000)).await;
        assert_eq!(fetched(&groups, "live", "t").await, Some(2));
        rt::sleep(Duration::from_secs(1_400)).await;
        assert_eq!(fetched(&groups, "live", "t").await, None);
        assert_eq!(log.store.lock().groups().count(), 0, "nothing kept the group");
    });
}

#[test]
fn a_clock_that_was_in_2035_and_is_put_right_expires_nothing() {
    sim::run(17, || async {
        let node = SimNode(0);
        sim::set_wall_clock(node, 10 * 365 * 86_400_000);
        let (_, groups) = start();
        groups.commit("g", commit(who("", -1), &[("t", 0, 1)])).await;
        rt::sleep(Duration::from_secs(1_000)).await;
        sim::set_wall_clock(node, 0);
        groups.commit("g", commit(who("", -1), &[("t", 0, 2)])).await;
        rt::sleep(Duration::from_secs(1_000)).await;
        assert_eq!(fetched(&groups, "g", "t").await, Some(2));
    });
}

#[test]
fn a_deleted_topics_offsets_go_soon() {
    sim::run(16, || async {
        let (log, groups) = start();
        groups.commit("g", commit(who("", -1), &[("t", 0, 1), ("u", 0, 2)])).await;
        rt::sleep(Duration::from_secs(2)).await;
        log.delete_topic("t");
        rt::sleep(Duration::from_secs(2)).await;
        assert_eq!(fetched(&groups, "g", "t").await, None);
        assert_eq!(fetched(&groups, "g", "u").await, Some(2));
    });
}
