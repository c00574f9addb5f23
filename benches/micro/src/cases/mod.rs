//! The cases: what one iteration does, and how many make a run long enough.
//!
//! Everything random comes from a seed, and what a case sets up does not depend on its iterations.

mod client;
mod disk;
mod log;
mod node;
mod read;
mod wire;

use bytes::Bytes;
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;

/// A hot path.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What an iteration is.
    pub(crate) what: &'static str,
    /// Iterations of the run that is taken away from the other.
    pub(crate) few: u64,
    /// Iterations of the other; a case never runs more.
    pub(crate) many: u64,
    /// Sets up and iterates.
    pub(crate) run: fn(u64),
}

/// Every case there is.
pub(crate) fn all() -> Vec<Case> {
    [wire::cases(), log::cases(), read::cases(), node::cases()].into_iter().flatten().collect()
}

/// A batch as a producer sends it; `sequence` of an idempotent one.
fn batch(records: usize, value_bytes: usize, timestamp_ms: i64, sequence: Option<i32>) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some(sequence) = sequence {
        builder = builder.with_producer(1000, 0, sequence);
    }
    for number in 0..records {
        let value: Vec<u8> = (0..value_bytes).map(|at| (at.wrapping_mul(31) ^ number) as u8).collect();
        builder.push(&NewRecord { timestamp: timestamp_ms, key: Some(b"key"), value: Some(&value), headers: &[] });
    }
    builder.build().unwrap()
}

/// The same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
