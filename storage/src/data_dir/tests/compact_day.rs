//! A day of mixed load on compacted partitions, each of which is compacted when Kafka's default says so: how often a byte is written
//! again, and what the disk holds beyond the live bytes.

use std::sync::Arc;

use bytes::Bytes;
use ottla_env::sim;
use ottla_env::sim::disk::Tear;
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;
use ottla_protocol::ids::Offset;

use super::compact::{History, check, reopened, written};
use super::rewrite::disk;
use super::toy::{Toy, entry, options, partition};
use crate::compact::Pass;
use crate::data_dir::unlink::Unlinking;
use crate::data_dir::{Compaction, CompactionRequest, DataDir};
use crate::ids::RaftIndex;

const MINUTES: u64 = 24 * 60;
/// `min.cleanable.dirty.ratio`.
const DIRTY_RATIO: f64 = 0.5;
/// How often a byte may be written again, by passes and by the rewriter.
const REWRITES_MAX: f64 = 2.0;

/// What a partition gets in a minute.
struct Kind {
    records: u64,
    /// Of how many keys each is one; 0: each has a key of its own.
    keys: u64,
    /// One of so many is a tombstone, 0 for none.
    tombstones: u64,
    value_bytes: u64,
}

/// Few keys that change all the time; many that seldom do; ever new ones; sessions, which end.
const KINDS: &[Kind] = &[
    Kind { records: 8, keys: 40, tombstones: 0, value_bytes: 200 },
    Kind { records: 4, keys: 2_000, tombstones: 0, value_bytes: 500 },
    Kind { records: 2, keys: 0, tombstones: 0, value_bytes: 300 },
    Kind { records: 8, keys: 400, tombstones: 3, value_bytes: 100 },
];

fn batch(kind: &Kind, minute: u64) -> Bytes {
    let below = sim::random_below;
    let mut builder = BatchBuilder::new(Codec::None);
    for number in 0..kind.records {
        let key = if kind.keys == 0 { minute * kind.records + number } else { below(kind.keys) };
        let mut value = vec![b'v'; usize::try_from(below(2 * kind.value_bytes)).unwrap()];
        value.extend((minute * 10 + number).to_be_bytes());
        let is_tombstone = kind.tombstones > 0 && below(kind.tombstones) == 0;
        let (key, value) = (key.to_be_bytes(), (!is_tombstone).then_some(&value[..]));
        builder.push(&NewRecord { timestamp: minute as i64, key: Some(&key), value, headers: &[] });
    }
    builder.build().unwrap()
}

/// Decides on a pass as a leader does, and does it. Tombstones stay for one pass.
async fn compact(toy: &Toy, index: i32, history: &mut History) {
    let former = history.attempted.range((index, 0)..(index + 1, 0)).next_back();
    let (number, former) =
        former.map_or((0, Pass { horizon: Offset(0), cutoff: Offset(0) }), |((_, number), pass)| (*number, *pass));
    let end = Offset(toy.model().partitions.get(&index).map_or(0, |(next, _)| *next));
    let found = toy.directory.dirty_bytes(toy.key(index), former.horizon, end, i64::MAX).await.unwrap();
    let (dirty, all) = (found.dirty as f64, (found.dirty + found.clean) as f64);
    if found.dirty == 0 || dirty / all <= DIRTY_RATIO {
        return;
    }
    let (pass, number) = (Pass { horizon: found.end, cutoff: former.horizon }, number + 1);
    let decided_at = RaftIndex(history.entries.len() as u64);
    let request = CompactionRequest { replica: toy.log.id(), partition: partition(index), number, pass, decided_at };
    history.attempted.insert((index, number), pass);
    assert_eq!(toy.directory.compact(&request).await.unwrap(), Compaction::Done);
    history.done.insert(index, number);
}

async fn upkeep(directory: &Arc<DataDir>, toy: &Toy) {
    directory.maintain_now().await.unwrap();
    if let Some(kept) = directory.oldest_kept(toy.log.id()) {
        toy.log.purge(kept).await.unwrap();
    }
    directory.rewrite_now().await.unwrap();
    directory.unlink_dead(Unlinking::AtOnce).await.unwrap();
    directory.unlink_runs(Unlinking::AtOnce).await.unwrap();
}

#[test]
fn a_byte_is_rewritten_at_most_twice_over_a_day_of_mixed_load() {
    sim::run(11, || async {
        let (_, disk) = disk(11, Tear::Pages);
        let mut history = History::default();
        let (directory, toy) = reopened(&disk, &mut history, options().rewrite.key_map_bytes).await;
        for minute in 0..MINUTES {
            let batches = (0..).zip(KINDS).map(|(index, kind)| (index, batch(kind, minute))).collect();
            let entry = entry(1, history.entries.len() as u64 + 1, batches, "");
            toy.write(vec![entry.clone()]).await;
            history.entries.push(entry);
            directory.checkpoint_now().await.unwrap();
            for index in (0..).take(KINDS.len()) {
                compact(&toy, index, &mut history).await;
            }
            if minute % 10 == 9 {
                upkeep(&directory, &toy).await;
            }
        }
        upkeep(&directory, &toy).await;
        check(&toy, &history).await;
        let stats = directory.stats();
        let batches = written(&history.entries).into_values().flat_map(|partition| partition.batches);
        let produced = batches.map(|(_, _, _, batch)| batch.len()).sum::<usize>();
        let again = (stats.compacted_bytes + stats.rewritten_bytes) as f64 / produced as f64;
        println!(
            "{} passes, {produced} bytes produced, each rewritten {again:.2} times ({} by passes, {} by the rewriter); {:.2} times the live bytes",
            history.attempted.len(),
            stats.compacted_bytes,
            stats.rewritten_bytes,
            stats.space_amplification(),
        );
        assert!(history.attempted.len() > 100, "{} passes", history.attempted.len());
        assert!(again <= REWRITES_MAX, "{again}");
    });
}
