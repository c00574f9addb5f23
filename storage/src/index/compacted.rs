//! What is known of a lineage that was compacted: the last pass, and which files count below its horizon. No behaviour beyond that.

use std::sync::Arc;

use crate::compact::{Pass, PassDone};
use crate::ids::RunId;

/// The last pass over a lineage, and where its batches lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// The pass's number.
    pub(crate) number: u64,
    pub(crate) pass: Pass,
    /// Below the horizon only runs from this one on count, and those that were imported.
    pub(crate) first_run: RunId,
    /// Runs in which another replica's bytes have come in the place of what was here: they were begun while the rewriter still copied
    /// that, so that their ids are no sign.
    pub(crate) imported: Arc<[RunId]>,
}

impl Compacted {
    pub(crate) fn done(&self) -> PassDone {
        PassDone { number: self.number, pass: self.pass }
    }

    /// True if what the file lists below the horizon is gone.
    pub(super) fn replaces(&self, file: u64) -> bool {
        RunId::of_file(file).is_none_or(|run| run < self.first_run && !self.imported.contains(&run))
    }
}
