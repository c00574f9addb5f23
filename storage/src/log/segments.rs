//! The segment files of a log: their names, the list of those that exist, and pins by readers.
//!
//! May not know: what is in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;

use super::types::SegmentInfo;
use ottla_env::disk::File;

/// A segment file, open for reading. Holding it pins it: an unlinked segment stays readable until it is dropped.
pub struct Segment {
    /// Its number.
    pub sequence: u64,
    /// Its file.
    pub file: Arc<dyn File>,
    /// Its path, for messages and for the `.idx` file.
    pub path: PathBuf,
    pub(crate) incarnation: u64,
    pub(crate) file_bytes: u64,
    pub(crate) used_bytes: AtomicU32,
    /// Batches in it, as far as this process knows.
    pub(crate) batches: AtomicU32,
    pub(crate) sealed: AtomicBool,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Segment {
    /// Its item in the list.
    #[must_use]
    pub fn info(&self) -> SegmentInfo {
        SegmentInfo {
            sequence: self.sequence,
            used_bytes: self.used_bytes.load(Ordering::Acquire),
            file_bytes: self.file_bytes,
            sealed: self.sealed.load(Ordering::Acquire),
        }
    }
}

/// Path of a segment's file.
#[must_use]
pub fn segment_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016}.log"))
}

/// The number in a segment file's name.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The segments that were begun.
#[derive(Default)]
pub(crate) struct Segments {
    by_sequence: Mutex<BTreeMap<u64, Arc<Segment>>>,
}

impl Segments {
    pub(crate) fn insert(&self, segment: Arc<Segment>) {
        self.by_sequence.lock().insert(segment.sequence, segment);
    }

    pub(crate) fn get(&self, sequence: u64) -> Option<Arc<Segment>> {
        self.by_sequence.lock().get(&sequence).cloned()
    }

    pub(crate) fn remove(&self, sequence: u64) -> Option<Arc<Segment>> {
        self.by_sequence.lock().remove(&sequence)
    }

    pub(crate) fn list(&self) -> Vec<SegmentInfo> {
        self.by_sequence.lock().values().map(|segment| segment.info()).collect()
    }
}
