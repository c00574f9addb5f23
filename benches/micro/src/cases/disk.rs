//! A disk in memory: a write is one copy and a sync takes a moment of virtual time. No faults, no crashes.
//!
//! The simulated disk of `storage` keeps what a crash may leave, at a price that grows with a file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ottla_env::disk::{DirEntry, DirLock, Disk, File, Mapping, OpenMode, Space};
use ottla_env::rt;
use parking_lot::Mutex;

const SYNC: Duration = Duration::from_micros(200);

#[derive(Default)]
pub(super) struct MemoryDisk {
    files: Mutex<BTreeMap<PathBuf, Arc<MemoryFile>>>,
}

#[derive(Default)]
struct MemoryFile(Mutex<Vec<u8>>);

struct Locked;

impl DirLock for Locked {}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Disk for MemoryDisk {
    fn blocks(&self) -> bool {
        false
    }
    fn writes_pages_whole(&self, _: &Path) -> bool {
        true
    }
    fn boot_id(&self) -> u64 {
        1
    }
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let files = self.files.lock();
        let here = files.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entry = |(path, file): (&PathBuf, &Arc<MemoryFile>)| DirEntry {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: file.0.lock().len() as u64,
            is_dir: false,
        };
        Ok(here.map(entry).collect())
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut files = self.files.lock();
        if mode == OpenMode::CreateNew {
            if files.contains_key(path) {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            files.insert(path.to_owned(), Arc::default());
        }
        let file = files.get(path).ok_or_else(missing)?;
        Ok(file.clone())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or_else(missing)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.files.lock().remove(path).map(drop).ok_or_else(missing)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space { free_bytes: 1 << 40, total_bytes: 1 << 41 })
    }
    fn lock(&self, _: &Path) -> io::Result<Box<dyn DirLock>> {
        Ok(Box::new(Locked))
    }
}

impl File for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.0.lock();
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut content = self.0.lock();
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let to = from + buf.len();
        if content.len() < to {
            content.resize(to, 0);
        }
        content[from..to].copy_from_slice(buf);
        Ok(())
    }
    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        let mut content = self.0.lock();
        if content.len() < bytes {
            content.resize(bytes, 0);
        }
        Ok(())
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.lock().resize(usize::try_from(bytes).map_err(io::Error::other)?, 0);
        Ok(())
    }
    fn sync_data(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            rt::sleep(SYNC).await;
            Ok(())
        })
    }
    fn drop_cached(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn map(&self) -> io::Result<Option<Arc<dyn Mapping>>> {
        Ok(None)
    }
}
