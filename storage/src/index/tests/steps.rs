//! The same model, step by step: batches come before they are durable, log starts move at any moment, segments are
//! sealed and unlinked in between, and after each of these the index returns what the list of batches would.

use ottla_model::{Random, lives};

use super::*;

struct World {
    history: History,
    log_starts: [i64; 3],
    sealed: u64,
    unlinked: BTreeSet<u64>,
}

/// An indexed batch without its position: what is not durable yet has none.
fn plain(indexed: Option<IndexedBatch>) -> Option<(i64, u32, i64, i32, u32)> {
    indexed.map(|indexed| {
        (indexed.base_offset.0, indexed.record_count, indexed.max_timestamp_ms, indexed.epoch.0, indexed.bytes)
    })
}

fn some_batches(random: &mut Random) -> Vec<Batch> {
    let one = |random: &mut Random| Batch {
        partition: i32::try_from(random.below(3)).unwrap(),
        records: i32::try_from(random.between(1, 19)).unwrap(),
        timestamp_ms: random.between(0, 59),
        bytes: 61 + random.index(340),
        accepted: !random.once_in(5),
    };
    (0..random.between(1, 4)).map(|_| one(random)).collect()
}

impl World {
    fn new() -> Self {
        Self { history: History::new(), log_starts: [0; 3], sealed: 0, unlinked: BTreeSet::new() }
    }

    fn end(&self, partition: usize) -> i64 {
        self.history.model[partition].last().map_or(0, |indexed| indexed.end_offset().0)
    }

    fn live(&self, partition: usize) -> Vec<IndexedBatch> {
        self.history.live(partition, self.log_starts[partition])
    }

    fn become_durable(&mut self) {
        self.history.durable = self.history.raft_index;
        let history = &self.history;
        history.index.place_durable(REPLICA, |_, index| history.place_of(index)).unwrap();
    }

    fn step(&mut self, random: &mut Random) {
        match random.below(20) {
            0..12 => drop(self.history.apply(&some_batches(random), random.once_in(2))),
            12 => self.become_durable(),
            13 => {
                self.become_durable();
                self.history.decide();
            }
            14 | 15 if self.sealed + 1 < self.history.at.segment => {
                self.become_durable();
                self.history.decide();
                self.sealed += 1;
                self.history.seal(self.sealed);
            }
            16 => self.unlink(),
            _ => {
                let partition = random.index(3);
                let to = random.between(self.log_starts[partition], self.end(partition));
                self.log_starts[partition] = to;
                self.history.index.raise_log_start(key(i32::try_from(partition).unwrap()), Offset(to));
            }
        }
    }

    /// Unlinks the sealed segments that hold no live batch.
    fn unlink(&mut self) {
        for segment in 1..=self.sealed {
            let holds = |partition| self.live(partition).iter().any(|indexed| indexed.position.segment == segment);
            if (0..3).any(holds) || !self.unlinked.insert(segment) {
                continue;
            }
            self.history.index.settle_all().unwrap();
            assert_eq!(self.history.index.table.live_bytes(segment), 0, "segment {segment}");
            self.history.index.forget(segment);
        }
    }

    fn check(&self, random: &mut Random) {
        let partition = random.index(3);
        let (index, key) = (&self.history.index, key(i32::try_from(partition).unwrap()));
        let (live, end, log_start) = (self.live(partition), self.end(partition), self.log_starts[partition]);
        index.settle_all().unwrap();
        assert_eq!(index.bytes_of(key), live.iter().map(|indexed| u64::from(indexed.bytes)).sum::<u64>());
        let timestamp_ms = random.between(-1, 61);
        let expected = live.iter().find(|indexed| indexed.max_timestamp_ms >= timestamp_ms).copied();
        assert_eq!(plain(index.by_time(key, timestamp_ms, Access::MayBlock).unwrap()), plain(expected));
        let newest = live.iter().map(|indexed| indexed.max_timestamp_ms).max();
        let expected = live.iter().find(|indexed| Some(indexed.max_timestamp_ms) == newest).copied();
        assert_eq!(plain(index.of_max_timestamp(key, Access::MayBlock).unwrap()), plain(expected));
        let cutoff = random.once_in(2).then(|| random.between(0, 59));
        let size = random.once_in(2).then(|| random.below(3_000));
        let up_to = random.between(log_start, end);
        let point = index.retention_point(key, Offset(up_to), cutoff, size, Access::MayBlock).unwrap();
        assert_eq!(point, model_retention(&live, log_start, up_to, cutoff, size).map(Offset));
        self.check_reads(random, key, &live);
    }

    /// Batches from an offset on within bounds, and the one that holds the offset.
    fn check_reads(&self, random: &mut Random, key: ExtentKey, live: &[IndexedBatch]) {
        let partition = usize::try_from(key.partition.index).unwrap();
        let (index, end) = (&self.history.index, self.end(partition));
        let from = random.between(self.log_starts[partition], end);
        let up_to = random.between(from, end);
        let bytes_max = random.below(1_500);
        let bounds = Bounds { from: Offset(from), up_to: Offset(up_to), bytes_max, at_least_one: random.once_in(2) };
        let (mut expected, mut bytes) = (Vec::new(), 0);
        for indexed in live.iter().filter(|indexed| indexed.end_offset().0 > from && indexed.base_offset.0 < up_to) {
            bytes += u64::from(indexed.bytes);
            if bytes > bytes_max && !(expected.is_empty() && bounds.at_least_one) {
                break;
            }
            expected.push(*indexed);
        }
        let planned = index.plan(key, bounds, Access::MayBlock).unwrap().batches;
        let listed = |listed: &[IndexedBatch]| listed.iter().map(|indexed| plain(Some(*indexed))).collect::<Vec<_>>();
        assert_eq!(listed(&planned.iter().map(|p| p.indexed).collect::<Vec<_>>()), listed(&expected), "{bounds:?}");
        for (planned, indexed) in planned.iter().zip(&expected) {
            assert!(
                planned.data.is_some() || planned.indexed.position == indexed.position,
                "{indexed:?} lies elsewhere"
            );
        }
        let holds = live.iter().find(|indexed| indexed.base_offset.0 <= from && from < indexed.end_offset().0).copied();
        assert_eq!(plain(index.at(key, Offset(from), Access::MayBlock).unwrap()), plain(holds), "offset {from}");
    }
}

#[test]
fn after_every_step_the_index_answers_as_a_list_of_batches_would() {
    lives(4_000, 200, |random, steps| {
        let mut world = World::new();
        for _ in 0..steps {
            world.step(random);
            world.check(random);
        }
    });
}

/// Entries are applied as soon as a majority has them: records can be deleted before this replica's own disk has them.
#[test]
fn what_is_deleted_before_it_is_durable_here_is_neither_found_nor_counted() {
    let mut history = History::new();
    let batch = |timestamp_ms| Batch { partition: 0, records: 5, timestamp_ms, bytes: 100, accepted: true };
    history.apply(&[batch(50)], false);
    history.apply(&[batch(40)], false);
    let (index, key) = (&history.index, key(0));
    index.raise_log_start(key, Offset(5));
    assert_eq!(index.bytes_of(key), 100);
    let found = [index.by_time(key, 0, Access::MayBlock), index.of_max_timestamp(key, Access::MayBlock)];
    assert!(found.into_iter().all(|indexed| indexed.unwrap().unwrap().base_offset == Offset(5)));
    let point = index.retention_point(key, Offset(10), None, Some(100), Access::MayBlock).unwrap();
    assert_eq!(point, None, "the 100 bytes that may stay are deleted");
}
