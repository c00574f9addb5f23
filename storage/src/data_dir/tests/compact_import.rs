//! Replicas that have compacted a partition differently far (design section 12.4): what one may take of another.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;
use ottla_protocol::ids::Offset;

use super::compact::{Held, held_in};
use super::toy::{Toy, entry, open, options, partition};
use crate::compact::{Pass, PassDone};
use crate::data_dir::{Compaction, CompactionRequest, DataDir, Exported, Import, PassConflict};
use crate::entry::Entry;
use crate::ids::{RaftIndex, ReplicaId};
use crate::read::{ReadRequest, Wanted};
use ottla_env::disk::Disk;
use ottla_env::rt;
use ottla_env::sim;
use ottla_env::sim::disk::{Crash, SimDisk, SimDiskOptions};

const SOURCE: u64 = 2;
const TARGET: u64 = 4;
/// A part of what is exported holds few batches.
const PART_BYTES: usize = 3_000;

/// One record an entry, of one of these keys; every fifth deletes its key.
fn entries(indexes: Range<u64>) -> Vec<Entry> {
    let one = |index: u64| {
        let mut builder = BatchBuilder::new(Codec::None);
        let value = [&[1; 900][..], &index.to_be_bytes()].concat();
        let value = (!index.is_multiple_of(5)).then_some(&value[..]);
        let key = [u8::try_from(index % 11).unwrap(); 2];
        builder.push(&NewRecord { timestamp: index as i64, key: Some(&key), value, headers: &[] });
        entry(1, index, vec![(0, builder.build().unwrap())], "")
    };
    indexes.map(one).collect()
}

struct Replica {
    disk: SimDisk,
    directory: Arc<DataDir>,
    toy: Arc<Toy>,
}

impl Replica {
    async fn new(id: u64) -> Self {
        let disk = SimDisk::new(id, SimDiskOptions::default());
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let (directory, _) = open(&shared, options()).await;
        let toy = Toy::create(&directory, id).await;
        Self { disk, directory, toy }
    }

    async fn write(&self, indexes: Range<u64>) {
        self.toy.write(entries(indexes)).await;
        self.directory.checkpoint_now().await.unwrap();
    }

    fn end(&self) -> Offset {
        Offset(self.toy.model().partitions[&0].0)
    }

    async fn compact(&self, number: u64, pass: Pass) {
        let (replica, partition) = (self.toy.log.id(), partition(0));
        let decided_at = self.directory.checkpointed(replica).map_or(RaftIndex(0), |last| last.index);
        let request = CompactionRequest { replica, partition, number, pass, decided_at };
        assert_eq!(self.directory.compact(&request).await.unwrap(), Compaction::Done);
    }

    async fn export(&self, from: Offset, up_to: Offset) -> Exported {
        let key = self.toy.key(0);
        let request = ReadRequest { key, from, up_to, bytes_max: PART_BYTES, at_least_one: true, wanted: Wanted::All };
        self.directory.export(request).await.unwrap()
    }

    fn pass_done(&self) -> Option<PassDone> {
        self.directory.pass_done(self.toy.log.id(), partition(0))
    }

    async fn records(&self, end: Offset) -> BTreeMap<i64, Held> {
        let (mut at, mut all) = (Offset(0), BTreeMap::new());
        while at < end {
            let batches = self.export(at, end).await.batches;
            assert!(!batches.is_empty(), "nothing at {at}");
            for batch in batches {
                let header = ottla_protocol::batch::BatchHeader::parse(&batch.data).unwrap();
                assert_eq!(header.base_offset, at, "no gap");
                at = at.plus(header.offset_count());
                all.extend(held_in(header.base_offset.0, &batch.data));
            }
        }
        all
    }

    /// Has the rewriter copy what lies in segments.
    async fn copy_all(&self) {
        let directory = &self.directory;
        let all: Vec<u64> = directory.log.segments().iter().map(|segment| segment.sequence).collect();
        directory.log.end_segment(*all.last().unwrap());
        while !all.iter().all(|segment| directory.index.table.is_indexed(*segment)) {
            directory.maintain_now().await.unwrap();
            rt::sleep(std::time::Duration::from_millis(10)).await;
        }
        let before = directory.stats().rewritten_bytes;
        directory.rewrite(&all.into_iter().collect()).await.unwrap();
        assert!(directory.stats().rewritten_bytes > before);
    }

    async fn reopened(self) -> Self {
        let id = self.toy.log.id();
        let disk = self.disk.image().crash(Crash::Power, 9);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let (directory, recovered) = open(&shared, options()).await;
        let found = recovered.iter().find(|found| found.id == id).unwrap();
        let toy = Toy::recover(&directory, found);
        Self { disk, directory, toy }
    }
}

/// Takes a part of what the source has of the partition, as a group does. False if there is nothing left to take.
async fn take_part(source: &Replica, import: &mut Import, end: Offset) -> Result<bool, PassConflict> {
    let from = import.position(partition(0));
    if from >= end {
        return Ok(false);
    }
    let exported = source.export(from, end).await;
    import.skip_to(partition(0), exported.log_start.min(end));
    import.agree(partition(0), exported.done, end)?;
    for batch in exported.batches {
        import.push(partition(0), batch).await.unwrap();
    }
    Ok(true)
}

async fn take_all(source: &Replica, target: &Replica) -> Result<(), PassConflict> {
    let snapshot = source.directory.snapshot_of(ReplicaId(SOURCE)).await.unwrap().unwrap();
    let mut import = target.directory.begin_import(ReplicaId(TARGET));
    while take_part(source, &mut import, source.end()).await? {}
    import.commit(&snapshot).await.unwrap();
    Ok(())
}

fn pass(horizon: Offset, cutoff: i64) -> Pass {
    Pass { horizon, cutoff: Offset(cutoff) }
}

#[test]
fn a_replica_takes_the_pass_with_the_bytes_and_goes_on_from_there() {
    sim::run(1, || async {
        let (source, target) = (Replica::new(SOURCE).await, Replica::new(TARGET).await);
        source.write(1..40).await;
        let first = pass(source.end(), 0);
        source.compact(1, first).await;
        source.write(40..60).await;
        let end = source.end();
        take_all(&source, &target).await.unwrap();
        let mut target = target;
        for _ in 0..2 {
            assert_eq!(target.pass_done(), Some(PassDone { number: 1, pass: first }));
            assert_eq!(target.records(end).await, source.records(end).await);
            target = target.reopened().await;
        }
        let second = pass(end, first.horizon.0);
        for replica in [&source, &target] {
            replica.compact(2, second).await;
        }
        let kept = source.records(end).await;
        assert!(kept.len() < 15, "{kept:?}");
        assert_eq!(target.records(end).await, kept);
        assert_eq!(target.reopened().await.records(end).await, kept);
    });
}

#[test]
fn a_replica_that_has_all_below_the_horizon_takes_what_follows_and_does_the_pass_itself() {
    sim::run(2, || async {
        let (source, target) = (Replica::new(SOURCE).await, Replica::new(TARGET).await);
        source.write(1..30).await;
        target.write(1..30).await;
        let first = pass(source.end(), 0);
        source.compact(1, first).await;
        source.write(30..50).await;
        let end = source.end();
        take_all(&source, &target).await.unwrap();
        assert_eq!(target.pass_done(), None);
        target.compact(1, first).await;
        assert_eq!(target.records(end).await, source.records(end).await);
    });
}

/// What it has may be a value whose tombstone the source has dropped. Meanwhile the rewriter copies it into runs that are later than
/// the first ones that are imported.
#[test]
fn a_replica_that_ends_below_the_horizon_takes_the_partition_anew() {
    for copied in [false, true] {
        sim::run(3, move || async move {
            let (source, target) = (Replica::new(SOURCE).await, Replica::new(TARGET).await);
            source.write(1..60).await;
            target.write(1..20).await;
            let first = pass(source.end(), 0);
            source.compact(1, first).await;
            source.write(60..70).await;
            let end = source.end();
            let snapshot = source.directory.snapshot_of(ReplicaId(SOURCE)).await.unwrap().unwrap();
            let mut import = target.directory.begin_import(ReplicaId(TARGET));
            assert_eq!(take_part(&source, &mut import, end).await, Err(PassConflict::Anew));
            import.begin_anew(partition(0)).await.unwrap();
            assert_eq!(import.position(partition(0)), Offset(0));
            assert_eq!(take_part(&source, &mut import, end).await, Ok(true));
            import.seal().await.unwrap();
            if copied {
                target.copy_all().await;
            }
            while take_part(&source, &mut import, end).await.unwrap() {}
            import.commit(&snapshot).await.unwrap();
            let mut target = target;
            for _ in 0..2 {
                assert_eq!(target.pass_done(), Some(PassDone { number: 1, pass: first }));
                assert_eq!(target.records(end).await, source.records(end).await);
                target = target.reopened().await;
            }
        });
    }
}

#[test]
fn what_lies_below_a_horizon_comes_from_replicas_that_have_done_one_pass() {
    sim::run(4, || async {
        let (source, target) = (Replica::new(SOURCE).await, Replica::new(TARGET).await);
        source.write(1..60).await;
        let end = source.end();
        source.compact(1, pass(Offset(end.0 / 2), 0)).await;
        let mut import = target.directory.begin_import(ReplicaId(TARGET));
        assert_eq!(take_part(&source, &mut import, end).await, Ok(true));
        let taken = import.position(partition(0));
        assert!(taken < Offset(end.0 / 2), "{taken}");
        let snapshot = source.directory.snapshot_of(ReplicaId(SOURCE)).await.unwrap().unwrap();
        source.compact(2, pass(end, 0)).await;
        assert_eq!(take_part(&source, &mut import, end).await, Err(PassConflict::Anew));
        let state_end = Offset(end.0 - 1);
        assert_eq!(import.agree(partition(0), source.pass_done(), state_end), Err(PassConflict::PeerAhead));
        import.begin_anew(partition(0)).await.unwrap();
        assert_eq!(take_part(&source, &mut import, end).await, Ok(true));
        let behind = PassDone { number: 1, pass: pass(Offset(end.0 / 2), 0) };
        assert_eq!(import.agree(partition(0), Some(behind), end), Err(PassConflict::PeerBehind));
        assert_eq!(import.agree(partition(0), None, end), Err(PassConflict::PeerBehind), "it has done none");
        while take_part(&source, &mut import, end).await.unwrap() {}
        import.commit(&snapshot).await.unwrap();
        let kept = source.records(end).await;
        assert_eq!(target.records(end).await, kept, "what was taken of the first pass is gone");
        assert_eq!(target.reopened().await.records(end).await, kept);
    });
}
