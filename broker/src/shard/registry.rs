//! What shards and partitions need of the metadata, as a trait: they are tested without a metadata group.
//!
//! May not know: who changes the metadata and how.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_storage::env::watch;
use ottla_storage::ids::ReplicaId;

use crate::metadata::{IntentEnd, IntentKey, InternalTopic, MetadataHandle, MetadataImage, ShardId};

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
    /// Reports that a shard's members are those that it is to have, and that others have left; false if not recorded.
    fn forget_replicas(
        &self,
        shard: ShardId,
        reached: Vec<ReplicaId>,
        left: Vec<ReplicaId>,
    ) -> BoxFuture<'static, bool>;
    /// Reports that replicas on this node's disks can take part no more, and are to be rebuilt.
    fn report_lost(&self, lost: Vec<ReplicaId>);
    /// This node's replica of the metadata, once it is known that it is no member any more and can be told nothing.
    fn expelled(&self) -> watch::Receiver<Option<ReplicaId>>;
    /// Creates one of the broker's own topics unless it exists; false if that cannot be had now.
    fn ensure_internal(&self, topic: InternalTopic) -> BoxFuture<'static, bool>;
}

impl Registry for MetadataHandle {
    fn image(&self) -> Arc<MetadataImage> {
        MetadataHandle::image(self)
    }

    fn changes(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.watch()
    }

    fn read_index(&self) -> BoxFuture<'static, bool> {
        let metadata = self.clone();
        async move { MetadataHandle::read_index(&metadata).await.is_ok() }.boxed()
    }

    fn end_intents(&self, done: Vec<IntentKey>) -> BoxFuture<'static, bool> {
        let metadata = self.clone();
        let ends = done.into_iter().map(|key| (key, IntentEnd::Done)).collect();
        async move { MetadataHandle::end_intents(&metadata, ends).await.is_ok() }.boxed()
    }

    fn forget_replicas(
        &self,
        shard: ShardId,
        reached: Vec<ReplicaId>,
        left: Vec<ReplicaId>,
    ) -> BoxFuture<'static, bool> {
        let metadata = self.clone();
        async move { MetadataHandle::forget_replicas(&metadata, shard, reached, left).await.is_ok() }.boxed()
    }

    fn report_lost(&self, lost: Vec<ReplicaId>) {
        MetadataHandle::report_lost(self, lost);
    }

    fn expelled(&self) -> watch::Receiver<Option<ReplicaId>> {
        MetadataHandle::removed_from_cluster(self)
    }

    fn ensure_internal(&self, topic: InternalTopic) -> BoxFuture<'static, bool> {
        let metadata = self.clone();
        async move {
            let made = MetadataHandle::ensure_internal(&metadata, topic).await;
            made.map_err(|error| tracing::warn!("{} cannot be made now: {error}", topic.name())).is_ok()
        }
        .boxed()
    }
}
