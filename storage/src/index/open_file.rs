//! An open `.idx` file: its entries by number, from memory or from the disk.
//!
//! May not know: which extent an entry belongs to.

use std::sync::Arc;

use ottla_protocol::ids::Offset;

use super::index_entry::{INDEX_ENTRY_BYTES, IndexEntry};
use super::{Access, IndexError};
use crate::page_cache::mapped::Mapped;
use crate::page_cache::residency;
use ottla_env::disk::{File, is_unreadable, read_exact_at};

/// Entries whose residency is queried with one system call: 4 MiB of them.
const RESIDENT_ENTRIES_MAX: usize = 100_000;

/// Number of the first entry in memory whose end lies above `offset`.
fn search(entries: &[u8], offset: Offset, segment: u64) -> Result<u32, IndexError> {
    let (chunks, _) = entries.as_chunks::<INDEX_ENTRY_BYTES>();
    let (mut low, mut high) = (0, chunks.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let entry = chunks.get(middle).and_then(IndexEntry::decode).ok_or(IndexError::Damaged { segment })?;
        if entry.end_offset() > offset {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    u32::try_from(low).map_err(|_| IndexError::NoSuchEntry)
}

/// An open `.idx` file.
pub(crate) struct IndexFile {
    pub(super) segment: u64,
    pub(super) file: Arc<dyn File>,
    pub(super) mapped: Option<Mapped>,
    pub(super) entries_at: u64,
    pub(super) entry_count: u32,
}

impl std::fmt::Debug for IndexFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexFile").field("segment", &self.segment).field("entry_count", &self.entry_count).finish()
    }
}

impl IndexFile {
    /// One entry.
    pub(crate) fn entry(&self, number: u32, access: Access) -> Result<IndexEntry, IndexError> {
        let mut image = [0; INDEX_ENTRY_BYTES];
        self.read(number, &mut image, access)?;
        IndexEntry::decode(&image).ok_or(IndexError::Damaged { segment: self.segment })
    }

    /// `count` entries from `first` on.
    pub(crate) fn entries(&self, first: u32, count: usize, access: Access) -> Result<Vec<IndexEntry>, IndexError> {
        let mut image = vec![0; count * INDEX_ENTRY_BYTES];
        self.read(first, &mut image, access)?;
        let (chunks, _) = image.as_chunks::<INDEX_ENTRY_BYTES>();
        chunks
            .iter()
            .map(|chunk| IndexEntry::decode(chunk).ok_or(IndexError::Damaged { segment: self.segment }))
            .collect()
    }

    /// Passes entries from `first` on, `count` at most, to `take`, while it returns true.
    pub(crate) fn each_entry(
        &self,
        first: u32,
        count: u32,
        access: Access,
        mut take: impl FnMut(IndexEntry) -> bool,
    ) -> Result<(), IndexError> {
        let decode = |image: &[u8; INDEX_ENTRY_BYTES]| {
            IndexEntry::decode(image).ok_or(IndexError::Damaged { segment: self.segment })
        };
        if let (Access::Resident, Some(range)) = (access, self.resident(first, count)) {
            for image in range.as_chunks::<INDEX_ENTRY_BYTES>().0 {
                if !take(decode(image)?) {
                    break;
                }
            }
            // A page that faulted reads as zeros: it is read again with pread, which returns the error.
            return if self.has_faulted() { Err(IndexError::NotResident) } else { Ok(()) };
        }
        for entry in self.entries(first, count as usize, access)? {
            if !take(entry) {
                break;
            }
        }
        Ok(())
    }

    /// Number of the first entry, among `count` from `first` on, whose end lies above `offset`, counted from `first`.
    pub(crate) fn first_ending_above(
        &self,
        first: u32,
        count: u32,
        offset: Offset,
        access: Access,
    ) -> Result<u32, IndexError> {
        let (mut low, mut high) = (0, count);
        while low < high {
            // One `mincore` call serves all steps of the search once the remaining range is small enough.
            if access == Access::Resident
                && let Some(range) = self.resident(first + low, high - low)
            {
                let number = low + search(range, offset, self.segment)?;
                return if self.has_faulted() { Err(IndexError::NotResident) } else { Ok(number) };
            }
            let middle = low + (high - low) / 2;
            if self.entry(first + middle, access)?.end_offset() > offset {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// The bytes of these entries, if they are few enough to query and all of them are resident.
    fn resident(&self, first: u32, count: u32) -> Option<&[u8]> {
        if count as usize > RESIDENT_ENTRIES_MAX {
            return None;
        }
        let start = usize::try_from(self.entries_at).ok()? + first as usize * INDEX_ENTRY_BYTES;
        let range = self.mapped.as_ref()?.bytes().get(start..start + count as usize * INDEX_ENTRY_BYTES)?;
        residency::is_resident(range).then_some(range)
    }

    fn has_faulted(&self) -> bool {
        self.mapped.as_ref().is_some_and(Mapped::faulted)
    }

    fn read(&self, first: u32, image: &mut [u8], access: Access) -> Result<(), IndexError> {
        let at = self.entries_at + u64::from(first) * INDEX_ENTRY_BYTES as u64;
        if access == Access::MayBlock {
            return read_exact_at(&*self.file, image, at).map_err(|error| match is_unreadable(&error) {
                true => IndexError::Damaged { segment: self.segment },
                false => IndexError::Io(error),
            });
        }
        let Some(mapped) = &self.mapped else { return Err(IndexError::NotResident) };
        let start = usize::try_from(at).map_err(|_| IndexError::NoSuchEntry)?;
        let range = mapped.bytes().get(start..start + image.len()).ok_or(IndexError::NoSuchEntry)?;
        if !residency::is_resident(range) {
            return Err(IndexError::NotResident);
        }
        image.copy_from_slice(range);
        // A page that faulted reads as zeros: it is read again with pread, which returns the error.
        if mapped.faulted() { Err(IndexError::NotResident) } else { Ok(()) }
    }
}
