//! When dead files go.

use std::path::Path;
use std::time::Duration;

use super::rewrite::disk;
use super::toy::{DIR, Toy, batch, entry, open, options};
use crate::data_dir::DataDirOptions;
use ottla_env::sim::disk::Tear;
use ottla_env::{rt, sim};

/// Segments that have gone 2 s and 30 s later, if ten GiB were unlinked 10 s ago, and have died and are not needed any more.
async fn unlinked(is_ample: bool) -> (u64, u64) {
    let (sim, disk) = disk(5, Tear::Pages);
    let (reclaim_interval, checkpoint_interval) = (Duration::from_secs(1), Duration::from_secs(1));
    let options = DataDirOptions { reclaim_interval, checkpoint_interval, ..options() };
    let (directory, _) = open(&disk, options).await;
    let toy = Toy::create(&directory, 1).await;
    for index in 1..=60 {
        toy.write(vec![entry(1, index, vec![(0, batch(index, 1, 8000))], "")]).await;
    }
    toy.write(vec![entry(1, 61, Vec::new(), "trim 0")]).await;
    directory.unlink_pace.lock().unlinked(rt::now(), 10 << 30);
    for _ in 0..10 {
        rt::sleep(Duration::from_secs(1)).await;
        if let Some(kept) = directory.oldest_kept(toy.log.id()) {
            toy.log.purge(kept).await.unwrap();
        }
    }
    assert_eq!(directory.stats().unlinked_segments, 0, "ten GiB have just gone");
    if !is_ample {
        let space = disk.space(Path::new(DIR)).unwrap();
        let taken = space.total_bytes - space.free_bytes;
        sim.set_capacity(taken + taken / 8);
    }
    rt::sleep(Duration::from_secs(2)).await;
    let soon = directory.stats().unlinked_segments;
    rt::sleep(Duration::from_secs(28)).await;
    (soon, directory.stats().unlinked_segments)
}

#[test]
fn dead_segments_wait_their_turn_while_space_is_ample() {
    sim::run(91, || async {
        let (soon, later) = unlinked(true).await;
        assert!(soon == 0 && later > 3, "{soon}, {later}");
    });
}

#[test]
fn dead_segments_go_at_once_when_space_is_not_ample() {
    sim::run(92, || async {
        let (soon, _) = unlinked(false).await;
        assert!(soon > 3, "{soon}");
    });
}
