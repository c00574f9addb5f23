//! What the rewriter leaves to compaction.

use std::time::Duration;

use bytes::Bytes;
use ottla_env::sim;
use ottla_env::sim::disk::Tear;
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;
use ottla_protocol::ids::Offset;

use super::rewrite::disk;
use super::toy::{Toy, entry, open, options, partition};
use crate::compact::Pass;
use crate::data_dir::{Compaction, CompactionRequest, DataDirOptions};
use crate::ids::RaftIndex;
use crate::rewrite::RewriteOptions;

/// The same key in each.
fn batch(number: u64) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    let record = NewRecord { timestamp: number as i64, key: Some(b"key"), value: Some(&[7; 1_000]), headers: &[] };
    builder.push(&record);
    builder.build().unwrap()
}

/// Bytes that the rewriter copies once a pass has gone over what lies below a horizon.
async fn copied(patience: Duration, horizon: i64) -> u64 {
    let (_, disk) = disk(5, Tear::Pages);
    let rewrite = RewriteOptions { patience, ..options().rewrite };
    let (directory, _) = open(&disk, DataDirOptions { rewrite, ..options() }).await;
    let toy = Toy::create(&directory, 1).await;
    for number in 1..=120 {
        toy.write(vec![entry(1, number, vec![(0, batch(number))], "")]).await;
    }
    directory.checkpoint_now().await.unwrap();
    let pass = Pass { horizon: Offset(horizon), cutoff: Offset(0) };
    let decided_at = RaftIndex(120);
    let request = CompactionRequest { replica: toy.log.id(), partition: partition(0), number: 1, pass, decided_at };
    assert_eq!(toy.directory.compact(&request).await.unwrap(), Compaction::Done);
    for _ in 0..4 {
        directory.maintain_now().await.unwrap();
        let kept = directory.oldest_kept(toy.log.id()).expect("a checkpoint");
        toy.log.purge(kept).await.unwrap();
    }
    directory.rewrite_now().await.unwrap();
    directory.stats().rewritten_bytes
}

#[test]
fn what_the_next_pass_takes_along_is_not_copied_before() {
    // In the middle of a segment of 64 KiB, at its end, at the beginning of the next one.
    let horizons = || (20..80).step_by(4);
    let all =
        |patience| horizons().map(move |horizon| sim::run(5, move || copied(patience, horizon)).output).sum::<u64>();
    assert!(all(Duration::ZERO) > 5_000, "there is something to copy");
    assert_eq!(all(Duration::from_secs(600)), 0);
}
