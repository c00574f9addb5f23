//! The rewriter: copies what lives in mostly dead segments and runs into new runs, so that the old files can go.
//!
//! It decides from numbers alone. May not know: topics; which batches live and die together comes as opaque classes.

pub(crate) mod choose;
pub(crate) mod copy;
pub(crate) mod damage;
pub(crate) mod throttle;

use std::sync::Arc;
use std::time::Duration;

use ottla_protocol::ids::PartitionId;

/// About how long the batches of a partition live: those of one class share runs, so that whole runs die together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RetentionClass(pub u8);

impl RetentionClass {
    /// Nothing is known about it.
    pub const UNKNOWN: Self = Self(0);
    /// Batches stay until someone deletes them.
    pub const NEVER: Self = Self(u8::MAX);

    /// The class of batches that live this long: each is four times as long as the one before it.
    #[must_use]
    pub fn lasting(life: Duration) -> Self {
        let seconds = life.as_secs().max(1);
        Self(1 + u8::try_from(seconds.ilog2() / 2).unwrap_or(u8::MAX - 2))
    }
}

/// Says to which class a partition belongs; asked whenever a job begins.
pub type Classes = Arc<dyn Fn(PartitionId) -> RetentionClass + Send + Sync>;

/// How the rewriter works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RewriteOptions {
    /// Bytes read and written per second while space is ample; 0 switches the rewriter off. Default 64 MiB.
    pub bytes_per_second: u64,
    /// Bytes read and written per second at the most, also while space is short. Default no limit.
    pub bytes_per_second_max: u64,
    /// Length of a run, where there is enough to fill it. Default 256 MiB.
    pub run_bytes: u64,
    /// Pause when there is nothing to do. Default 15 s.
    pub interval: Duration,
    /// What is dying by itself is not copied while space is ample and its last batch died this recently. Default 10 min.
    pub patience: Duration,
}

impl Default for RewriteOptions {
    fn default() -> Self {
        Self {
            bytes_per_second: 64 << 20,
            bytes_per_second_max: u64::MAX,
            run_bytes: 256 << 20,
            interval: Duration::from_secs(15),
            patience: Duration::from_secs(600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_spans_a_factor_of_four() {
        let class = |seconds| RetentionClass::lasting(Duration::from_secs(seconds)).0;
        assert_eq!((class(0), class(3), class(4), class(15), class(16)), (1, 1, 2, 2, 3));
        assert_eq!((class(3600), class(86_400), class(7 * 86_400)), (6, 9, 10));
        assert!(class(u64::MAX) < RetentionClass::NEVER.0);
    }
}
