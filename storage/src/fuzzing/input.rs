//! Bytes as the fuzz targets of this crate take and give them.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use ottla_env::disk::{Disk, OpenMode};
use ottla_env::sim::disk::{SimDisk, SimDiskOptions};

/// Bytes of an input that is longer than anything its target needs are left out.
pub(crate) const INPUT_BYTES_MAX: usize = 64 << 10;

/// The input without its first byte, and whether its checksums are to be made right.
pub(crate) fn split(data: &[u8]) -> Option<(bool, Vec<u8>)> {
    let (&first, rest) = data.split_first()?;
    (rest.len() <= INPUT_BYTES_MAX).then(|| (first & 1 != 0, rest.to_vec()))
}

/// The four bytes at `at`, little-endian; 0 beyond the end.
pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |four| u32::from_le_bytes(four.try_into().unwrap()))
}

pub(crate) fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

pub(crate) fn put_word(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(four) = bytes.get_mut(at..at + 4) {
        four.copy_from_slice(&value.to_le_bytes());
    }
}

/// The seeds of one target: each with its checksums to be made right.
pub(crate) fn with_selector(images: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    images.into_iter().map(|image| [vec![1], image].concat()).collect()
}

/// A disk with one file.
pub(crate) fn disk_with(path: &Path, content: &[u8], file_bytes: usize) -> SimDisk {
    let disk = SimDisk::new(1, SimDiskOptions::default());
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    file.preallocate(file_bytes as u64).unwrap();
    file.write_at(content, 0).unwrap();
    disk
}
