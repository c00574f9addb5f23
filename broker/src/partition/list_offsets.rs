//! ListOffsets: end, start and time queries (KIP-79, KIP-734, KIP-405, KIP-1005).
//!
//! A time query searches the batch that the time index points to, compressed or not, and never answers an offset
//! below log start or above what the reader may see. The latest offset is answered only after a read index.

use bytes::Bytes;
use ottla_env::rt;
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::ids::{LeaderEpoch, Offset};
use ottla_protocol::records;
use ottla_storage::index::IndexedBatch;

use super::handle::{Partition, end_for};
use super::types::{Isolation, ListedOffset, OffsetQuery};
use super::validate::DECOMPRESSED_BYTES_MAX;
use crate::replicated::error::PartitionError;
use crate::shard::read_view::LogOffsetSnapshot;

/// The record that is searched in a batch.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// The first record at or after a time.
    AtOrAfter(i64),
    /// The first record with the greatest time.
    Greatest,
}

impl Partition {
    /// The offset of an end or of a time; `None` if there is none.
    pub async fn list_offset(
        &self,
        query: OffsetQuery,
        isolation: Isolation,
        current: Option<LeaderEpoch>,
    ) -> Result<Option<ListedOffset>, PartitionError> {
        let (offsets, epoch) = self.led_in(current)?;
        match query {
            OffsetQuery::Latest => {
                self.read_index().await?;
                let (offsets, epoch) = self.led_in(current)?;
                let offset = end_for(&offsets, isolation);
                Ok(Some(ListedOffset { offset, timestamp_ms: -1, leader_epoch: Some(epoch) }))
            }
            OffsetQuery::Earliest | OffsetQuery::EarliestLocal => {
                let written_in = offsets.epochs.epoch_of(offsets.log_start).or(Some(epoch));
                Ok(Some(ListedOffset { offset: offsets.log_start, timestamp_ms: -1, leader_epoch: written_in }))
            }
            OffsetQuery::Tiered => Ok(None),
            OffsetQuery::MaxTimestamp => {
                self.read_index().await?;
                self.greatest_timestamp(&self.led_in(current)?.0, isolation).await
            }
            OffsetQuery::Timestamp(at) => match self.first_from(at, &offsets, isolation).await? {
                // A leader that was deposed unawares lacks what came since; a client would skip it.
                None => {
                    self.read_index().await?;
                    self.first_from(at, &self.led_in(current)?.0, isolation).await
                }
                found => Ok(found),
            },
        }
    }

    async fn greatest_timestamp(
        &self,
        offsets: &LogOffsetSnapshot,
        isolation: Isolation,
    ) -> Result<Option<ListedOffset>, PartitionError> {
        let Some(directory) = self.shard.directory() else { return Ok(None) };
        let line = directory.batch_of_max_timestamp(directory.extent(self.shard.replica, self.id)).await;
        match line.map_err(|error| self.unreadable(&error))? {
            Some(line) => self.search(line, Wanted::Greatest, offsets, isolation).await,
            None => Ok(None),
        }
    }

    async fn first_from(
        &self,
        at: i64,
        offsets: &LogOffsetSnapshot,
        isolation: Isolation,
    ) -> Result<Option<ListedOffset>, PartitionError> {
        let Some(directory) = self.shard.directory() else { return Ok(None) };
        let key = directory.extent(self.shard.replica, self.id);
        let line = directory.batch_by_time(key, at).await;
        let mut next = line.map_err(|error| self.unreadable(&error))?;
        // One batch as a rule; more only if the records that qualified lie below the log start.
        while let Some(line) = next {
            if line.base_offset >= end_for(offsets, isolation) {
                return Ok(None);
            }
            if line.max_timestamp_ms >= at {
                let found = self.search(line, Wanted::AtOrAfter(at), offsets, isolation).await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            let after = directory.batch_at(key, line.end_offset()).await;
            next = after.map_err(|error| self.unreadable(&error))?;
        }
        Ok(None)
    }

    /// Searches one batch for a record.
    async fn search(
        &self,
        line: IndexedBatch,
        wanted: Wanted,
        offsets: &LogOffsetSnapshot,
        isolation: Isolation,
    ) -> Result<Option<ListedOffset>, PartitionError> {
        let (from, log_start, up_to) = (line.base_offset, offsets.log_start, end_for(offsets, isolation));
        if from >= up_to {
            return Ok(None);
        }
        let batch = self.copy(from, line.end_offset(), 0, true).await?;
        // Decompression may take long: not on an async thread.
        let found = rt::spawn_blocking(move || look_inside(&batch, wanted, log_start, up_to)).await;
        let found = found.map_err(|_| PartitionError::Storage)?.map_err(|error| {
            tracing::error!("partition={} offset={from}: a batch cannot be opened: {error}", self.id);
            PartitionError::Storage
        })?;
        Ok(found.map(|(offset, timestamp_ms)| ListedOffset { offset, timestamp_ms, leader_epoch: Some(line.epoch) }))
    }
}

/// The searched record among those of a batch that lie in the range: its offset and time.
fn look_inside(
    batch: &Bytes,
    wanted: Wanted,
    log_start: Offset,
    up_to: Offset,
) -> Result<Option<(Offset, i64)>, records::RecordsError> {
    let Some(header) = BatchHeader::parse(batch) else { return Ok(None) };
    let records = records::open(&header, batch, DECOMPRESSED_BYTES_MAX)?;
    let mut greatest: Option<(Offset, i64)> = None;
    for record in &records {
        let record = record?;
        let offset = header.base_offset.plus(i64::from(record.offset_delta));
        if offset < log_start || offset >= up_to {
            continue;
        }
        match wanted {
            Wanted::AtOrAfter(at) if record.timestamp >= at => return Ok(Some((offset, record.timestamp))),
            Wanted::Greatest if greatest.is_none_or(|(_, time)| record.timestamp > time) => {
                greatest = Some((offset, record.timestamp));
            }
            Wanted::AtOrAfter(_) | Wanted::Greatest => {}
        }
    }
    Ok(greatest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ottla_protocol::batch::{BatchBuilder, NewRecord, patch_head};
    use ottla_protocol::compression::Codec;

    fn batch(codec: Codec, times: &[i64]) -> Bytes {
        let mut builder = BatchBuilder::new(codec);
        for time in times {
            builder.push(&NewRecord { timestamp: *time, key: None, value: Some(b"value"), headers: &[] });
        }
        let mut bytes = builder.build().unwrap().to_vec();
        patch_head(bytes.first_chunk_mut().unwrap(), Offset(100), LeaderEpoch(1));
        Bytes::from(bytes)
    }

    fn look(batch: &Bytes, wanted: Wanted, log_start: i64, up_to: i64) -> Option<(i64, i64)> {
        look_inside(batch, wanted, Offset(log_start), Offset(up_to)).unwrap().map(|(offset, time)| (offset.0, time))
    }

    #[test]
    fn a_time_is_found_inside_a_batch_of_any_codec() {
        for codec in Codec::ALL {
            let batch = batch(codec, &[10, 30, 20, 40]);
            assert_eq!(look(&batch, Wanted::AtOrAfter(15), 0, 200), Some((101, 30)), "{codec}");
            assert_eq!(look(&batch, Wanted::AtOrAfter(31), 0, 200), Some((103, 40)));
            assert_eq!(look(&batch, Wanted::AtOrAfter(41), 0, 200), None);
            assert_eq!(look(&batch, Wanted::Greatest, 0, 200), Some((103, 40)));
        }
    }

    #[test]
    fn nothing_is_found_below_log_start_or_beyond_what_may_be_seen() {
        let batch = batch(Codec::Gzip, &[10, 30, 20, 40]);
        assert_eq!(look(&batch, Wanted::AtOrAfter(15), 102, 200), Some((102, 20)));
        assert_eq!(look(&batch, Wanted::AtOrAfter(35), 0, 103), None);
        assert_eq!(look(&batch, Wanted::Greatest, 0, 103), Some((101, 30)));
    }

    #[test]
    fn of_equal_times_the_first_record_is_the_greatest() {
        let batch = batch(Codec::None, &[7, 7, 7]);
        assert_eq!(look(&batch, Wanted::Greatest, 0, 200), Some((100, 7)));
    }
}
