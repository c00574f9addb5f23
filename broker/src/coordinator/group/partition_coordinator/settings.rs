//! The times of a partition coordinator.
//!
//! May not know: where they are configured.

use crate::coordinator::group::classic::Settings;

/// Times of a coordinator beside the groups' own.
#[derive(Debug, Clone, Copy)]
pub(in crate::coordinator::group) struct CoordinatorSettings {
    pub(in crate::coordinator::group) group: Settings,
    pub(in crate::coordinator::group) retention_ms: i64,
    pub(in crate::coordinator::group) expiration_interval_ms: i64,
}
