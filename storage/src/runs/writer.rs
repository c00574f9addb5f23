//! Writes one run: batches, verified and patched, then tables and tail. Also builds the run's index.
//!
//! May not know: where batches come from. Runs on a thread that may block, but for the syncs.

use std::io;
use std::path::Path;
use std::sync::Arc;

use ottla_protocol::ids::Offset;

use super::format::{DATA_FROM, Extent, StandIn, Tables, encode_header, encode_tables, tables_bytes};
use super::rebuild::RunEntries;
use super::{Listing, run_path};
use crate::ids::LogPosition;
use crate::index::{ExtentKey, IndexedBatch};
use crate::read::is_sound;
use ottla_env::disk::{Disk, File, OpenMode};

/// A run gets no more batches than this, so that the index entries held while it is written stay small.
pub(crate) const BATCHES_MAX: u32 = 1 << 19;
/// No batch begins beyond this.
pub(crate) const RUN_BYTES_MAX: u64 = 2 << 30;

/// Why a batch was not added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// It is not the sound batch that its index entry describes.
    #[error("the batch at offset {offset} is damaged: {cause}")]
    Damaged {
        /// File number of the source.
        file: u64,
        offset: Offset,
        cause: String,
    },
    /// The index of its source cannot be read.
    #[error(transparent)]
    Index(#[from] crate::index::IndexError),
    /// The run cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A run that is being written.
pub(crate) struct RunWriter {
    listing: Listing,
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    /// Position at which the buffer is to be written.
    at: u64,
    taken_bytes: u64,
    unsynced_bytes: u64,
    batches: u32,
    entries: RunEntries,
    tables: Tables,
    extent_key: Option<ExtentKey>,
}

/// A run that is written, and its index.
pub(crate) struct Written {
    pub(crate) listing: Listing,
    pub(crate) file: Arc<dyn File>,
    pub(crate) index_image: Vec<u8>,
}

/// Bytes of a file for so many bytes of batches in so many slices.
pub(crate) fn room_for(batch_bytes: u64, slices: usize) -> u64 {
    u64::from(DATA_FROM) + batch_bytes + tables_bytes(slices, 0)
}

impl RunWriter {
    /// Creates a run and preallocates its space: a full disk is noticed before anything is copied.
    pub(crate) fn create(disk: &Arc<dyn Disk>, data_dir: &Path, listing: Listing, room_bytes: u64) -> io::Result<Self> {
        let file = disk.open(&run_path(data_dir, listing.id), OpenMode::CreateNew)?;
        file.preallocate(room_bytes)?;
        let buffer = encode_header(&listing);
        Ok(Self {
            listing,
            file,
            buffer,
            at: 0,
            taken_bytes: room_bytes,
            unsynced_bytes: 0,
            batches: 0,
            entries: RunEntries::default(),
            tables: Tables::default(),
            extent_key: None,
        })
    }

    /// Position of the next batch.
    pub(crate) fn end(&self) -> u64 {
        self.at + self.buffer.len() as u64
    }

    /// True if no further batch fits, whatever the wanted length.
    pub(crate) fn is_full(&self, run_bytes: u64) -> bool {
        self.end() >= run_bytes.min(RUN_BYTES_MAX) || self.batches >= BATCHES_MAX
    }

    /// Bytes that wait to be written.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that were written and not synced.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes
    }

    /// The file, to be synced.
    pub(crate) fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// Everything written so far was synced.
    pub(crate) fn synced(&mut self) {
        self.unsynced_bytes = 0;
    }

    /// Adds a batch, whose checksum must hold, and writes base offset and leader epoch into its header.
    pub(crate) fn push(&mut self, key: ExtentKey, indexed: &IndexedBatch, batch: &[u8]) -> Result<(), PushError> {
        let damaged = |cause: &str| PushError::Damaged {
            file: indexed.position.segment,
            offset: indexed.base_offset,
            cause: cause.to_owned(),
        };
        if batch.len() != indexed.bytes as usize || !is_sound(batch, true) {
            return Err(damaged("its checksum or length does not hold"));
        }
        let records = i64::from(i32::from_be_bytes([batch[23], batch[24], batch[25], batch[26]])) + 1;
        if records != i64::from(indexed.record_count) {
            return Err(damaged("it has another number of records than the index says"));
        }
        let byte = u32::try_from(self.end()).map_err(|_| damaged("the run is too long for it"))?;
        let start = self.buffer.len();
        self.buffer.extend_from_slice(batch);
        self.buffer[start..start + 8].copy_from_slice(&indexed.base_offset.0.to_be_bytes());
        self.buffer[start + 12..start + 16].copy_from_slice(&indexed.epoch.0.to_be_bytes());
        let own_timestamp_ms = i64::from_be_bytes([
            batch[35], batch[36], batch[37], batch[38], batch[39], batch[40], batch[41], batch[42],
        ]);
        if own_timestamp_ms != indexed.max_timestamp_ms {
            self.tables.stand_ins.push(StandIn { byte, timestamp_ms: indexed.max_timestamp_ms });
        }
        assert_eq!(key.lineage, self.listing.lineage, "run {}, {}: another lineage", self.listing.id, key.partition);
        if self.extent_key != Some(key) {
            self.extent_key = Some(key);
            self.tables.extents.push(Extent { partition: key.partition, batches: 0, first_byte: byte });
        }
        if let Some(extent) = self.tables.extents.last_mut() {
            extent.batches += 1;
        }
        let position = LogPosition { segment: self.listing.id.file_number(), byte };
        self.entries.push(key, &IndexedBatch { position, ..*indexed });
        self.listing.batch_bytes += u64::from(indexed.bytes);
        self.batches += 1;
        Ok(())
    }

    /// Writes the buffered bytes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.unsynced_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Completes the run; it is still to be synced.
    pub(crate) fn finish(mut self) -> io::Result<Written> {
        let tables = encode_tables(&self.listing, &self.tables, self.end());
        self.buffer.extend_from_slice(&tables);
        self.flush()?;
        if self.at < self.taken_bytes {
            self.file.set_len(self.at)?;
        }
        self.listing.bytes = self.at;
        let index_image = self.entries.encode(&self.listing);
        Ok(Written { listing: self.listing, file: self.file, index_image })
    }
}
