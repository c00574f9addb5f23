//! The doublewrite buffer: bytes of a segment that recovery overwrites in place are first made durable, as whole pages, in a
//! file beside the segments. A device that does not write pages whole may leave anything in a page during whose write
//! power is lost, and what recovery corrects is acknowledged. The same idea as InnoDB's doublewrite buffer.
//!
//! ```text
//!  0            8       12      16
//!  | "OTTLADBW" | crc32 | count | count x ( segment 8 | page number 8 | the page ) |
//! ```
//! `crc32` covers everything from byte 12. A file that is not sound was not durable, so no page was overwritten yet.
//!
//! May not know: what is in the pages.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::Path;

use super::frame::{u32_le, u64_le};
use super::scan::SegmentFile;
use super::segments::segment_path;
use super::types::LogError;
use ottla_env::disk::{Disk, OpenMode, PAGE_BYTES, read_exact_at};

const FILE: &str = "doublewrite";
const MAGIC: [u8; 8] = *b"OTTLADBW";
const HEAD_BYTES: usize = 16;
const ROW_BYTES: usize = 16 + PAGE_BYTES;

fn io_error(path: &Path) -> impl Fn(io::Error) -> LogError + '_ {
    move |source| LogError::Io { path: path.to_owned(), source }
}

/// Sets bytes of segments: each a file, a position and its new value. All of them are durable when this returns.
pub(crate) async fn overwrite(disk: &dyn Disk, dir: &Path, changes: &[(SegmentFile, u64, u8)]) -> Result<(), LogError> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut pages: BTreeMap<(u64, u64), (&SegmentFile, Vec<u8>)> = BTreeMap::new();
    for (file, at, byte) in changes {
        let (number, within) = (at / PAGE_BYTES as u64, (at % PAGE_BYTES as u64) as usize);
        let page = match pages.entry((file.sequence, number)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let mut page = vec![0; PAGE_BYTES];
                read_exact_at(&*file.file, &mut page, number * PAGE_BYTES as u64).map_err(io_error(&file.path))?;
                new.insert((file, page))
            }
        };
        page.1[within] = *byte;
    }
    let tears = !disk.writes_pages_whole(dir);
    if tears {
        let rows = pages.iter().map(|(place, (_, page))| (*place, page.as_slice()));
        match save(disk, dir, &encode(rows)).await {
            // The node must start to free space; loss of power within this one write is the smaller risk.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(dir = %dir.display(), "no space for a copy of the pages that are corrected in place");
            }
            saved => saved.map_err(io_error(&dir.join(FILE)))?,
        }
    }
    for ((_, number), (file, page)) in &pages {
        file.file.write_at(page, number * PAGE_BYTES as u64).map_err(io_error(&file.path))?;
    }
    for (file, _) in pages.values() {
        file.file.sync_data().await.map_err(io_error(&file.path))?;
    }
    if tears { remove(disk, dir).map_err(io_error(&dir.join(FILE))) } else { Ok(()) }
}

/// Writes the pages again that an earlier process was overwriting when it ended. Comes before anything is read: the pages
/// may hold anything.
pub(crate) async fn restore(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let path = dir.join(FILE);
    let Some(rows) = load(disk, dir).map_err(io_error(&path))? else { return Ok(()) };
    for row in rows.chunks_exact(ROW_BYTES) {
        let (sequence, number, page) = (u64_le(row, 0), u64_le(row, 8), &row[16..]);
        let segment = segment_path(dir, sequence);
        tracing::warn!(path = %segment.display(), page = number, "a page whose correction was cut short is written again");
        let file = disk.open(&segment, OpenMode::Write).map_err(io_error(&segment))?;
        file.write_at(page, number * PAGE_BYTES as u64).map_err(io_error(&segment))?;
        file.sync_data().await.map_err(io_error(&segment))?;
    }
    remove(disk, dir).map_err(io_error(&path))
}

fn encode<'a>(pages: impl ExactSizeIterator<Item = ((u64, u64), &'a [u8])>) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + pages.len() * ROW_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(pages.len() as u32).to_le_bytes());
    for ((segment, number), page) in pages {
        out.extend_from_slice(&segment.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(page);
    }
    let crc = crc32fast::hash(&out[12..]);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The rows of a sound file; no rows if the file is not sound, `None` if there is none.
fn load(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Vec<u8>>> {
    let Some(entry) = disk.list(dir)?.into_iter().find(|entry| entry.name == FILE) else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(entry.bytes).unwrap_or(0)];
    read_exact_at(&*disk.open(&dir.join(FILE), OpenMode::Read)?, &mut bytes, 0)?;
    let is_sound = bytes.len() >= HEAD_BYTES
        && bytes[..8] == MAGIC
        && crc32fast::hash(&bytes[12..]) == u32_le(&bytes, 8)
        && bytes.len() == HEAD_BYTES + u32_le(&bytes, 12) as usize * ROW_BYTES;
    Ok(Some(if is_sound { bytes.split_off(HEAD_BYTES) } else { Vec::new() }))
}

async fn save(disk: &dyn Disk, dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(&dir.join(FILE), OpenMode::CreateNew)?;
    file.write_at(bytes, 0)?;
    file.sync_data().await?;
    disk.sync_dir(dir)
}

/// Durable before the log is continued: an older copy must not come back over what is written next.
fn remove(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    match disk.unlink(&dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => disk.sync_dir(dir),
    }
}
