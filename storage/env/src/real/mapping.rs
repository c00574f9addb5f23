//! A file mapped read-only. The only unsafe code of the real disk.
//!
//! Never written through. Segments are not truncated while mapped; a page that the disk cannot read raises SIGBUS, which
//! the reader's handler turns into a failed read.

#![allow(unsafe_code, clippy::disallowed_types)]

use std::io;

use crate::disk::Mapping;

pub(super) struct RealMapping(memmap2::Mmap);

impl Mapping for RealMapping {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

pub(super) fn map(file: &std::fs::File) -> io::Result<RealMapping> {
    // SAFETY: the files mapped are segments of a directory that this process has locked. They are never cut while
    // mapped, and readers look only at bytes below what is synced, which are never written again (but the tail page,
    // whose synced part is rewritten with the same bytes).
    let map = unsafe { memmap2::Mmap::map(file) }?;
    Ok(RealMapping(map))
}
