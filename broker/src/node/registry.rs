//! The metadata, as shards and partitions see it.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_storage::env::watch;

use crate::metadata::{IntentEnd, IntentKey, Metadata, MetadataImage};
use crate::shard::Registry;

/// The land registry of this node.
pub(super) struct MetadataRegistry(pub(super) Metadata);

impl Registry for MetadataRegistry {
    fn image(&self) -> Arc<MetadataImage> {
        self.0.image()
    }

    fn changes(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.0.watch()
    }

    fn read_index(&self) -> BoxFuture<'static, bool> {
        let metadata = self.0.clone();
        async move { metadata.read_index().await.is_ok() }.boxed()
    }

    fn end_intents(&self, done: Vec<IntentKey>) -> BoxFuture<'static, bool> {
        let metadata = self.0.clone();
        let ends = done.into_iter().map(|key| (key, IntentEnd::Done)).collect();
        async move { metadata.end_intents(ends).await.is_ok() }.boxed()
    }
}
