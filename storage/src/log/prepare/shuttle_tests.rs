//! The hand-over of segments under many orders of the threads: the writer gets every number once, in order, and neither
//! it nor the preparer waits for ever, also when the log closes in between.

#![allow(clippy::unwrap_used)]

use shuttle::{check_pct, check_random, future, thread};

use super::*;
use ottla_env::sim::disk::{SimDisk, SimDiskOptions};

const ITERATIONS: usize = 1_000;
const DIR: &str = "/data/log";

/// The writer takes `wanted` segments; other threads free space and close the log meanwhile.
fn hand_over(wanted: u64) {
    let disk = SimDisk::new(1, SimDiskOptions::default());
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let options = LogOptions {
        segment_bytes: 64 << 10,
        zero_ahead_bytes_per_second: 0,
        reserve_bytes: 0,
        ..LogOptions::default()
    };
    let preparation = Arc::new(Preparation::new(7, VecDeque::new()));
    let preparer = {
        let preparation = Arc::clone(&preparation);
        thread::spawn(move || future::block_on(run(disk, PathBuf::from(DIR), options, preparation)))
    };
    let writer = {
        let preparation = Arc::clone(&preparation);
        thread::spawn(move || {
            let taken: Vec<u64> = (0..wanted)
                .map(|_| future::block_on(preparation.take(64 << 10)).map_or(0, |prepared| prepared.sequence))
                .collect();
            preparation.finish();
            taken
        })
    };
    let closer = {
        let preparation = Arc::clone(&preparation);
        thread::spawn(move || {
            preparation.space_freed();
            preparation.close();
        })
    };
    let taken = writer.join().unwrap();
    assert!(taken.iter().copied().eq(7..7 + wanted), "{taken:?}");
    closer.join().unwrap();
    preparer.join().unwrap();
}

#[test]
fn shuttle_every_segment_is_handed_over_once_and_nobody_waits_for_ever() {
    check_random(|| hand_over(3), ITERATIONS);
    check_pct(|| hand_over(2), ITERATIONS, 3);
}
