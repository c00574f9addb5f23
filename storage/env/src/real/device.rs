//! Properties of the machine's devices and of its boot.
//!
//! Never optimistic: a guarantee that cannot be verified is not assumed.

#![allow(clippy::disallowed_methods)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::disk::PAGE_BYTES;

/// True if the block device under `dir` writes 4 KiB atomically: its sectors are that large, or it reports so.
pub(super) fn writes_pages_whole(dir: &Path) -> bool {
    let Ok(metadata) = fs::metadata(dir) else {
        return false;
    };
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let device = format!("/sys/dev/block/{major}:{minor}");
    // A partition has its disk's queue one directory up.
    ["queue", "../queue"].iter().any(|queue| {
        ["physical_block_size", "atomic_write_unit_max_bytes"]
            .iter()
            .filter_map(|name| fs::read_to_string(format!("{device}/{queue}/{name}")).ok())
            .filter_map(|text| text.trim().parse::<usize>().ok())
            .any(|bytes| bytes >= PAGE_BYTES)
    })
}

/// The kernel's boot id, folded into 64 bits; 0 if it has none.
pub(super) fn boot_id() -> u64 {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or(0, |text| {
        text.bytes()
            .filter_map(|c| char::from(c).to_digit(16))
            .fold(0_u64, |id, digit| id.rotate_left(4).wrapping_mul(3) ^ u64::from(digit))
    })
}
