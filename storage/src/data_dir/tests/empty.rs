//! Batches that compaction has emptied: replicas are given them, clients pass over them.

use std::sync::Arc;

use ottla_protocol::batch::empty_batch;
use ottla_protocol::ids::{LeaderEpoch, Offset};

use super::toy::{Toy, batch, entry, open, options};
use crate::data_dir::DataDir;
use crate::index::ExtentKey;
use crate::read::{ReadRequest, Wanted};
use ottla_env::disk::Disk;
use ottla_env::sim;
use ottla_env::sim::disk::{SimDisk, SimDiskOptions};

/// What a read gives: the offset of what it found first, and the batches.
async fn read(directory: &DataDir, request: ReadRequest) -> (Option<i64>, Vec<(i64, i64)>) {
    let plan = directory.plan_read(request).await.unwrap();
    let (found, bytes) = (plan.base_offset().map(|offset| offset.0), plan.bytes());
    let batches = plan.indexed_batches().map(|batch| (batch.base_offset.0, batch.end_offset().0)).collect();
    assert_eq!(plan.read().await.unwrap().len(), bytes);
    (found, batches)
}

async fn check(directory: &DataDir, key: ExtentKey) {
    let request = |from, up_to, bytes_max, wanted| {
        let (from, up_to) = (Offset(from), Offset(up_to));
        ReadRequest { key, from, up_to, bytes_max, at_least_one: true, wanted }
    };
    let all = |from, bytes_max| read(directory, request(from, 14, bytes_max, Wanted::All));
    let some = |from, up_to, bytes_max| read(directory, request(from, up_to, bytes_max, Wanted::WithRecords));
    assert_eq!(all(0, 1 << 20).await, (Some(0), vec![(0, 3), (3, 7), (7, 8), (8, 10), (10, 14)]));
    assert_eq!(all(4, 1).await, (Some(3), vec![(3, 7)]));
    assert_eq!(some(0, 14, 1 << 20).await, (Some(0), vec![(0, 3), (8, 10)]), "both sides of what is passed over");
    assert_eq!(
        some(4, 14, 1 << 20).await,
        (Some(3), vec![(8, 10)]),
        "the first that is left, and where it was looked for"
    );
    assert_eq!(some(4, 14, 1).await, (Some(3), vec![(8, 10)]), "however few bytes are asked for");
    assert_eq!(some(10, 14, 1).await, (Some(10), vec![(10, 14)]), "nothing follows: the reader reaches the end");
    assert_eq!(some(3, 8, 1).await, (Some(3), vec![(7, 8)]), "nothing follows that it may see");
    assert_eq!(some(14, 14, 1).await, (None, vec![]));
}

#[test]
fn clients_pass_over_what_compaction_has_emptied_and_reach_the_end() {
    sim::run(1, || async {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1, SimDiskOptions::default()));
        let (directory, _) = open(&disk, options()).await;
        let toy = Toy::create(&directory, 1).await;
        let empty = |count| empty_batch(Offset(0), count, LeaderEpoch(0));
        let batches = [batch(1, 3, 50), empty(4), empty(1), batch(2, 2, 50), empty(4)];
        let entries = (1..).zip(batches).map(|(index, batch)| entry(1, index, vec![(0, batch)], "")).collect();
        toy.write(entries).await;
        check(&directory, toy.key(0)).await;
    });
}
