//! What is sent to a peer: pre-encoded raw loads of our own, and the clients that people use.

pub(crate) mod conn;
pub(crate) mod engine;
pub(crate) mod frames;
pub(crate) mod java;
pub(crate) mod keyed;
pub(crate) mod librdkafka;
pub(crate) mod transactions;

use std::thread;
use std::time::Instant;

use hdrhistogram::Histogram;

use engine::Span;

/// The measured part of a load that threads make.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pub(crate) began: Instant,
    pub(crate) from: Instant,
    pub(crate) end: Instant,
}

impl Window {
    /// It begins when the ramp is over, from now on.
    pub(crate) fn after(span: Span) -> Self {
        let began = Instant::now();
        Self { began, from: began + span.ramp, end: began + span.ramp + span.window }
    }

    /// What the threads return, which watch the end themselves; `edge` is called at both ends.
    pub(crate) fn threads<T: Send>(
        self,
        threads: impl Iterator<Item = impl FnOnce() -> T + Send>,
        edge: &mut dyn FnMut(),
    ) -> Vec<T> {
        thread::scope(|scope| {
            let begun: Vec<_> = threads.map(|thread| scope.spawn(thread)).collect();
            for at in [self.from, self.end] {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                edge();
            }
            begun.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }
}

/// What one group of connections, or one client, did within the measured time.
pub(crate) struct Done {
    pub(crate) requests: u64,
    pub(crate) records: u64,
    /// Payload: record values when producing, record batches as they came when fetching.
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
    /// Nanoseconds. From the intended time of sending where the load is paced.
    pub(crate) latency: Histogram<u64>,
}

impl Done {
    pub(crate) fn new() -> Self {
        // Up to ten minutes, three digits.
        let latency = Histogram::new_with_bounds(1_000, 600_000_000_000, 3).unwrap();
        Self { requests: 0, records: 0, bytes: 0, errors: 0, latency }
    }

    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.latency.saturating_record(nanoseconds.max(1_000));
    }

    pub(crate) fn milliseconds_at(&self, percent: f64) -> f64 {
        self.latency.value_at_percentile(percent) as f64 / 1e6
    }
}
