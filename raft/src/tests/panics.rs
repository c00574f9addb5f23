//! A task of a replica that panics: that replica stops as a whole, the others continue.

use std::time::Duration;

use bytes::Bytes;
use ottla_env::{rt, sim};
use ottla_storage::ids::ReplicaId;

use super::cluster::Cluster;
use super::three_voters::leader_of;

/// A deposed leader whose role is not watched any more would be taken for the leader until its process ends.
#[test]
fn a_leader_one_of_whose_tasks_panics_stops_and_another_leads() {
    for (seed, name) in (1..).zip(["raft-role", "raft-maintenance", "raft-liveness", "openraft"]) {
        sim::run(seed, move || async move {
            let cluster = Cluster::in_memory(3, Duration::from_millis(2));
            for node in cluster.nodes() {
                cluster.start(node).await;
            }
            let leader = rt::timeout(Duration::from_secs(30), leader_of(&cluster)).await.unwrap();
            assert!(cluster.propose(leader, Bytes::from_static(b"before")).await);
            let tasks = sim::critical_tasks(leader);
            let (task, _) = tasks.iter().find(|(_, known)| *known == name).unwrap();
            sim::make_panic(*task);
            rt::sleep(Duration::from_secs(10)).await;
            let handle = cluster.handle(leader).unwrap();
            assert!(handle.role().borrow().stopped, "{name} panicked, and its replica goes on");
            let failures = cluster.failures(leader).borrow().clone();
            let failure = failures.get(&ReplicaId(u64::from(leader.0))).unwrap();
            assert!(failure.why.contains(name) && !failure.is_damage, "{failure:?}");
            let next = rt::timeout(Duration::from_secs(30), leader_of(&cluster)).await.unwrap();
            assert_ne!(next, leader);
            assert!(cluster.propose(next, Bytes::from_static(b"after")).await);
            assert!(sim::take_panics().is_empty());
        });
    }
}
