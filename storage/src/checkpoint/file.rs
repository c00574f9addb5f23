//! One generation of the checkpoint: a file of transactions, each on pages of its own.
//!
//! ```text
//!  page 0:       | OTTLACKP | version 4 | crc32 4 | generation 8 | incarnation 8 |
//!  transaction:  | OTXN | crc32 4 | incarnation 8 | number 8 | kind 4 | length 4 | operations | zeros to the page |
//! ```
//!
//! Kinds: 1 a part of the base, 2 the last part of it, 3 a delta. A transaction's CRC covers what follows it, the file's
//! all other fields but the magic. Invariant: the file is valid up to the first transaction that is not sound, and not at
//! all if its base is not whole; a page that cannot be read is as good as damaged. A delta never shares a page with an earlier one, so that a torn write cannot harm what is
//! synced.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;

use super::state::{Operation, Operations, State};
use crate::ids::RunId;
use crate::runs::Listing;
use ottla_env::disk::{Disk, File, OpenMode, PAGE_BYTES, is_unreadable, read_exact_at};
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;

const FILE_MAGIC: &[u8; 8] = b"OTTLACKP";
const FILE_HEADER_BYTES: usize = 32;
const TRANSACTION_MAGIC: &[u8; 4] = b"OTXN";
const TRANSACTION_HEADER_BYTES: usize = 32;
/// The newest format that this release writes and reads.
const VERSION: u32 = 1;

const BASE: u32 = 1;
const BASE_END: u32 = 2;
const DELTA: u32 = 3;

/// A part of the base is about this long.
const BASE_PART_BYTES: usize = 4 << 20;
/// Limit of the length of a transaction.
const TRANSACTION_BYTES_MAX: u32 = 1 << 30;
/// Room for deltas that a file has at least.
const DELTA_BYTES_MIN: u64 = 4 << 20;

/// An open generation.
pub(crate) struct Generation {
    pub(crate) number: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    incarnation: u64,
    /// Number of the next transaction.
    next: u64,
    /// Its position.
    end: u64,
    file_bytes: u64,
    pub(crate) base_bytes: u64,
    /// Every run that some transaction lists: if a later one is found damaged, the state before it is valid.
    pub(crate) listed: BTreeMap<RunId, Listing>,
}

/// Why a generation is not valid.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{0}")]
    Damaged(&'static str),
    #[error("format version {0}")]
    NewerFormat(u32),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs file work where it may block: on a blocking thread for a real disk, here in a simulation.
pub(crate) async fn off_thread<T: Send + 'static>(
    disk: &Arc<dyn Disk>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if !disk.blocks() {
        return work();
    }
    rt::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error.to_string())))
}

/// Makes a file durable.
pub(crate) async fn sync(disk: &Arc<dyn Disk>, file: &Arc<dyn File>) -> io::Result<()> {
    if !disk.blocks() {
        return file.sync_data().await;
    }
    let file = Arc::clone(file);
    let work = move || file.sync_data().now_or_never().unwrap_or_else(|| Err(io::Error::other("sync did not end")));
    off_thread(disk, work).await
}

/// File name of a generation.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:020}.ckpt")
}

/// The generation of a file name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".ckpt").and_then(|number| number.parse().ok())
}

fn pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE_BYTES as u64)
}

fn transaction(incarnation: u64, number: u64, kind: u32, operations: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(TRANSACTION_HEADER_BYTES + operations.len() + PAGE_BYTES);
    out.extend_from_slice(TRANSACTION_MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&incarnation.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&u32::try_from(operations.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(operations);
    let crc = crc32fast::hash(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out.resize(out.len().next_multiple_of(PAGE_BYTES), 0);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

impl Generation {
    /// Writes `state` as the base of a new generation; durable when this returns. Replaces an older file of that number.
    pub(crate) async fn create(disk: &Arc<dyn Disk>, dir: &Path, number: u64, state: State) -> io::Result<Self> {
        let (incarnation, path) = (rt::random_u64(), dir.join(file_name(number)));
        let (work_disk, work_path, work_dir) = (Arc::clone(disk), path.clone(), dir.to_owned());
        let listed = state.runs.clone();
        let written = off_thread(disk, move || {
            if work_disk.list(&work_dir)?.iter().any(|entry| entry.name == file_name(number)) {
                work_disk.unlink(&work_path)?;
            }
            let file = work_disk.open(&work_path, OpenMode::CreateNew)?;
            write_base(&file, number, incarnation, &state).map(|written| (file, written))
        });
        let (file, (next, end, file_bytes)) = written.await?;
        sync(disk, &file).await?;
        let (work_disk, work_dir) = (Arc::clone(disk), dir.to_owned());
        off_thread(disk, move || work_disk.sync_dir(&work_dir)).await?;
        Ok(Self { number, path, file, incarnation, next, end, file_bytes, base_bytes: end, listed })
    }

    /// Reads a generation: its state, and itself ready for the next delta. On a thread that may block.
    pub(crate) fn load(disk: &Arc<dyn Disk>, dir: &Path, number: u64) -> Result<(Self, State), LoadError> {
        let path = dir.join(file_name(number));
        let file = disk.open(&path, OpenMode::Write)?;
        let file_bytes = file.bytes()?;
        let incarnation = read_header(&*file, file_bytes, number)?;
        let (end, listed) = (PAGE_BYTES as u64, BTreeMap::new());
        let mut generation = Self { number, path, file, incarnation, next: 0, end, file_bytes, base_bytes: 0, listed };
        let state = generation.replay()?;
        Ok((generation, state))
    }

    /// Reads the transactions from the start.
    fn replay(&mut self) -> Result<State, LoadError> {
        let mut state = State::default();
        while let Some((kind, operations, end)) = self.read_transaction()? {
            let in_order = match kind {
                BASE | BASE_END => self.base_bytes == 0,
                DELTA => self.base_bytes > 0,
                _ => return Err(LoadError::NewerFormat(kind)),
            };
            if !in_order || !Operations(operations).apply_to(&mut state, &mut self.listed) {
                return Err(LoadError::Damaged("its transactions cannot be understood"));
            }
            self.next += 1;
            self.end = end;
            if kind == BASE_END {
                self.base_bytes = end;
            }
        }
        if self.base_bytes == 0 { Err(LoadError::Damaged("its base is not whole")) } else { Ok(state) }
    }

    /// The transaction at the end; `None` if there is no sound one, or a page of it cannot be read.
    fn read_transaction(&self) -> io::Result<Option<(u32, Bytes, u64)>> {
        match self.read_whole_transaction() {
            Err(error) if is_unreadable(&error) => {
                tracing::error!(path = %self.path.display(), byte = self.end, %error, "a page of the checkpoint is lost");
                Ok(None)
            }
            read => read,
        }
    }

    fn read_whole_transaction(&self) -> io::Result<Option<(u32, Bytes, u64)>> {
        if self.end + TRANSACTION_HEADER_BYTES as u64 > self.file_bytes {
            return Ok(None);
        }
        let mut head = [0; TRANSACTION_HEADER_BYTES];
        read_exact_at(&*self.file, &mut head, self.end)?;
        let length = u32_at(&head, 28);
        let expected = head.starts_with(TRANSACTION_MAGIC)
            && u64_at(&head, 8) == self.incarnation
            && u64_at(&head, 16) == self.next
            && length <= TRANSACTION_BYTES_MAX;
        let end = self.end + pages(TRANSACTION_HEADER_BYTES as u64 + u64::from(length));
        if !expected || end > self.file_bytes {
            return Ok(None);
        }
        let mut operations = vec![0; length as usize];
        read_exact_at(&*self.file, &mut operations, self.end + TRANSACTION_HEADER_BYTES as u64)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&head[8..]);
        hasher.update(&operations);
        if hasher.finalize() != u32_at(&head, 4) && !mutants::is_on(Bug::CheckpointCrcNotChecked) {
            return Ok(None);
        }
        Ok(Some((u32_at(&head, 24), Bytes::from(operations), end)))
    }

    /// The state in the file now, read back whole. On a thread that may block.
    pub(crate) fn reread(disk: &Arc<dyn Disk>, dir: &Path, number: u64, end: u64) -> io::Result<State> {
        match Self::load(disk, dir, number) {
            Ok((generation, state)) if generation.end == end => Ok(state),
            Ok(_) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a durable transaction of the checkpoint is damaged"))
            }
            Err(LoadError::Io(error)) => Err(error),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        }
    }

    /// Clears what follows the last sound transaction: after a damaged one lie whole ones with the numbers that will be
    /// used next. Durable when this returns.
    pub(crate) async fn void_rest(&self, disk: &Arc<dyn Disk>) -> io::Result<()> {
        let (file, end, file_bytes) = (Arc::clone(&self.file), self.end, self.file_bytes);
        let voided = off_thread(disk, move || {
            // A transaction begins on a page of its own with its magic: if that page is zero, nothing was ever written
            // there.
            if is_zero_page(&*file, end, file_bytes) {
                return Ok(false);
            }
            for at in (end..file_bytes).step_by(PAGE_BYTES) {
                if !is_zero_page(&*file, at, file_bytes) {
                    let bytes = (file_bytes - at).min(PAGE_BYTES as u64) as usize;
                    file.write_at(&[0; PAGE_BYTES][..bytes], at)?;
                }
            }
            Ok(true)
        });
        if voided.await? {
            tracing::warn!(path = %self.path.display(), byte = self.end, "what follows in this generation does not hold, and is void");
            sync(disk, &self.file).await?;
        }
        Ok(())
    }

    /// Adds a delta; durable when this returns. False, and nothing is written, if the file has no room for it.
    pub(crate) async fn append(&mut self, disk: &Arc<dyn Disk>, operations: &[Operation]) -> io::Result<bool> {
        let mut payload = Vec::new();
        operations.iter().for_each(|operation| operation.encode(&mut payload));
        let bytes = transaction(self.incarnation, self.next, DELTA, &payload);
        let (at, end) = (self.end, self.end + bytes.len() as u64);
        if end > self.file_bytes || payload.len() > TRANSACTION_BYTES_MAX as usize {
            return Ok(false);
        }
        let file = Arc::clone(&self.file);
        off_thread(disk, move || file.write_at(&bytes, at)).await?;
        sync(disk, &self.file).await?;
        self.next += 1;
        self.end = end;
        operations.iter().for_each(|operation| operation.list(&mut self.listed));
        Ok(true)
    }

    /// Bytes of deltas since the base.
    pub(crate) fn delta_bytes(&self) -> u64 {
        self.end - self.base_bytes
    }

    /// Position of the next transaction.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// False also for a page that cannot be read.
fn is_zero_page(file: &dyn File, at: u64, file_bytes: u64) -> bool {
    let mut page = [0; PAGE_BYTES];
    let bytes = file_bytes.saturating_sub(at).min(PAGE_BYTES as u64) as usize;
    read_exact_at(file, &mut page[..bytes], at).is_ok() && page == [0; PAGE_BYTES]
}

/// Covers version, generation and incarnation, so that a flipped bit is not taken for a newer format.
fn header_crc(head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[8..12]);
    hasher.update(&head[16..FILE_HEADER_BYTES]);
    hasher.finalize()
}

fn read_header(file: &dyn File, file_bytes: u64, number: u64) -> Result<u64, LoadError> {
    if file_bytes < PAGE_BYTES as u64 {
        return Err(LoadError::Damaged("it is too short"));
    }
    let mut head = [0; FILE_HEADER_BYTES];
    match read_exact_at(file, &mut head, 0) {
        Err(error) if is_unreadable(&error) => return Err(LoadError::Damaged("its header cannot be read")),
        read => read?,
    }
    if !head.starts_with(FILE_MAGIC) || u32_at(&head, 12) != header_crc(&head) {
        return Err(LoadError::Damaged("its header does not hold"));
    }
    match u32_at(&head, 8) {
        VERSION => {}
        newer if newer > VERSION => return Err(LoadError::NewerFormat(newer)),
        _ => return Err(LoadError::Damaged("its version is unknown")),
    }
    if u64_at(&head, 16) != number {
        return Err(LoadError::Damaged("it is of another generation"));
    }
    Ok(u64_at(&head, 24))
}

/// Writes header and base: number and place of the next transaction, and the length of the file.
fn write_base(file: &Arc<dyn File>, number: u64, incarnation: u64, state: &State) -> io::Result<(u64, u64, u64)> {
    let mut parts: Vec<Vec<u8>> = vec![Vec::new()];
    for operation in state.operations() {
        if parts.last().is_some_and(|part| part.len() >= BASE_PART_BYTES) {
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            operation.encode(part);
        }
    }
    let length = |part: &Vec<u8>| pages((TRANSACTION_HEADER_BYTES + part.len()) as u64);
    let base_bytes = PAGE_BYTES as u64 + parts.iter().map(length).sum::<u64>();
    let file_bytes = base_bytes + pages(base_bytes.max(DELTA_BYTES_MIN));
    file.preallocate(file_bytes)?;
    let mut head = Vec::with_capacity(PAGE_BYTES);
    head.extend_from_slice(FILE_MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&[0; 4]);
    head.extend_from_slice(&number.to_le_bytes());
    head.extend_from_slice(&incarnation.to_le_bytes());
    let crc = header_crc(&head);
    head[12..16].copy_from_slice(&crc.to_le_bytes());
    head.resize(PAGE_BYTES, 0);
    file.write_at(&head, 0)?;
    let (mut at, count) = (PAGE_BYTES as u64, parts.len());
    for (next, part) in parts.into_iter().enumerate() {
        let kind = if next + 1 == count { BASE_END } else { BASE };
        let bytes = transaction(incarnation, next as u64, kind, &part);
        file.write_at(&bytes, at)?;
        at += bytes.len() as u64;
    }
    Ok((count as u64, at, file_bytes))
}
