//! A walk tells control batches from others, whether the index has them in memory or in files, and ends where it is
//! told to.

use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::batch::{ControlRecord, encode_control_batch};
use ottla_protocol::ids::Offset;

use super::toy::{Toy, batch, entry, open, options};
use ottla_env::disk::Disk;
use ottla_env::sim;
use ottla_env::sim::disk::{SimDisk, SimDiskOptions};

fn marker(seed: u64) -> Bytes {
    let record = ControlRecord::Commit { coordinator_epoch: 3 };
    encode_control_batch(i64::MAX, i16::MAX, seed.cast_signed() * 10, record)
}

/// Every third entry is a marker, the others have a record as small as one, or two, or a large one.
fn batch_of(index: u64) -> Bytes {
    match index % 6 {
        0 | 3 => marker(index),
        1 => batch(index, 1, 1),
        2 => batch(index, 2, 100),
        _ => batch(index, 1, 40_000),
    }
}

async fn walked(toy: &Toy, from: i64, up_to: i64, batches_max: usize) -> Vec<(i64, bool)> {
    let walked = toy.directory.walk(toy.key(0), Offset(from), Offset(up_to), batches_max).await.unwrap();
    walked.iter().map(|batch| (batch.indexed.base_offset.0, batch.is_control)).collect()
}

#[test]
fn control_batches_are_told_from_others_from_any_offset_to_the_bound() {
    sim::run(7, || async {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(7, SimDiskOptions::default()));
        let (directory, _) = open(&disk, options()).await;
        let toy = Toy::create(&directory, 1).await;
        let (mut all, mut end) = (Vec::new(), 0_i64);
        for index in 1..=60 {
            toy.write(vec![entry(1, index, vec![(0, batch_of(index))], "")]).await;
            // These the toy rejects.
            if index % 7 == 0 {
                continue;
            }
            all.push((end, index % 3 == 0));
            end += if index % 6 == 2 { 2 } else { 1 };
        }
        for in_files in [false, true] {
            assert_eq!(walked(&toy, 0, end, 1_000).await, all, "in files: {in_files}");
            assert_eq!(walked(&toy, 0, end, 7).await, all[..7]);
            // Offset 2 is the second record of the batch at 1.
            assert_eq!(walked(&toy, 2, end, 3).await, all[1..4]);
            let (third, _) = all[3];
            assert_eq!(walked(&toy, 0, third, 1_000).await, all[..3]);
            assert_eq!(walked(&toy, end, end, 1_000).await, []);
            directory.maintain_now().await.unwrap();
        }
    });
}
