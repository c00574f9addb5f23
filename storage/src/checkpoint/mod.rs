//! The checkpoint: every replica's state at a Raft index of its own, in one append-only file of delta transactions.
//!
//! Two generations are kept. Nothing is purged or unlinked that the older one or any transaction of the newer one needs, so
//! damage of the newer one, whole or in part, costs a longer replay and nothing else. May not know: what a key or a
//! value means.

pub(crate) mod file;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{LogId, ReplicaId, RunId};
use crate::index::ExtentKey;
use crate::index::compacted::Compacted;
use crate::index::owners::Owners;
use crate::runs::Listing;
use file::{Generation, LoadError, off_thread};
use ottla_env::disk::Disk;
use state::{Operation, ReplicaHead, State};

/// What changed in the state of one replica since its previous delta. It lies exactly between two entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDelta {
    /// The replica.
    pub replica: ReplicaId,
    /// The last entry that the state contains.
    pub applied: LogId,
    /// The membership in force at `applied`, encoded by Raft.
    pub membership: Bytes,
    /// Keys with their new values; `None` removes the key.
    pub changes: Vec<(Bytes, Option<Bytes>)>,
    /// Checksum of the replicated state at `applied`.
    pub checksum: u64,
}

/// A replica's state machine, as the checkpointer sees it: the source of state deltas.
pub trait CheckpointSource: Send + Sync {
    /// The changes since the last call; `None` if nothing was applied since, its entries are not synced yet, or a split is
    /// applied and not durable. A delta is
    /// returned once: if it cannot be made durable the whole directory fails.
    fn take_delta(&self) -> Option<StateDelta>;

    /// True if no other replica will read this replica's entries: those that a durable checkpoint contains are not
    /// needed again.
    fn releases(&self) -> bool {
        false
    }
}

/// Deltas are not rewritten into a base before they are this long.
const DELTA_BYTES_MIN: u64 = 256 << 10;
/// The log may grow by so much before the older generation is replaced, since it holds back what can be unlinked.
const LOG_BYTES_MAX: u64 = 1 << 30;
/// A base is rewritten for the log's sake only if it is at most this part of what was logged.
const BASE_PART_OF_LOG: u64 = 20;

/// The replicas in a generation, keys aside.
pub(crate) type Heads = BTreeMap<ReplicaId, ReplicaHead>;

/// The final state of a generation, keys and log starts aside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) heads: Heads,
    /// The runs it lists: their files are needed as long as it is kept.
    pub(crate) runs: BTreeMap<RunId, Listing>,
    pub(crate) owners: Owners,
    /// The segments whose live batches it finds in runs: it needs the files of all others.
    pub(crate) rewritten: BTreeSet<u64>,
    /// The passes of compaction that it finds in runs: of others it needs the files that were compacted.
    pub(crate) compacted: BTreeMap<ExtentKey, Compacted>,
}

impl Kept {
    pub(crate) fn of(state: &State) -> Self {
        let heads = state.replicas.iter().map(|(id, replica)| (*id, replica.head.clone())).collect();
        Self {
            heads,
            runs: state.runs.clone(),
            owners: state.owners.clone(),
            rewritten: state.rewritten.clone(),
            compacted: state.compacted.clone(),
        }
    }

    fn note(&mut self, operations: &[Operation]) {
        for operation in operations {
            match operation {
                Operation::Replica(head) => drop(self.heads.insert(head.recovery_point.replica, head.clone())),
                Operation::Remove(replica) => drop(self.heads.remove(replica)),
                Operation::Run(run) => drop(self.runs.insert(run.id, run.clone())),
                Operation::DropRun(run) => drop(self.runs.remove(run)),
                Operation::Owner(replica, key) => {
                    assert!(self.owners.set(*replica, *key), "replica {replica}: bytes that another one owns");
                }
                Operation::Disown(replica, partition) => self.owners.remove(*replica, *partition),
                Operation::Rewritten(segment) => drop(self.rewritten.insert(*segment)),
                Operation::Unlinked(segment) => drop(self.rewritten.remove(segment)),
                Operation::Compacted(key, compacted) => drop(self.compacted.insert(*key, compacted.clone())),
                Operation::Forget(key) => drop(self.compacted.remove(key)),
                Operation::Put { .. } | Operation::Delete { .. } | Operation::LogStart(..) | Operation::NextRun(_) => {}
            }
        }
    }
}

/// The checkpoint of a data directory.
pub(crate) struct Checkpoint {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    current: Generation,
    kept: Kept,
    /// The final state of the older generation; `None` while there is only one.
    older: Option<(u64, Kept)>,
    /// Bytes of the log when the current generation began.
    log_bytes: u64,
    written_bytes: u64,
}

/// What was found when the checkpoint was opened.
pub(crate) struct Found {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) state: State,
    /// False if there was no valid checkpoint: the whole log is to be replayed.
    pub(crate) existed: bool,
}

/// The files of a directory, read on a blocking thread.
struct Loaded {
    newest: Option<(Generation, State)>,
    older: Option<(u64, Kept)>,
    last_number: u64,
    useless: Vec<u64>,
}

fn load_all(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Loaded, LoadError> {
    let mut numbers: Vec<u64> = disk.list(dir)?.iter().filter_map(|entry| file::number_of(&entry.name)).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let mut loaded =
        Loaded { newest: None, older: None, last_number: numbers.first().copied().unwrap_or(0), useless: Vec::new() };
    for number in numbers {
        if loaded.older.is_some() {
            loaded.useless.push(number);
            continue;
        }
        match Generation::load(disk, dir, number) {
            Ok(found) if loaded.newest.is_none() => loaded.newest = Some(found),
            Ok((_, state)) => loaded.older = Some((number, Kept::of(&state))),
            Err(LoadError::Damaged(what)) => {
                tracing::warn!(generation = number, what, "checkpoint generation does not count");
                loaded.useless.push(number);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(loaded)
}

impl Checkpoint {
    /// Opens the newest valid generation, or creates the first.
    pub(crate) async fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Found, LoadError> {
        sync_files(disk, dir).await?;
        let (work_disk, work_dir) = (Arc::clone(disk), dir.to_owned());
        let loaded = off_thread(disk, move || Ok(load_all(&work_disk, &work_dir))).await??;
        let existed = loaded.newest.is_some();
        let (current, state) = match loaded.newest {
            Some((generation, state)) => {
                generation.void_rest(disk).await?;
                (generation, state)
            }
            None => {
                let number = loaded.last_number + 1;
                (Generation::create(disk, dir, number, State::default()).await?, State::default())
            }
        };
        for number in &loaded.useless {
            disk.unlink(&dir.join(file::file_name(*number)))?;
        }
        if !loaded.useless.is_empty() {
            disk.sync_dir(dir)?;
        }
        let checkpoint = Self {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            current,
            kept: Kept::of(&state),
            older: loaded.older,
            log_bytes: 0,
            written_bytes: 0,
        };
        Ok(Found { checkpoint, state, existed })
    }

    /// Replicas as of the last commit.
    pub(crate) fn heads(&self) -> &Heads {
        &self.kept.heads
    }

    /// Replicas in the oldest kept generation; `None` while there is only one, and no file may be unlinked.
    pub(crate) fn oldest(&self) -> Option<&Heads> {
        self.older().map(|kept| &kept.heads)
    }

    /// The state of the newest generation as of the last commit.
    pub(crate) fn newest(&self) -> &Kept {
        &self.kept
    }

    /// The state of the oldest kept generation; `None` while there is only one, and no file may be unlinked.
    pub(crate) fn older(&self) -> Option<&Kept> {
        self.older.as_ref().map(|(_, kept)| kept)
    }

    /// The runs whose files are needed though the newest transaction does not list them: the older generation does, or an
    /// earlier transaction of the newest.
    pub(crate) fn runs_that_wait(&self) -> BTreeMap<RunId, Listing> {
        let older = self.older().map(|kept| &kept.runs);
        let all = older.into_iter().flatten().chain(&self.current.listed);
        let waiting = all.filter(|(run, _)| !self.kept.runs.contains_key(run));
        waiting.map(|(id, run)| (*id, run.clone())).collect()
    }

    /// Bytes written since the checkpoint was opened.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    fn is_rotation_due(&self, log_bytes: u64) -> bool {
        let (base, delta) = (self.current.base_bytes, self.current.delta_bytes());
        let logged = log_bytes.saturating_sub(self.log_bytes);
        (self.older.is_none() && delta > 0)
            || delta > base.max(DELTA_BYTES_MIN)
            || (delta > 0 && logged >= LOG_BYTES_MAX.max(base * BASE_PART_OF_LOG))
    }

    /// The whole state of the newest generation, read back from its file.
    pub(crate) async fn read_back(&self) -> io::Result<State> {
        let (disk, dir, number, end) =
            (Arc::clone(&self.disk), self.dir.clone(), self.current.number, self.current.end());
        off_thread(&self.disk, move || Generation::reread(&disk, &dir, number, end)).await
    }

    /// Makes one transaction durable: all of it counts after a crash, or nothing. `log_bytes` is the number of bytes ever
    /// written to the log; `rotate` requests a new generation, which releases the files that the oldest needs.
    pub(crate) async fn commit(&mut self, operations: Vec<Operation>, log_bytes: u64, rotate: bool) -> io::Result<()> {
        let before = self.current.end();
        let fits = operations.is_empty() || self.current.append(&self.disk, &operations).await?;
        self.written_bytes += self.current.end() - before;
        let pending = if fits {
            self.kept.note(&operations);
            Vec::new()
        } else {
            operations
        };
        if !fits || rotate || self.is_rotation_due(log_bytes) {
            let mut outcome = self.rotate(pending.clone()).await;
            if is_full(&outcome) && self.drop_older().await? {
                outcome = self.rotate(pending).await;
            }
            match outcome {
                Ok(()) => self.log_bytes = log_bytes,
                // The current generation holds everything: a full disk only means that it grows on.
                Err(error) if fits && error.kind() == io::ErrorKind::StorageFull => {
                    tracing::warn!(%error, "no room for a new checkpoint generation");
                    self.unlink(self.current.number + 1).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes a generation for good: the files that it needs are unlinked next, and it must not be opened without them.
    async fn unlink(&self, number: u64) -> io::Result<()> {
        let (disk, dir) = (Arc::clone(&self.disk), self.dir.clone());
        let remove = move || match disk.unlink(&dir.join(file::file_name(number))) {
            Ok(()) => disk.sync_dir(&dir),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        off_thread(&self.disk, remove).await
    }

    /// Makes room on a full disk by removing the older generation: the files that it needs may be the only space there is
    /// to free. The current one is whole, so a crash costs nothing; until the next one is written damage of it would.
    async fn drop_older(&mut self) -> io::Result<bool> {
        self.unlink(self.current.number + 1).await?;
        let Some((number, _)) = self.older.take() else { return Ok(false) };
        tracing::warn!(generation = number, "disk full: the older checkpoint generation gives way to the next");
        self.unlink(number).await?;
        Ok(true)
    }

    /// Writes a new generation with the state so far and `pending`, and removes the one before the last.
    async fn rotate(&mut self, pending: Vec<Operation>) -> io::Result<()> {
        let number = self.current.number;
        let mut state = self.read_back().await?;
        let before = self.kept.clone();
        let noted = pending.clone();
        for operation in pending {
            if !state.apply(operation) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a state delta of a replica that the checkpoint does not know",
                ));
            }
        }
        let next = Generation::create(&self.disk, &self.dir, number + 1, state).await?;
        self.written_bytes += next.end();
        tracing::debug!(path = %next.path().display(), bytes = next.end(), "checkpoint generation written");
        self.current = next;
        self.kept.note(&noted);
        if let Some((oldest, _)) = self.older.replace((number, before)) {
            self.unlink(oldest).await?;
        }
        Ok(())
    }
}

fn is_full(outcome: &io::Result<()>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
}

/// What a killed process wrote but did not sync must not count as durable: sync it before it is read.
async fn sync_files(disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<()> {
    let (work_disk, work_dir) = (Arc::clone(disk), dir.to_owned());
    let files = off_thread(disk, move || {
        let mut files = Vec::new();
        for entry in work_disk.list(&work_dir)? {
            if file::number_of(&entry.name).is_some() {
                files.push(work_disk.open(&work_dir.join(&entry.name), ottla_env::disk::OpenMode::Write)?);
            }
        }
        Ok(files)
    });
    for file in files.await? {
        file::sync(disk, &file).await?;
        let work = Arc::clone(&file);
        off_thread(disk, move || work.drop_cached(0)).await?;
    }
    Ok(())
}
