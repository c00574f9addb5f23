//! The `.idx` files of a directory: their paths, and the frames from which a missing one is rebuilt.
//!
//! May not know: when they are written.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;

use super::DataDirError;
use crate::checkpoint::file::{off_thread, sync};
use crate::index::file;
use crate::index::rebuild::{Rebuild, SegmentContents, Take};
use crate::log::Log;
use ottla_env::disk::{Disk, OpenMode};

/// Directory of the log's segments, each with its `.idx`.
pub(super) const LOG_DIR: &str = "log";

/// Path of a segment's `.idx`.
pub(super) fn index_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(LOG_DIR).join(format!("{segment:016}.idx"))
}

/// Opens a segment's `.idx`; `None` if it is missing or damaged.
pub(super) async fn open_index(
    disk: &Arc<dyn Disk>,
    path: &Path,
    segment: u64,
    used_bytes: u32,
) -> Result<Option<file::Opened>, DataDirError> {
    let index_path = index_path(path, segment);
    let (work_disk, work_path) = (Arc::clone(disk), index_path.clone());
    let opened = off_thread(disk, move || match work_disk.open(&work_path, OpenMode::Read) {
        Ok(file) => file::open(file, segment, used_bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    });
    match opened.await {
        Ok(opened) => Ok(opened),
        Err(error) => {
            tracing::warn!(segment, %error, "index file cannot be read: it is rebuilt from the log");
            Ok(None)
        }
    }
}

/// Rebuilds the indexes of the `wanted` segments from frames and verdicts. Reads on until every entry is decided.
pub(super) async fn read_frames(
    disk: &Arc<dyn Disk>,
    log: &Log,
    wanted: BTreeSet<u64>,
    take: Take,
) -> Result<BTreeMap<u64, SegmentContents>, DataDirError> {
    let (scan_log, io_path) = (log.clone(), Path::new(LOG_DIR).to_owned());
    let work = move || {
        let mut rebuild = Rebuild::new(wanted.clone(), take);
        for segment in scan_log.segments() {
            if wanted.contains(&segment.sequence) || rebuild.is_incomplete() {
                // The future waits for nothing but the disk.
                match scan_log.scan(segment.sequence, &mut rebuild).now_or_never() {
                    Some(Ok(())) => {}
                    Some(Err(error)) => return Ok(Err(DataDirError::from(error))),
                    None => return Err(io::Error::other("a scan of the log did not end")),
                }
            }
        }
        Ok(Ok(rebuild.finish()))
    };
    off_thread(disk, work).await.map_err(|error| DataDirError::io(&io_path, error))?
}

/// Writes an index file. False if the disk has no room for it: then nothing is left of it.
pub(super) async fn write_index(disk: &Arc<dyn Disk>, path: &Path, image: Bytes) -> io::Result<bool> {
    let new_path = path.with_extension("idx.new");
    match write_whole(disk, &new_path, path, image).await {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            tracing::warn!(path = %path.display(), %error, "no room for an index file");
            disk.unlink(&new_path).ok();
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Writes a file whole: under another name, synced, then renamed.
async fn write_whole(disk: &Arc<dyn Disk>, new_path: &Path, path: &Path, image: Bytes) -> io::Result<()> {
    let (work_disk, new) = (Arc::clone(disk), new_path.to_owned());
    let file = off_thread(disk, move || {
        match work_disk.unlink(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = work_disk.open(&new, OpenMode::CreateNew)?;
        file.write_at(&image, 0)?;
        Ok(file)
    });
    sync(disk, &file.await?).await?;
    let (work_disk, new, into) = (Arc::clone(disk), new_path.to_owned(), path.to_owned());
    off_thread(disk, move || {
        work_disk.rename(&new, &into)?;
        into.parent().map_or(Ok(()), |dir| work_disk.sync_dir(dir))
    })
    .await
}
