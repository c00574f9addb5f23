//! The `Disk` and `File` traits: directories, files, syncs. Real in [`super::real`], simulated in [`super::sim`].
//!
//! May not know: what is stored. No failure is hidden here: a failed sync is final, and its caller must stop.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;

/// Size of the pages in which files are written and torn.
pub const PAGE_BYTES: usize = 4096;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// A file that must not exist yet, to read and write.
    CreateNew,
}

/// One file of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The file's name, without its directory.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// True for a directory.
    pub is_dir: bool,
}

/// Bytes of the file system that holds a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still allocate.
    pub free_bytes: u64,
    /// Bytes that are used, and that this process may still allocate.
    pub total_bytes: u64,
}

/// A lock that excludes a second process from a directory; released on drop (and when the process ends).
pub trait DirLock: Send + Sync {}

/// A read-only view of a file through memory. Only for bytes known to be resident (design section 4, Reads).
pub trait Mapping: Send + Sync {
    /// The mapped bytes. Bytes beyond what is synced may change under the reader.
    fn bytes(&self) -> &[u8];
}

/// A disk: the file operations that the project uses, and no others.
pub trait Disk: Send + Sync + 'static {
    /// True if `sync_data` and reads block the thread that polls them, so that they need a thread of their own.
    fn blocks(&self) -> bool;
    /// True if the device guarantees that a 4 KiB write is atomic.
    fn writes_pages_whole(&self, dir: &Path) -> bool;
    /// Identity of this boot of the machine: what was not synced under another boot may be lost.
    fn boot_id(&self) -> u64;
    /// Makes a directory and those above it; existing ones are fine.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Files and directories in `dir`, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Opens or creates a file. A created file is durable after `sync_data` of it and `sync_dir` of its directory.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Renames a file and replaces any file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Unlinks a file; open handles can still read it.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and unlinks in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Space of the file system under `dir`.
    fn space(&self, dir: &Path) -> io::Result<Space>;
    /// Takes the lock file at `path`; `WouldBlock` if another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>>;
}

/// An open file.
pub trait File: Send + Sync {
    /// Length in bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Reads at `offset`; fewer bytes than requested only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf` at `offset`.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Allocates the first `bytes` bytes, which read as zero where nothing was written.
    fn preallocate(&self, bytes: u64) -> io::Result<()>;
    /// Truncates or extends the file. Never under a live mapping.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Makes everything written so far durable. An error is final: a later success would prove nothing.
    fn sync_data(&self) -> BoxFuture<'_, io::Result<()>>;
    /// Drops cached clean pages from byte `from` on, so that the next read goes to the device.
    fn drop_cached(&self, from: u64) -> io::Result<()>;
    /// Requests a range from the device without waiting for it (readahead), so that later reads find it in memory.
    fn will_need(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
    /// A mapping of the file; `None` where there is none (simulation).
    fn map(&self) -> io::Result<Option<Arc<dyn Mapping>>>;
    /// The file descriptor, for sendfile and residency probes; `None` in simulation.
    fn raw_fd(&self) -> Option<i32> {
        None
    }
}

/// True if the device could not return what is stored there (EIO), rather than that the file could not be opened or is
/// too short: what is stored is lost, and counts as damaged.
#[must_use]
pub fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Reads exactly `buf.len()` bytes at `offset`.
pub fn read_exact_at(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let read = file.read_at(buf, offset)?;
    if read == buf.len() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{read} of {} bytes at {offset}", buf.len())))
    }
}
