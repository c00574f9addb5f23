//! The state of a simulated disk: files, names, pending operations, injected faults.
//!
//! Directories themselves are durable at once; names in them are durable after `sync_dir`, and before that a crash keeps
//! the first few changes of a directory (a journalling file system keeps their order).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::content::{Inode, PendingOp, Tear};
use super::rng::SimRng;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Killed: what it wrote is still in the page cache, synced or not; of a write under way perhaps only the front.
    Process,
    /// Power lost: what was not synced is there, gone or torn.
    Power,
}

/// The operation before which an observer is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskOp {
    /// Bytes were written, or space was taken (both not yet durable).
    Write,
    /// A name was made, changed or removed (not yet durable).
    Name,
    /// A file is about to become durable.
    Sync,
    /// A directory's names are about to become durable.
    SyncDir,
}

#[derive(Debug, Clone)]
pub(super) enum NameOp {
    Set(String, u64),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Dir {
    durable: BTreeMap<String, u64>,
    pub(super) current: BTreeMap<String, u64>,
    pending: Vec<NameOp>,
}

fn apply(names: &mut BTreeMap<String, u64>, op: &NameOp) {
    match op {
        NameOp::Set(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        NameOp::Rename(old, new) => {
            if let Some(inode) = names.remove(old) {
                names.insert(new.clone(), inode);
            }
        }
        NameOp::Remove(name) => {
            names.remove(name);
        }
    }
}

impl Dir {
    pub(super) fn apply(&mut self, op: NameOp) {
        apply(&mut self.current, &op);
        self.pending.push(op);
    }

    pub(super) fn sync(&mut self) {
        self.pending.clear();
        self.durable = self.current.clone();
    }

    /// Every file that a later loss of power may leave a name for.
    fn inodes(&self) -> impl Iterator<Item = u64> {
        let pending = self.pending.iter().filter_map(|op| match op {
            NameOp::Set(_, inode) => Some(*inode),
            NameOp::Rename(..) | NameOp::Remove(_) => None,
        });
        self.current.values().chain(self.durable.values()).copied().chain(pending)
    }

    fn lose_power(&mut self, rng: &mut SimRng) {
        let pending = std::mem::take(&mut self.pending);
        let kept = usize::try_from(rng.below(pending.len() as u64 + 1)).unwrap_or(0);
        pending.iter().take(kept).for_each(|op| apply(&mut self.durable, op));
        self.current = self.durable.clone();
    }
}

/// Faults that are set.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    /// Fail the write after so many more.
    pub(super) fail_write_in: Option<u64>,
    /// Fail the sync after so many more.
    pub(super) fail_sync_in: Option<u64>,
    /// Fail the next unlinking of a file whose path ends so.
    pub(super) fail_unlink_of: Option<&'static str>,
    /// Every operation from this one on fails: the machine is off.
    pub(super) off: bool,
    /// Syncs do not return.
    pub(super) hung: bool,
    /// Pages (inode, page) that cannot be read.
    pub(super) unreadable: BTreeSet<(u64, u64)>,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) rng: SimRng,
    pub(super) tear: Tear,
    pub(super) capacity_bytes: u64,
    pub(super) boot_id: u64,
    /// Handles opened before the last crash are dead.
    pub(super) life: u64,
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) next_inode: u64,
    /// The file of the last operation, if that was a write.
    pub(super) writing: Option<u64>,
    pub(super) read_bytes: u64,
    pub(super) dirs: BTreeMap<PathBuf, Dir>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) faults: Faults,
    pub(super) writes: u64,
    pub(super) syncs: u64,
}

pub(super) fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => Ok((dir.to_owned(), name.to_string_lossy().into_owned())),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    }
}

pub(super) fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl World {
    pub(super) fn check_on(&self) -> io::Result<()> {
        if self.faults.off { Err(eio()) } else { Ok(()) }
    }

    pub(super) fn dir(&mut self, dir: &Path) -> io::Result<&mut Dir> {
        self.dirs.get_mut(dir).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    pub(super) fn lookup(&mut self, path: &Path) -> io::Result<u64> {
        let (dir, name) = split(path)?;
        let found = self.dir(&dir)?.current.get(&name).copied();
        found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Counts down an armed fault; true when it is due.
    pub(super) fn strikes(counter: &mut Option<u64>) -> bool {
        match counter {
            Some(0) => {
                *counter = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    pub(super) fn taken_bytes(&self) -> u64 {
        let named: BTreeSet<u64> = self.dirs.values().flat_map(|d| d.current.values().copied()).collect();
        let taken = |id: &u64| self.inodes.get(id).map_or(0, |inode| inode.current.taken());
        named.iter().map(taken).sum()
    }

    pub(super) fn change(&mut self, inode: u64, op: PendingOp) -> io::Result<()> {
        self.check_on()?;
        self.writes += 1;
        if Self::strikes(&mut self.faults.fail_write_in) {
            return Err(eio());
        }
        let (target, length) = match &op {
            PendingOp::Write { offset, data } => (inode, offset + data.len() as u64),
            PendingOp::SetLen(bytes) => (inode, *bytes),
        };
        let before = self.inodes.get(&target).map_or(0, |i| i.current.bytes);
        if length > before && self.taken_bytes() + (length - before) > self.capacity_bytes {
            return Err(io::Error::from_raw_os_error(28));
        }
        self.writing = matches!(op, PendingOp::Write { .. }).then_some(target);
        match self.inodes.get_mut(&target) {
            Some(inode) => inode.apply(op),
            None => return Err(eio()),
        }
        Ok(())
    }

    /// The process or the machine goes down; what is left is what the next process finds.
    pub(super) fn crash(&mut self, crash: Crash) {
        self.life += 1;
        self.locks.clear();
        let unreadable = std::mem::take(&mut self.faults.unreadable);
        self.faults = Faults { unreadable, ..Faults::default() };
        let writing = self.writing.take();
        if crash == Crash::Process
            && self.rng.below(2) == 0
            && let Some(inode) = writing.and_then(|id| self.inodes.get_mut(&id))
        {
            inode.cut_last_write(&mut self.rng);
        }
        if crash == Crash::Power {
            self.boot_id = self.rng.next();
            let (rng, tear) = (&mut self.rng, self.tear);
            self.dirs.values_mut().for_each(|dir| dir.lose_power(rng));
            self.inodes.values_mut().for_each(|inode| inode.lose_power(rng, tear));
        }
        let named: BTreeSet<u64> = self.dirs.values().flat_map(Dir::inodes).collect();
        self.inodes.retain(|id, _| named.contains(id));
    }
}
