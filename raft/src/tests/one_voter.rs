//! One voter: the situation of every group on a single node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};
use ottla_protocol::ids::PartitionId;
use ottla_storage::data_dir::RecoveredReplica;
use ottla_storage::entry::{Entry, EntryBatch, EntryKind, Vote};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId, Term};

use super::cluster::{Cluster, MemoryStorage, Storage};
use super::ledger::{Ledger, POISON};
use super::memory::{MemoryDirectory, MemoryDisk, Shared};
use crate::directory::Directory;
use crate::error::{ProposeError, RaftError, ReadIndexError};
use crate::handle::GroupHandle;
use crate::membership::Membership;
use crate::net::{Message, MessageHandler};
use crate::proposal::Proposal;

const NODE: SimNode = SimNode(1);

pub(crate) fn proposal(payload: &[u8]) -> Proposal {
    Proposal {
        payload: Bytes::copy_from_slice(payload),
        batches: ottla_storage::entry::Batches::default(),
        clock_ms: 0,
    }
}

async fn ready(handle: &GroupHandle) {
    drop(handle.role().wait_for(|role| role.ready).await.unwrap());
}

async fn started() -> (Cluster, GroupHandle, Arc<MemoryDisk>) {
    let disk = Arc::new(MemoryDisk::default());
    let storage = MemoryStorage { disk: disk.clone(), sync_max: Duration::from_millis(1), lies: false };
    let cluster = Cluster::new(vec![Box::new(storage) as Box<dyn Storage>]);
    cluster.start(NODE).await;
    let handle = cluster.handle(NODE).unwrap();
    (cluster, handle, disk)
}

#[test]
fn a_term_that_no_cluster_reaches_is_not_believed() {
    sim::run_twice(2, || async {
        let (cluster, handle, _) = started().await;
        ready(&handle).await;
        let term = handle.role().borrow().term;
        let host = cluster.host(NODE);
        let far = Vote { term: Term(1 << 30), voted_for: ReplicaId(9), committed: false };
        let request =
            |vote| Message::RequestVote { pre_vote: false, vote, last_log_id: None, leadership_transfer: true };
        let append = Message::AppendEntries { vote: far, prev_log_id: None, entries: Vec::new(), leader_commit: None };
        for message in [request(far), append] {
            let outcome = sim::on_node(NODE, || host.deliver(ReplicaId(9), handle.replica(), message)).await;
            assert!(outcome.is_err_and(|why| why.0.contains("too far ahead")));
        }
        let near = Vote { term: Term(term.0 + 1_000), ..far };
        assert!(host.deliver(ReplicaId(9), handle.replica(), request(near)).await.is_ok());
        assert!(cluster.propose(NODE, Bytes::from_static(b"a")).await);
        assert!(handle.role().borrow().term.0 < 2_000);
    });
}

/// A log that is full to its end has no room for what frees space.
#[test]
fn records_of_a_leader_wait_while_the_disk_is_full_and_commands_do_not() {
    sim::run_twice(3, || async {
        let (cluster, handle, disk) = started().await;
        ready(&handle).await;
        let (host, term) = (cluster.host(NODE), Term(handle.role().borrow().term.0 + 1));
        let vote = Vote { term, voted_for: ReplicaId(9), committed: true };
        let partition = PartitionId { topic: uuid::Uuid::nil(), index: 0 };
        let records = vec![EntryBatch { partition, data: Bytes::from_static(b"records") }];
        let deliver = async |batches: Vec<EntryBatch>| {
            let log_id = LogId { term, index: RaftIndex(100) };
            let prev_log_id = Some(LogId { term, index: RaftIndex(99) });
            let (kind, payload) = (EntryKind::Normal, Bytes::new());
            let entries = vec![Entry { log_id, kind, clock_ms: 0, payload, batches: batches.into() }];
            let append = Message::AppendEntries { vote, prev_log_id, entries, leader_commit: None };
            sim::on_node(NODE, || host.deliver(ReplicaId(9), handle.replica(), append)).await
        };
        *disk.full.lock() = true;
        assert!(deliver(records.clone()).await.is_err_and(|why| why.0.contains("is full")));
        assert!(deliver(Vec::new()).await.is_ok());
        *disk.full.lock() = false;
        assert!(deliver(records).await.is_ok());
    });
}

#[test]
fn a_sole_voter_leads_at_once_also_after_a_crash() {
    sim::run_twice(1, || async {
        let (cluster, handle, _) = started().await;
        ready(&handle).await;
        assert!(sim::elapsed() < Duration::from_millis(100), "no election timer was waited for");
        assert!(cluster.propose(NODE, Bytes::from_static(b"a")).await);
        let term = handle.role().borrow().term;
        cluster.crash(NODE);
        let before = sim::elapsed();
        cluster.start(NODE).await;
        let handle = cluster.handle(NODE).unwrap();
        ready(&handle).await;
        assert!(sim::elapsed() - before < Duration::from_millis(20), "no tick was waited for");
        assert!(handle.role().borrow().term > term, "a leader is never restored from its vote");
        assert_eq!(cluster.entries(NODE).len(), 1);
    });
}

#[test]
fn submitted_proposals_keep_their_order() {
    sim::run_twice(2, || async {
        let (cluster, handle, _) = started().await;
        ready(&handle).await;
        let mut pending = Vec::new();
        for number in 0..100u64 {
            pending.push(handle.submit(proposal(number.to_string().as_bytes())).await.unwrap());
        }
        let mut last = None;
        for pending in pending {
            let proposed = pending.applied().await.unwrap();
            assert!(Some(proposed.log_id) > last);
            last = Some(proposed.log_id);
            assert!(proposed.reply.take::<u64>().is_some());
        }
        let payloads: Vec<Bytes> = cluster.entries(NODE).into_values().map(|(_, payload)| payload).collect();
        assert_eq!(payloads, (0..100u64).map(|n| Bytes::from(n.to_string())).collect::<Vec<_>>());
    });
}

#[test]
fn a_read_index_waits_for_what_was_written_before() {
    sim::run_twice(3, || async {
        let (_cluster, handle, _) = started().await;
        ready(&handle).await;
        let proposed = handle.propose(proposal(b"x")).await.unwrap();
        assert!(handle.read_index().await.unwrap() >= proposed.log_id.index);
        assert_eq!(handle.applied(), Some(proposed.log_id));
    });
}

#[test]
fn an_idle_group_hibernates_and_the_next_request_wakes_it() {
    sim::run_twice(4, || async {
        let (_cluster, handle, _) = started().await;
        ready(&handle).await;
        rt::sleep(Duration::from_secs(60)).await;
        assert!(handle.0.is_hibernating());
        handle.propose(proposal(b"morning")).await.unwrap();
        assert!(!handle.0.is_hibernating());
        rt::sleep(Duration::from_secs(60)).await;
        handle.read_index().await.unwrap();
        assert!(!handle.0.is_hibernating());
    });
}

#[test]
fn a_panic_in_apply_stops_this_replica_and_says_so() {
    sim::run_twice(5, || async {
        let (cluster, handle, _) = started().await;
        ready(&handle).await;
        let refused = handle.propose(proposal(POISON)).await.unwrap_err();
        assert!(matches!(&refused, ProposeError::Stopped(why) if why.contains("poisoned")), "{refused:?}");
        drop(handle.role().wait_for(|role| role.stopped).await.unwrap());
        assert!(matches!(handle.read_index().await, Err(ReadIndexError::Stopped(_))));
        assert!(matches!(handle.propose(proposal(b"y")).await, Err(ProposeError::Stopped(_))));
        let failures = cluster.failures(NODE).borrow().clone();
        assert!(failures.get(&ReplicaId(1)).is_some_and(|failure| !failure.is_damage), "reported to the host");
    });
}

#[test]
fn a_failed_disk_stops_the_replica_and_nothing_is_acknowledged() {
    sim::run_twice(6, || async {
        let (cluster, handle, disk) = started().await;
        ready(&handle).await;
        *disk.broken.lock() = true;
        assert!(handle.propose(proposal(b"lost")).await.is_err());
        drop(handle.role().wait_for(|role| role.stopped).await.unwrap());
        assert!(handle.failure().unwrap().contains("EIO"), "{:?}", handle.failure());
        assert!(cluster.failures(NODE).borrow().contains_key(&ReplicaId(1)));
        assert!(cluster.entries(NODE).is_empty());
    });
}

#[test]
fn a_restart_begins_at_the_checkpoint_and_purges_behind_it() {
    sim::run_twice(7, || async {
        let (cluster, handle, _) = started().await;
        ready(&handle).await;
        for number in 0..50u64 {
            handle.propose(proposal(number.to_string().as_bytes())).await.unwrap();
        }
        // Checkpoints come every second at the latest, and a purge follows them.
        rt::sleep(Duration::from_secs(5)).await;
        let purged = handle.0.applier.snapshot().and_then(|meta| meta.last_log_id).map(|id| RaftIndex(id.index));
        assert_eq!(purged, handle.applied().map(|id| id.index), "everything is in the checkpoint");
        cluster.crash(NODE);
        cluster.start(NODE).await;
        let handle = cluster.handle(NODE).unwrap();
        ready(&handle).await;
        assert_eq!(cluster.entries(NODE).len(), 50);
        assert!(cluster.propose(NODE, Bytes::from_static(b"more")).await);
        assert_eq!(cluster.entries(NODE).len(), 51);
    });
}

#[test]
fn after_shutdown_nothing_is_applied_and_proposals_are_refused() {
    sim::run_twice(8, || async {
        let (cluster, handle, _) = started().await;
        ready(&handle).await;
        handle.propose(proposal(b"a")).await.unwrap();
        handle.shutdown().await;
        assert!(handle.role().borrow().stopped);
        assert!(matches!(handle.propose(proposal(b"b")).await, Err(ProposeError::Stopped(_))));
        assert!(cluster.failures(NODE).borrow().is_empty(), "a stop on request is no failure");
    });
}

#[test]
fn a_replica_that_lost_what_it_acknowledged_is_not_started() {
    sim::run_twice(9, || async {
        let (cluster, handle, disk) = started().await;
        ready(&handle).await;
        cluster.crash(NODE);
        let (directory, mut recovered) = MemoryDirectory::open(disk, Duration::from_millis(1), false);
        recovered[0].lost = Some("a gap".to_owned());
        let host = cluster.new_host(NODE);
        let ledger = Box::new(Ledger::restore(&[], cluster.oracle.clone()));
        let refused = host.open(Arc::new(Shared(directory)), &recovered[0], None, ledger).await.err().unwrap();
        assert!(matches!(&refused, RaftError::Damaged { what, .. } if what.contains("a gap")), "{refused:?}");
    });
}

#[test]
fn damaged_records_that_a_peer_may_count_on_keep_a_replica_out_and_a_sole_voter_goes_on() {
    damaged_records_keep_it_out(|recovered| recovered.damaged_unproven = recovered.last_log_id, false);
}

#[test]
fn damaged_records_that_apply_needs_keep_a_replica_out_that_others_can_rebuild() {
    damaged_records_keep_it_out(|recovered| recovered.damaged.extend(recovered.last_log_id), true);
}

fn damaged_records_keep_it_out(damage: fn(&mut RecoveredReplica), needs_records: bool) {
    sim::run_twice(11, move || async move {
        let (cluster, handle, disk) = started().await;
        ready(&handle).await;
        cluster.crash(NODE);
        let (directory, mut recovered) = MemoryDirectory::open(disk, Duration::from_millis(1), false);
        damage(&mut recovered[0]);
        let directory = Arc::new(Shared(directory));
        let host = cluster.new_host(NODE);
        let ledger = || {
            let mut ledger = Ledger::restore(&[], cluster.oracle.clone());
            ledger.needs_records = needs_records;
            Box::new(ledger)
        };
        let log = directory.replica_log(ReplicaId(1)).unwrap();
        let next = log.last_log_id().unwrap();
        let members = |voters: &[u64]| Membership::of(voters.iter().map(|id| ReplicaId(*id))).encode();
        for (number, (voters, starts)) in [(&[1, 2][..], false), (&[1][..], true)].into_iter().enumerate() {
            let index = RaftIndex(next.index.0 + 1 + number as u64);
            let log_id = LogId { index, ..next };
            let payload = members(voters);
            let entry = Entry {
                log_id,
                kind: EntryKind::Membership,
                clock_ms: 0,
                payload,
                batches: ottla_storage::entry::Batches::default(),
            };
            log.append(vec![entry], Box::new(|synced| synced.unwrap()));
            let opened = host.open(directory.clone(), &recovered[0], None, ledger()).await;
            assert_eq!(opened.is_ok(), starts, "{voters:?}: {:?}", opened.err());
        }
        host.shutdown().await;
    });
}

#[test]
fn a_replica_runs_once() {
    sim::run_twice(10, || async {
        let (cluster, handle, disk) = started().await;
        ready(&handle).await;
        let (directory, _) = MemoryDirectory::open(disk, Duration::from_millis(1), false);
        let ledger = Box::new(Ledger::restore(&[], cluster.oracle.clone()));
        let members = Membership::of([ReplicaId(1)]);
        let host = cluster.new_host(NODE);
        let again = host.create(Arc::new(Shared(directory)), ReplicaId(1), Bytes::new(), members, ledger);
        assert_eq!(again.await.err(), Some(RaftError::Exists(ReplicaId(1))));
    });
}
