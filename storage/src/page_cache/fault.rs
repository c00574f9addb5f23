//! The SIGBUS handler: a page of a mapping that cannot be read becomes a page of zeros and a flag, instead of the end of
//! the process. Unsafe: it installs a signal handler and maps pages inside it.
//!
//! The handler only loads and stores atomics of a fixed table and calls mmap, both safe in a signal handler. A fault
//! outside the table is not ours: the default action is restored and the faulting instruction runs again.

#![allow(unsafe_code)]

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ottla_env::disk::PAGE_BYTES;

/// Mappings that can be watched at a time, over all directories of the process.
const SLOTS: usize = 4096;

struct Slot {
    /// Address of the first byte; 0 if free, 1 while it is being filled.
    start: AtomicUsize,
    bytes: AtomicUsize,
    faulted: AtomicBool,
}

static TABLE: [Slot; SLOTS] =
    [const { Slot { start: AtomicUsize::new(0), bytes: AtomicUsize::new(0), faulted: AtomicBool::new(false) } }; SLOTS];

const FREE: usize = 0;
const RESERVED: usize = 1;

/// A watched mapping; dropped before the mapping is unmapped or after its last use.
pub(crate) struct Guard {
    slot: &'static Slot,
}

impl Guard {
    /// True if a page of the mapping could not be read.
    pub(crate) fn faulted(&self) -> bool {
        self.slot.faulted.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.slot.bytes.store(0, Ordering::Release);
        self.slot.start.store(FREE, Ordering::Release);
    }
}

/// Watches a mapping. `None` if the table is full.
pub(crate) fn watch(mapping: &[u8]) -> Option<Guard> {
    install();
    if mapping.is_empty() {
        return None;
    }
    for slot in &TABLE {
        if slot.start.compare_exchange(FREE, RESERVED, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            slot.faulted.store(false, Ordering::Release);
            slot.bytes.store(mapping.len(), Ordering::Release);
            slot.start.store(mapping.as_ptr().addr(), Ordering::Release);
            return Some(Guard { slot });
        }
    }
    None
}

extern "C" fn on_sigbus(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler installed with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() }.addr();
    for slot in &TABLE {
        let start = slot.start.load(Ordering::Acquire);
        let bytes = slot.bytes.load(Ordering::Acquire);
        if start <= RESERVED || address < start || address - start >= bytes.next_multiple_of(PAGE_BYTES) {
            continue;
        }
        let page = address - address % PAGE_BYTES;
        // SAFETY: the page lies within a mapping of ours, which is only ever read; putting an anonymous page of zeros in
        // its place keeps every reference to it valid. mmap is a plain system call.
        let mapped = unsafe {
            libc::mmap(
                page as *mut libc::c_void,
                PAGE_BYTES,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if mapped != libc::MAP_FAILED {
            slot.faulted.store(true, Ordering::Release);
            return;
        }
    }
    // SAFETY: restoring the default action is async-signal-safe; returning runs the faulting instruction again.
    unsafe {
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
    }
}

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: a zeroed sigaction is valid; the handler has the signature that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_sigbus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            if libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) != 0 {
                tracing::error!("cannot install the SIGBUS handler: a damaged disk may end the process");
            }
        }
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_types, clippy::disallowed_methods)]
    use super::*;

    #[test]
    fn a_page_that_cannot_be_read_is_zeros_and_a_flag() {
        let path = std::env::temp_dir().join(format!("ottla-fault-{}", std::process::id()));
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(3 * PAGE_BYTES as u64).unwrap();
        // SAFETY: the mapping is private to this test.
        let mapping = unsafe { memmap2::Mmap::map(&file).unwrap() };
        let guard = watch(&mapping).unwrap();
        assert_eq!(mapping[2 * PAGE_BYTES], 0);
        assert!(!guard.faulted());
        // A page beyond the end of the file cannot be read: the kernel sends SIGBUS, as it does for a read error.
        file.set_len(PAGE_BYTES as u64).unwrap();
        assert_eq!(std::hint::black_box(&mapping)[2 * PAGE_BYTES + 7], 0);
        assert!(guard.faulted());
        drop(guard);
        std::fs::remove_file(&path).unwrap();
    }
}
