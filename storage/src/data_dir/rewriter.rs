//! The rewriter's task of a data directory: one job after the other, each committed by one checkpoint transaction.
//!
//! ```text
//!  choose -> copy into runs -> sync files and directory -> one transaction: runs, rewritten segments -> replace in the index
//! ```
//! The old files are unlinked later, when the older checkpoint generation lists the runs as well. May not know: topics.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::identity::RUNS_FORMAT_VERSION;
use super::run_files::unlink_run_files;
use super::{DataDir, DataDirError};
use crate::checkpoint::file::{off_thread, sync};
use crate::checkpoint::state::Operation;
use crate::ids::{ReplicaId, RunId};
use crate::index::{ExtentKey, IndexError};
use crate::rewrite::RewriteOptions;
use crate::rewrite::choose::{FileUse, Situation, choose, pressure};
use crate::rewrite::copy::{Cursor, Group, Sources, group};
use crate::rewrite::throttle::pause;
use crate::rewrite::{Classes, DirectoryMoves, RetentionClass};
use crate::runs::files::open_run_index;
use crate::runs::writer::{BATCHES_MAX, PushError, RUN_BYTES_MAX, RunWriter, Written, room_for};
use crate::runs::{Listing, RUNS_DIR, Run, run_index_path, run_path};
use ottla_env::disk::{Disk, OpenMode};
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;

/// A run is synced after so many bytes: a single sync of all of it would delay those of the log.
const SYNC_BYTES: u64 = 8 << 20;
/// Runs that one job may fill while space is ample.
const RUNS_PER_JOB: u64 = 4;
/// Jobs that `rewrite_now` does at most.
const JOBS_MAX: usize = 1000;

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Idle,
    Done,
    /// A source is damaged and no replica has the lost batch: the file is skipped, and others are chosen.
    Damaged,
    /// The disk is full: nothing was changed.
    NoSpace,
    Closing,
}

/// The output of a job so far.
#[derive(Default)]
pub(super) struct Made {
    /// Runs begun.
    pub(super) runs: Vec<RunId>,
    /// Damaged batches that were fetched from other replicas.
    repaired: usize,
}

/// Why a job was not completed.
pub(super) enum JobError {
    Push(PushError),
    Directory(DataDirError),
    /// A chosen file was unlinked meanwhile: its live batches have died.
    Gone,
    Closing,
}

impl From<PushError> for JobError {
    fn from(error: PushError) -> Self {
        Self::Push(error)
    }
}

impl From<DataDirError> for JobError {
    fn from(error: DataDirError) -> Self {
        Self::Directory(error)
    }
}

impl From<io::Error> for JobError {
    fn from(error: io::Error) -> Self {
        Self::Push(PushError::Io(error))
    }
}

/// Starts the task; it ends when the directory is closed, fails or is dropped.
pub(super) fn start(directory: &Arc<DataDir>) {
    if directory.options.rewrite.bytes_per_second == 0 {
        return;
    }
    let mut pace = directory.rewriter.pace.subscribe();
    let damage = Arc::clone(&directory.rewriter.damage);
    let weak: Weak<DataDir> = Arc::downgrade(directory);
    drop(rt::spawn_critical("rewriter", directory.owner(), async move {
        loop {
            // A new interval takes effect at once, not after the old one.
            let interval = pace.borrow_and_update().interval;
            let woken = async {
                tokio::select! {
                    biased;
                    changed = pace.changed() => Some(changed.is_ok()),
                    () = damage.news() => None,
                }
            };
            match rt::timeout(interval, woken).await {
                Ok(Some(true)) => continue,
                Ok(Some(false)) => return,
                Ok(None) => {}
                Err(_) => damage.begin_round(),
            }
            loop {
                let Some(directory) = weak.upgrade() else { return };
                if directory.closing.load(Ordering::SeqCst) || directory.failure.get().is_some() {
                    return;
                }
                match directory.rewrite_once().await {
                    Ok(Outcome::Done | Outcome::Damaged) => {}
                    Ok(Outcome::Idle | Outcome::NoSpace) => break,
                    Ok(Outcome::Closing) => return,
                    Err(error) => {
                        tracing::error!(%error, "the rewriter failed");
                        break;
                    }
                }
            }
        }
    }));
}

impl DataDir {
    /// Sets the classifier of partitions by retention; without it all partitions share runs.
    pub fn set_retention_classes(&self, classes: Classes) {
        *self.rewriter.classes.write() = Some(classes);
    }

    /// Sets how to find out that a replica moves here from another directory of the node. Before, none does.
    pub fn set_directory_moves(&self, moves: DirectoryMoves) {
        *self.rewriter.directory_moves.write() = Some(moves);
    }

    pub(super) fn is_directory_move(&self, replica: ReplicaId) -> bool {
        let moves = self.rewriter.directory_moves.read().clone();
        moves.is_some_and(|moves| moves(replica))
    }

    pub(super) fn class_of(&self, key: ExtentKey) -> RetentionClass {
        let classes = self.rewriter.classes.read().clone();
        classes.map_or(RetentionClass::UNKNOWN, |classes| classes(key.partition))
    }

    /// Changes the limits of bytes per second, of the rewriter and of imports, and the rewriter's pause when there is nothing
    /// to do; the other options stay.
    pub fn set_rewrite_pace(&self, pace: &RewriteOptions) {
        self.rewriter.set_pace(pace);
    }

    /// Runs all jobs that are due now.
    pub async fn rewrite_now(self: &Arc<Self>) -> Result<(), DataDirError> {
        self.rewriter.damage.begin_round();
        for _ in 0..JOBS_MAX {
            match self.rewrite_once().await? {
                Outcome::Done | Outcome::Damaged => {}
                Outcome::Idle | Outcome::NoSpace | Outcome::Closing => break,
            }
        }
        Ok(())
    }

    /// 0 while space is ample, 1 when it is used up.
    pub(super) fn space_pressure(&self) -> f64 {
        let (total, free) = self.reserve.disk_bytes();
        let log = &self.options.log;
        pressure(free, total, log.reserve_bytes, u64::from(log.segment_bytes))
    }

    fn situation(&self) -> Situation {
        let options = &self.options.rewrite;
        let pressure = self.space_pressure();
        let (_, free) = self.reserve.disk_bytes();
        let wanted = options.run_bytes.saturating_mul(RUNS_PER_JOB);
        // The rest of the free space is for the log and the checkpoint.
        let budget_bytes = wanted.min(free / 2);
        let segment_bytes = u64::from(self.options.log.segment_bytes);
        Situation { pressure, budget_bytes, segment_bytes, run_bytes: options.run_bytes }
    }

    /// The files that may be rewritten, and their live bytes.
    async fn file_uses(&self) -> Vec<FileUse> {
        let Some(needed_from) = self.needed_from().await else { return Vec::new() };
        let table = &self.index.table;
        let dying = self.index.dying_bytes(|key| self.class_of(key) != RetentionClass::NEVER);
        let now = rt::now();
        let left_alone = self.rewriter.left_alone.lock().clone();
        let of = |number: u64, file_bytes: u64, may_go: bool| {
            let live_bytes = table.live_bytes(number);
            let recently = table.died_at(number).is_some_and(|at| now.since(at) < self.options.rewrite.patience);
            let is_dying = recently && dying.get(&number).is_some_and(|bytes| bytes * 2 > live_bytes);
            let may_go = may_go && table.is_known(number) && !left_alone.contains(&number);
            FileUse { number, file_bytes, live_bytes, may_go, is_dying, is_young: false, run: None }
        };
        let sealed = self.log.segments().into_iter().filter(|segment| segment.sealed);
        let sealed = sealed.filter(|segment| !self.index.is_rewritten(segment.sequence));
        let mut files: Vec<FileUse> = sealed.map(|s| of(s.sequence, s.file_bytes, s.sequence < needed_from)).collect();
        for run in self.runs.listed() {
            // The overhead of a run is not gained by copying its batches once more.
            let file = of(run.id.file_number(), run.batch_bytes, true);
            let made_at = self.runs.made_at(run.id);
            let is_young = made_at.is_some_and(|at| now.since(at) < self.options.rewrite.patience);
            files.push(FileUse { is_young, run: Some((run.lineage, run.class)), ..file });
        }
        files
    }

    /// One job, if there is one.
    async fn rewrite_once(self: &Arc<Self>) -> Result<Outcome, DataDirError> {
        let _working = self.rewriter.working.lock().await;
        if let Some(outcome) = self.repair_once().await? {
            return Ok(outcome);
        }
        let files = self.file_uses().await;
        let chosen = choose(&files, self.situation(), &|number| self.index.table.decided_in(number));
        if chosen.is_empty() {
            return Ok(Outcome::Idle);
        }
        self.rewrite(&chosen).await
    }

    /// Copies the live batches of these files into runs that replace them.
    pub(super) async fn rewrite(&self, chosen: &BTreeSet<u64>) -> Result<Outcome, DataDirError> {
        let mut made = Made::default();
        let outcome = match self.copy(chosen, &mut made).await {
            Ok(runs) => self.commit_runs(chosen, runs).await.map(|()| Outcome::Done),
            Err(JobError::Directory(error)) => Err(error),
            Err(JobError::Gone) => Ok(Outcome::Idle),
            Err(JobError::Closing) => Ok(Outcome::Closing),
            Err(JobError::Push(error)) => self.judge(error).await,
        };
        match outcome {
            Ok(Outcome::Done) => {
                self.rewriter.jobs.fetch_add(1, Ordering::Relaxed);
                self.count_repaired(made.repaired);
                chosen.iter().for_each(|file| self.forget_damaged(*file));
            }
            _ if self.failure.get().is_some() => {}
            _ => self.remove_files(made.runs).await?,
        }
        outcome
    }

    /// The outcome of a job that stopped with an error.
    async fn judge(&self, error: PushError) -> Result<Outcome, DataDirError> {
        match error {
            PushError::Damaged { file, offset, cause } => {
                tracing::error!(file, offset = offset.0, cause, "damaged batch: its file is not rewritten");
                self.rewriter.left_alone.lock().insert(file);
                Ok(Outcome::Damaged)
            }
            PushError::Index(IndexError::Damaged { segment }) => {
                self.rebuild_index(segment).await.map(|()| Outcome::Idle)
            }
            PushError::Index(error) => {
                Err(DataDirError::Damaged { path: self.path.display().to_string(), what: error.to_string() })
            }
            PushError::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(%error, "no room for a run");
                Ok(Outcome::NoSpace)
            }
            PushError::Io(error) => Err(self.fail("run", error)),
        }
    }

    /// Opens the files to copy from: they stay readable although they may be unlinked meanwhile.
    fn open_sources(&self, chosen: &BTreeSet<u64>) -> Option<Sources> {
        let open = |number: &u64| {
            let file = match RunId::of_file(*number) {
                Some(run) => self.runs.file(run)?,
                None => Arc::clone(&self.log.segment(*number)?.file),
            };
            Some((*number, file))
        };
        chosen.iter().map(open).collect()
    }

    /// Copies the live batches of the chosen files into new runs, synced under their names. `made` lists what was begun.
    async fn copy(&self, chosen: &BTreeSet<u64>, made: &mut Made) -> Result<Vec<Run>, JobError> {
        self.require_runs_format().await?;
        let sources = Arc::new(self.open_sources(chosen).ok_or(JobError::Gone)?);
        let rewrites = chosen.iter().filter_map(|number| RunId::of_file(*number)).filter_map(|run| self.runs.get(run));
        let rewrites = rewrites.map(|run| run.listing.rewrites).max().unwrap_or(0) + 1;
        let groups = group(self.index.live_slices(chosen), |key| self.class_of(key));
        let mut runs = Vec::new();
        for group in groups {
            self.copy_group(group, rewrites, &sources, made, &mut runs).await?;
        }
        let (disk, dir) = (Arc::clone(&self.disk), self.path.join(RUNS_DIR));
        off_thread(&self.disk, move || disk.sync_dir(&dir)).await?;
        Ok(runs)
    }

    async fn copy_group(
        &self,
        group: Group,
        rewrites: u32,
        sources: &Arc<Sources>,
        made: &mut Made,
        runs: &mut Vec<Run>,
    ) -> Result<(), JobError> {
        let (lineage, class) = (group.lineage, group.class);
        let mut cursor = Cursor::new(group);
        while !cursor.is_done() {
            let id = self.runs.take_id();
            made.runs.push(id);
            let incarnation = rt::random_u64();
            let listing = Listing { id, lineage, incarnation, bytes: 0, batch_bytes: 0, class, rewrites };
            let bytes = cursor.bytes_left().min(self.options.rewrite.run_bytes).min(RUN_BYTES_MAX);
            let room = room_for(bytes, cursor.slices_left().min(BATCHES_MAX as usize));
            let (disk, path) = (Arc::clone(&self.disk), self.path.clone());
            let create = move || RunWriter::create(&disk, &path, listing, room);
            let mut writer = off_thread(&self.disk, create).await?;
            while !cursor.is_done() && !writer.is_full(self.options.rewrite.run_bytes) {
                (cursor, writer) = self.copy_step(cursor, writer, sources, made).await?;
            }
            let written = off_thread(&self.disk, move || writer.finish()).await?;
            runs.push(self.seal_run(written).await?);
        }
        Ok(())
    }

    /// Copies the next step, then pauses as the throttle says.
    async fn copy_step(
        &self,
        mut cursor: Cursor,
        mut writer: RunWriter,
        sources: &Arc<Sources>,
        made: &mut Made,
    ) -> Result<(Cursor, RunWriter), JobError> {
        if self.closing.load(Ordering::SeqCst) || self.failure.get().is_some() {
            return Err(JobError::Closing);
        }
        let (index, sources) = (Arc::clone(&self.index), Arc::clone(sources));
        let run_bytes = self.options.rewrite.run_bytes;
        let before = writer.end();
        let step = move || {
            let outcome = cursor.step(&index, &sources, &mut writer, run_bytes);
            Ok((cursor, writer, outcome))
        };
        let (mut cursor, mut writer, outcome) = off_thread(&self.disk, step).await?;
        match outcome {
            Err(error @ PushError::Damaged { .. }) => {
                made.repaired += self.pass_damaged(&mut cursor, &mut writer, error).await?;
            }
            outcome => outcome?,
        }
        let bytes = writer.end() - before;
        self.rewriter.rewritten_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.sync_part(&mut writer).await?;
        self.pause(bytes * 2).await;
        Ok((cursor, writer))
    }

    /// Syncs a run that is being written, if enough of it is not.
    pub(super) async fn sync_part(&self, writer: &mut RunWriter) -> io::Result<()> {
        if writer.unsynced_bytes() >= SYNC_BYTES {
            sync(&self.disk, writer.file()).await?;
            writer.synced();
        }
        Ok(())
    }

    /// Pauses as the throttle says after so many bytes were read or written.
    pub(super) async fn pause(&self, bytes: u64) {
        let waiting = self.log.stats().queued_bytes;
        let pause = pause(&self.rewriter.pace.borrow(), bytes, waiting, self.space_pressure());
        self.wait(pause).await;
    }

    /// Waits so long, or until the directory is closed.
    pub(super) async fn wait(&self, pause: Duration) {
        let _ = rt::timeout(pause, self.rewriter.stop.notified()).await;
    }

    /// Makes a run and its index durable under their names; the directory is still to be synced.
    pub(super) async fn seal_run(&self, written: Written) -> io::Result<Run> {
        let Written { listing, file, index_image } = written;
        let unsynced = if listing.rewrites == 0 { Bug::ImportNotSynced } else { Bug::RunNotSynced };
        if !mutants::is_on(unsynced) {
            sync(&self.disk, &file).await?;
        }
        let (disk, path) = (Arc::clone(&self.disk), run_index_path(&self.path, listing.id));
        let index_file = off_thread(&self.disk, move || {
            let file = disk.open(&path, OpenMode::CreateNew)?;
            file.write_at(&index_image, 0)?;
            Ok(file)
        });
        sync(&self.disk, &index_file.await?).await?;
        // Readers use a handle that cannot write.
        let (disk, path) = (Arc::clone(&self.disk), run_path(&self.path, listing.id));
        let file = off_thread(&self.disk, move || disk.open(&path, OpenMode::Read)).await?;
        Ok(Run { listing, file, made_at: Some(rt::now()), leaving: false })
    }

    /// From the first run on the format is raised: an older release would take the checkpoint for damaged.
    pub(super) async fn require_runs_format(&self) -> io::Result<()> {
        self.require_format(RUNS_FORMAT_VERSION).await
    }

    /// Commits the runs in place of the files in one transaction, then replaces the index slices. The files are
    /// unlinked later.
    pub(super) async fn commit_runs(&self, chosen: &BTreeSet<u64>, runs: Vec<Run>) -> Result<(), DataDirError> {
        let opened = self.open_indexes(&runs).await?;
        let mut checkpoint = self.checkpoint.lock().await;
        let _writing = self.index_files.lock().await;
        let is_needed = |key: ExtentKey| self.reader_of(key).is_some();
        if !self.index.covers_live(chosen, is_needed, &opened) {
            // Nothing is changed: the files stay, and the copies are removed.
            self.rewriter.left_alone.lock().extend(chosen);
            let what = "the copies do not hold all that lives in the files they were made from".to_owned();
            return Err(DataDirError::Damaged { path: self.path.join(RUNS_DIR).display().to_string(), what });
        }
        let mut operations = vec![Operation::NextRun(self.runs.next_id())];
        operations.extend(runs.iter().map(|run| Operation::Run(run.listing.clone())));
        operations.extend(chosen.iter().map(|number| match RunId::of_file(*number) {
            Some(run) => Operation::DropRun(run),
            None => Operation::Rewritten(*number),
        }));
        self.transact(&mut checkpoint, operations, false).await?;
        let bytes: u64 = runs.iter().map(|run| run.listing.bytes).sum();
        tracing::info!(files = chosen.len(), runs = runs.len(), bytes, "live batches rewritten");
        runs.into_iter().for_each(|run| self.runs.add(run));
        let (index, gone) = (Arc::clone(&self.index), chosen.clone());
        let replaced = off_thread(&self.disk, move || Ok(index.replace(&gone, opened))).await;
        if let Err(error) = replaced.map_err(|error| self.fail("index", error))? {
            tracing::warn!(%error, "what died while it was copied is counted later");
        }
        self.note_runs(&checkpoint);
        Ok(())
    }

    pub(super) async fn open_indexes(
        &self,
        runs: &[Run],
    ) -> Result<Vec<(RunId, crate::index::file::Opened)>, DataDirError> {
        let listings: Vec<Listing> = runs.iter().map(|run| run.listing.clone()).collect();
        let (disk, path): (Arc<dyn Disk>, _) = (Arc::clone(&self.disk), self.path.clone());
        let open = move || {
            let open = |run: &Listing| {
                let opened = open_run_index(&disk, &path, run)?;
                let opened = opened.ok_or_else(|| io::Error::other("the index of a new run does not read back"))?;
                Ok((run.id, opened))
            };
            listings.iter().map(open).collect::<io::Result<Vec<_>>>()
        };
        off_thread(&self.disk, open).await.map_err(|error| self.fail("run index", error))
    }

    /// Removes the files of a job that stopped.
    pub(super) async fn remove_files(&self, made: Vec<RunId>) -> Result<(), DataDirError> {
        if made.is_empty() {
            return Ok(());
        }
        let (disk, path) = (Arc::clone(&self.disk), self.path.clone());
        let remove = move || unlink_run_files(&disk, &path, &made);
        off_thread(&self.disk, remove).await.map_err(|error| self.fail("run", error))?;
        self.log.space_freed();
        Ok(())
    }
}
