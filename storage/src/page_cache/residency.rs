//! Residency of mapped bytes in the page cache, by `mincore`. Unsafe: it passes an address range to a system call.

#![allow(unsafe_code)]

use ottla_env::disk::PAGE_BYTES;

/// Pages queried with one call: 4 MiB.
const PAGES_PER_CALL: usize = 1024;

/// True if every page that `bytes`, a part of a mapping, touches is resident.
pub(crate) fn is_resident(bytes: &[u8]) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let address = bytes.as_ptr().addr();
    let mut at = address - address % PAGE_BYTES;
    let end = address + bytes.len();
    let mut pages = [0u8; PAGES_PER_CALL];
    while at < end {
        let length = (end - at).min(PAGES_PER_CALL * PAGE_BYTES);
        let count = length.div_ceil(PAGE_BYTES);
        // SAFETY: the range lies within pages of a live mapping (the slice borrows it); mincore only reads page tables
        // and writes one byte per page into `pages`, which has room for `count`.
        let result = unsafe { libc::mincore(at as *mut libc::c_void, length, pages.as_mut_ptr().cast()) };
        if result != 0 || pages[..count].iter().any(|page| page & 1 == 0) {
            return false;
        }
        at += length;
    }
    true
}
