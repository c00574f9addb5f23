//! The shard clock of a running shard, while the node's wall clock is wrong and is corrected.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use ottla_env::rt;
use ottla_env::sim::{self, SimNode};
use ottla_raft::ProposeError;
use ottla_storage::ids::RaftIndex;
use parking_lot::Mutex;

use super::*;
use crate::config::TopicConfig;
use crate::metadata::{FeatureLevel, MetadataImage, ShardKind};
use crate::replicated::command::{AdoptedPartition, Command};
use crate::shard::fake::{FakeGroup, FakeMetadata, SHARD, image_with_topic, partition};
use crate::shard::{SetClockOutcome, Shard, Shards};

const POOL: ShardKind = ShardKind::Pool { factor: 1, pinned: false };
const YEAR_MS: i64 = 365 * 86_400_000;
const WAIT: Duration = Duration::from_secs(1);

/// A witness whose agreement the test sets.
#[derive(Default)]
struct Told(Mutex<Option<Agreement>>);

impl ClockWitness for Told {
    fn judge(&self, _: i64, _: rt::Instant, _: i64) -> Agreement {
        self.0.lock().unwrap_or(Agreement::Unknown)
    }

    fn believe(&self, _: i64, _: rt::Instant) {}
}

impl Told {
    fn says(&self, agreement: Agreement) {
        *self.0.lock() = Some(agreement);
    }
}

fn adopt(index: i32) -> Command {
    Command::Adopt(vec![AdoptedPartition { id: partition(index), intent: RaftIndex(1), epoch_base: 0 }])
}

/// A shard whose first entry was stamped by a wall clock ten years ahead, which is right again.
async fn after_a_wrong_first_stamp() -> (FakeGroup, Arc<Shard>, Arc<Told>) {
    let clocks = Arc::<Told>::default();
    let (group, shard) = FakeGroup::leading_among(POOL, clocks.clone());
    sim::set_wall_clock(SimNode(0), 10 * YEAR_MS);
    let began = rt::now();
    shard.command(adopt(0)).await.unwrap();
    assert!(rt::now().since(began) >= Duration::from_secs(3), "it waits for word of the others");
    assert_eq!(shard.time().unwrap().for_expiry_ms, None, "nothing has confirmed it");
    sim::set_wall_clock(SimNode(0), 0);
    clocks.says(Agreement::Agrees);
    (group, shard, clocks)
}

#[test]
fn a_clock_that_a_wrong_first_stamp_has_set_expires_nothing_until_an_operator_sets_it() {
    sim::run(1, || async {
        let (group, shard, _) = after_a_wrong_first_stamp().await;
        let time = shard.time().unwrap();
        assert_eq!(time.for_expiry_ms, None);
        assert!(time.ahead_ms > 9 * YEAR_MS, "{time:?}");
        // It is the same with the next leader.
        group.set_role(2, true);
        shard.command(adopt(1)).await.unwrap();
        assert_eq!(shard.clock_for_expiry(), None);
        let right_ms = rt::wall_clock_ms();
        shard.command(Command::SetClock { to_ms: right_ms }).await.unwrap();
        shard.command(adopt(2)).await.unwrap();
        let applied_ms = shard.state().lock().clock_ms;
        assert!((right_ms..right_ms + 1_000).contains(&applied_ms), "{applied_ms} is not {right_ms}");
        assert!(shard.clock_for_expiry().is_some());
        group.set_role(3, true);
        shard.command(adopt(3)).await.unwrap();
        assert!(shard.state().lock().clock_ms < right_ms + 1_000);
    });
}

/// The command may be committed after its proposer was told that it might not be: nothing behind it may bear an old
/// stamp.
#[test]
fn what_is_proposed_behind_a_command_of_unknown_fate_is_stamped_from_the_new_time() {
    sim::run(2, || async {
        let (group, shard, _) = after_a_wrong_first_stamp().await;
        let right_ms = rt::wall_clock_ms();
        group.fail_with(Some(ProposeError::Unknown));
        assert!(shard.command(Command::SetClock { to_ms: right_ms }).await.is_err());
        group.fail_with(None);
        shard.command(adopt(1)).await.unwrap();
        let last = group.entries().last().unwrap().clock_ms;
        assert!((right_ms..right_ms + 1_000).contains(&last), "{last}");
        assert!(shard.state().lock().clock_ms > right_ms + 9 * YEAR_MS, "it was lost, and apply takes the greater");
    });
}

#[test]
fn a_first_stamp_is_what_most_clocks_say() {
    sim::run(3, || async {
        let clocks = Arc::<Told>::default();
        let (group, shard) = FakeGroup::leading_among(POOL, clocks.clone());
        let right_ms = rt::wall_clock_ms();
        sim::set_wall_clock(SimNode(0), 10 * YEAR_MS);
        let adopted = shard.command(adopt(0));
        rt::sleep(Duration::from_secs(1)).await;
        assert_eq!(group.entries().len(), 0);
        // Retention reads the time meanwhile.
        assert_eq!(shard.clock_for_expiry(), None);
        clocks.says(Agreement::Disagrees { most_say_ms: Some(right_ms + 1_000) });
        adopted.await.unwrap();
        let first_ms = group.entries()[0].clock_ms;
        assert!((right_ms..right_ms + 2_000).contains(&first_ms), "{first_ms}");
        assert_eq!(shard.clock_for_expiry(), None);
    });
}

#[test]
fn an_operators_time_is_taken_where_all_nodes_understand_it_and_it_can_be_right() {
    sim::run(4, || async {
        let (_, shard, clocks) = after_a_wrong_first_stamp().await;
        let image = image_with_topic(1, TopicConfig::default());
        let at = |level| MetadataImage { level: FeatureLevel(level), ..image.clone() };
        let old = Shards::for_tests(shard.clone(), Arc::new(FakeMetadata::new(at(1))));
        assert_eq!(old.set_clock(SHARD, None, WAIT).await, SetClockOutcome::LevelTooLow);
        let shards = Shards::for_tests(shard.clone(), Arc::new(FakeMetadata::new(at(2))));
        let now_ms = rt::wall_clock_ms();
        assert_eq!(shards.set_clock(SHARD, Some(now_ms + YEAR_MS), WAIT).await, SetClockOutcome::Ahead);
        assert_eq!(
            shards.set_clock(SHARD, Some(now_ms - YEAR_MS), WAIT).await,
            SetClockOutcome::Done(now_ms - YEAR_MS)
        );
        assert_eq!(shard.state().lock().clock_ms, now_ms - YEAR_MS);
        // The wall clock is a year ahead of that, and most agree with it.
        let SetClockOutcome::Done(set_ms) = shards.set_clock(SHARD, None, WAIT).await else { panic!("not set") };
        assert!(set_ms >= now_ms && shard.clock_for_expiry().is_some());
        if at(2).expected_nodes() != 1 {
            clocks.says(Agreement::Unknown);
            assert_eq!(shards.set_clock(SHARD, None, WAIT).await, SetClockOutcome::NotConfirmed);
        }
    });
}

/// Found by the simulation (seed 131211): the leader went on by its own time, which was behind that of the shard that it had taken
/// over; the next leader began with the later one, and offsets expired that had been committed a moment before.
#[test]
fn the_leader_follows_the_clock_of_a_shard_that_it_has_taken_over() {
    sim::run(4, || async {
        let clocks = Arc::<Told>::default();
        clocks.says(Agreement::Agrees);
        let (group, shard) = FakeGroup::leading_among(POOL, clocks.clone());
        shard.command(adopt(0)).await.unwrap();
        let before_ms = shard.time().unwrap().now_ms;
        let later_ms = before_ms + 3_000;
        {
            let mut state = shard.state().lock();
            state.clock_ms = later_ms;
            state.last_merge.index = RaftIndex(2);
        }
        assert!(shard.time().unwrap().now_ms >= later_ms);
        shard.command(adopt(1)).await.unwrap();
        // An operator may still set it back, also the operator of a leader that has stamped nothing yet.
        group.set_role(2, true);
        shard.command(Command::SetClock { to_ms: before_ms }).await.unwrap();
        shard.command(adopt(2)).await.unwrap();
        assert!((before_ms..later_ms).contains(&shard.time().unwrap().now_ms));
    });
}
