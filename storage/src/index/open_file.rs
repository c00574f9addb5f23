//! An open `.idx` file: its lines by number, from memory or from the disk.
//!
//! May not know: which extent a line belongs to.

use std::sync::Arc;

use super::line::{LINE_BYTES, Line};
use super::{Access, IndexError};
use crate::env::disk::{File, read_exact_at};
use crate::read::mapped::Mapped;
use crate::read::residency;

/// Lines asked about with one system call: 4 MiB of them.
const RESIDENT_LINES_MAX: usize = 100_000;

/// Number of the first line in memory whose end lies above `offset`.
fn search(lines: &[u8], offset: i64, segment: u64) -> Result<u32, IndexError> {
    let (chunks, _) = lines.as_chunks::<LINE_BYTES>();
    let (mut low, mut high) = (0, chunks.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let line = chunks.get(middle).and_then(Line::decode).ok_or(IndexError::Damaged { segment })?;
        if line.end_offset() > offset {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    u32::try_from(low).map_err(|_| IndexError::NoSuchLine)
}

/// An open `.idx` file.
pub(crate) struct IndexFile {
    pub(super) segment: u64,
    pub(super) file: Arc<dyn File>,
    pub(super) mapped: Option<Mapped>,
    pub(super) lines_at: u64,
    pub(super) line_count: u32,
}

impl std::fmt::Debug for IndexFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexFile").field("segment", &self.segment).field("line_count", &self.line_count).finish()
    }
}

impl IndexFile {
    /// One line.
    pub(crate) fn line(&self, number: u32, access: Access) -> Result<Line, IndexError> {
        let mut image = [0; LINE_BYTES];
        self.read(number, &mut image, access)?;
        Line::decode(&image).ok_or(IndexError::Damaged { segment: self.segment })
    }

    /// `count` lines from `first` on.
    pub(crate) fn lines(&self, first: u32, count: usize, access: Access) -> Result<Vec<Line>, IndexError> {
        let mut image = vec![0; count * LINE_BYTES];
        self.read(first, &mut image, access)?;
        let (chunks, _) = image.as_chunks::<LINE_BYTES>();
        chunks.iter().map(|chunk| Line::decode(chunk).ok_or(IndexError::Damaged { segment: self.segment })).collect()
    }

    /// Shows lines from `first` on, `count` at most, while `take` wants more.
    pub(crate) fn each_line(
        &self,
        first: u32,
        count: u32,
        access: Access,
        mut take: impl FnMut(Line) -> bool,
    ) -> Result<(), IndexError> {
        let decode =
            |image: &[u8; LINE_BYTES]| Line::decode(image).ok_or(IndexError::Damaged { segment: self.segment });
        if let (Access::Resident, Some(range)) = (access, self.resident(first, count)) {
            for image in range.as_chunks::<LINE_BYTES>().0 {
                if !take(decode(image)?) {
                    break;
                }
            }
            // What a fault made zeros of is read again by pread, which says what is wrong.
            return if self.has_faulted() { Err(IndexError::NotResident) } else { Ok(()) };
        }
        for line in self.lines(first, count as usize, access)? {
            if !take(line) {
                break;
            }
        }
        Ok(())
    }

    /// Number of the first line, among `count` from `first` on, whose end lies above `offset`, counted from `first`.
    pub(crate) fn first_ending_above(
        &self,
        first: u32,
        count: u32,
        offset: i64,
        access: Access,
    ) -> Result<u32, IndexError> {
        let (mut low, mut high) = (0, count);
        while low < high {
            // One question to the kernel serves all steps of the search once what is left of it is small enough.
            if access == Access::Resident
                && let Some(range) = self.resident(first + low, high - low)
            {
                let number = low + search(range, offset, self.segment)?;
                return if self.has_faulted() { Err(IndexError::NotResident) } else { Ok(number) };
            }
            let middle = low + (high - low) / 2;
            if self.line(first + middle, access)?.end_offset() > offset {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// The bytes of these lines, if they are few enough to ask about and all of them are in memory.
    fn resident(&self, first: u32, count: u32) -> Option<&[u8]> {
        if count as usize > RESIDENT_LINES_MAX {
            return None;
        }
        let start = usize::try_from(self.lines_at).ok()? + first as usize * LINE_BYTES;
        let range = self.mapped.as_ref()?.bytes().get(start..start + count as usize * LINE_BYTES)?;
        residency::is_resident(range).then_some(range)
    }

    fn has_faulted(&self) -> bool {
        self.mapped.as_ref().is_some_and(Mapped::faulted)
    }

    fn read(&self, first: u32, image: &mut [u8], access: Access) -> Result<(), IndexError> {
        let at = self.lines_at + u64::from(first) * LINE_BYTES as u64;
        if access == Access::MayBlock {
            return read_exact_at(&*self.file, image, at).map_err(IndexError::from);
        }
        let Some(mapped) = &self.mapped else { return Err(IndexError::NotResident) };
        let start = usize::try_from(at).map_err(|_| IndexError::NoSuchLine)?;
        let range = mapped.bytes().get(start..start + image.len()).ok_or(IndexError::NoSuchLine)?;
        if !residency::is_resident(range) {
            return Err(IndexError::NotResident);
        }
        image.copy_from_slice(range);
        // What a fault made zeros of is read again by pread, which says what is wrong.
        if mapped.faulted() { Err(IndexError::NotResident) } else { Ok(()) }
    }
}
