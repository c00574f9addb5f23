//! The log's assertions fire before anything wrong is written, and end the log, not a thread alone.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use ottla_protocol::ids::PartitionId;
use uuid::Uuid;

use super::frame::{Kind, RawFrame, Stamp, encode};
use super::replica::{ReplicaState, Slot};
use super::*;
use crate::entry::{Batches, Entry, EntryBatch, EntryKind};
use crate::ids::{LogId, RaftIndex, Term};
use ottla_env::sim;
use ottla_env::sim::disk::{SimDisk, SimDiskOptions};

const R: ReplicaId = ReplicaId(7);

#[test]
fn a_frame_out_of_turn_ends_the_log_before_it_is_written() {
    sim::run(1, || async {
        let (disk, dir): (Arc<dyn Disk>, _) =
            (Arc::new(SimDisk::new(1, SimDiskOptions::default())), Path::new("/data/log"));
        let options = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
        let (log, _) = Log::open(disk.clone(), dir, options.clone(), Vec::new(), &mut NoSink).await.unwrap();
        let creation = GroupCreation { replica: R, payload: Bytes::new(), vote: None, purged: None };
        let replica = log.create_group(creation).await.unwrap();
        let (sender, receiver) = oneshot::channel();
        let queued = Queued::new(replica.replica(), 3, RawFrame::empty(Kind::Vote), Done::Place(Some(sender)));
        drop(log.inner.shared.queue.push(vec![queued]).map_err(|(failure, _)| failure).unwrap());
        assert!(receiver.await.unwrap().is_err(), "it is answered");
        rt::sleep(std::time::Duration::from_secs(1)).await;
        let failure = log.inner.shared.queue.failure().unwrap();
        assert!(failure.message.contains("replica 7: frame 3 is queued after frame 1"), "{}", failure.message);
        assert_eq!(sim::take_panics().len(), 1);
        drop((replica, log));
        let (log, recovered) = Log::open(disk, dir, options, Vec::new(), &mut NoSink).await.unwrap();
        assert_eq!(recovered.iter().map(|found| (found.id, found.sequence)).collect::<Vec<_>>(), [(R, 1)]);
        log.close().await.unwrap();
    });
}

#[test]
#[should_panic(expected = "replica 7, frame 5: a batch of")]
fn a_batch_without_a_header_is_never_framed() {
    let partition = PartitionId { topic: Uuid::from_u128(1), index: 0 };
    let batches = Batches::from(vec![EntryBatch { partition, data: Bytes::from_static(&[0; 60]) }]);
    let stamp = Stamp { incarnation: 1, replica: R, sequence: 5, durable_upto: 0 };
    encode(&mut Vec::new(), stamp, &RawFrame { batches, ..RawFrame::empty(Kind::Entry) });
}

fn state() -> ReplicaState {
    Replica::new(R, Bytes::new()).state.into_inner()
}

fn slot(sequence: u64) -> Slot {
    Slot { term: Term(1), sequence, place: None, cached: None, bytes: 0, moving: false }
}

/// A durable entry of some hundred bytes.
fn placed(sequence: u64) -> Slot {
    let place = EntryPlace { position: LogPosition { segment: 1, byte: 4096 }, frame_bytes: 400, commit_byte: 4096 };
    let log_id = LogId { term: Term(1), index: RaftIndex(sequence) };
    let payload = Bytes::from_static(&[0; 300]);
    let entry = Entry { log_id, kind: EntryKind::Normal, payload, batches: Batches::default(), clock_ms: 0 };
    Slot { place: Some(place), cached: Some(entry), bytes: 400, ..slot(sequence) }
}

#[test]
fn what_is_not_durable_does_not_drive_durable_entries_out_of_the_cache() {
    let replica = Arc::new(Replica::new(R, Bytes::new()));
    let cache = cache::Cache::new(1_000);
    let durable = |sequence: u64| {
        replica.state.lock().push(sequence, placed(sequence));
        cache.added(400);
        cache.evictable(Arc::downgrade(&replica), RaftIndex(sequence), sequence, 400);
    };
    let is_cached = |index| replica.state.lock().slot(RaftIndex(index)).is_some_and(|slot| slot.cached.is_some());
    cache.added(1 << 20);
    (1..=2).for_each(durable);
    assert!(is_cached(1) && is_cached(2), "a MiB is queued for the disk");
    durable(3);
    assert!(!is_cached(1) && is_cached(2) && is_cached(3), "the oldest one goes");
}

#[test]
#[should_panic(expected = "frame 3: entry 9 after 5 before 6")]
fn an_entry_behind_a_gap_is_never_listed() {
    let mut state = state();
    state.push(5, slot(2));
    state.push(9, slot(3));
}

#[test]
#[should_panic(expected = "frame 2, entry 5: lies at")]
fn an_entry_that_is_not_relocated_has_one_place() {
    let mut state = state();
    state.push(5, slot(2));
    let place = |byte| EntryPlace { position: LogPosition { segment: 1, byte }, frame_bytes: 80, commit_byte: 0 };
    assert!(state.placed(RaftIndex(5), 2, place(4096)));
    state.placed(RaftIndex(5), 2, place(8192));
}

#[test]
fn an_entry_that_is_relocated_does_not_count_towards_the_cache_once_more() {
    let mut state = state();
    state.push(5, slot(2));
    let place = |byte| EntryPlace { position: LogPosition { segment: 1, byte }, frame_bytes: 80, commit_byte: 0 };
    assert!(state.placed(RaftIndex(5), 2, place(4096)));
    state.may_move(RaftIndex(5), 2, place(4096)).unwrap().moving = true;
    assert!(!state.placed(RaftIndex(5), 2, place(8192)));
    assert_eq!(state.slot(RaftIndex(5)).unwrap().place, Some(place(8192)));
}

#[test]
#[should_panic(expected = "the log was durable up to")]
fn what_is_durable_never_falls() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1, SimDiskOptions::default()));
    let place = |byte| LogPosition { segment: 2, byte };
    let preparation = prepare::Preparation::new(3, std::collections::VecDeque::new());
    let shared = Shared::new(disk, "/data/log".into(), LogOptions::default(), preparation, [place(0); 3]);
    shared.set_durable_upto(place(4096));
    shared.set_durable_upto(place(8));
}

/// The purge horizon: a member that lacks more than that is better served by a snapshot.
#[test]
fn entries_behind_the_horizon_are_those_after_which_more_was_written() {
    sim::run(2, || async {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(2, SimDiskOptions::default()));
        let options = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
        let (log, _) = Log::open(disk, Path::new("/data/log"), options, Vec::new(), &mut NoSink).await.unwrap();
        let creation = GroupCreation { replica: R, payload: Bytes::new(), vote: None, purged: None };
        let replica = log.create_group(creation).await.unwrap();
        for index in 1..=40_u64 {
            let log_id = LogId { term: Term(1), index: RaftIndex(index) };
            let payload = Bytes::from(vec![1; 4_000]);
            let entry = Entry { log_id, kind: EntryKind::Normal, clock_ms: 1, payload, batches: Batches::default() };
            let (sender, receiver) = oneshot::channel();
            replica.append(vec![entry], Box::new(move |outcome| drop(sender.send(outcome))));
            receiver.await.unwrap().unwrap();
        }
        let behind = |bytes| replica.behind(bytes).map_or(0, |id| id.index.0);
        let found = [0, 40_000, 80_000, 120_000].map(behind);
        // Each is a commit of two pages.
        assert_eq!(found, [40, 35, 30, 25]);
        assert_eq!(replica.behind(1 << 30), None);
        log.close().await.unwrap();
    });
}
