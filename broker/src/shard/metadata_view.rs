//! The metadata as shards and partitions use it: a trait, so that they are tested without a metadata group.
//!
//! May not know: which node changes the metadata and how.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_env::watch;
use ottla_storage::ids::{RaftIndex, ReplicaId};

use crate::metadata::{IntentEnd, IntentKey, InternalTopic, MergeStep, MetadataHandle, MetadataImage, ShardId};

/// The metadata image, and what a shard reports to the controller.
pub trait MetadataView: Send + Sync + 'static {
    /// The newest image.
    fn image(&self) -> Arc<MetadataImage>;
    /// The image and its changes.
    fn changes(&self) -> watch::Receiver<Arc<MetadataImage>>;
    /// Waits until the image is current; false if that cannot be confirmed now.
    fn read_index(&self) -> BoxFuture<'static, bool>;
    /// Reports intents that a shard has carried out; false if they must be reported again.
    fn end_intents(&self, done: Vec<IntentKey>) -> BoxFuture<'static, bool>;
    /// Reports that the split which makes `child` is carried out in the log of its parent up to `at`; false if it must be
    /// reported again.
    fn end_split(&self, child: ShardId, at: RaftIndex) -> BoxFuture<'static, bool>;
    /// Reports a step of a merge; false if it must be reported again.
    fn report_merge(&self, step: MergeStep) -> BoxFuture<'static, bool>;
    /// Reports that a shard's membership is as recorded (`reached`), and which replicas have left; false if not
    /// recorded.
    fn forget_replicas(
        &self,
        shard: ShardId,
        reached: Vec<ReplicaId>,
        left: Vec<ReplicaId>,
    ) -> BoxFuture<'static, bool>;
    /// Reports that replicas on this node's disks are lost, and are to be rebuilt.
    fn report_lost(&self, lost: Vec<ReplicaId>);
    /// This node's replica of the metadata, once it is known that it has been removed from the metadata group, so that
    /// it receives no entries any more.
    fn removed_from_cluster(&self) -> watch::Receiver<Option<ReplicaId>>;
    /// Creates an internal topic unless it exists; false if that is not possible now.
    fn ensure_internal(&self, topic: InternalTopic) -> BoxFuture<'static, bool>;
}

impl MetadataView for MetadataHandle {
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

    fn end_split(&self, child: ShardId, at: RaftIndex) -> BoxFuture<'static, bool> {
        let metadata = self.clone();
        async move { MetadataHandle::end_split(&metadata, child, at).await.is_ok() }.boxed()
    }

    fn report_merge(&self, step: MergeStep) -> BoxFuture<'static, bool> {
        let metadata = self.clone();
        async move { MetadataHandle::merge(&metadata, step).await.is_ok() }.boxed()
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

    fn removed_from_cluster(&self) -> watch::Receiver<Option<ReplicaId>> {
        MetadataHandle::removed_from_cluster(self)
    }

    fn ensure_internal(&self, topic: InternalTopic) -> BoxFuture<'static, bool> {
        let metadata = self.clone();
        async move {
            let created = MetadataHandle::ensure_internal(&metadata, topic).await;
            created.map_err(|error| tracing::warn!("{} cannot be made now: {error}", topic.name())).is_ok()
        }
        .boxed()
    }
}
