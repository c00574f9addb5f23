//! Snapshot import: batches of other replicas are written into runs, never into the log, and one checkpoint transaction
//! makes state, runs and purge durable together (design section 4, snapshots).
//!
//! ```text
//!  push ... push -> sync runs and directory -> verdicts on what is applied -> one transaction -> index, log
//! ```
//! Before that transaction only files of runs that no checkpoint lists are written. May not know: where batches come from.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic;
use std::time::Duration;

use ottla_protocol::batch::BatchHeader;
use ottla_protocol::ids::{Offset, PartitionId};

use super::export::ReplicaSnapshot;
use super::identity::COMPACTION_FORMAT_VERSION;
use super::peers::{ExportedBatch, PassConflict};
use super::run_files::unlink_run_files;
use super::{DataDir, maintain};
use crate::checkpoint::file::{off_thread, sync};
use crate::checkpoint::state::{Operation, ReplicaHead};
use crate::compact::PassDone;
use crate::ids::{Lineage, LogPosition, ReplicaId, RunId};
use crate::index::compacted::Compacted;
use crate::index::partition::Gap;
use crate::index::{ExtentKey, IndexedBatch};
use crate::rewrite::RetentionClass;
use crate::rewrite::throttle::import_pause;
use crate::runs::writer::{PushError, RUN_BYTES_MAX, RunWriter};
use crate::runs::{Listing, RUNS_DIR, Run};
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;

/// Space that a run is created with, as the size of the snapshot is not known.
const ROOM_BYTES: u64 = 1 << 20;
/// Size of a write to a run, about.
const WRITE_BYTES: usize = 1 << 20;
/// A run is synced after so many bytes were written to it.
const SYNC_BYTES: u64 = 8 << 20;
/// While entries are replayed because no checkpoint was valid, no transaction may be written.
pub(super) const REPLAY_WAIT: Duration = Duration::from_millis(50);

/// The batches received so far. Dropped without [`Import::commit`] it leaves files that the next start removes.
pub struct Import {
    directory: Arc<DataDir>,
    replica: ReplicaId,
    /// The bytes in which it fills a gap; their owner may change meanwhile.
    gap: Option<ExtentKey>,
    writer: Option<RunWriter>,
    /// What the run that is being written holds.
    group: (RetentionClass, Lineage),
    runs: Vec<Run>,
    made: Vec<RunId>,
    /// Offset up to which each partition was received.
    taken: BTreeMap<PartitionId, Offset>,
    /// The same without the run that is being written.
    ended: BTreeMap<PartitionId, Offset>,
    /// Offset below which the source's data has expired.
    expired: BTreeMap<PartitionId, Offset>,
    /// The pass of the sources of what was taken below its horizon.
    passes: BTreeMap<PartitionId, PassDone>,
    /// Partitions that are taken from their log start on, whatever is here, in runs from these on.
    anew: BTreeMap<PartitionId, RunId>,
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn from_push(error: PushError) -> io::Error {
    match error {
        PushError::Io(error) => error,
        other => invalid(other.to_string()),
    }
}

impl DataDir {
    /// Begins a snapshot import for one of its replicas.
    #[must_use]
    pub fn begin_import(self: &Arc<Self>, replica: ReplicaId) -> Import {
        Import {
            directory: Arc::clone(self),
            replica,
            gap: None,
            writer: None,
            group: (RetentionClass::UNKNOWN, Lineage::of(replica)),
            runs: Vec::new(),
            made: Vec::new(),
            taken: BTreeMap::new(),
            ended: BTreeMap::new(),
            expired: BTreeMap::new(),
            passes: BTreeMap::new(),
            anew: BTreeMap::new(),
        }
    }

    /// Begins an import of batches that the index lacks.
    pub(super) fn begin_gap(self: &Arc<Self>, replica: ReplicaId, key: ExtentKey, gap: &Gap) -> Import {
        let mut import = Import { gap: Some(key), ..self.begin_import(replica) };
        import.taken.insert(key.partition, gap.known_end);
        import.ended.clone_from(&import.taken);
        import.expired.insert(key.partition, gap.from);
        import
    }
}

impl Import {
    fn key(&self, partition: PartitionId) -> ExtentKey {
        let gap = self.gap.filter(|key| key.partition == partition);
        gap.unwrap_or_else(|| self.directory.extent(self.replica, partition))
    }

    /// The retention class of a partition: batches of one class share runs, so import partitions class by class.
    #[must_use]
    pub fn class_of(&self, partition: PartitionId) -> RetentionClass {
        self.directory.class_of(self.key(partition))
    }

    /// The offset after the last batch that is here.
    fn end(&self, partition: PartitionId) -> Offset {
        let taken = self.taken.get(&partition).copied();
        let own = || self.directory.index.partition(self.key(partition)).and_then(|known| known.read().end_offset());
        taken.or_else(own).unwrap_or(Offset(0))
    }

    /// The first missing offset of the partition.
    #[must_use]
    pub fn position(&self, partition: PartitionId) -> Offset {
        self.end(partition).max(self.expired.get(&partition).copied().unwrap_or(Offset(0)))
    }

    /// Skips the offsets below this one: they have expired.
    pub fn skip_to(&mut self, partition: PartitionId, offset: Offset) {
        let expired = self.expired.entry(partition).or_default();
        *expired = offset.max(*expired);
    }

    /// Judges whether the next batches of a partition may be taken from a source that has done this pass over it. `end`: where the
    /// state that is imported ends.
    ///
    /// # Errors
    /// Why not: what is here and what comes would not be what one pass has left.
    pub fn agree(&mut self, partition: PartitionId, source: Option<PassDone>, end: Offset) -> Result<(), PassConflict> {
        let (key, from) = (self.key(partition), self.position(partition));
        let (is_anew, taken) = (self.anew.contains_key(&partition), self.taken.get(&partition));
        let own_end = self.directory.index.partition(key).and_then(|known| known.read().end_offset());
        let own_end = own_end.filter(|end| Some(end) > self.expired.get(&partition));
        let own = self.directory.index.pass_done(key).filter(|_| own_end.is_some() && !is_anew);
        let known = self.passes.get(&partition).copied().or(own);
        let horizon = source.map_or(Offset(0), |source| source.pass.horizon);
        if is_anew && own_end > Some(horizon) {
            // What is here goes below the horizon of what comes, and no further.
            return Err(PassConflict::PeerBehind);
        }
        if mutants::is_on(Bug::PassesMixed) {
            return Ok(());
        }
        if horizon > end.max(from) {
            return Err(PassConflict::PeerAhead);
        }
        if PassDone::are_alike(known, source, from) {
            return Ok(());
        }
        if PassDone::number_of(known) > PassDone::number_of(source) {
            return Err(PassConflict::PeerBehind);
        }
        if taken.map_or(own_end.is_some(), |taken| *taken > Offset(0)) {
            return Err(PassConflict::Anew);
        }
        self.passes.extend(source.map(|source| (partition, source)));
        Ok(())
    }

    /// Takes a partition from its log start on, after [`PassConflict::Anew`]: in the place of what is here and of what was taken.
    pub async fn begin_anew(&mut self, partition: PartitionId) -> io::Result<()> {
        self.seal().await?;
        self.passes.remove(&partition);
        self.taken.insert(partition, Offset(0));
        self.ended.insert(partition, Offset(0));
        self.anew.insert(partition, self.directory.runs.next_id());
        Ok(())
    }

    /// Adds the next batch of a partition; its checksum must hold. After a disk error some batches are missing again: see
    /// [`Import::position`].
    pub async fn push(&mut self, partition: PartitionId, batch: ExportedBatch) -> io::Result<()> {
        let header = BatchHeader::parse(&batch.data).ok_or_else(|| invalid(format!("no batch of {partition}")))?;
        // The batch in which the partition begins is whole.
        let (base, end) = (header.base_offset, self.end(partition));
        if base < end {
            return Err(invalid(format!("a batch of {partition} at {base}, but {end} comes next")));
        }
        // A batch that is damaged at the source must not become a gap here.
        let missing = self.position(partition);
        if base > missing {
            return Err(invalid(format!("a batch of {partition} at {base}, but {missing} is missing")));
        }
        let count =
            u32::try_from(i64::from(header.last_offset_delta) + 1).map_err(|_| invalid("no records".to_owned()))?;
        let indexed = IndexedBatch {
            base_offset: header.base_offset,
            record_count: count,
            max_timestamp_ms: batch.max_timestamp_ms,
            epoch: header.leader_epoch,
            position: LogPosition { segment: u64::MAX, byte: 0 },
            bytes: u32::try_from(batch.data.len()).unwrap_or(u32::MAX),
        };
        let key = self.key(partition);
        let group = (self.directory.class_of(key), key.lineage);
        let run_bytes = self.directory.options.rewrite.run_bytes.min(RUN_BYTES_MAX);
        if self.writer.as_ref().is_some_and(|writer| group != self.group || writer.is_full(run_bytes)) {
            self.seal().await?;
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin_run(group).await?,
        };
        let pushed = writer.push(key, &indexed, &batch.data).map_err(from_push);
        if pushed.is_ok() {
            self.taken.insert(partition, indexed.end_offset());
        }
        if writer.buffered_bytes() >= WRITE_BYTES {
            writer = match self.write(writer).await {
                Ok(writer) => writer,
                Err(error) => return Err(self.run_lost(error).await),
            };
        }
        self.writer = Some(writer);
        pushed
    }

    /// Drops the run that was being written, and the batches in it, after this error.
    async fn run_lost(&mut self, error: io::Error) -> io::Error {
        self.taken.clone_from(&self.ended);
        if let Some(run) = self.made.pop() {
            let (disk, path) = (Arc::clone(&self.directory.disk), self.directory.path.clone());
            if let Err(error) = off_thread(&self.directory.disk, move || unlink_run_files(&disk, &path, &[run])).await {
                tracing::warn!(run = run.0, %error, "a run that could not be written is not removed before the next start");
            }
            self.directory.log.space_freed();
        }
        error
    }

    async fn begin_run(&mut self, group: (RetentionClass, Lineage)) -> io::Result<RunWriter> {
        self.directory.require_runs_format().await?;
        let id = self.directory.runs.take_id();
        self.made.push(id);
        self.group = group;
        let ((class, lineage), incarnation) = (group, rt::random_u64());
        let listing = Listing { id, lineage, incarnation, bytes: 0, batch_bytes: 0, class, rewrites: 0 };
        let (disk, path) = (Arc::clone(&self.directory.disk), self.directory.path.clone());
        let created = off_thread(&self.directory.disk, move || RunWriter::create(&disk, &path, listing, ROOM_BYTES));
        match created.await {
            Ok(writer) => Ok(writer),
            Err(error) => Err(self.run_lost(error).await),
        }
    }

    /// Writes the buffered batches, syncs now and then, and is throttled.
    async fn write(&self, mut writer: RunWriter) -> io::Result<RunWriter> {
        let directory = &self.directory;
        let bytes = writer.buffered_bytes() as u64;
        let written = off_thread(&directory.disk, move || writer.flush().map(|()| writer));
        let mut writer = written.await?;
        if writer.unsynced_bytes() >= SYNC_BYTES {
            sync(&directory.disk, writer.file()).await?;
            writer.synced();
        }
        let (waiting, pace) = (directory.log.stats().queued_bytes, *directory.rewriter.pace.borrow());
        let pause = import_pause(&pace, directory.is_directory_move(self.replica), bytes, waiting);
        if pause > Duration::ZERO {
            rt::sleep(pause).await;
        }
        Ok(writer)
    }

    /// Writes the batches received so far. After a disk error some of them are missing again.
    pub async fn seal(&mut self) -> io::Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let written = off_thread(&self.directory.disk, move || writer.finish()).await;
        let sealed = match written {
            Ok(written) => self.directory.seal_run(written).await,
            Err(error) => Err(error),
        };
        match sealed {
            Ok(run) => self.runs.push(run),
            Err(error) => return Err(self.run_lost(error).await),
        }
        self.ended.clone_from(&self.taken);
        Ok(())
    }

    /// The runs that were begun, finished or not.
    pub(super) fn made(&self) -> Vec<RunId> {
        self.made.clone()
    }

    /// Makes the runs durable under their names.
    pub(super) async fn into_runs(mut self) -> io::Result<Vec<Run>> {
        self.seal().await?;
        if !self.runs.is_empty() {
            let (disk, dir) = (Arc::clone(&self.directory.disk), self.directory.path.join(RUNS_DIR));
            off_thread(&self.directory.disk, move || disk.sync_dir(&dir)).await?;
        }
        Ok(self.runs)
    }

    /// Installs the snapshot. After an error either nothing has changed, or the directory has failed.
    pub async fn commit(mut self, snapshot: &ReplicaSnapshot) -> io::Result<()> {
        let (directory, replica) = (Arc::clone(&self.directory), self.replica);
        let (expired, passes) = (std::mem::take(&mut self.expired), std::mem::take(&mut self.passes));
        // Each partition of a snapshot is named to the import, by where it begins or by its batches.
        let named = expired.keys().chain(self.taken.keys()).copied().collect();
        let anew = std::mem::take(&mut self.anew);
        let runs = self.into_runs().await?;
        // Its own entries are not needed any more; those of other replicas may wait for it to free space.
        directory.replaying.lock().remove(&replica);
        while directory.is_replaying() {
            rt::sleep(REPLAY_WAIT).await;
        }
        // What is replaced is not copied meanwhile: a copy that is listed later would count.
        let _working = if anew.is_empty() { None } else { Some(directory.rewriter.working.lock().await) };
        let ids: Vec<RunId> = runs.iter().map(|run| run.listing.id).collect();
        let compacted = |(partition, PassDone { number, pass })| {
            let (first_run, imported) = match anew.get(&partition) {
                None => (ids.iter().min().copied()?, Arc::default()),
                Some(from) => (directory.runs.next_id(), ids.iter().filter(|run| *run >= from).copied().collect()),
            };
            Some((directory.extent(replica, partition), Compacted { number, pass, first_run, imported }))
        };
        let compacted = passes.into_iter().filter_map(compacted).collect();
        directory.make_real(replica, runs, Places { named, expired, compacted }, snapshot).await
    }
}

/// The partitions of an imported snapshot.
struct Places {
    /// All of them. What the replica owned of any other is dead in the same transaction: a start after it would find it alive, and
    /// owned by a replica that does not know it (seed 130479).
    named: BTreeSet<PartitionId>,
    /// What lies below these offsets is in no run. They are log starts of the same transaction, as a start after it would find gaps
    /// there, and have other replicas fill them.
    expired: BTreeMap<PartitionId, Offset>,
    /// What passes the replicas had done from which they came.
    compacted: BTreeMap<ExtentKey, Compacted>,
}

impl DataDir {
    async fn make_real(
        &self,
        replica: ReplicaId,
        runs: Vec<Run>,
        Places { named, expired, compacted }: Places,
        snapshot: &ReplicaSnapshot,
    ) -> io::Result<()> {
        let log = self.log_of(replica)?;
        if !compacted.is_empty() {
            self.require_format(COMPACTION_FORMAT_VERSION).await?;
        }
        let opened = self.open_indexes(&runs).await.map_err(io::Error::other)?;
        // What is applied here stays readable: its verdicts are in the log before its entries are voided.
        if let Some(last) = self.index.recorded(replica)
            && log.log_id(last).is_some_and(|id| Some(id) > log.purged())
        {
            log.placed(last).await?;
        }
        let mut checkpoint = self.checkpoint.lock().await;
        let writing = self.index_files.lock().await;
        self.write_last_verdicts(replica).await?;
        let upto = snapshot.applied;
        let head = ReplicaHead {
            recovery_point: log.recovery_point_after(upto),
            applied: Some(upto),
            membership: snapshot.membership.clone(),
            checksum: snapshot.checksum,
        };
        self.index.keep_partitions(replica, &named);
        for (partition, offset) in expired {
            self.index.raise_log_start(self.extent(replica, partition), offset);
        }
        // A checkpoint has the recovery points of all replicas or of none, and the log starts that were raised.
        let mut operations = self.operations(&checkpoint, Vec::new()).await;
        operations.push(Operation::NextRun(self.runs.next_id()));
        operations.extend(runs.iter().map(|run| Operation::Run(run.listing.clone())));
        operations.extend(compacted.iter().map(|(key, compacted)| Operation::Compacted(*key, compacted.clone())));
        operations.extend([Operation::Remove(replica), Operation::Replica(head)]);
        let put = |(key, value): &(bytes::Bytes, bytes::Bytes)| Operation::Put {
            replica,
            key: key.clone(),
            value: value.clone(),
        };
        operations.extend(snapshot.keys.iter().map(put));
        // Written to both generations: an older one without it would find a gap where its entries were.
        self.transact(&mut checkpoint, operations, true).await?;
        self.transact(&mut checkpoint, Vec::new(), true).await?;
        log.begin_after(upto);
        let bytes: u64 = runs.iter().map(|run| run.listing.bytes).sum();
        tracing::info!(replica = replica.0, upto = upto.index.0, runs = runs.len(), bytes, "snapshot imported");
        runs.into_iter().for_each(|run| self.runs.add(run));
        let index = Arc::clone(&self.index);
        let installed = off_thread(&self.disk, move || {
            let begun = compacted.into_iter().try_for_each(|(key, compacted)| index.begin_imported(key, compacted));
            let install = |(run, opened): (RunId, _)| index.install(run.file_number(), opened);
            let installed = begun.and_then(|()| opened.into_iter().try_for_each(install));
            index.imported(replica, upto.index);
            Ok(installed)
        });
        installed.await?.map_err(|error| self.fail("import", io::Error::other(error.to_string())))?;
        drop(writing);
        *self.oldest_kept.lock() = maintain::oldest_kept(&checkpoint);
        *self.checkpointed.lock() = maintain::checkpointed(&checkpoint);
        self.note_runs(&checkpoint);
        self.counters.checkpoints.fetch_add(2, atomic::Ordering::Relaxed);
        Ok(())
    }
}
