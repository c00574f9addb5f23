//! Leadership transfer and failover: a new leader long before the lease of the old one is over, and never two leaders
//! in a term.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, ready};
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};
use ottla_storage::entry::Batches;
use ottla_storage::ids::{ReplicaId, Term};

use super::cluster::{Cluster, MemoryStorage, Storage};
use super::memory::MemoryDisk;
use super::three_voters::leader_of;
use crate::handle::Pending;
use crate::membership_change::MembershipStep;
use crate::net::Message;
use crate::proposal::Proposal;

/// Far less than a lease.
const SOON: Duration = Duration::from_millis(400);

async fn led(voters: usize) -> (Cluster, SimNode) {
    let cluster = Cluster::in_memory(voters, Duration::from_millis(1));
    let leader = lead(&cluster).await;
    (cluster, leader)
}

async fn lead(cluster: &Cluster) -> SimNode {
    for node in cluster.nodes() {
        cluster.start(node).await;
    }
    let leader = leader_of(cluster).await;
    assert!(cluster.propose(leader, Bytes::from_static(b"1")).await);
    rt::sleep(Duration::from_secs(1)).await;
    leader
}

/// Three nodes, and the disk of each, in the order of their numbers.
fn on_disks() -> (Cluster, Vec<Arc<MemoryDisk>>) {
    let disks: Vec<Arc<MemoryDisk>> = (0..3).map(|_| Arc::default()).collect();
    let sync_max = Duration::from_millis(1);
    let storage = |disk: &Arc<MemoryDisk>| {
        Box::new(MemoryStorage { disk: disk.clone(), sync_max, lies: false }) as Box<dyn Storage>
    };
    (Cluster::new(disks.iter().map(storage).collect()), disks)
}

/// The first candidate campaigns before the other members exist: it does so again, and not only when an election timeout is over.
#[test]
fn a_new_group_is_led_soon_after_its_last_member_is_created() {
    for seed in 0..20 {
        sim::run(seed, move || async move {
            let cluster = Cluster::in_memory(3, Duration::from_millis(1));
            for node in cluster.nodes() {
                cluster.start(node).await;
                rt::sleep(Duration::from_millis(1 + sim::random_below(60))).await;
            }
            let created = rt::now();
            while cluster.leader().is_none() {
                rt::sleep(Duration::from_millis(5)).await;
            }
            let took = rt::now().since(created);
            assert!(took < SOON, "seed {seed}: led after {took:?}");
            let term =
                cluster.leader().and_then(|leader| cluster.handle(leader)).map(|group| group.role().borrow().term);
            assert_eq!(term, Some(Term(2)), "seed {seed}: members that do not exist yet grant no pre-vote");
        });
    }
}

fn led_by_another(cluster: &Cluster, than: SimNode) -> Option<SimNode> {
    let leads = |node: &SimNode| cluster.handle(*node).is_some_and(|group| group.role().borrow().ready);
    cluster.nodes().into_iter().filter(|node| *node != than).find(leads)
}

fn replica_of(node: SimNode) -> ReplicaId {
    ReplicaId(u64::from(node.0))
}

/// Every running node suspects the process of one.
fn all_suspect(cluster: &Cluster, dead: SimNode) {
    for node in cluster.nodes().into_iter().filter(|node| cluster.is_up(*node)) {
        let host = cluster.host(node);
        sim::spawn_on(node, async move { host.suspect(move |replica| replica == replica_of(dead), ready(true)) });
    }
}

/// All nodes suspect a node that has just died; returns how long it takes until another one leads.
async fn time_to_failover(cluster: &Cluster, dead: SimNode) -> Duration {
    let died = rt::now();
    all_suspect(cluster, dead);
    while cluster.leader().is_none_or(|leader| leader == dead) {
        rt::sleep(Duration::from_millis(5)).await;
    }
    rt::now().since(died)
}

#[test]
fn the_group_of_a_dead_process_is_led_again_before_its_lease_is_over() {
    for seed in 1..20 {
        sim::run(seed, move || async move {
            let (cluster, dead) = led(if seed % 2 == 0 { 3 } else { 5 }).await;
            cluster.crash(dead);
            let waited = time_to_failover(&cluster, dead).await;
            assert!(waited < SOON, "seed {seed}: {waited:?}");
            assert!(cluster.propose(cluster.leader().unwrap(), Bytes::from_static(b"2")).await);
        });
    }
}

/// A candidate that loses keeps the others from being elected in the same term.
#[test]
fn a_voter_that_lacks_entries_campaigns_last() {
    for seed in 1..30 {
        sim::run(seed, move || async move {
            let (cluster, dead) = led(if seed % 2 == 0 { 3 } else { 5 }).await;
            let left: Vec<_> = cluster.nodes().into_iter().filter(|node| *node != dead).collect();
            let behind = left[usize::try_from(seed).unwrap() % left.len()];
            cluster.network.cut(dead, behind);
            for _ in 0..5 {
                assert!(cluster.propose(dead, Bytes::from_static(b"2")).await);
            }
            cluster.crash(dead);
            let waited = time_to_failover(&cluster, dead).await;
            assert!(waited < SOON, "seed {seed}: {waited:?}");
            assert_ne!(cluster.leader(), Some(behind));
        });
    }
}

#[test]
fn a_false_suspicion_does_no_harm() {
    for seed in 1..20 {
        sim::run(seed, move || async move {
            let (cluster, suspected) = led(3).await;
            all_suspect(&cluster, suspected);
            rt::sleep(SOON).await;
            let leader = cluster.leader().expect("a replica leads");
            assert!(cluster.propose(leader, Bytes::from_static(b"2")).await);
        });
    }
}

#[test]
fn a_learner_never_campaigns() {
    for seed in 1..20 {
        sim::run(seed, move || async move {
            let mut cluster = Cluster::in_memory(4, Duration::from_millis(1));
            cluster.founders = 3;
            let leader = lead(&cluster).await;
            let learner = SimNode(4);
            let (voters, learners) = ((1..4).map(ReplicaId).collect(), [replica_of(learner)].into());
            let handle = cluster.handle(leader).unwrap();
            let reached = sim::spawn_on(leader, async move {
                while !matches!(handle.advance_membership(&voters, &learners).await, Ok(MembershipStep::Reached)) {
                    rt::sleep(Duration::from_millis(20)).await;
                }
            });
            reached.await.unwrap();
            rt::sleep(Duration::from_secs(1)).await;
            // No other replica is left to be elected, and one message would be enough to raise the term.
            cluster.nodes().into_iter().filter(|node| *node != learner).for_each(|node| cluster.crash(node));
            let handle = cluster.handle(learner).unwrap();
            let before = handle.role().borrow().term;
            all_suspect(&cluster, leader);
            rt::sleep(Duration::from_secs(3)).await;
            assert_eq!(handle.role().borrow().term, before, "seed {seed}");
        });
    }
}

/// A connection was closed and the port is still open: meanwhile the role names no leader, then it does again.
#[test]
fn a_suspected_leader_is_not_named_until_its_death_is_confirmed_or_refuted() {
    for seed in 1..20 {
        sim::run(seed, move || async move {
            let (cluster, leader) = led(3).await;
            let follower = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
            let (host, handle) = (cluster.host(follower), cluster.handle(follower).unwrap());
            for has_died in [false, true] {
                let (known, confirmed) = tokio::sync::oneshot::channel();
                let (host, handle) = (host.clone(), handle.clone());
                sim::spawn_on(follower, async move {
                    let (before, seen) = (*handle.role().borrow(), host.clone());
                    host.suspect(move |replica| replica == replica_of(leader), async { confirmed.await.unwrap() });
                    let mut role = handle.role();
                    drop(role.wait_for(|role| role.leader.is_none()).await.unwrap());
                    rt::sleep(SOON).await;
                    assert_eq!(
                        (role.borrow().leader, role.borrow().term),
                        (None, before.term),
                        "no replica campaigns yet"
                    );
                    assert!(seen.is_suspected(replica_of(leader)) && !seen.is_suspected(replica_of(follower)));
                    known.send(has_died).unwrap();
                    let named = *role.wait_for(|role| role.leader.is_some()).await.unwrap();
                    assert_eq!(named.term > before.term, has_died, "seed {seed}: {named:?}");
                    rt::sleep(Duration::from_secs(2)).await;
                    assert!(!seen.is_suspected(replica_of(leader)));
                })
                .await
                .unwrap();
            }
        });
    }
}

#[test]
fn a_node_that_stops_transfers_leadership_first() {
    for seed in 1..20 {
        sim::run(seed, move || async move {
            let (cluster, old) = led(3).await;
            let (host, began) = (cluster.host(old), rt::now());
            let mut role = cluster.handle(old).unwrap().role();
            let before = *role.borrow();
            let handing_over =
                sim::spawn_on(old, async move { host.transfer_leaderships(Duration::from_secs(3)).await });
            // A client that asks meanwhile is not sent to the node that stops.
            let meanwhile = *role.wait_for(|role| role.leader != before.leader).await.unwrap();
            assert_eq!((meanwhile.leader, meanwhile.term), (None, before.term));
            handing_over.await.unwrap();
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

/// It would wait as long as for one that might still take over.
#[test]
fn the_last_node_that_stops_does_not_wait_for_those_that_have_stopped() {
    for seed in 1..20 {
        sim::run(seed, move || async move {
            let (cluster, last) = led(3).await;
            for node in cluster.nodes().into_iter().filter(|node| *node != last) {
                cluster.crash(node);
                // The process is gone, its machine is not: connections are refused.
                cluster.network.machines.power_on(node);
            }
            let (host, began) = (cluster.host(last), rt::now());
            let transfer = async move { host.transfer_leaderships(Duration::from_secs(3)).await };
            sim::spawn_on(last, transfer).await.unwrap();
            let waited = rt::now().since(began);
            assert!(waited < SOON, "seed {seed}: {waited:?}");
        });
    }
}

#[test]
fn what_is_in_flight_is_answered_before_leadership_is_transferred() {
    for seed in 1..20 {
        sim::run(seed, move || async move {
            let (cluster, old) = led(3).await;
            let (host, handle) = (cluster.host(old), cluster.handle(old).unwrap());
            let asked = sim::spawn_on(old, async move {
                let mut pending = Vec::new();
                for _ in 0..20 {
                    let proposal =
                        Proposal { payload: Bytes::from_static(b"2"), batches: Batches::default(), clock_ms: 0 };
                    pending.push(handle.submit(proposal).await.unwrap());
                }
                host.transfer_leaderships(Duration::from_secs(3)).await;
                join_all(pending.into_iter().map(Pending::applied)).await
            });
            for applied in asked.await.unwrap() {
                assert!(applied.is_ok(), "seed {seed}: {applied:?}");
            }
            assert_ne!(cluster.leader(), Some(old));
        });
    }
}

/// Another replica leads long before the election timeout alone would have allowed it.
#[test]
fn a_leader_that_falls_silent_is_replaced() {
    for seed in 1..30 {
        sim::run(seed, move || async move {
            let (cluster, silent) = led(if seed % 2 == 0 { 3 } else { 5 }).await;
            for node in cluster.nodes().into_iter().filter(|node| *node != silent) {
                cluster.network.cut(silent, node);
                if seed % 3 == 0 {
                    cluster.network.cut(node, silent);
                }
            }
            let began = rt::now();
            let successor = loop {
                if let Some(successor) = led_by_another(&cluster, silent) {
                    break successor;
                }
                rt::sleep(Duration::from_millis(5)).await;
            };
            let waited = rt::now().since(began);
            assert!(waited < Duration::from_millis(2_000), "seed {seed}: {waited:?}");
            assert!(cluster.propose(successor, Bytes::from_static(b"2")).await);
            // A client that still reaches the old leader is not kept waiting.
            rt::sleep(Duration::from_millis(2_500).saturating_sub(waited)).await;
            let role = *cluster.handle(silent).unwrap().role().borrow();
            assert!(!role.ready && role.leader != Some(replica_of(silent)), "seed {seed}: {role:?}");
            cluster.network.heal();
            rt::sleep(Duration::from_secs(2)).await;
            assert!(cluster.propose(cluster.leader().unwrap(), Bytes::from_static(b"3")).await);
        });
    }
}

/// Its heartbeats would keep the others from electing, and it does not serve.
#[test]
fn a_leader_that_receives_nothing_is_replaced() {
    for seed in 1..30 {
        sim::run(seed, move || async move {
            let (cluster, deaf) = led(if seed % 2 == 0 { 3 } else { 5 }).await;
            let others = cluster.nodes().into_iter().filter(|node| *node != deaf);
            others.for_each(|node| cluster.network.cut(node, deaf));
            let began = rt::now();
            let successor = loop {
                if let Some(successor) = led_by_another(&cluster, deaf) {
                    break successor;
                }
                rt::sleep(Duration::from_millis(5)).await;
                let waited = rt::now().since(began);
                assert!(waited < Duration::from_secs(4), "seed {seed}: no other leader after {waited:?}");
            };
            for round in 0..20 {
                assert!(cluster.propose(successor, Bytes::from_static(b"2")).await, "seed {seed}, round {round}");
                rt::sleep(Duration::from_millis(500)).await;
                assert_eq!(
                    led_by_another(&cluster, deaf),
                    Some(successor),
                    "seed {seed}, round {round}: the deaf one disturbs"
                );
            }
            cluster.network.heal();
            rt::sleep(Duration::from_secs(2)).await;
            assert!(cluster.propose(cluster.leader().unwrap(), Bytes::from_static(b"3")).await);
        });
    }
}

#[test]
fn a_follower_cut_off_from_its_leader_alone_does_not_replace_it() {
    for seed in 1..30 {
        sim::run(seed, move || async move {
            let (cluster, leader) = led(3).await;
            let deaf = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
            cluster.network.cut(leader, deaf);
            if seed % 2 == 0 {
                cluster.network.cut(deaf, leader);
            }
            for round in 0..40 {
                rt::sleep(Duration::from_millis(500)).await;
                assert_eq!(cluster.leader(), Some(leader), "seed {seed}, round {round}");
                assert!(cluster.propose(leader, Bytes::from_static(b"2")).await);
            }
        });
    }
}

#[test]
fn a_leader_whose_disk_hangs_transfers_leadership() {
    for seed in 1..20 {
        sim::run(seed, || async {
            let (cluster, disks) = on_disks();
            let hung = lead(&cluster).await;
            *disks[usize::try_from(hung.0).unwrap() - 1].hangs.lock() = true;
            let began = rt::now();
            let successor = loop {
                if let Some(successor) = led_by_another(&cluster, hung) {
                    break successor;
                }
                // An entry waits for the disk.
                let cluster = cluster.clone();
                sim::spawn_on(hung, async move { cluster.propose(hung, Bytes::from_static(b"2")).await });
                rt::sleep(Duration::from_millis(100)).await;
                assert!(rt::now().since(began) < Duration::from_secs(5));
            };
            assert!(cluster.propose(successor, Bytes::from_static(b"3")).await);
        });
    }
}

/// openraft answers a heartbeat when all that came before it is durable. A leader whose followers' disks stall is as slow as
/// they are, and no client is to look for another one, which does not exist.
#[test]
fn a_leader_serves_while_the_disks_of_its_followers_stall() {
    for seed in 1..20 {
        sim::run(seed, move || async move {
            let (cluster, disks) = on_disks();
            let leader = lead(&cluster).await;
            let role = cluster.handle(leader).unwrap().role();
            let term = role.borrow().term;
            let stall = |stalls: bool| {
                let others = cluster.nodes().into_iter().filter(|node| *node != leader);
                others.for_each(|node| *disks[usize::try_from(node.0).unwrap() - 1].hangs.lock() = stalls);
            };
            stall(true);
            let pending = cluster.clone();
            let proposed =
                sim::spawn_on(leader, async move { pending.propose(leader, Bytes::from_static(b"2")).await });
            let began = rt::now();
            while rt::now().since(began) < Duration::from_secs(8) {
                rt::sleep(Duration::from_millis(20)).await;
                let now = *role.borrow();
                assert!(now.ready && now.term == term, "seed {seed}, after {:?}: {now:?}", rt::now().since(began));
            }
            stall(false);
            drop(proposed.await);
            assert!(cluster.propose(leader, Bytes::from_static(b"3")).await);
            assert_eq!(role.borrow().term, term, "seed {seed}");
        });
    }
}

/// Found by the simulation (seed 110570): the leader counts what a follower says of a snapshot as synced there. A follower applies what
/// others have committed before its own disk has it.
#[test]
fn a_follower_has_a_snapshot_only_when_its_disk_has_what_is_in_it() {
    sim::run(1, || async {
        let (cluster, disks) = on_disks();
        let leader = lead(&cluster).await;
        let follower = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
        let stall = |stalls: bool| *disks[usize::try_from(follower.0).unwrap() - 1].hangs.lock() = stalls;
        stall(true);
        assert!(cluster.propose(leader, Bytes::from_static(b"2")).await);
        let (of_leader, of_follower) = (cluster.handle(leader).unwrap(), cluster.handle(follower).unwrap());
        let last = of_leader.applied().unwrap();
        let mut applied = of_follower.watch_applied();
        drop(applied.wait_for(|applied| *applied >= Some(last)).await.unwrap());
        let vote = of_leader.0.log.vote().unwrap();
        let has_it = || match of_follower.0.install_snapshot(of_leader.0.replica, vote, last) {
            Message::InstallSnapshotResponse { done } => done,
            other => panic!("{other:?}"),
        };
        assert!(!has_it(), "it is applied there, and not durable");
        assert!(of_follower.0.snapshot_download.begin(), "what is applied is not fetched");
        of_follower.0.snapshot_download.end();
        stall(false);
        while !has_it() {
            rt::sleep(Duration::from_millis(10)).await;
        }
    });
}

/// What was proposed before the leader was cut off is applied before it serves again: a client that gave up waiting
/// reads the result.
#[test]
fn a_leader_that_regains_its_quorum_applies_its_log_before_it_serves() {
    for seed in 1..30 {
        sim::run(seed, move || async move {
            let (cluster, leader) = led(3).await;
            let others: Vec<_> = cluster.nodes().into_iter().filter(|node| *node != leader).collect();
            let handle = cluster.handle(leader).unwrap();
            // The leader receives nothing from its followers, and they receive nothing from each other: no other leader
            // is elected.
            others.iter().for_each(|node| cluster.network.cut(*node, leader));
            cluster.network.cut(others[0], others[1]);
            cluster.network.cut(others[1], others[0]);
            let pending = cluster.clone();
            let sent = Bytes::from_static(b"2");
            let proposed = sim::spawn_on(leader, async move { pending.propose(leader, sent).await });
            let mut role = handle.role();
            drop(role.wait_for(|role| !role.ready).await.unwrap());
            let logged = handle.0.log.last_log_id();
            others.iter().for_each(|node| cluster.network.restore(*node, leader));
            let applied = {
                let now = *role.wait_for(|role| role.ready || role.stopped).await.unwrap();
                assert!(now.ready, "seed {seed}: {now:?}");
                handle.applied()
            };
            assert!(applied >= logged, "seed {seed}: {applied:?} of {logged:?}");
            drop(proposed.await);
        });
    }
}
