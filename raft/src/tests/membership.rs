//! Members are added, catch up from a snapshot, vote and are removed, under all kinds of faults.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};
use ottla_storage::ids::ReplicaId;

use super::cluster::Cluster;
use super::three_voters::{Clients, begin, client, judge, leader_of, millis, one_fault};
use crate::membership_change::MembershipStep;
use crate::net::sim::Faults;

const NODES: usize = 5;
const FOUNDERS: usize = 3;
const TROUBLE: Duration = Duration::from_secs(10);
const RECOVERY_MAX: Duration = Duration::from_secs(30);

fn cluster() -> Cluster {
    let mut cluster = Cluster::in_memory(NODES, Duration::from_millis(4));
    cluster.founders = FOUNDERS;
    // So few bytes that a replica that was away for a moment needs a snapshot.
    cluster.options.purge_horizon_bytes = 100;
    cluster
}

/// Founders alone, which purge as early, and their leader.
async fn led_with_a_short_log() -> (Cluster, SimNode) {
    let mut cluster = Cluster::in_memory(FOUNDERS, Duration::from_millis(1));
    cluster.options.purge_horizon_bytes = 100;
    for node in cluster.nodes() {
        cluster.start(node).await;
    }
    let leader = leader_of(&cluster).await;
    (cluster, leader)
}

fn some_three() -> BTreeSet<ReplicaId> {
    let mut chosen = BTreeSet::new();
    while chosen.len() < FOUNDERS {
        chosen.insert(ReplicaId(1 + sim::random_below(NODES as u64)));
    }
    chosen
}

/// Voters and learners.
fn some_members() -> (BTreeSet<ReplicaId>, BTreeSet<ReplicaId>) {
    let voters = some_three();
    let others = (1..=NODES as u64).map(ReplicaId).filter(|replica| !voters.contains(replica));
    let learners = others.filter(|_| sim::random_below(2) == 0).collect();
    (voters, learners)
}

/// Makes one step towards `wanted` at the leader; true when it is reached.
async fn step(cluster: &Cluster, wanted: &(BTreeSet<ReplicaId>, BTreeSet<ReplicaId>)) -> bool {
    let Some(leader) = cluster.leader() else { return false };
    let Some(handle) = cluster.handle(leader) else { return false };
    let (voters, learners) = wanted.clone();
    let stepped = sim::spawn_on(leader, async move {
        rt::timeout(Duration::from_secs(2), async move { handle.advance_membership(&voters, &learners).await }).await
    });
    matches!(stepped.await, Ok(Ok(Ok(MembershipStep::Reached))))
}

async fn mover(cluster: Cluster, clients: Arc<Clients>) {
    let mut wanted = some_members();
    while !clients.stop.load(Ordering::Relaxed) {
        if step(&cluster, &wanted).await {
            wanted = some_members();
        }
        rt::sleep(millis(20, 300)).await;
    }
}

/// The number of entries acknowledged.
async fn trouble() -> usize {
    let cluster = cluster();
    begin(&cluster).await;
    let clients = Arc::new(Clients::default());
    let mut running: Vec<_> = (0..3).map(|_| rt::spawn(client(cluster.clone(), clients.clone()))).collect();
    running.push(rt::spawn(mover(cluster.clone(), clients.clone())));
    while sim::elapsed() < TROUBLE {
        rt::sleep(millis(200, 1_200)).await;
        one_fault(&cluster).await;
    }
    clients.stop.store(true, Ordering::Relaxed);
    for running in running {
        running.await.unwrap();
    }
    settle(&cluster).await
}

async fn settle(cluster: &Cluster) -> usize {
    cluster.network.heal();
    cluster.network.set_faults(Faults::default());
    let wanted = some_members();
    let last = &wanted.0;
    let settled = async {
        while !step(cluster, &wanted).await {
            rt::sleep(millis(20, 100)).await;
        }
        while !cluster.propose(cluster.leader().unwrap_or(SimNode(1)), Bytes::from_static(b"end")).await {
            rt::sleep(millis(20, 100)).await;
        }
        for replica in last {
            cluster.catches_up(SimNode(u32::try_from(replica.0).unwrap())).await;
        }
    };
    assert!(rt::timeout(RECOVERY_MAX, settled).await.is_ok(), "not settled in {RECOVERY_MAX:?}");
    let members = cluster.handle(cluster.leader().unwrap()).unwrap().membership();
    assert_eq!((&members.voters[..], &members.learners), (&[last.clone()][..], &wanted.1));
    let nodes: Vec<SimNode> = last.iter().map(|replica| SimNode(u32::try_from(replica.0).unwrap())).collect();
    judge(cluster, &nodes);
    cluster.oracle.lock().acked.len()
}

#[test]
fn members_come_and_go_and_nothing_is_lost() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("OTTLA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OTTLA_SEEDS").unwrap_or(8),
    };
    for seed in seeds {
        println!("seed {seed}");
        let report = sim::run_twice(seed, trouble);
        println!("seed {seed}: {} acknowledged, trace {:016x}", report.output, report.trace_hash);
    }
}

/// What the replica has purged of which 200 entries were appended while it was away.
async fn purged_after_it_was_away(first: &'static [u8]) -> u64 {
    let (cluster, leader) = led_with_a_short_log().await;
    assert!(cluster.propose(leader, Bytes::from_static(first)).await);
    let away = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
    cluster.crash(away);
    for number in 0..200 {
        assert!(cluster.propose(leader, Bytes::from(format!("entry {number}"))).await);
    }
    rt::sleep(Duration::from_secs(5)).await;
    cluster.start(away).await;
    assert!(rt::timeout(Duration::from_secs(10), cluster.catches_up(away)).await.is_ok(), "it never caught up");
    super::ledger::index_of(cluster.handle(away).unwrap().0.log.purged()).0
}

#[test]
fn a_replica_away_longer_than_the_log_reaches_gets_a_snapshot() {
    sim::run_twice(1, || async {
        let purged = purged_after_it_was_away(b"any").await;
        assert!(purged > 100, "it was given entries, not a snapshot: {purged}");
    });
}

/// Found by the simulation (seeds 127131 and 127191): a snapshot of a shard that another one has taken over is empty.
#[test]
fn where_a_snapshot_does_not_serve_it_a_replica_gets_entries_however_long_it_was_away() {
    sim::run_twice(1, || async {
        let purged = purged_after_it_was_away(super::ledger::KEEP_ENTRIES).await;
        assert!(purged < 100, "it was given a snapshot: {purged}");
    });
}

/// Found by the simulation (seed 124410): openraft takes a snapshot of a later term than its leader's for damage, and panics.
#[test]
fn the_state_of_a_deposed_leader_that_is_of_a_later_term_is_not_installed() {
    sim::run_twice(1, || async {
        let (cluster, deposed) = led_with_a_short_log().await;
        let [away, next] = cluster.nodes().into_iter().filter(|node| *node != deposed).collect::<Vec<_>>()[..] else {
            panic!("three nodes");
        };
        cluster.crash(away);
        let of_deposed = cluster.handle(deposed).unwrap();
        for number in 0..100 {
            assert!(cluster.propose(deposed, Bytes::from(format!("entry {number}"))).await);
        }
        let (vote, offered) = (of_deposed.0.log.vote().unwrap(), of_deposed.applied().unwrap());
        of_deposed.transfer_leadership(ReplicaId(next.0.into())).await.unwrap();
        while cluster.leader() != Some(next) {
            rt::sleep(Duration::from_millis(10)).await;
        }
        for number in 100..200 {
            assert!(cluster.propose(next, Bytes::from(format!("entry {number}"))).await);
        }
        // For a checkpoint of it all.
        rt::sleep(Duration::from_secs(5)).await;
        // Of the new leader it hears nothing; what the deposed one had offered comes late.
        cluster.network.cut(next, away);
        cluster.network.cut(away, next);
        cluster.start(away).await;
        let of_away = cluster.handle(away).unwrap();
        let (group, leader) = (of_away.0.clone(), of_deposed.0.replica);
        let downloaded = sim::spawn_on(away, async move {
            let _response = group.install_snapshot(leader, vote, offered);
            while !group.snapshot_download.begin() {
                rt::sleep(Duration::from_millis(10)).await;
            }
            group.snapshot_download.end();
        });
        downloaded.await.unwrap();
        assert!(of_away.applied() < Some(offered));
        cluster.network.restore(next, away);
        cluster.network.restore(away, next);
        assert!(rt::timeout(Duration::from_secs(10), cluster.catches_up(away)).await.is_ok(), "it never caught up");
    });
}

#[test]
fn a_new_member_that_is_down_does_not_keep_another_from_replacing_a_lost_voter() {
    sim::run_twice(1, || async {
        let cluster = cluster();
        begin(&cluster).await;
        let leader = leader_of(&cluster).await;
        let [lost, other] = (1..=3).map(SimNode).filter(|node| *node != leader).collect::<Vec<_>>()[..] else {
            panic!("{leader:?} leads a group of three");
        };
        let (new, late) = (SimNode(4), SimNode(5));
        cluster.crash(lost);
        cluster.crash(late);
        let replicas = |nodes: &[SimNode]| nodes.iter().map(|node| ReplicaId(node.0.into())).collect::<BTreeSet<_>>();
        let (without, whole) = (replicas(&[leader, other, new]), replicas(&[leader, other, new, late]));
        let wanted = (whole.clone(), BTreeSet::new());
        let voters = || cluster.leader().map(|leader| cluster.handle(leader).unwrap().membership().voters);
        let replaced = async {
            while voters() != Some(vec![without.clone()]) {
                assert!(!step(&cluster, &wanted).await, "not while a member is down");
                rt::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(rt::timeout(2 * RECOVERY_MAX, replaced).await.is_ok(), "the lost voter is one still: {:?}", voters());
        cluster.start(late).await;
        let reached = async {
            while !step(&cluster, &wanted).await {
                rt::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(rt::timeout(RECOVERY_MAX, reached).await.is_ok(), "{:?}", voters());
        assert_eq!(voters(), Some(vec![whole]));
    });
}
