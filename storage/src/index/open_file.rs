//! An open `.idx` file: its lines by number, from memory or from the disk.
//!
//! May not know: which extent a line belongs to.

use std::sync::Arc;

use super::line::{LINE_BYTES, Line};
use super::{Access, IndexError};
use crate::env::disk::{File, read_exact_at};
use crate::read::mapped::Mapped;
use crate::read::residency;

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
