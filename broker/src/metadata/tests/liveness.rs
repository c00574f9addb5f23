//! Liveness: sessions, which transitions are recorded, and nodes that crash, stop and restart over a simulated network.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ottla_env::rt::{self, Instant};
use ottla_env::sim;
use ottla_protocol::ids::NodeId;
use ottla_raft::{Faults, RaftHost};
use ottla_storage::ids::RaftIndex;

use crate::config::Config;
use crate::metadata::command::{Command, encode};
use crate::metadata::fencing::decide;
use crate::metadata::liveness::{FenceReason, Liveness, LivenessChange};
use crate::metadata::records::Record;
use crate::metadata::sessions::{Heartbeat, Sessions};
use crate::metadata::state_machine::MetadataStateMachine;
use crate::metadata::tests::cluster::{Cluster, NODES, PATIENCE, machine_of, shut_down};
use crate::metadata::tests::placement::{apply, cluster, node};
use crate::metadata::*;

const TIMEOUT: Duration = Duration::from_secs(9);
const BOTH: Levels = Levels { oldest: FeatureLevel(1), newest: FeatureLevel(2) };
const EXPIRED: Option<FenceReason> = Some(FenceReason::SessionExpired);
const STOPPED: Option<FenceReason> = Some(FenceReason::Stopped);
const STARTING: Option<FenceReason> = Some(FenceReason::Starting);

/// Nodes 1 to 3 at this level; their registration has index 1.
fn three_at(level: i16) -> MetadataStateMachine {
    let mut machine = cluster((1..=3).map(|id| NodeRecord { levels: BOTH, ..node(id, None, &[100]) }).collect());
    apply(&mut machine, &[Command::SetFeatureLevel { level: FeatureLevel(level) }]);
    machine
}

fn at(seconds: u64) -> (Instant, i64) {
    let since = Duration::from_secs(seconds);
    (Instant(i64::try_from(since.as_nanos()).unwrap()), i64::try_from(since.as_millis()).unwrap())
}

fn change(id: i32, fenced: Option<FenceReason>, seconds: u64) -> LivenessChange {
    let to = Liveness { fenced, since_ms: at(seconds).1 };
    LivenessChange { node: NodeId(id), epoch: RaftIndex(1), to }
}

fn set(machine: &mut MetadataStateMachine, id: i32, fenced: Option<FenceReason>) {
    apply(machine, &[Command::SetNodeLiveness { node: NodeId(id), liveness: Liveness { fenced, since_ms: 5 } }]);
}

fn beat(id: i32, epoch: u64) -> Heartbeat {
    Heartbeat { node: NodeId(id), epoch: RaftIndex(epoch) }
}

fn of(machine: &MetadataStateMachine, id: i32) -> Option<FenceReason> {
    machine.image().nodes[&NodeId(id)].liveness.fenced
}

#[test]
fn a_node_is_fenced_when_its_session_expires_and_comes_back_with_its_heartbeat() {
    let (mut machine, mut sessions) = (three_at(2), Sessions::default());
    assert_eq!(sessions.due(4, machine.image(), TIMEOUT, at(100)), [], "all are granted a session");
    let mut due = Vec::new();
    for second in 101..=109 {
        (1..3).for_each(|id| sessions.record_heartbeat(beat(id, 1), at(second).0));
        due = sessions.due(4, machine.image(), TIMEOUT, at(second));
        assert_eq!(due.is_empty(), second < 109, "{second} s: {due:?}");
    }
    assert_eq!(due, [change(3, EXPIRED, 109)]);
    assert_eq!(sessions.due(4, machine.image(), TIMEOUT, at(109)), due, "until it is recorded");
    set(&mut machine, 3, EXPIRED);
    assert_eq!(sessions.due(4, machine.image(), TIMEOUT, at(110)), []);
    sessions.record_heartbeat(beat(3, 1), at(111).0);
    assert_eq!(sessions.due(4, machine.image(), TIMEOUT, at(111)), [change(3, None, 111)]);
}

#[test]
fn a_new_leader_and_one_that_was_paused_grant_a_full_session() {
    let (machine, mut sessions) = (three_at(2), Sessions::default());
    assert_eq!(sessions.due(4, machine.image(), TIMEOUT, at(100)), []);
    assert_eq!(sessions.due(4, machine.image(), TIMEOUT, at(104)), []);
    assert_eq!(sessions.due(5, machine.image(), TIMEOUT, at(108)), [], "another term");
    for second in [112, 116] {
        assert_eq!(sessions.due(5, machine.image(), TIMEOUT, at(second)), []);
    }
    assert_eq!(sessions.due(5, machine.image(), TIMEOUT, at(200)), [], "it stood still, and heard nothing");
    sessions.resign();
    assert_eq!(sessions.due(5, machine.image(), TIMEOUT, at(203)), [], "it did not lead meanwhile");
    for second in [207, 211] {
        assert_eq!(sessions.due(5, machine.image(), TIMEOUT, at(second)), []);
    }
    assert_eq!(sessions.due(5, machine.image(), TIMEOUT, at(212)).len(), 3);
}

#[test]
fn heartbeats_of_an_earlier_registration_are_ignored() {
    let (mut machine, mut sessions) = (three_at(2), Sessions::default());
    sessions.due(4, machine.image(), TIMEOUT, at(100));
    sessions.record_heartbeat(beat(3, 1), at(100).0);
    set(&mut machine, 3, STOPPED);
    sessions.record_heartbeat(beat(3, 1), at(101).0);
    assert_eq!(sessions.due(4, machine.image(), TIMEOUT, at(101)), [], "it has said that it stops");
    // It is registered again, and does not serve yet.
    apply(&mut machine, &[Command::RegisterNode(NodeRecord { levels: BOTH, ..node(3, None, &[100]) })]);
    let epoch = machine.image().nodes[&NodeId(3)].epoch;
    assert_eq!(of(&machine, 3), STARTING);
    assert_eq!(sessions.due(4, machine.image(), TIMEOUT, at(102)), []);
    sessions.record_heartbeat(beat(3, 1), at(102).0);
    assert_eq!(sessions.due(4, machine.image(), TIMEOUT, at(103)), [], "sent by the process before");
    sessions.record_heartbeat(beat(3, epoch.0), at(103).0);
    sessions.record_heartbeat(beat(3, 1), at(103).0);
    let back = LivenessChange { epoch, ..change(3, None, 103) };
    assert_eq!(sessions.due(4, machine.image(), TIMEOUT, at(103)), [back]);
}

#[test]
fn only_transitions_are_recorded_and_the_last_node_stays() {
    let mut machine = three_at(2);
    let decided =
        |machine: &MetadataStateMachine, id, fenced| decide(machine.image(), &change(id, fenced, 1)).is_some();
    assert!(!decided(&machine, 1, None) && !decided(&machine, 1, STARTING) && !decided(&machine, 9, EXPIRED));
    assert!(decided(&machine, 1, EXPIRED) && decided(&machine, 1, STOPPED));
    let stale = LivenessChange { epoch: RaftIndex(0), ..change(1, EXPIRED, 1) };
    assert!(decide(machine.image(), &stale).is_none(), "about an earlier process");
    set(&mut machine, 1, EXPIRED);
    assert!(decided(&machine, 1, None) && decided(&machine, 1, STOPPED) && !decided(&machine, 1, EXPIRED));
    set(&mut machine, 2, STOPPED);
    assert!(!decided(&machine, 2, None) && !decided(&machine, 2, EXPIRED) && !decided(&machine, 2, STOPPED));
    assert!(!decided(&machine, 3, EXPIRED) && !decided(&machine, 3, STOPPED), "no other node is left");
    let old = three_at(1);
    assert!(!decided(&old, 1, EXPIRED) && !decided(&old, 1, STOPPED), "a node of 0.4.0 could not read it");
}

#[test]
fn a_node_that_joins_begins_fenced_and_one_that_starts_again_keeps_its_session() {
    let mut machine = three_at(2);
    apply(&mut machine, &[Command::RegisterNode(NodeRecord { levels: BOTH, ..node(4, None, &[100]) })]);
    apply(&mut machine, &[Command::RegisterNode(NodeRecord { levels: BOTH, ..node(1, None, &[100]) })]);
    assert_eq!((of(&machine, 4), of(&machine, 1)), (STARTING, None));
    let mut old = three_at(1);
    apply(&mut old, &[Command::RegisterNode(NodeRecord { levels: BOTH, ..node(4, None, &[100]) })]);
    assert_eq!(of(&old, 4), None);
}

#[test]
fn the_records_come_back_and_those_before_them_are_read() {
    let mut machine = three_at(2);
    set(&mut machine, 3, STOPPED);
    let restored =
        MetadataStateMachine::restore(Arc::new(Config::default()), machine.image().index, &machine.all_records())
            .unwrap();
    assert_eq!(
        (restored.image().nodes.clone(), restored.checksum()),
        (machine.image().nodes.clone(), machine.checksum())
    );
    // With default liveness a node's record is as 0.4.0 wrote it; and the records of 0.4.0 are read.
    let unfenced = machine.image().nodes[&NodeId(1)].clone();
    let fenced = NodeRecord { liveness: Liveness { fenced: EXPIRED, since_ms: 258 }, ..unfenced.clone() };
    let (before, after) = (Record::Node(unfenced).value(), Record::Node(fenced.clone()).value());
    assert_eq!(after, [&before[..], &[1, 2, 1, 0, 0, 0, 0, 0, 0]].concat());
    assert_eq!(Record::decode(&Record::Node(fenced.clone()).key(), &after), Ok(Record::Node(fenced)));
    let command = Command::SetNodeLiveness { node: NodeId(3), liveness: Liveness { fenced: STOPPED, since_ms: 258 } };
    let bytes = encode(RaftIndex(0), &[command]);
    assert_eq!(bytes[9..], [1, 17, 3, 0, 0, 0, 2, 2, 1, 0, 0, 0, 0, 0, 0]);
}

/// Waits until the images of all these nodes have this liveness of `id`.
async fn known(all: &[&(MetadataHandle, RaftHost)], id: NodeId, wait: Duration, fenced: Option<FenceReason>) -> bool {
    let is_so = |image: &Arc<MetadataImage>| image.nodes.get(&id).is_some_and(|node| node.liveness.fenced == fenced);
    let waits = all.iter().map(|(metadata, _)| {
        let mut images = metadata.watch();
        async move { matches!(rt::timeout(wait, images.wait_for(is_so)).await, Ok(Ok(_))) }
    });
    join_all(waits).await.into_iter().all(|known| known)
}

/// Makes these nodes serve: their processes send heartbeats.
async fn serve(nodes: &[(MetadataHandle, RaftHost)]) {
    for (metadata, _) in nodes {
        let (metadata, machine) = (metadata.clone(), machine_of(metadata.node_id()));
        sim::spawn_on(machine, async move { metadata.start_heartbeats() }).await.unwrap();
    }
}

fn leads(node: &(MetadataHandle, RaftHost)) -> bool {
    node.0.group().role().borrow().ready
}

#[test]
fn whichever_node_dies_is_fenced_in_time_and_comes_back_by_itself() {
    sim::run_twice(5, || async {
        let mut cluster = Cluster::default();
        let mut all = cluster.start_all().await;
        serve(&all).await;
        for dead in 0..NODES.len() {
            let (id, was_leader) = (NODES[dead], leads(&all[dead]));
            sim::crash(machine_of(id));
            cluster.network.detach(machine_of(id));
            let others: Vec<_> = all.iter().enumerate().filter(|(at, _)| *at != dead).map(|(_, node)| node).collect();
            let died = rt::now();
            assert!(known(&others, id, TIMEOUT + PATIENCE, EXPIRED).await, "node {} (leader: {was_leader})", id.0);
            assert!(rt::now().since(died) >= TIMEOUT - Duration::from_secs(2), "a session is given its time");
            assert!(
                others
                    .iter()
                    .all(|(metadata, _)| NODES.iter().all(|node| *node == id || !metadata.image().is_fenced(*node)))
            );
            let back = cluster.start(id).await;
            assert!(known(&[&back], id, PATIENCE, STARTING).await, "it does not serve yet");
            all[dead] = back;
            serve(&all[dead..=dead]).await;
            assert!(known(&all.iter().collect::<Vec<_>>(), id, PATIENCE, None).await);
        }
        shut_down(&all).await;
    });
}

#[test]
fn a_node_that_stops_in_order_is_fenced_at_once_for_as_long_as_it_is_away() {
    sim::run_twice(6, || async {
        let mut cluster = Cluster::default();
        let mut all = cluster.start_all().await;
        serve(&all).await;
        for at in 0..NODES.len() {
            let id = NODES[at];
            all[at].1.transfer_leaderships(PATIENCE).await;
            all[at].0.announce_stop(PATIENCE).await;
            let others: Vec<_> =
                all.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, node)| node).collect();
            assert!(known(&others, id, Duration::from_secs(1), STOPPED).await);
            rt::sleep(3 * TIMEOUT).await;
            assert!(known(&others, id, Duration::from_millis(1), STOPPED).await, "its heartbeats have ended");
            all[at].1.shutdown().await;
            sim::crash(machine_of(id));
            cluster.network.detach(machine_of(id));
            all[at] = cluster.start(id).await;
            serve(&all[at..=at]).await;
            assert!(known(&all.iter().collect::<Vec<_>>(), id, 2 * PATIENCE, None).await);
        }
        shut_down(&all).await;
    });
}

#[test]
fn without_a_majority_nothing_is_fenced_and_afterwards_all_have_a_full_session() {
    // A session may be shorter than the time after which a leader detects that it has no majority.
    [TIMEOUT, Duration::from_secs(1)].into_iter().for_each(nothing_is_fenced_without_a_majority);
}

fn nothing_is_fenced_without_a_majority(session_timeout: Duration) {
    sim::run_twice(7, move || async move {
        let mut cluster = Cluster { session_timeout: Some(session_timeout), ..Cluster::default() };
        let all = cluster.start_all().await;
        serve(&all).await;
        rt::sleep(TIMEOUT).await;
        // Every node is partitioned from every other.
        cluster.network.set_faults(Faults { loss_per_mille: 1_000, ..Faults::default() });
        rt::sleep(4 * TIMEOUT).await;
        let fenced = || all.iter().any(|(metadata, _)| NODES.iter().any(|node| metadata.image().is_fenced(*node)));
        assert!(!fenced());
        cluster.network.set_faults(Faults::default());
        for _ in 0..100 {
            rt::sleep(Duration::from_millis(200)).await;
            assert!(!fenced(), "those that speak again had been heard before they were fenced");
        }
        shut_down(&all).await;
    });
}
