//! A fetch from the log: planned, and copied out of the mapping of real files with patched heads, piece by piece.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;
use ottla_env::real::RealDisk;
use ottla_protocol::ids::Offset;
use ottla_storage::read::{PIECE_BYTES, ReadRequest, Wanted};

use super::Case;
use super::log::Log;

const FETCH_BYTES: usize = 1 << 20;
/// Segments that are full and have an index file, and the one that is written.
const ENTRIES: u64 = 14;
const SEGMENT_BYTES: u32 = 4 << 20;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, what, run| Case { name, what, few: 20, many: 120, run };
    vec![
        case("fetch_1m_of_16k", "plans 1 MiB of batches of 16 KiB in a sealed segment, copies it", |n| {
            fetch(n, 16, 63)
        }),
        case("fetch_1m_of_1k", "the same of batches of 1 KiB", |n| fetch(n, 1, 900)),
    ]
}

/// A folder that goes with the case.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("ottla-micro-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn fetch(iterations: u64, records: usize, batches: u64) {
    let mut piece = BytesMut::with_capacity(2 * PIECE_BYTES);
    let folder = Folder::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut log = Log::open(Arc::new(RealDisk), &folder.0, SEGMENT_BYTES).await;
        let batch = super::batch(records, 1000, 0, None);
        for _ in 0..ENTRIES {
            let entry = log.entry(&batch, batches);
            log.append(entry.clone()).await;
            log.apply(&entry, records as i64);
        }
        log.directory.maintain_now().await.unwrap();
        let request = ReadRequest {
            key: log.key(),
            // In the middle of the first segment, which is sealed.
            from: Offset(log.next_offset().0 / ENTRIES as i64 / 2),
            up_to: log.next_offset(),
            bytes_max: FETCH_BYTES,
            at_least_one: true,
            wanted: Wanted::WithRecords,
        };
        for _ in 0..iterations {
            let plan = log.directory.try_plan_read(black_box(request)).expect("in memory").unwrap();
            let mut stream = plan.into_stream().await.unwrap();
            assert!(stream.left() > FETCH_BYTES * 9 / 10 && stream.left() <= FETCH_BYTES);
            while stream.left() > 0 {
                assert!(stream.is_resident(PIECE_BYTES), "just written, and not in memory");
                piece.clear();
                stream.copy(&mut piece, PIECE_BYTES).unwrap();
                stream.advance(black_box(&piece).len());
            }
        }
    });
    runtime.shutdown_background();
}
