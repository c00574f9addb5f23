//! What shards and partitions need of the metadata, as a trait: they are tested without a metadata group.
//!
//! May not know: who changes the metadata and how.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use ottla_storage::env::watch;

use crate::metadata::{IntentKey, MetadataImage};

/// The land registry as the floors below it see it.
pub trait Registry: Send + Sync + 'static {
    /// The newest image.
    fn image(&self) -> Arc<MetadataImage>;
    /// The image and its changes.
    fn changes(&self) -> watch::Receiver<Arc<MetadataImage>>;
    /// Waits until the image is current; false if that cannot be had now.
    fn read_index(&self) -> BoxFuture<'static, bool>;
    /// Reports intents that a shard has carried out; false if they must be reported again.
    fn end_intents(&self, done: Vec<IntentKey>) -> BoxFuture<'static, bool>;
}
