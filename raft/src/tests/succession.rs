//! Leadership that is handed over or taken over: long before a lease would be over, and never to two.

use std::time::Duration;

use bytes::Bytes;
use ottla_storage::env::rt;
use ottla_storage::env::sim::{self, SimNode};
use ottla_storage::ids::ReplicaId;

use super::cluster::Cluster;

/// Far less than a lease.
const SOON: Duration = Duration::from_millis(400);

async fn led(voters: usize) -> (Cluster, SimNode) {
    let cluster = Cluster::in_memory(voters, Duration::from_millis(1));
    for node in cluster.nodes() {
        cluster.start(node).await;
    }
    let leader = loop {
        if let Some(leader) = cluster.leader() {
            break leader;
        }
        rt::sleep(Duration::from_millis(10)).await;
    };
    assert!(cluster.propose(leader, Bytes::from_static(b"1")).await);
    rt::sleep(Duration::from_secs(1)).await;
    (cluster, leader)
}

fn home(node: SimNode) -> ReplicaId {
    ReplicaId(u64::from(node.0))
}

#[test]
fn the_group_of_a_dead_process_is_led_again_before_its_lease_is_over() {
    for seed in 1..20 {
        sim::run(seed, move || async move {
            let (cluster, dead) = led(if seed % 2 == 0 { 3 } else { 5 }).await;
            cluster.crash(dead);
            let (left, died) = (cluster.nodes().into_iter().filter(|node| *node != dead), rt::now());
            for node in left.clone() {
                let host = cluster.host(node);
                sim::spawn_on(node, async move { host.suspect(move |replica| replica == home(dead)) });
            }
            while cluster.leader().is_none_or(|leader| leader == dead) {
                rt::sleep(Duration::from_millis(5)).await;
            }
            let waited = rt::now().since(died);
            assert!(waited < SOON, "seed {seed}: {waited:?}");
            assert!(cluster.propose(cluster.leader().unwrap(), Bytes::from_static(b"2")).await);
        });
    }
}

#[test]
fn who_is_suspected_falsely_does_no_harm() {
    for seed in 1..20 {
        sim::run(seed, move || async move {
            let (cluster, suspected) = led(3).await;
            for node in cluster.nodes() {
                let host = cluster.host(node);
                sim::spawn_on(node, async move { host.suspect(move |replica| replica == home(suspected)) });
            }
            rt::sleep(SOON).await;
            let leader = cluster.leader().expect("somebody leads");
            assert!(cluster.propose(leader, Bytes::from_static(b"2")).await);
        });
    }
}

#[test]
fn a_node_that_stops_hands_over_first() {
    for seed in 1..20 {
        sim::run(seed, move || async move {
            let (cluster, old) = led(3).await;
            let (host, began) = (cluster.host(old), rt::now());
            sim::spawn_on(old, async move { host.hand_over(Duration::from_secs(3)).await }).await.unwrap();
            let waited = rt::now().since(began);
            assert!(waited < SOON, "seed {seed}: {waited:?}");
            assert_ne!(cluster.leader(), Some(old));
            while cluster.leader().is_none() {
                rt::sleep(Duration::from_millis(5)).await;
            }
            assert!(rt::now().since(began) < SOON, "seed {seed}");
        });
    }
}

#[test]
fn a_leader_that_nobody_answers_says_so_until_it_is_answered_again() {
    for seed in 1..20 {
        sim::run(seed, move || async move {
            let (cluster, leader) = led(if seed % 2 == 0 { 3 } else { 5 }).await;
            let mut role = cluster.handle(leader).unwrap().role();
            assert!(!role.borrow().unheard, "seed {seed}: answered, but unheard");
            // It is heard, but hears nobody.
            for other in cluster.nodes().into_iter().filter(|other| *other != leader) {
                cluster.network.cut(other, leader);
            }
            let noticed = async { role.wait_for(|role| role.unheard || !role.ready).await.is_ok() };
            let noticed = rt::timeout(Duration::from_secs(4), noticed).await;
            assert!(noticed.is_ok(), "seed {seed}: it takes itself for heard");
            cluster.network.heal();
            let again = rt::timeout(Duration::from_secs(10), async {
                while cluster.leader().is_none_or(|now| cluster.handle(now).unwrap().role().borrow().unheard) {
                    rt::sleep(Duration::from_millis(20)).await;
                }
            });
            assert!(again.await.is_ok(), "seed {seed}: nobody is heard again");
        });
    }
}
