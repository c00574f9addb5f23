//! The failed state of a data directory: set once, never cleared.

use std::sync::Arc;

use parking_lot::Mutex;

/// Called with the reason when the directory fails.
pub type OnFailure = Arc<dyn Fn(&str) + Send + Sync>;

/// Why the directory has failed, if it has.
#[derive(Default)]
pub(crate) struct Failure {
    reason: Mutex<Option<Arc<str>>>,
    told: Option<OnFailure>,
}

impl Failure {
    pub(crate) fn new(told: Option<OnFailure>) -> Self {
        Self { reason: Mutex::new(None), told }
    }

    /// The first reason stays.
    pub(crate) fn set(&self, reason: &str) {
        let first = {
            let mut slot = self.reason.lock();
            let first = slot.is_none();
            slot.get_or_insert_with(|| reason.into());
            first
        };
        if first {
            tracing::error!(reason, "data directory failed: its replicas stop for good, shards go on elsewhere");
            if let Some(told) = &self.told {
                told(reason);
            }
        }
    }

    pub(crate) fn get(&self) -> Option<Arc<str>> {
        self.reason.lock().clone()
    }
}
