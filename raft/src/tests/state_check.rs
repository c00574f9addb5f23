//! Replicas whose states differ.

use std::time::Duration;

use bytes::Bytes;
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};

use super::cluster::Cluster;
use super::ledger::DIFFERENT_ON_2;

const DIFFERS: SimNode = SimNode(2);

async fn propose(cluster: &Cluster, payload: &'static [u8]) {
    loop {
        if let Some(leader) = cluster.leader()
            && cluster.propose(leader, Bytes::from_static(payload)).await
        {
            return;
        }
        rt::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether it leads or follows.
#[test]
fn a_replica_that_differs_from_a_majority_stops_and_the_others_go_on() {
    let mut led = 0;
    for seed in 1..9 {
        let report = sim::run_twice(seed, move || async move {
            let mut cluster = Cluster::in_memory(3, Duration::from_millis(1));
            cluster.options.state_check_interval = Duration::from_secs(2);
            cluster.options.state_check_entries = 4;
            for node in cluster.nodes() {
                cluster.start(node).await;
            }
            for _ in 0..20 {
                propose(&cluster, b"same").await;
            }
            rt::sleep(Duration::from_secs(5)).await;
            assert!(cluster.nodes().iter().all(|node| cluster.failures(*node).borrow().is_empty()), "all are equal");
            if seed % 2 == 0 {
                let leader = cluster.leader().unwrap();
                cluster.crash(leader);
                rt::sleep(Duration::from_secs(5)).await;
                cluster.start(leader).await;
            }
            let led = cluster.leader() == Some(DIFFERS);
            propose(&cluster, DIFFERENT_ON_2).await;
            for _ in 0..20 {
                propose(&cluster, b"more").await;
            }
            rt::sleep(Duration::from_secs(10)).await;
            for node in cluster.nodes() {
                let failures = cluster.failures(node).borrow().clone();
                let is_quarantined =
                    failures.values().any(|failure| failure.is_damage && failure.why.contains("it differs"));
                assert_eq!(is_quarantined, node == DIFFERS, "node {}: {failures:?}", node.0);
            }
            propose(&cluster, b"on").await;
            assert!(cluster.leader().is_some_and(|leader| leader != DIFFERS));
            led
        });
        led += usize::from(report.output);
    }
    assert!(led > 0, "it led in no seed");
}
