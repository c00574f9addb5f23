//! Histograms on a logarithmic scale, which openraft uses for its batches and stages: four buckets to each power of
//! two.
//!
//! A bucket is computed from the value's bits, and only buckets up to the greatest value seen are kept. May not know:
//! what is counted.

use std::fmt;
use std::marker::PhantomData;

/// Bits of a value that determine its bucket: the leading one and two more.
const WIDTH: u32 = 3;
/// Buckets to a power of two.
const GROUP: usize = 1 << (WIDTH - 1);

/// Counts of values. `T` exists for openraft's use of the type and is never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    total: u64,
    unused: PhantomData<fn() -> T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

fn bucket_of(value: u64) -> usize {
    if value < GROUP as u64 {
        return usize::try_from(value).unwrap_or(0);
    }
    let above = u64::BITS - value.leading_zeros() - WIDTH;
    let within = usize::try_from(value >> above).unwrap_or(0) & (GROUP - 1);
    GROUP + above as usize * GROUP + within
}

fn least_of(bucket: usize) -> u64 {
    if bucket < GROUP {
        return bucket as u64;
    }
    let above = bucket / GROUP - 1;
    ((bucket % GROUP + GROUP) as u64) << above
}

impl<T> Histogram<T> {
    /// A histogram without values.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: Vec::new(), total: 0, unused: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = bucket_of(value);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(counted) = self.counts.get_mut(bucket) {
            *counted += count;
        }
        self.total += count;
    }

    /// How many values were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The least value of the bucket that holds the share `p` of all values, 0 without any.
    #[must_use]
    pub fn percentile(&self, p: f64) -> u64 {
        #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::cast_possible_truncation)]
        let wanted = ((self.total as f64 * p).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return least_of(bucket);
            }
        }
        0
    }

    /// The percentiles that openraft prints.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

/// Percentiles of a histogram.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p1, p10, p50, p90, p99, p99_9, .. } = self;
        write!(f, "{samples} values, p1 {p1}, p10 {p10}, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}")
    }
}

/// Named histograms, one line each.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    rows: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// A chart without rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The chart with one more row.
    #[must_use]
    #[allow(clippy::should_implement_trait, clippy::needless_pass_by_value)] // openraft's spelling
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.rows.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_begins_where_its_number_says() {
        for bucket in 0..bucket_of(u64::MAX) {
            assert_eq!(bucket_of(least_of(bucket)), bucket);
            assert_eq!(bucket_of(least_of(bucket + 1) - 1), bucket);
        }
    }

    #[test]
    fn percentiles_are_within_a_quarter_and_nothing_is_kept_for_what_was_not_seen() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!((histogram.percentile(0.5), histogram.counts.capacity()), (0, 0));
        (0..1000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!(stats.samples, 1000);
        assert!((375..500).contains(&stats.p50), "{stats}");
        assert!((743..990).contains(&stats.p99), "{stats}");
        assert!(histogram.counts.len() < 50);
        let chart = AsciiChart::new().add("values", histogram).to_string();
        assert!(chart.starts_with("values: 1000 values, p1 8,"), "{chart}");
    }
}
