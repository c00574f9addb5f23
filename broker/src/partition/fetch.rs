//! Fetch: whole batches from an offset up to what the reader may see, with patched headers.
//!
//! Follows Kafka's ReplicaManager / Partition.readRecords: epochs first, then divergence, then range. An offset above
//! the high watermark is out of range only if it still is after a read index (I12); a follower, which cannot know, says
//! that it is not available there (KIP-392).

use bytes::Bytes;
use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::Offset;
use ottla_storage::read::{ReadError, ReadRequest, Wanted};

use super::handle::{Partition, end_for, watermarks};
use super::types::{Access, EpochEnd, FetchSpec, Fetched, FetchedRecords, Isolation};
use crate::replicated::error::PartitionError;
use crate::shard::read_view::LogOffsetSnapshot;

impl Partition {
    /// Reads from an offset on. An empty result is no error.
    pub async fn read(&self, spec: FetchSpec) -> Result<Fetched, PartitionError> {
        let (mut offsets, mut epoch) = self.readable_from(spec.offset, spec.access, spec.current_leader_epoch)?;
        let leads = self.shard.leading().is_some();
        if !leads && spec.offset > end_for(&offsets, spec.isolation) {
            if mutants::is_on(Bug::FollowerOutOfRange) {
                return Err(PartitionError::OffsetOutOfRange);
            }
            // Other replicas may have more: neither out of range nor a divergence.
            return Err(PartitionError::OffsetNotAvailable);
        }
        if let Some(last) = spec.last_fetched_epoch {
            let agrees = |offsets: &LogOffsetSnapshot, epoch| {
                let end = offsets.epochs.end_of(last, epoch, offsets.high_watermark)?;
                Some((end, end.0 >= last && end.1 >= spec.offset))
            };
            if leads && agrees(&offsets, epoch).is_none_or(|(_, agrees)| !agrees) {
                // A leader that was deposed unawares knows neither the newest epochs nor how far the others came.
                self.read_index().await?;
                (offsets, epoch) = self.led_in(spec.current_leader_epoch)?;
            }
            let ((known, end_offset), agrees) = agrees(&offsets, epoch).ok_or(PartitionError::OffsetOutOfRange)?;
            if !agrees {
                let diverging = EpochEnd { epoch: known, end_offset };
                return Ok(Fetched { diverging_epoch: Some(diverging), ..empty(&offsets, spec.isolation) });
            }
        }
        if spec.offset < offsets.log_start {
            return Err(PartitionError::OffsetOutOfRange);
        }
        if spec.offset > offsets.high_watermark {
            if mutants::is_on(Bug::FalseOutOfRange) {
                return Err(PartitionError::OffsetOutOfRange);
            }
            self.read_index().await?;
            offsets = self.led_in(spec.current_leader_epoch)?.0;
            if spec.offset > offsets.high_watermark || spec.offset < offsets.log_start {
                return Err(PartitionError::OffsetOutOfRange);
            }
        }
        let up_to = end_for(&offsets, spec.isolation);
        let mut fetched = empty(&offsets, spec.isolation);
        if spec.offset < up_to && (spec.max_bytes > 0 || spec.at_least_one) {
            let Read { records, end, markers_from } = self.records(&spec, up_to).await?;
            // Of the snapshot that has the ends, and no more than the records of this answer need. A client takes what follows a
            // transaction whose marker is gone for a part of it.
            if spec.isolation == Isolation::ReadCommitted && spec.offset < end {
                fetched.aborted = Some(offsets.aborted.within(spec.offset.max(markers_from), end));
            }
            fetched.records = records;
        }
        Ok(fetched)
    }

    /// Whole batches from the requested offset up to `up_to`.
    async fn records(&self, spec: &FetchSpec, up_to: Offset) -> Result<Read, PartitionError> {
        let none = Read { records: FetchedRecords::None, end: spec.offset, markers_from: Offset(0) };
        let Some(directory) = self.shard.directory() else { return Ok(none) };
        let key = directory.extent(self.shard.replica, self.id);
        let (from, bytes_max, at_least_one) = (spec.offset, spec.max_bytes, spec.at_least_one);
        let request = ReadRequest { key, from, up_to, bytes_max, at_least_one, wanted: Wanted::WithRecords };
        let plan = directory.plan_read(request).await.map_err(|error| self.unreadable(&error))?;
        let Some(base_offset) = plan.base_offset() else { return Ok(none) };
        // The log start has moved since it was compared: the reader is told, and skips nothing in silence.
        if base_offset > from {
            return Err(PartitionError::OffsetOutOfRange);
        }
        self.count_fetched(plan.bytes() as u64);
        let end = plan.end_offset();
        let lists_all = mutants::is_on(Bug::GoneMarkersListed);
        let markers_from = plan.pass().filter(|_| !lists_all).map_or(Offset(0), |done| done.pass.cutoff);
        if plan.bytes() > spec.copy_bytes_max {
            let stream = plan.into_stream().await.map_err(|error| self.unreadable(&error))?;
            return Ok(Read { records: FetchedRecords::Streamed(Box::new(stream)), end, markers_from });
        }
        let bytes = plan.read().await.map_err(|error| self.unreadable(&error))?;
        Ok(Read { records: FetchedRecords::Copied(bytes.freeze()), end, markers_from })
    }

    /// Whole batches from the one that holds `from` up to `up_to`, in memory.
    pub(super) async fn copy(
        &self,
        from: Offset,
        up_to: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Bytes, PartitionError> {
        let Some(directory) = self.shard.directory() else { return Ok(Bytes::new()) };
        let request = ReadRequest {
            key: directory.extent(self.shard.replica, self.id),
            from,
            up_to,
            bytes_max,
            at_least_one,
            wanted: Wanted::WithRecords,
        };
        let plan = directory.plan_read(request).await.map_err(|error| self.unreadable(&error))?;
        if plan.is_empty() {
            return Ok(Bytes::new());
        }
        let bytes = plan.read().await.map_err(|error| self.unreadable(&error))?;
        Ok(bytes.freeze())
    }

    /// Bytes from `from` on that a reader could have now, counted up to `bytes_max`.
    pub(super) async fn available_bytes(
        &self,
        from: Offset,
        (isolation, access): (Isolation, Access),
        bytes_max: usize,
    ) -> usize {
        let Ok((offsets, _)) = self.readable(access) else { return 0 };
        let up_to = end_for(&offsets, isolation);
        let Some(directory) = self.shard.directory() else { return 0 };
        if from >= up_to {
            return 0;
        }
        let request = ReadRequest {
            key: directory.extent(self.shard.replica, self.id),
            from,
            up_to,
            bytes_max,
            at_least_one: true,
            wanted: Wanted::WithRecords,
        };
        directory.plan_read(request).await.map_or(bytes_max, |plan| plan.bytes())
    }

    pub(super) fn unreadable(&self, error: &ReadError) -> PartitionError {
        tracing::error!("partition={}/{}: {error}; other offsets are served", self.topic.name, self.id.index);
        PartitionError::Storage
    }
}

/// What is read for a fetch.
struct Read {
    records: FetchedRecords,
    /// The offset behind them.
    end: Offset,
    /// Below this offset compaction has removed the markers of transactions, and what was aborted.
    markers_from: Offset,
}

fn empty(offsets: &LogOffsetSnapshot, isolation: Isolation) -> Fetched {
    Fetched {
        watermarks: watermarks(offsets),
        diverging_epoch: None,
        aborted: (isolation == Isolation::ReadCommitted).then(Vec::new),
        records: FetchedRecords::None,
    }
}
