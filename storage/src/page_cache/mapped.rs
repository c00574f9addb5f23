//! Mappings that can be read without a crash on a read error: registered with the SIGBUS handler while they exist.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::fault::{self, Guard};
use ottla_env::disk::{File, Mapping};

/// A mapping that is registered with the SIGBUS handler.
pub(crate) struct Mapped {
    // Dropped before the mapping: an address that is reused must not be taken for this one.
    guard: Option<Guard>,
    mapping: Arc<dyn Mapping>,
}

impl Mapped {
    pub(crate) fn new(mapping: Arc<dyn Mapping>) -> Self {
        let guard = fault::watch(mapping.bytes());
        Self { guard, mapping }
    }

    /// The mapped bytes. Look at [`Self::faulted`] after reading them.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.mapping.bytes()
    }

    /// True if a page of it could not be read: bytes read from it must not be used.
    pub(crate) fn faulted(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::faulted)
    }

    /// False if the handler's table is full: then the file must be read with pread.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }
}

/// A segment or run open for reading, with its mapping where there is one. Holding it keeps an unlinked file readable.
pub(crate) struct OpenSegment {
    pub(crate) sequence: u64,
    pub(crate) file: Arc<dyn File>,
    pub(crate) mapped: Option<Mapped>,
}

impl std::fmt::Debug for OpenSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenSegment").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// Most segments kept mapped per directory: 32 GiB of address space at 256 MiB each.
const MAPPED_SEGMENTS_MAX: usize = 128;

/// The segments and runs read last, mapped.
#[derive(Debug, Default)]
pub(crate) struct OpenSegments {
    /// Least recently used first.
    used: Mutex<VecDeque<Arc<OpenSegment>>>,
}

impl OpenSegments {
    /// The segment, mapped now if it was not.
    pub(crate) fn get(
        &self,
        sequence: u64,
        open: impl FnOnce() -> Option<Arc<dyn File>>,
    ) -> std::io::Result<Option<Arc<OpenSegment>>> {
        {
            let mut used = self.used.lock();
            if let Some(at) = used.iter().position(|open| open.sequence == sequence)
                && let Some(open) = used.remove(at)
            {
                used.push_back(Arc::clone(&open));
                return Ok(Some(open));
            }
        }
        let Some(file) = open() else { return Ok(None) };
        let mapped = file.map()?.map(Mapped::new).filter(Mapped::is_guarded);
        let open = Arc::new(OpenSegment { sequence, file, mapped });
        let mut used = self.used.lock();
        used.push_back(Arc::clone(&open));
        if used.len() > MAPPED_SEGMENTS_MAX {
            used.pop_front();
        }
        Ok(Some(open))
    }

    /// Drops the mapping of an unlinked file, so that its space is freed.
    pub(crate) fn forget(&self, sequence: u64) {
        self.used.lock().retain(|open| open.sequence != sequence);
    }
}
