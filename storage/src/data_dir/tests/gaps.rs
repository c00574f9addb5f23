//! A frame is damaged whose entry is applied, checkpointed and purged: recovery needs it no more, but the index that is
//! read back from the frames lacks its batches. Reading them is an error, never nothing and never what comes next.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_protocol::ids::Offset;

use super::toy::{DIR, Toy, batch, entry, open, options, partition};
use crate::data_dir::{DataDir, ReplicaSnapshot};
use crate::ids::ReplicaId;
use crate::read::{ReadError, ReadRequest, Wanted};
use ottla_env::disk::{Disk, OpenMode};
use ottla_env::sim;
use ottla_env::sim::disk::{Crash, SimDisk, SimDiskOptions};

/// No other replica reads its entries, so that they are purged as soon as the checkpoint contains them.
const ALONE: u64 = 1;
const ENTRIES: u64 = 6;
const TAIL: u64 = 12;

fn segment_path(segment: u64) -> PathBuf {
    Path::new(DIR).join("log").join(format!("{segment:016}.log"))
}

/// Two records an entry in partition 0, then some in partition 1.
async fn written(disk: &SimDisk) -> (Arc<DataDir>, Arc<Toy>) {
    let (directory, _) = open(&(Arc::new(disk.clone()) as Arc<dyn Disk>), options()).await;
    let toy = Toy::create(&directory, ALONE).await;
    for index in 1..=TAIL {
        let to = i32::from(index > ENTRIES);
        toy.write(vec![entry(1, index, vec![(to, batch(index, 2, 400))], "")]).await;
    }
    directory.checkpoint_now().await.unwrap();
    (directory, toy)
}

/// Damages the head of the frame with the batch at this offset of partition 0.
async fn damage(directory: &DataDir, toy: &Toy, disk: &SimDisk, offset: i64) {
    let indexed = directory.batch_at(toy.key(0), Offset(offset)).await.unwrap().unwrap();
    // One wrong byte would be corrected.
    for byte in [5, 6] {
        disk.flip_bit(&segment_path(indexed.position.segment), u64::from(indexed.position.byte) - byte, 2).unwrap();
    }
}

/// Reads partition 0 from each even offset: the first offset that comes, or none if it is damaged.
async fn beginnings(directory: &DataDir, toy: &Toy) -> Vec<Option<i64>> {
    let mut found = Vec::new();
    for from in (0..ENTRIES.cast_signed()).map(|entry| Offset(entry * 2)) {
        let request = ReadRequest {
            key: toy.key(0),
            from,
            up_to: Offset(2 * ENTRIES.cast_signed()),
            bytes_max: 1 << 20,
            at_least_one: true,
            wanted: Wanted::All,
        };
        found.push(match directory.plan_read(request).await {
            Ok(plan) => {
                assert!(!plan.is_empty(), "nothing and no error at {from:?}");
                let bytes = plan.read().await.unwrap();
                Some(i64::from_be_bytes(bytes[..8].try_into().unwrap()))
            }
            Err(ReadError::Damaged { offset, .. }) => {
                assert_eq!(offset, from);
                None
            }
            Err(error) => panic!("{error}"),
        });
    }
    found
}

/// Reads of partition 0 after a restart when the frames at these offsets are damaged.
fn after_damage(seed: u64, offsets: &'static [i64]) -> Vec<Option<i64>> {
    let report = sim::run(seed, move || async move {
        let disk = SimDisk::new(seed, SimDiskOptions::default());
        let (directory, toy) = written(&disk).await;
        let crashed = disk.image().crash(Crash::Process, 1);
        for offset in offsets {
            damage(&directory, &toy, &crashed, *offset).await;
        }
        let (directory, recovered) = open(&(Arc::new(crashed) as Arc<dyn Disk>), options()).await;
        assert_eq!(recovered[0].lost, None, "its entries are in the checkpoint, and nobody else needs them");
        let toy = Toy::recover(&directory, &recovered[0]);
        let found = beginnings(&directory, &toy).await;
        directory.maintain_now().await.unwrap();
        assert_eq!(beginnings(&directory, &toy).await, found);
        found
    });
    report.output
}

#[test]
fn a_read_that_begins_where_a_frame_was_damaged_is_an_error() {
    let found = after_damage(1, &[4]);
    assert_eq!(found, [Some(0), Some(2), None, Some(6), Some(8), Some(10)]);
}

#[test]
fn a_damaged_frame_at_the_end_of_a_partition_is_an_error_too() {
    let found = after_damage(2, &[8, 10]);
    assert_eq!(found, [Some(0), Some(2), Some(4), Some(6), None, None]);
}

#[test]
fn an_index_that_is_rebuilt_from_damaged_frames_says_what_is_lacking() {
    sim::run(3, || async {
        let disk = SimDisk::new(3, SimDiskOptions::default());
        let (directory, toy) = written(&disk).await;
        // The first segment ends, and gets its index.
        for index in TAIL + 1..=TAIL + 40 {
            toy.write(vec![entry(1, index, vec![(1, batch(index, 2, 2000))], "")]).await;
        }
        directory.maintain_now().await.unwrap();
        let live = directory.stats().live_bytes;
        damage(&directory, &toy, &disk, 4).await;
        let first = directory.batch_at(toy.key(0), Offset(0)).await.unwrap().unwrap();
        let index = crate::data_dir::index_files::index_path(Path::new(DIR), first.position.segment);
        let bytes = disk.open(&index, OpenMode::Read).unwrap().bytes().unwrap();
        // Entries are the last thing in the file, those of partition 0 before those of partition 1.
        for at in (200..bytes).step_by(13) {
            let _ = disk.flip_bit(&index, at, 5);
        }
        let found = beginnings(&directory, &toy).await;
        assert_eq!(found, [Some(0), Some(2), None, Some(6), Some(8), Some(10)]);
        let lost = u64::from(first.bytes);
        assert_eq!(directory.stats().live_bytes, live - lost, "what lives is counted once, what is lost not at all");
    });
}

#[test]
fn a_gap_does_not_spread_with_a_snapshot() {
    sim::run(4, || async {
        let disk = SimDisk::new(4, SimDiskOptions::default());
        let (directory, toy) = written(&disk).await;
        let crashed = disk.image().crash(Crash::Process, 1);
        damage(&directory, &toy, &crashed, 4).await;
        let (source, recovered) = open(&(Arc::new(crashed) as Arc<dyn Disk>), options()).await;
        let toy = Toy::recover(&source, &recovered[0]);
        let snapshot: ReplicaSnapshot = source.snapshot_of(ReplicaId(ALONE)).await.unwrap().unwrap();
        assert_eq!(snapshot.applied.index.0, TAIL);
        let target: Arc<dyn Disk> = Arc::new(SimDisk::new(5, SimDiskOptions::default()));
        let (target, _) = open(&target, options()).await;
        let up_to = Offset(2 * ENTRIES.cast_signed());
        let ask = async |from| {
            let request = ReadRequest {
                key: toy.key(0),
                from,
                up_to,
                bytes_max: 1 << 20,
                at_least_one: true,
                wanted: Wanted::All,
            };
            source.export(request).await
        };
        let mut import = target.begin_import(ReplicaId(2));
        for batch in ask(Offset(0)).await.unwrap().batches {
            import.push(partition(0), batch).await.unwrap();
        }
        assert_eq!(import.position(partition(0)), Offset(4), "up to the gap");
        assert!(ask(Offset(4)).await.is_err());
        let behind = ask(Offset(6)).await.unwrap().batches.remove(0);
        assert!(import.push(partition(0), behind).await.is_err(), "it does not follow");
    });
}
