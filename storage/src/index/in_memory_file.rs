//! An index file in memory: used until the next start when the disk has no room for the file.
//!
//! May not know: what the index lists.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::file::{self, Opened};
use ottla_env::disk::{File, Mapping};

/// The bytes of an index file that is never written.
struct InMemoryFile(Bytes);

fn unwritten<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "an index held in memory is never written"))
}

impl File for InMemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let read = buf.len().min(self.0.len() - from);
        buf[..read].copy_from_slice(&self.0[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        unwritten()
    }

    fn preallocate(&self, _: u64) -> io::Result<()> {
        unwritten()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        unwritten()
    }

    fn sync_data(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(std::future::ready(unwritten()))
    }

    fn drop_cached(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn map(&self) -> io::Result<Option<Arc<dyn Mapping>>> {
        Ok(None)
    }
}

/// Opens the image of the index file of a segment or run.
pub(crate) fn open(image: Bytes, segment: u64, used_bytes: u32) -> io::Result<Opened> {
    let opened = file::open(Arc::new(InMemoryFile(image)), segment, used_bytes)?;
    opened.ok_or_else(|| io::Error::other("an index in memory does not read back"))
}
