//! Histograms of sync times and commit sizes: the writer adds values, the metrics copy the counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets of a histogram; the last one has no upper bound.
pub const BUCKETS: usize = 17;

/// Upper bounds of the buckets of sync times, in nanoseconds: 50 us to 5 s.
pub const SYNC_NANOS_BOUNDS: [u64; BUCKETS - 1] = {
    const MICROS: [u64; BUCKETS - 1] = [
        50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
        2_000_000, 5_000_000,
    ];
    let mut bounds = [0; BUCKETS - 1];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = MICROS[at] * 1_000;
        at += 1;
    }
    bounds
};

/// Upper bounds of the buckets of commit sizes, in bytes: one page to 128 MiB, doubling.
pub const COMMIT_BYTES_BOUNDS: [u64; BUCKETS - 1] = {
    let mut bounds = [4096; BUCKETS - 1];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
};

/// Counts of values by bucket.
pub(crate) struct Histogram {
    bounds: &'static [u64; BUCKETS - 1],
    counts: [AtomicU64; BUCKETS],
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [u64; BUCKETS - 1]) -> Self {
        Self { bounds, counts: Default::default() }
    }

    pub(crate) fn add(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&COMMIT_BYTES_BOUNDS);
        for value in [1, 4096, 4097, 8192, 128 << 20, (128 << 20) + 1, u64::MAX] {
            histogram.add(value);
        }
        let counts = histogram.counts();
        assert_eq!((counts[0], counts[1], counts[15], counts[16]), (2, 2, 1, 2));
        assert_eq!(counts.iter().sum::<u64>(), 7);
        assert!(SYNC_NANOS_BOUNDS.is_sorted());
    }
}
