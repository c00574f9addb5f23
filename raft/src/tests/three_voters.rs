//! Three voters elect, replicate, fail over, crash and restart; every seed runs twice with the same result.
//!
//! `OTTLA_SEED=n` runs one seed, `OTTLA_SEEDS=n` that many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};
use ottla_storage::ids::{ReplicaId, Term};

use super::cluster::{Cluster, MemoryStorage, Storage};
use super::memory::MemoryDisk;
use ottla_env::sim::net::Conditions;

use crate::handle::GroupHandle;
use crate::net::sim::Faults;
use crate::net::{Message, MessageHandler};

const VOTERS: usize = 3;
/// How long faults are injected.
const TROUBLE: Duration = Duration::from_secs(8);
/// How long a healed group may take to serve again.
const RECOVERY_MAX: Duration = Duration::from_secs(20);

pub(crate) fn millis(low: u64, high: u64) -> Duration {
    Duration::from_millis(low + sim::random_below(high - low))
}

#[derive(Default)]
pub(crate) struct Clients {
    pub(crate) stop: AtomicBool,
    next: AtomicU64,
}

/// Proposes at the leader, or at any node.
pub(crate) async fn client(cluster: Cluster, clients: Arc<Clients>) {
    while !clients.stop.load(Ordering::Relaxed) {
        let node = cluster.leader().unwrap_or_else(|| cluster.random_node());
        if sim::random_below(5) == 0 {
            cluster.read_index(node).await;
        }
        let number = clients.next.fetch_add(1, Ordering::Relaxed);
        let done = cluster.propose(node, Bytes::from(number.to_string())).await;
        rt::sleep(if done { millis(0, 20) } else { millis(20, 100) }).await;
    }
}

pub(crate) async fn one_fault(cluster: &Cluster) {
    let node = if sim::random_below(2) == 0 { cluster.leader() } else { None };
    let node = node.unwrap_or_else(|| cluster.random_node());
    let others = cluster.nodes().into_iter().filter(|&other| other != node);
    match sim::random_below(6) {
        0 | 1 => {
            if cluster.is_up(node) {
                cluster.crash(node);
                rt::sleep(millis(1, 2_500)).await;
                cluster.start(node).await;
            }
        }
        2 => {
            for other in others {
                cluster.network.cut(node, other);
                cluster.network.cut(other, node);
            }
            rt::sleep(millis(100, 3_000)).await;
            cluster.network.heal();
        }
        3 => {
            for other in others {
                cluster.network.cut(node, other);
            }
            rt::sleep(millis(100, 3_000)).await;
            cluster.network.heal();
        }
        4 => {
            if let Some(handle) = cluster.leader().and_then(|leader| cluster.handle(leader)) {
                let to = ReplicaId(u64::from(cluster.random_node().0));
                let _ = handle.transfer_leadership(to).await;
            }
        }
        _ => {
            // All nodes lose power.
            let down: Vec<SimNode> = cluster.nodes().into_iter().filter(|&node| cluster.is_up(node)).collect();
            down.iter().for_each(|&node| cluster.crash(node));
            rt::sleep(millis(1, 500)).await;
            for node in down {
                cluster.start(node).await;
            }
        }
    }
}

/// The result of a run.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    acknowledged: usize,
    terms: usize,
}

/// Clocks and a network with faults, and every node started.
pub(crate) async fn begin(cluster: &Cluster) {
    cluster.skew_clocks();
    cluster.network.set_faults(Faults {
        links: Conditions { delay_max: millis(1, 8), ..Conditions::default() },
        loss_per_mille: sim::random_below(40),
        repeat_per_mille: sim::random_below(20),
    });
    for node in cluster.nodes() {
        cluster.start(node).await;
    }
}

/// What must hold at the end: no violation, and on each of these nodes every acknowledged entry.
pub(crate) fn judge(cluster: &Cluster, nodes: &[SimNode]) {
    let oracle = cluster.oracle.lock();
    assert!(oracle.violations.is_empty(), "{:?}", oracle.violations);
    for &node in nodes {
        let failures = cluster.failures(node);
        assert!(failures.borrow().is_empty(), "node {}: {:?}", node.0, *failures.borrow());
        let entries = cluster.entries(node);
        for (index, payload) in &oracle.acked {
            let held = entries.get(index).map(|(_, payload)| payload);
            assert_eq!(held, Some(payload), "node {} lost what was acknowledged at {index}", node.0);
        }
    }
}

/// The scenario, for any kind of storage.
pub(crate) async fn trouble(cluster: Cluster) -> Tally {
    begin(&cluster).await;
    let clients = Arc::new(Clients::default());
    let running: Vec<_> = (0..3).map(|_| rt::spawn(client(cluster.clone(), clients.clone()))).collect();
    while sim::elapsed() < TROUBLE {
        rt::sleep(millis(200, 1_200)).await;
        one_fault(&cluster).await;
    }
    clients.stop.store(true, Ordering::Relaxed);
    for running in running {
        running.await.unwrap();
    }
    heal(&cluster).await;
    let oracle = cluster.oracle.lock();
    Tally { acknowledged: oracle.acked.len(), terms: oracle.terms() }
}

/// Faults end: the group must serve again, and every node must have every acknowledged entry.
async fn heal(cluster: &Cluster) {
    cluster.network.heal();
    cluster.network.set_faults(Faults::default());
    let healed = async {
        while !cluster
            .propose(cluster.leader().unwrap_or_else(|| cluster.random_node()), Bytes::from_static(b"end"))
            .await
        {
            rt::sleep(millis(20, 100)).await;
        }
        for node in cluster.nodes() {
            cluster.catches_up(node).await;
        }
    };
    assert!(rt::timeout(RECOVERY_MAX, healed).await.is_ok(), "not healed in {RECOVERY_MAX:?}");
    judge(cluster, &cluster.nodes());
}

/// Runs seeds, each twice.
pub(crate) fn seeds(default: u64, scenario: impl Fn() -> Cluster + Clone + Send + 'static) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("OTTLA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OTTLA_SEEDS").unwrap_or(default),
    };
    let mut sum = Tally::default();
    for seed in seeds.clone() {
        // Printed before the run, so that a failure names its seed.
        println!("seed {seed}");
        let scenario = scenario.clone();
        let report = sim::run_twice(seed, move || trouble(scenario()));
        println!("seed {seed}: trace {:016x}, {} polls, {:?}", report.trace_hash, report.polls, report.output);
        sum.acknowledged += report.output.acknowledged;
        sum.terms += report.output.terms;
    }
    println!("{seeds:?}: {sum:?}");
}

#[test]
fn three_voters_over_a_model_disk_lose_nothing() {
    seeds(20, || Cluster::in_memory(VOTERS, Duration::from_millis(4)));
}

#[test]
fn one_voter_over_a_model_disk_loses_nothing() {
    seeds(8, || Cluster::in_memory(1, Duration::from_millis(4)));
}

pub(crate) async fn leader_of(cluster: &Cluster) -> SimNode {
    loop {
        if let Some(leader) = cluster.leader() {
            return leader;
        }
        rt::sleep(Duration::from_millis(10)).await;
    }
}

async fn started(voters: usize) -> (Cluster, SimNode) {
    let cluster = Cluster::in_memory(voters, Duration::from_millis(1));
    for node in cluster.nodes() {
        cluster.start(node).await;
    }
    let leader = leader_of(&cluster).await;
    (cluster, leader)
}

#[test]
fn leadership_is_transferred_without_waiting_for_an_election_timeout() {
    sim::run_twice(1, || async {
        let (cluster, leader) = started(VOTERS).await;
        let target = cluster.nodes().into_iter().find(|&node| node != leader).unwrap();
        let before = sim::elapsed();
        cluster.handle(leader).unwrap().transfer_leadership(ReplicaId(u64::from(target.0))).await.unwrap();
        let mut role = cluster.handle(target).unwrap().role();
        drop(role.wait_for(|role| role.ready).await.unwrap());
        assert!(sim::elapsed() - before < Duration::from_millis(200), "{:?}", sim::elapsed() - before);
        assert!(cluster.propose(target, Bytes::from_static(b"mine now")).await);
    });
}

#[test]
fn an_expired_lease_is_renewed_by_the_next_proposal() {
    sim::run_twice(2, || async {
        let (cluster, leader) = started(2).await;
        let other = cluster.nodes().into_iter().find(|&node| node != leader).unwrap();
        cluster.network.cut(leader, other);
        cluster.network.cut(other, leader);
        rt::sleep(Duration::from_secs(5)).await;
        assert!(!cluster.propose(leader, Bytes::from_static(b"alone")).await, "no majority, no promise");
        cluster.network.heal();
        let handle = cluster.handle(leader).unwrap();
        let submitted = handle.submit(super::one_voter::proposal(b"submitted")).await.unwrap().applied().await;
        assert!(matches!(submitted, Err(crate::error::ProposeError::LeaseExpired)), "{submitted:?}");
        assert!(cluster.propose(leader, Bytes::from_static(b"together")).await);
    });
}

#[test]
fn a_leader_without_a_majority_refuses_reads() {
    sim::run_twice(3, || async {
        let (cluster, leader) = started(VOTERS).await;
        let others: Vec<_> = cluster.nodes().into_iter().filter(|&node| node != leader).collect();
        for &other in &others {
            cluster.network.cut(leader, other);
            cluster.network.cut(other, leader);
        }
        let refused = cluster.handle(leader).unwrap().read_index().await.unwrap_err();
        assert!(matches!(refused, crate::error::ReadIndexError::NotLeader { .. }), "{refused:?}");
        let successor = async {
            loop {
                let up = others.iter().find(|&&node| cluster.handle(node).unwrap().role().borrow().ready);
                match up {
                    Some(&node) => return node,
                    None => rt::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let successor = rt::timeout(Duration::from_secs(5), successor).await.unwrap();
        assert!(cluster.propose(successor, Bytes::from_static(b"on we go")).await);
    });
}

/// A leader with damaged records in one of 20 entries, counted from 1, and a follower that lacks these entries.
async fn damaged(number: u64) -> (Cluster, SimNode, SimNode) {
    let disks: Vec<Arc<MemoryDisk>> = (0..VOTERS).map(|_| Arc::default()).collect();
    let storage = |disk: &Arc<MemoryDisk>| {
        let sync_max = Duration::from_millis(1);
        Box::new(MemoryStorage { disk: disk.clone(), sync_max, lies: false }) as Box<dyn Storage>
    };
    let cluster = Cluster::new(disks.iter().map(storage).collect());
    for node in cluster.nodes() {
        cluster.start(node).await;
    }
    let leader = leader_of(&cluster).await;
    let lagging = cluster.nodes().into_iter().find(|&node| node != leader).unwrap();
    assert!(cluster.propose(leader, Bytes::from_static(b"before")).await);
    for node in cluster.nodes() {
        cluster.network.cut(node, lagging);
    }
    let last = cluster.handle(leader).unwrap().applied().unwrap().index.0;
    for _ in 0..20 {
        assert!(cluster.propose(leader, Bytes::from_static(b"meanwhile")).await);
    }
    disks[leader.0 as usize - 1].damaged.lock().insert(last + number);
    cluster.network.heal();
    (cluster, leader, lagging)
}

#[test]
fn a_follower_that_lacks_a_damaged_entry_gets_a_snapshot_and_the_leader_continues() {
    for number in [1, 9, 20] {
        sim::run_twice(20 + number, move || async move {
            let (cluster, leader, lagging) = damaged(number).await;
            let upto = cluster.handle(leader).unwrap().applied();
            let caught_up = async {
                while cluster.handle(lagging).unwrap().applied() < upto {
                    rt::sleep(Duration::from_millis(10)).await;
                }
            };
            rt::timeout(Duration::from_secs(60), caught_up).await.unwrap();
            assert!(cluster.failures(leader).borrow().is_empty(), "{:?}", cluster.failures(leader).borrow());
            assert!(cluster.propose(leader, Bytes::from_static(b"after")).await);
        });
    }
}

/// A leader that went on sending it would never send a later one to a member that keeps asking, and the member would look for ever for
/// batches that a split has taken away (chaos seed 2905), or that a pass of compaction has replaced.
#[test]
fn a_member_that_begins_again_and_again_is_served_a_later_state() {
    sim::run_twice(24, || async {
        let (cluster, leader) = started(1).await;
        let GroupHandle(group) = cluster.handle(leader).unwrap();
        let advance = async || {
            let applied = group.applier.applied();
            assert!(cluster.propose(leader, Bytes::from_static(b"entry")).await);
            while group.directory.checkpointed(group.replica) <= applied {
                rt::sleep(Duration::from_millis(100)).await;
            }
        };
        let served = async || match group.serve_state(None).await {
            Ok(Message::FetchStateResponse(Some(part))) => part.state.applied,
            other => panic!("{other:?}"),
        };
        advance().await;
        let first = served().await;
        advance().await;
        assert_eq!(served().await, first, "members share it");
        let later = async {
            while served().await == first {
                rt::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(rt::timeout(Duration::from_secs(60), later).await.is_ok());
    });
}

#[test]
fn a_message_for_an_unknown_replica_creates_none() {
    sim::run_twice(4, || async {
        let (cluster, leader) = started(VOTERS).await;
        let host = cluster.host(leader);
        let vote = ottla_storage::entry::Vote { term: Term(9), voted_for: ReplicaId(77), committed: true };
        let message = Message::AppendEntries { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
        assert!(host.deliver(ReplicaId(77), ReplicaId(78), message).await.is_err());
        assert!(host.group(ReplicaId(78)).is_none());
    });
}

/// The checks above detect a faulty disk and a seeded bug.
#[test]
fn a_disk_that_lies_about_its_syncs_is_caught() {
    let lies = || {
        let storage = |_| {
            let sync_max = Duration::from_millis(100);
            Box::new(MemoryStorage { disk: Arc::default(), sync_max, lies: true }) as Box<dyn Storage>
        };
        Cluster::new((0..VOTERS).map(storage).collect())
    };
    assert!(std::panic::catch_unwind(move || seeds(20, lies)).is_err(), "acknowledged before the sync");
}

#[cfg(feature = "mutants")]
#[test]
fn a_leader_restored_from_its_vote_is_caught() {
    use ottla_env::mutants::{Bug, switch_on};
    let restored = || {
        switch_on(Some(Bug::LeaderRestoredFromVote));
        Cluster::in_memory(VOTERS, Duration::from_millis(4))
    };
    let caught = std::panic::catch_unwind(move || seeds(60, restored));
    switch_on(None);
    assert!(caught.is_err(), "log ids were used twice");
}
