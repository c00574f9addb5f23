//! Voters far apart, or with little bandwidth between them: they elect, commit, and keep their leader; throughput is bound by the
//! bandwidth and not by round trips. Times are simulated.

use std::time::Duration;

use futures_util::future::join_all;
use ottla_env::rt;
use ottla_env::sim::net::Conditions;
use ottla_env::sim::{self, SimNode};

use super::cluster::Cluster;
use super::one_voter::proposal;
use super::three_voters::leader_of;
use crate::net::sim::Faults;

const MIB: usize = 1 << 20;
/// How long a group may take to elect over a round trip of half a second.
const ELECTION_MAX: Duration = Duration::from_secs(10);

/// Three voters with such links between them.
async fn started(links: Conditions) -> Cluster {
    let cluster = Cluster::in_memory(3, Duration::from_millis(1));
    cluster.network.set_faults(Faults { links, ..Faults::default() });
    for node in cluster.nodes() {
        cluster.start(node).await;
    }
    cluster
}

async fn led(cluster: &Cluster) -> SimNode {
    rt::timeout(ELECTION_MAX, leader_of(cluster)).await.expect("a leader")
}

/// Submits so many entries one behind the other, and waits until all are applied; returns how long it took.
async fn propose_all(cluster: &Cluster, leader: SimNode, count: usize, bytes: usize) -> Duration {
    let handle = cluster.handle(leader).unwrap();
    let began = rt::now();
    let proposed = sim::spawn_on(leader, async move {
        let (mut pending, payload) = (Vec::new(), vec![7; bytes]);
        for _ in 0..count {
            pending.push(handle.submit(proposal(&payload)).await.unwrap());
        }
        for pending in pending {
            pending.applied().await.unwrap();
        }
    });
    proposed.await.unwrap();
    rt::now().since(began)
}

fn delay(one_way: Duration) -> Conditions {
    Conditions { delay_min: one_way, delay_max: one_way + Duration::from_millis(2), ..Conditions::default() }
}

#[test]
fn voters_half_a_second_apart_elect_commit_and_keep_their_leader() {
    sim::run_twice(1, || async {
        let cluster = started(delay(Duration::from_millis(250))).await;
        let leader = led(&cluster).await;
        let term = cluster.handle(leader).unwrap().role().borrow().term;
        for _ in 0..20 {
            let took = propose_all(&cluster, leader, 1, 100).await;
            assert!(took < Duration::from_millis(600), "{took:?}: one round trip and little more");
            rt::sleep(Duration::from_millis(700)).await;
        }
        let role = *cluster.handle(leader).unwrap().role().borrow();
        assert!(role.ready && role.term == term, "the leader was replaced: {role:?}");
    });
}

/// An entry that is proposed while others are on their way does not wait for their responses.
#[test]
fn entries_in_flight_are_not_bound_by_the_round_trip() {
    sim::run_twice(2, || async {
        let cluster = started(delay(Duration::from_millis(20))).await;
        let leader = led(&cluster).await;
        propose_all(&cluster, leader, 1, 100).await;
        let proposed = (0..50).map(|n| {
            let cluster = cluster.clone();
            async move {
                rt::sleep(Duration::from_millis(2 * n)).await;
                propose_all(&cluster, leader, 1, 10_000).await
            }
        });
        let slowest = join_all(proposed).await.into_iter().max().unwrap();
        assert!(slowest < Duration::from_millis(50), "{slowest:?}: a round trip takes 40 to 44 ms");
    });
}

#[test]
fn a_link_of_10_mbit_s_carries_the_largest_batches_and_keeps_its_leader() {
    sim::run_twice(3, || async {
        let links = Conditions { bytes_per_second: Some(1_250_000), ..delay(Duration::from_millis(1)) };
        let cluster = started(links).await;
        let leader = led(&cluster).await;
        let term = cluster.handle(leader).unwrap().role().borrow().term;
        // 24 s to a follower, each of which has a link of its own, if it is sent once.
        let took = propose_all(&cluster, leader, 1, 30 * MIB).await;
        assert!(took < Duration::from_secs(60), "{took:?}");
        let took = propose_all(&cluster, leader, 20, MIB).await;
        assert!(took < Duration::from_secs(40), "{took:?}");
        let role = *cluster.handle(leader).unwrap().role().borrow();
        assert!(role.ready && role.term == term, "the leader was replaced: {role:?}");
    });
}

#[test]
fn a_follower_catches_up_over_a_slow_link_while_others_commit() {
    sim::run_twice(4, || async {
        let cluster = started(Conditions::default()).await;
        let leader = led(&cluster).await;
        let away = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
        for other in cluster.nodes().into_iter().filter(|node| *node != away) {
            cluster.network.cut(away, other);
            cluster.network.cut(other, away);
        }
        propose_all(&cluster, leader, 40, MIB).await;
        let links = Conditions { bytes_per_second: Some(12_500_000), ..Conditions::default() };
        cluster.network.set_faults(Faults { links, ..Faults::default() });
        cluster.network.heal();
        let applied = cluster.handle(leader).unwrap().applied().unwrap();
        let follower = cluster.handle(away).unwrap();
        let caught_up = rt::timeout(Duration::from_secs(20), follower.wait_applied(applied.index)).await;
        assert!(caught_up.is_ok_and(|waited| waited.is_ok()), "{:?} of {applied:?}", follower.applied());
    });
}
