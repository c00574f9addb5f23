//! A segment slice: the consecutive index entries of one partition in one segment, in memory or in the `.idx` file.
//!
//! May not know: other slices, and what is searched for.

use std::sync::Arc;

use ottla_protocol::ids::Offset;

use super::index_entry::IndexEntry;
use super::open_file::IndexFile;
use super::{Access, IndexError};

/// Entries of a block share one greatest timestamp, so that a search by time skips blocks.
const BLOCK_ENTRIES: usize = 256;

/// Entries held in memory, until the segment's `.idx` is written.
#[derive(Debug, Default, Clone)]
pub(crate) struct MemoryEntries {
    entries: Vec<IndexEntry>,
    block_max_timestamp_ms: Vec<i64>,
}

impl MemoryEntries {
    fn push(&mut self, entry: IndexEntry) {
        if self.entries.len().is_multiple_of(BLOCK_ENTRIES) {
            self.block_max_timestamp_ms.push(i64::MIN);
        }
        if let Some(max) = self.block_max_timestamp_ms.last_mut() {
            *max = (*max).max(entry.max_timestamp_ms);
        }
        self.entries.push(entry);
    }

    pub(crate) fn as_slice(&self) -> &[IndexEntry] {
        &self.entries
    }
}

/// Entries `first..first + count` of an `.idx` file.
#[derive(Debug, Clone)]
pub(crate) struct FileEntries {
    pub(crate) file: Arc<IndexFile>,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// Where the entries of a slice are.
#[derive(Debug, Clone)]
pub(crate) enum IndexEntries {
    Memory(MemoryEntries),
    File(FileEntries),
}

impl IndexEntries {
    pub(crate) fn count(&self) -> u32 {
        match self {
            Self::Memory(memory) => u32::try_from(memory.entries.len()).unwrap_or(u32::MAX),
            Self::File(file) => file.count,
        }
    }

    /// One entry.
    pub(crate) fn get(&self, number: u32, access: Access) -> Result<IndexEntry, IndexError> {
        match self {
            Self::Memory(memory) => memory.entries.get(number as usize).copied().ok_or(IndexError::NoSuchEntry),
            Self::File(entries) if number < entries.count => entries.file.entry(entries.first + number, access),
            Self::File(_) => Err(IndexError::NoSuchEntry),
        }
    }

    /// `count` entries from number `first` on.
    pub(crate) fn range(&self, first: u32, count: u32, access: Access) -> Result<Vec<IndexEntry>, IndexError> {
        match self {
            Self::Memory(memory) => {
                let entries = memory.entries.get(first as usize..(first + count) as usize);
                entries.map(<[IndexEntry]>::to_vec).ok_or(IndexError::NoSuchEntry)
            }
            Self::File(entries) if first + count <= entries.count => {
                entries.file.entries(entries.first + first, count as usize, access)
            }
            Self::File(_) => Err(IndexError::NoSuchEntry),
        }
    }

    /// Number of the first entry whose end lies above `offset`; `count` if there is none.
    pub(crate) fn first_ending_above(&self, offset: Offset, access: Access) -> Result<u32, IndexError> {
        match self {
            Self::Memory(memory) => {
                let number = memory.entries.partition_point(|entry| entry.end_offset() <= offset);
                u32::try_from(number).map_err(|_| IndexError::NoSuchEntry)
            }
            Self::File(entries) => entries.file.first_ending_above(entries.first, entries.count, offset, access),
        }
    }

    /// The first entry from number `from` on whose greatest timestamp is at least `timestamp_ms`.
    pub(crate) fn first_at_or_after(
        &self,
        from: u32,
        timestamp_ms: i64,
        access: Access,
    ) -> Result<Option<IndexEntry>, IndexError> {
        match self {
            Self::Memory(memory) => Ok(memory.first_at_or_after(from as usize, timestamp_ms)),
            Self::File(entries) => {
                let mut number = from;
                while number < entries.count {
                    let block = entries.file.entries(
                        entries.first + number,
                        BLOCK_ENTRIES.min((entries.count - number) as usize),
                        access,
                    )?;
                    if let Some(entry) = block.iter().find(|entry| entry.max_timestamp_ms >= timestamp_ms) {
                        return Ok(Some(*entry));
                    }
                    number += u32::try_from(block.len()).unwrap_or(u32::MAX).max(1);
                }
                Ok(None)
            }
        }
    }
}

impl MemoryEntries {
    fn first_at_or_after(&self, from: usize, timestamp_ms: i64) -> Option<IndexEntry> {
        let mut at = from;
        while at < self.entries.len() {
            let block = at / BLOCK_ENTRIES;
            let end = ((block + 1) * BLOCK_ENTRIES).min(self.entries.len());
            if self.block_max_timestamp_ms.get(block).is_some_and(|max| *max >= timestamp_ms)
                && let Some(entry) = self.entries[at..end].iter().find(|entry| entry.max_timestamp_ms >= timestamp_ms)
            {
                return Some(*entry);
            }
            at = end;
        }
        None
    }
}

/// The consecutive entries of one partition in one segment.
#[derive(Debug, Clone)]
pub(crate) struct SegmentSlice {
    /// The segment that holds the batches.
    pub(crate) segment: u64,
    /// Offset of the first record.
    pub(crate) base_offset: Offset,
    /// Offset after the last record.
    pub(crate) end_offset: Offset,
    /// Greatest timestamp of all entries.
    pub(crate) max_timestamp_ms: i64,
    /// Bytes of all batches.
    pub(crate) bytes: u64,
    /// Entries that lie wholly below log start.
    pub(crate) dead_entries: u32,
    /// Bytes of those.
    pub(crate) dead_bytes: u64,
    pub(crate) entries: IndexEntries,
}

impl SegmentSlice {
    pub(crate) fn new(segment: u64, base_offset: Offset) -> Self {
        Self {
            segment,
            base_offset,
            end_offset: base_offset,
            max_timestamp_ms: i64::MIN,
            bytes: 0,
            dead_entries: 0,
            dead_bytes: 0,
            entries: IndexEntries::Memory(MemoryEntries::default()),
        }
    }

    /// Adds an entry behind the others, which are in memory; it begins where they end.
    pub(crate) fn push(&mut self, entry: IndexEntry) {
        let (segment, end) = (self.segment, self.end_offset);
        assert_eq!(entry.base_offset, end, "segment {segment}: an index entry that does not follow the one before it");
        let IndexEntries::Memory(memory) = &mut self.entries else {
            panic!("segment {segment}, offset {end}: an index entry for a slice that is on disk")
        };
        memory.push(entry);
        self.end_offset = entry.end_offset();
        self.max_timestamp_ms = self.max_timestamp_ms.max(entry.max_timestamp_ms);
        self.bytes += u64::from(entry.bytes);
    }

    /// True if both list the same batches of their segment.
    pub(crate) fn covers_as(&self, other: &Self) -> bool {
        let extent = |slice: &Self| (slice.segment, slice.base_offset, slice.end_offset, slice.entries.count());
        extent(self) == extent(other)
    }

    pub(crate) fn live_entries(&self) -> u32 {
        self.entries.count() - self.dead_entries
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.bytes - self.dead_bytes
    }
}
