//! Many clients, leadership that comes and goes, a log that stands still: every request is answered, offsets never go
//! back, and once the world is quiet every group settles.

use std::sync::Arc;
use std::time::Duration;

use ottla_env::{rt, sim};

use super::fake_log::{FakeLog, LogState, commit, fetched, join, start, sync, who};
use crate::coordinator::group::classic::State;
use crate::coordinator::group::error::GroupError;
use crate::coordinator::group::runtime::Groups;

/// No answer may take longer: the rebalance timeout, and what stands in its way.
const PATIENCE: Duration = Duration::from_secs(60);

/// A consumer as clients write them: joins, syncs, heartbeats, commits, joins again when told.
async fn consume(groups: Groups, group: String, until: rt::Instant) {
    let mut id = String::new();
    while rt::now() < until {
        let answer = rt::timeout(PATIENCE, groups.join(&group, join(&id))).await.expect("a join was never answered");
        id = match answer.outcome {
            Err(GroupError::UnknownMemberId) => String::new(),
            _ => answer.member_id,
        };
        let Ok(generation) = answer.outcome else {
            rt::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let members: Vec<_> = generation.members.iter().map(|member| member.member_id.clone()).collect();
        let asked = groups.sync(&group, sync(&id, generation.generation, &members));
        match rt::timeout(PATIENCE, asked).await.expect("a sync was never answered") {
            Ok(_) => stay(&groups, &group, &id, generation.generation, until).await,
            Err(GroupError::UnknownMemberId) => id.clear(),
            Err(_) => rt::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn stay(groups: &Groups, group: &str, id: &str, generation: i32, until: rt::Instant) {
    while rt::now() < until {
        rt::sleep(Duration::from_millis(500)).await;
        let topic = format!("of {id}");
        let position = i64::from(generation) * 1_000_000 + rt::now().0 / 1_000_000_000;
        groups.commit(group, commit(who(id, generation), &[(&topic, 0, position)])).await;
        match groups.heartbeat(group, who(id, generation)).await {
            Ok(()) | Err(GroupError::NotCoordinator | GroupError::CoordinatorNotAvailable) => {}
            Err(_) => return,
        }
    }
}

async fn disturb(log: Arc<FakeLog>, times: u32) {
    for _ in 0..times {
        rt::sleep(Duration::from_millis(rt::random_u64() % 5_000)).await;
        match rt::random_u64() % 3 {
            0 => {
                log.lose_leadership();
                rt::sleep(Duration::from_millis(rt::random_u64() % 3_000)).await;
                log.win_leadership();
            }
            1 => {
                log.set_state(LogState::Stalls);
                rt::sleep(Duration::from_millis(rt::random_u64() % 3_000)).await;
                log.set_state(LogState::Applies);
            }
            _ => {
                log.set_state(LogState::Refuses);
                rt::sleep(Duration::from_millis(rt::random_u64() % 1_000)).await;
                log.set_state(LogState::Applies);
            }
        }
    }
}

async fn scenario() {
    let (log, groups) = start();
    let until = rt::now() + Duration::from_secs(120);
    let consumers: Vec<_> = (0..6).map(|n| rt::spawn(consume(groups.clone(), format!("g{}", n % 2), until))).collect();
    let troubles = rt::spawn(disturb(log.clone(), 12));
    let mut highest = 0;
    while rt::now() < until {
        rt::sleep(Duration::from_secs(1)).await;
        let generation = log.store.lock().group("g0").and_then(|g| Some(g.membership.as_ref()?.generation));
        assert!(generation.unwrap_or(highest) >= highest, "the generation fell");
        highest = generation.unwrap_or(highest);
    }
    troubles.await.expect("the troubles end");
    for consumer in consumers {
        consumer.await.expect("a consumer does not panic");
    }
    // Those that are left come to rest with nobody to disturb them: sessions end.
    rt::sleep(Duration::from_secs(60)).await;
    for group in ["g0", "g1"] {
        let described = groups.describe(&[group]).await.remove(0).expect("leads").expect("exists");
        assert_eq!(described.state, State::Empty);
        let _ = fetched(&groups, group, "t").await;
    }
    sim::trace(&log.store.lock().checksum().to_be_bytes());
}

#[test]
fn every_request_is_answered_whatever_happens() {
    for seed in 100..105 {
        sim::run(seed, scenario);
    }
}

#[test]
fn a_seed_repeats() {
    sim::run_twice(7_919, scenario);
}
