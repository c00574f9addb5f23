//! The real disk (pread, pwrite, fdatasync, fallocate, flock) and real sockets.
//!
//! Calls block the thread that makes them; callers on async threads go through `rt::spawn_blocking`.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod device;
mod mapping;
mod net;
pub use net::TcpConnector;

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rustix::fs::{FallocateFlags, FlockOperation};

use super::disk::{DirEntry, DirLock, Disk, File, Mapping, OpenMode, Space};

/// The machine's file systems.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

struct RealFile(fs::File);

struct RealLock {
    _file: fs::File,
}

impl DirLock for RealLock {}

impl Disk for RealDisk {
    fn blocks(&self) -> bool {
        true
    }

    fn writes_pages_whole(&self, dir: &Path) -> bool {
        device::writes_pages_whole(dir)
    }

    fn boot_id(&self) -> u64 {
        device::boot_id()
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Unlinked since the directory was read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                bytes: metadata.len(),
                is_dir: metadata.is_dir(),
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(Space {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: usable_blocks(&stat).saturating_mul(stat.f_frsize),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(RealLock { _file: file }))
    }
}

/// What is used and what this process may use. The rest of a file system is kept for others (for root, or by a quota), and would
/// make it look fuller than it is.
fn usable_blocks(stat: &rustix::fs::StatVfs) -> u64 {
    stat.f_blocks.saturating_sub(stat.f_bfree).saturating_add(stat.f_bavail)
}

impl File for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buf.len() {
            match self.0.read_at(&mut buf[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(read)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            // A file system without fallocate: the space is not guaranteed, and a later write may fail.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                if self.bytes()? < bytes {
                    self.0.set_len(bytes)?;
                }
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move { self.0.sync_data() })
    }

    fn drop_cached(&self, from: u64) -> io::Result<()> {
        rustix::fs::fadvise(&self.0, from, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }

    fn will_need(&self, offset: u64, bytes: u64) -> io::Result<()> {
        rustix::fs::fadvise(&self.0, offset, std::num::NonZeroU64::new(bytes), rustix::fs::Advice::WillNeed)?;
        Ok(())
    }

    fn map(&self) -> io::Result<Option<Arc<dyn Mapping>>> {
        Ok(Some(Arc::new(mapping::map(&self.0)?)))
    }

    fn raw_fd(&self) -> Option<i32> {
        Some(self.0.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_this_process_may_not_use_do_not_count() {
        let mut stat = rustix::fs::statvfs("/").unwrap();
        (stat.f_blocks, stat.f_bfree, stat.f_bavail) = (100, 80, 30);
        assert_eq!(usable_blocks(&stat), 50, "20 are used, and 30 may be");
    }
}
