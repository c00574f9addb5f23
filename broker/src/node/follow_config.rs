//! Applies settings that change while the node runs to what was made from them at the start.
//!
//! May not know: any setting.

use std::sync::Arc;

use ottla_env::critical::Owner;
use ottla_env::rt;

use crate::config::Config;
use crate::metadata::MetadataHandle;

/// Calls `apply` with the node's configuration, now and after each change of it.
pub(super) fn follow_config(
    name: &'static str,
    metadata: &MetadataHandle,
    mut apply: impl FnMut(&Config) + Send + 'static,
) {
    // Not the handle: it holds the metadata's replica, and that holds a data directory to which `apply` may apply settings.
    let mut images = metadata.watch();
    drop(rt::spawn_critical(name, Owner::process(), async move {
        let mut applied: Option<Arc<Config>> = None;
        loop {
            let config = Arc::clone(&images.borrow_and_update().config);
            // Nearly all changes of the metadata leave the configuration as it is.
            if !applied.as_ref().is_some_and(|applied| Arc::ptr_eq(applied, &config)) {
                apply(&config);
                applied = Some(config);
            }
            if images.changed().await.is_err() {
                return;
            }
        }
    }));
}
