//! What was acknowledged or read: counts, latency, and how long nothing was acknowledged.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::ClientContext;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;

/// Counts since the last look.
pub(crate) struct Counts {
    began: Instant,
    pub(crate) counting: AtomicBool,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) errors: AtomicU64,
    latency: Mutex<Histogram<u64>>,
    /// Of each partition that is watched: when something of it was acknowledged or read last.
    pub(crate) last: Option<Mutex<BTreeMap<i32, u64>>>,
    /// The longest time between two of these of a partition.
    longest: AtomicU64,
}

impl Counts {
    pub(crate) fn new() -> Arc<Self> {
        Self::watching(None)
    }

    pub(crate) fn watching(last: Option<Mutex<BTreeMap<i32, u64>>>) -> Arc<Self> {
        let latency = Histogram::new_with_bounds(1_000, 600_000_000_000, 3).expect("bounds");
        Arc::new(Self {
            began: Instant::now(),
            counting: AtomicBool::new(false),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            latency: Mutex::new(latency),
            last,
            longest: AtomicU64::new(0),
        })
    }

    pub(crate) fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    pub(crate) fn count(&self, bytes: usize) {
        self.records.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Something that should have begun at a time is done, if the measured window is open.
    pub(crate) fn took(&self, intended: u64, bytes: usize) {
        if self.counting.load(Ordering::Relaxed) {
            self.count(bytes);
            let took = self.now().saturating_sub(intended).max(1_000);
            self.latency.lock().expect("histogram").saturating_record(took);
        }
    }

    /// Something of a partition was acknowledged or read.
    pub(crate) fn moved(&self, partition: i32) {
        let Some(last) = &self.last else { return };
        let now = self.now();
        if let Some(before) = last.lock().expect("times").insert(partition, now) {
            self.longest.fetch_max(now - before, Ordering::Relaxed);
        }
    }

    /// One line of figures, in milliseconds; counting begins anew.
    pub(crate) fn take(&self, took: Duration) -> String {
        let mut latency = self.latency.lock().expect("histogram");
        let at = |percent| latency.value_at_percentile(percent) as f64 / 1e6;
        let (p50, p99, p999) = (at(50.0), at(99.0), at(99.9));
        latency.reset();
        let now = self.now();
        let last = self.last.as_ref().map(|last| last.lock().expect("times"));
        let oldest = last.and_then(|last| last.values().map(|at| now.saturating_sub(*at)).max());
        format!(
            "records={} bytes={} errors={} seconds={} p50={p50} p99={p99} p999={p999} longest={} oldest={}",
            self.records.swap(0, Ordering::Relaxed),
            self.bytes.swap(0, Ordering::Relaxed),
            self.errors.swap(0, Ordering::Relaxed),
            took.as_secs_f64(),
            self.longest.swap(0, Ordering::Relaxed) as f64 / 1e6,
            oldest.unwrap_or(0) as f64 / 1e6,
        )
    }
}

/// Prints a line at once.
pub(crate) fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("stdout");
}

/// Of a producer whose records are not counted.
pub(crate) struct Quiet;

impl ClientContext for Quiet {}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Takes what a producer is told.
pub(crate) struct Delivered(pub(crate) Arc<Counts>);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    /// The time at which the record should have been sent.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, intended: usize) {
        let counts = &self.0;
        let Ok(message) = result else {
            counts.errors.fetch_add(1, Ordering::Relaxed);
            return;
        };
        counts.moved(message.partition());
        counts.took(intended as u64, message.payload_len());
    }
}
