//! The laws (design section 10), one per file. A law judges what clients were answered and what replicas hold.
//!
//! May not know: anything else of the code under test.

pub(crate) mod apply;
pub(crate) mod compaction;
pub(crate) mod directories;
pub(crate) mod epochs;
pub(crate) mod factors;
pub(crate) mod fencing;
pub(crate) mod groups;
pub(crate) mod i12_range;
pub(crate) mod i1_durable;
pub(crate) mod i2_dense;
pub(crate) mod i4_monotone;
pub(crate) mod i5_once;
pub(crate) mod i6_equal;
pub(crate) mod i7_owned;
pub(crate) mod i8_recovery;
pub(crate) mod i9_commits;
pub(crate) mod i9_topics;
pub(crate) mod in_sync;
pub(crate) mod leaders;
pub(crate) mod levels;
pub(crate) mod liveness;
pub(crate) mod matching;
pub(crate) mod memory;
pub(crate) mod progress;
pub(crate) mod reads;
pub(crate) mod static_members;
pub(crate) mod transfers;

use std::fmt;

/// A law that was broken, and how.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) law: &'static str,
    pub(crate) what: String,
    /// The partition whose events are to be printed.
    pub(crate) partition: Option<i32>,
}

impl Violation {
    pub(crate) fn new(law: &'static str, partition: impl Into<Option<i32>>, what: String) -> Self {
        Self { law, what, partition: partition.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.law)?;
        if let Some(partition) = self.partition {
            write!(f, "partition {partition}: ")?;
        }
        f.write_str(&self.what)
    }
}
