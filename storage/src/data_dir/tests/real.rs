//! The data directory on the machine's own disk: mapped reads, cold reads, a restart, a second process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use ottla_protocol::ids::Offset;

use super::toy::{Model, Toy, batch, entry, options};
use crate::data_dir::{DataDir, DataDirError, DataDirOptions};
use crate::log::LogOptions;
use crate::read::{ReadError, ReadPlan, ReadRequest, ReadStream, Wanted};
use ottla_env::disk::{Disk, OpenMode, read_exact_at};
use ottla_env::real::RealDisk;

/// A directory that is removed when the test ends.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ottla-{name}-{}", std::process::id()));
        #[allow(clippy::disallowed_methods)]
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn small() -> DataDirOptions {
    let log = LogOptions { segment_bytes: 1 << 20, ..options().log };
    DataDirOptions { log, ..options() }
}

async fn open(path: &Path) -> Result<(Arc<DataDir>, Vec<crate::data_dir::RecoveredReplica>), DataDirError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    DataDir::open(disk, path, small()).await
}

async fn plan(toy: &Toy, from: i64, bytes_max: usize) -> ReadPlan {
    let request = ReadRequest {
        key: toy.key(0),
        from: Offset(from),
        up_to: Offset(i64::MAX),
        bytes_max,
        at_least_one: true,
        wanted: Wanted::All,
    };
    toy.directory.plan_read(request).await.unwrap()
}

/// What an earlier process wrote into the continued segment is verified although it is in memory.
#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_active_segment_of_an_earlier_process_is_seen_by_hot_reads() {
    let temporary = Temporary::new("tail");
    let (directory, _) = open(&temporary.0).await.unwrap();
    // One whose entries others may still read.
    let toy = Toy::create(&directory, 2).await;
    toy.write((1..=3).map(|index| entry(1, index, vec![(0, batch(index, 1, 50_000))], "")).collect()).await;
    let indexed = directory.batch_at(toy.key(0), Offset(1)).await.unwrap().unwrap();
    directory.close().await.unwrap();
    drop((toy, directory));

    let segment = temporary.0.join("log").join(format!("{:016}.log", indexed.position.segment));
    let file = RealDisk.open(&segment, OpenMode::Write).unwrap();
    file.write_at(&[0xee; 3], u64::from(indexed.position.byte) + 30_000).unwrap();
    let (directory, recovered) = open(&temporary.0).await.unwrap();
    let toy = Toy::recover(&directory, &recovered[0]);
    assert_eq!(recovered[0].damaged.len(), 1);
    let mut hot = plan(&toy, 1, 1).await;
    while !hot.is_resident() {
        hot = plan(&toy, 1, 1).await;
        let mut page = vec![0; 60_000];
        read_exact_at(&*file, &mut page, u64::from(indexed.position.byte)).unwrap();
    }
    assert!(matches!(hot.read().await, Err(ReadError::Damaged { offset: Offset(1), .. })));
    let hot = plan(&toy, 1, 1).await;
    assert!(matches!(hot.into_stream().await, Err(ReadError::Damaged { offset: Offset(1), .. })));
    directory.close().await.unwrap();
}

/// Everything of a stream in pieces of a size that fits no batch.
fn streamed(mut stream: ReadStream, from_disk: bool) -> BytesMut {
    let mut out = BytesMut::new();
    while stream.left() > 0 {
        let mut piece = BytesMut::new();
        if !from_disk && stream.is_resident(7_001) {
            stream.copy(&mut piece, 7_001).unwrap();
        } else {
            stream.read(&mut piece, 7_001).unwrap();
        }
        // The socket takes a part of every other piece; the rest is copied again.
        if out.len() % 2 == 1 {
            piece.truncate(piece.len() / 2 + 1);
        }
        stream.advance(piece.len());
        stream.grew_old();
        out.extend_from_slice(&piece);
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_hot_and_cold_and_after_a_restart() {
    let temporary = Temporary::new("real");
    let (directory, _) = open(&temporary.0).await.unwrap();
    let toy = Toy::create(&directory, 1).await;
    let mut entries = Vec::new();
    for index in 1..=300 {
        entries.push(entry(1, index, vec![(0, batch(index, 3, 5000))], ""));
    }
    for chunk in entries.chunks(20) {
        toy.write(chunk.to_vec()).await;
    }
    assert!(matches!(open(&temporary.0).await, Err(DataDirError::InUse(_))));
    directory.maintain_now().await.unwrap();
    assert!(directory.stats().index_files >= 3);
    let hot = plan(&toy, 0, usize::MAX / 2).await;
    assert!(hot.is_resident(), "just written");
    let (bytes, end) = (hot.bytes(), hot.end_offset());
    let hot = hot.read().await.unwrap();
    assert_eq!(hot.len(), bytes);
    for segment in directory.log().segments() {
        let segment = directory.log().segment(segment.sequence).unwrap();
        segment.file.sync_data().await.unwrap();
        segment.file.drop_cached(0).unwrap();
    }
    let cold = plan(&toy, 0, usize::MAX / 2).await;
    assert_eq!(cold.end_offset(), end);
    assert!(cold.read().await.unwrap() == hot);
    for from_disk in [false, true] {
        let stream = plan(&toy, 0, usize::MAX / 2).await.into_stream().await.unwrap();
        assert_eq!(stream.left(), bytes);
        assert!(streamed(stream, from_disk) == hot);
    }
    let model = toy.model();
    directory.close().await.unwrap();
    drop((toy, directory));

    let (directory, recovered) = open(&temporary.0).await.unwrap();
    assert_eq!(Model::restored(&recovered[0].state), model);
    let toy = Toy::recover(&directory, &recovered[0]);
    assert_eq!(directory.bytes_of(toy.key(0)), bytes as u64);
    assert!(plan(&toy, 0, usize::MAX / 2).await.read().await.unwrap() == hot);
    let middle = directory.batch_at(toy.key(0), Offset(100)).await.unwrap().unwrap();
    let found = directory.batch_by_time(toy.key(0), middle.max_timestamp_ms).await.unwrap().unwrap();
    assert_eq!(found, middle);
    directory.close().await.unwrap();
}
