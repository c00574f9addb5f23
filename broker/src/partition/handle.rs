//! The handle of one partition for one request, over the shard that carries it.
//!
//! Only the leader answers for the current state, and only once it has applied an entry of its own term; an offset is
//! called beyond the end only after a read index (design section 3, I12). Records may be read from a follower
//! (KIP-392). May not know: sockets, wire versions.

use std::sync::Arc;
use std::time::Duration;

use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId, ProducerId};
use parking_lot::Mutex;

use super::types::{Access, ActiveProducer, EpochEnd, Isolation, ProducerTransaction, Watermarks};
use crate::metadata::Topic;
use crate::replicated::command::{Command, LogStartChange, LogStartReason};
use crate::replicated::error::PartitionError;
use crate::replicated::group::GroupStore;
use crate::replicated::producer_state::ProducerHistory;
use crate::replicated::shard_state::{ApplyReply, epoch_of};
use crate::replicated::transaction::TransactionStore;
use crate::shard::data_waiters::{ChangeFeed, DataWaiter};
use crate::shard::read_view::{LogOffsetSnapshot, PartitionReadView, Subscription};
use crate::shard::{Shard, ShardTime};

/// How long a deletion waits for transactions that have ended: the client was told of a commit before its markers were written.
const MARKERS_AWAITED: Duration = Duration::from_secs(2);

/// A partition that this node carries, for the time of one request; cheap to clone.
#[derive(Debug, Clone)]
pub struct Partition {
    pub(super) id: PartitionId,
    pub(super) topic: Arc<Topic>,
    pub(super) shard: Arc<Shard>,
    /// See [`Partition::remember_adoption`].
    pub(super) known_adopted: bool,
}

impl Partition {
    /// Which partition.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Its topic, as of when the partition was found.
    #[must_use]
    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// Counts what is to be appended.
    pub(super) fn count_appended(&self, bytes: u64) {
        self.shard.traffic.appended(bytes);
        if let Some(view) = self.view_on_demand() {
            view.traffic.appended(bytes);
        }
    }

    /// Counts what was read for a consumer.
    pub(super) fn count_fetched(&self, bytes: u64) {
        self.shard.traffic.fetched(bytes);
        if let Some(view) = self.view_on_demand() {
            view.traffic.fetched(bytes);
        }
    }

    /// The partition, if its topic's shards follow its load.
    fn view_on_demand(&self) -> Option<Arc<PartitionReadView>> {
        self.topic.config.on_demand.then(|| self.view()).flatten()
    }

    /// The partition as readers see it, once its shard has adopted it.
    pub(super) fn view(&self) -> Option<Arc<PartitionReadView>> {
        self.shard.read_view().get(self.id)
    }

    /// Subscribes `feed` to every change from now on, under the number `slot`, unless `known` is that subscription
    /// already. `None` if it is, or if the partition is not carried here.
    #[must_use]
    pub fn subscribe(&self, feed: &Arc<ChangeFeed>, slot: u64, known: Option<&Subscription>) -> Option<Subscription> {
        let view = self.view()?;
        if known.is_some_and(|known| known.is_of(&view)) {
            return None;
        }
        view.subscribe(feed, slot)
    }

    /// Offsets and leader epoch, if this node leads the partition and serves.
    pub(super) fn led(&self) -> Result<(LogOffsetSnapshot, LeaderEpoch), PartitionError> {
        let term = self.shard.leading().ok_or(PartitionError::NotLeaderOrFollower)?;
        let offsets = self.view().ok_or(PartitionError::LeaderNotAvailable)?.offsets();
        let epoch = epoch_of(offsets.epoch_base, term.0);
        // What a later leader has appended is applied here before the role says that this replica was deposed.
        if offsets.epochs.newest().is_some_and(|newest| newest > epoch) {
            return Err(PartitionError::NotLeaderOrFollower);
        }
        Ok((offsets, epoch))
    }

    /// The same, after a check of the leader epoch that the client sent (KIP-320).
    pub(super) fn led_in(
        &self,
        current: Option<LeaderEpoch>,
    ) -> Result<(LogOffsetSnapshot, LeaderEpoch), PartitionError> {
        let (offsets, epoch) = self.led()?;
        self.check_epoch(current, None, &offsets, epoch)?;
        Ok((offsets, epoch))
    }

    /// Checks the leader epoch that a client believes in (KIP-320), and where it reads from, if it does. A client that was refused for
    /// an epoch that is as good as the newest would wait for half a second.
    fn check_epoch(
        &self,
        believed: Option<LeaderEpoch>,
        from: Option<Offset>,
        offsets: &LogOffsetSnapshot,
        epoch: LeaderEpoch,
    ) -> Result<(), PartitionError> {
        match believed {
            Some(believed) if believed < epoch && !self.has_led_since(believed, from, offsets) => {
                Err(PartitionError::FencedLeaderEpoch)
            }
            Some(believed) if believed > epoch => Err(PartitionError::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }

    /// True if this node has led the partition in that epoch, and no other leader has appended anything since: a split or merge gives
    /// its partitions a new epoch, though the same node leads them. Not for a reader of what others have appended: a fetch of it that
    /// is under way while the reader asks where an epoch ended (see [`Self::goes_on`]) may pass that end, which is a true one.
    fn has_led_since(&self, epoch: LeaderEpoch, from: Option<Offset>, offsets: &LogOffsetSnapshot) -> bool {
        let Some(oldest) = self.shard.oldest_epoch(self.id, offsets.epoch_base) else { return false };
        let own = offsets.epochs.first_from(oldest).map_or(offsets.high_watermark, |first| first.start);
        epoch >= oldest && from.is_none_or(|from| from >= own)
    }

    /// True if a client that asks where an epoch ended is told the high watermark. It compares the answer with what it has read
    /// meanwhile, which may be what this node has appended since a split or merge: librdkafka would take that for truncated, and read
    /// it again. So it is not told that an epoch ended with one, nor, after one, that the epoch ended from which on this node has led;
    /// nothing can have been truncated there.
    fn goes_on(&self, requested: LeaderEpoch, current: LeaderEpoch, offsets: &LogOffsetSnapshot) -> bool {
        let Some(oldest) = self.shard.oldest_epoch(self.id, offsets.epoch_base) else { return false };
        let is_last_before = || offsets.epochs.after(requested).is_some_and(|next| next >= oldest);
        requested >= oldest || (oldest < current && is_last_before())
    }

    /// Offsets and leader epoch for a reader; the offsets of a follower are those of what it has applied.
    pub(super) fn readable(&self, access: Access) -> Result<(LogOffsetSnapshot, LeaderEpoch), PartitionError> {
        match self.led() {
            Err(PartitionError::NotLeaderOrFollower) if access == Access::AnyReplica => self.followed(),
            led => led,
        }
    }

    /// The same, after a check of the leader epoch that the reader believes in; it reads from this offset on.
    pub(super) fn readable_from(
        &self,
        from: Offset,
        access: Access,
        current: Option<LeaderEpoch>,
    ) -> Result<(LogOffsetSnapshot, LeaderEpoch), PartitionError> {
        let (offsets, epoch) = self.readable(access)?;
        self.check_epoch(current, Some(from), &offsets, epoch)?;
        Ok((offsets, epoch))
    }

    fn followed(&self) -> Result<(LogOffsetSnapshot, LeaderEpoch), PartitionError> {
        let term = self.shard.following().ok_or(PartitionError::NotLeaderOrFollower)?;
        let offsets = self.view().ok_or(PartitionError::NotLeaderOrFollower)?.offsets();
        let epoch = epoch_of(offsets.epoch_base, term.0);
        // The role may not know the term yet of what is applied already.
        let epoch = offsets.epochs.newest().map_or(epoch, |newest| newest.max(epoch));
        Ok((offsets, epoch))
    }

    /// True if a reader may read here, from the leader or from a follower of it.
    pub(crate) fn is_readable(&self, access: Access) -> bool {
        self.readable(access).is_ok()
    }

    /// The leader epoch; only where this node leads and serves.
    #[must_use]
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.led().ok().map(|(_, epoch)| epoch)
    }

    /// The shard's time; none where this node does not lead.
    #[must_use]
    pub fn time(&self) -> Option<ShardTime> {
        self.shard.time()
    }

    /// True once the shard carries the partition.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.view().is_some()
    }

    /// The same handle for a caller that keeps it as long as the metadata image stays the same: while that routes the
    /// partition to its shard, an adopted partition stays adopted, so appends need not check again.
    #[must_use]
    pub fn remember_adoption(mut self) -> Self {
        self.known_adopted = self.is_adopted();
        self
    }

    /// True if [`Self::remember_adoption`] found the partition adopted.
    #[must_use]
    pub fn is_known_adopted(&self) -> bool {
        self.known_adopted
    }

    /// The watermarks as published; all 0 before the partition is adopted.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        self.view().map(|view| watermarks(&view.offsets())).unwrap_or_default()
    }

    /// Waits until what this node has applied is current.
    pub async fn read_index(&self) -> Result<(), PartitionError> {
        self.shard.read_index().await
    }

    /// The end of the epoch `requested` (KIP-101); `None` if the epochs do not reach that far back.
    pub async fn epoch_end(
        &self,
        requested: LeaderEpoch,
        current: Option<LeaderEpoch>,
    ) -> Result<Option<EpochEnd>, PartitionError> {
        let _ = self.led_in(current)?;
        // The newest epoch ends at the high watermark. A deposed leader that does not know it yet would answer less
        // than was read elsewhere, and a client takes that for a truncation.
        self.read_index().await?;
        let (offsets, epoch) = self.led_in(current)?;
        if requested <= epoch && self.goes_on(requested, epoch, &offsets) {
            return Ok(Some(EpochEnd { epoch: requested, end_offset: offsets.high_watermark }));
        }
        let end = offsets.epochs.end_of(requested, epoch, offsets.high_watermark);
        Ok(end.map(|(epoch, end_offset)| EpochEnd { epoch, end_offset }))
    }

    /// Waits until what lies below an offset is stable, at most so long.
    async fn stable_up_to(&self, offset: Offset, most: Duration) {
        let Some(view) = self.view() else { return };
        let deadline = rt::now() + most;
        let mut waits = true;
        while waits {
            let (waiter, woken) = DataWaiter::new(1, Isolation::ReadCommitted);
            waits = view.register(&waiter)
                && view.offsets().last_stable < offset
                && rt::timeout_at(deadline, woken).await.is_ok();
            view.unregister(&waiter);
        }
    }

    /// Moves the log start up to `offset`, -1 for the high watermark; returns the new log start (KIP-107). It is lower where a
    /// transaction is open: that keeps its records.
    pub async fn delete_records(&self, offset: i64) -> Result<Offset, PartitionError> {
        let policy = self.topic.config.cleanup_policy;
        if !policy.delete || self.topic.internal {
            return Err(PartitionError::PolicyViolation("cleanup.policy of the topic does not delete"));
        }
        let (offsets, _) = self.led()?;
        let wanted = if offset == -1 { offsets.high_watermark } else { Offset(offset) };
        if wanted < Offset(0) || wanted > offsets.high_watermark {
            return Err(PartitionError::OffsetOutOfRange);
        }
        self.stable_up_to(wanted, MARKERS_AWAITED).await;
        let change = LogStartChange { id: self.id, offset: wanted, reason: LogStartReason::DeleteRecords };
        match self.shard.command(Command::SetLogStart(vec![change])).await? {
            ApplyReply::LogStarts(starts) => {
                starts.first().and_then(|(_, start)| *start).ok_or(PartitionError::UnknownTopicOrPartition)
            }
            ApplyReply::Data(_) | ApplyReply::Changed(_) | ApplyReply::OtherMembers => {
                Err(PartitionError::NotLeaderOrFollower)
            }
        }
    }

    /// The producers known on the partition, by id; on a follower those of what it has applied.
    pub fn producers(&self) -> Result<Vec<ActiveProducer>, PartitionError> {
        let _ = self.readable(Access::AnyReplica)?;
        let state = self.shard.state().lock();
        let partition = state.partitions.get(&self.id).ok_or(PartitionError::NotLeaderOrFollower)?;
        let shown = |(producer_id, history): (ProducerId, &ProducerHistory)| ActiveProducer {
            producer_id,
            producer_epoch: history.epoch,
            last_sequence: history.last_sequence(),
            last_timestamp_ms: history.timestamp_ms,
            coordinator_epoch: history.coordinator_epoch,
            current_txn_start_offset: history.transaction_start.map_or(-1, |offset| offset.0),
        };
        Ok(partition.producers.iter().map(shown).collect())
    }

    /// A producer's transaction here, as far as it is applied: what is behind that is found by apply, which judges the batch again.
    pub fn transaction_of(&self, producer: ProducerId, epoch: i16) -> Result<ProducerTransaction, PartitionError> {
        // Where an append is refused for the same reason. Readers may still wait for the partition, as behind a split.
        if !self.shard.is_elected() {
            return Err(PartitionError::NotLeaderOrFollower);
        }
        let state = self.shard.state().lock();
        // One that is not carried yet has had no marker, or apply says that it had.
        let Some(partition) = state.partitions.get(&self.id) else {
            return Ok(ProducerTransaction::None { marker_number: 0 });
        };
        let history = partition.producers.get(producer);
        let is_open = history.is_some_and(|history| history.is_in_transaction() && history.epoch == epoch);
        Ok(match is_open {
            true => ProducerTransaction::Open,
            false => ProducerTransaction::None { marker_number: partition.transactions.marker_number(history) },
        })
    }

    /// Bytes of its batches from log start in the directory of this node's replica.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shard.directory().map_or(0, |directory| directory.bytes_of(directory.extent(self.shard.replica, self.id)))
    }

    /// The replicated group state; partitions of `__consumer_offsets` only.
    #[must_use]
    pub fn group_store(&self) -> Option<Arc<Mutex<GroupStore>>> {
        self.view()?.kept.as_ref()?.groups().cloned()
    }

    /// The replicated transactional ids; partitions of `__transaction_state` only.
    #[must_use]
    pub fn transaction_store(&self) -> Option<Arc<Mutex<TransactionStore>>> {
        self.view()?.kept.as_ref()?.transactions().cloned()
    }
}

pub(super) fn watermarks(offsets: &LogOffsetSnapshot) -> Watermarks {
    Watermarks {
        log_start: offsets.log_start,
        high_watermark: offsets.high_watermark,
        last_stable: offsets.last_stable,
    }
}

/// The end of what a reader may see.
pub(super) fn end_for(offsets: &LogOffsetSnapshot, isolation: Isolation) -> Offset {
    match isolation {
        Isolation::ReadUncommitted => offsets.high_watermark,
        Isolation::ReadCommitted if mutants::is_on(Bug::ReadAboveLastStable) => offsets.high_watermark,
        Isolation::ReadCommitted => offsets.last_stable,
    }
}
