//! The times that an owner keeps to.
//!
//! May not know: where they are configured.

use crate::coordinator::group::classic::Settings;

/// Times of an owner beside the groups' own.
#[derive(Debug, Clone, Copy)]
pub(in crate::coordinator::group) struct OwnerSettings {
    pub(in crate::coordinator::group) group: Settings,
    pub(in crate::coordinator::group) retention_ms: i64,
    pub(in crate::coordinator::group) sweep_interval_ms: i64,
}
