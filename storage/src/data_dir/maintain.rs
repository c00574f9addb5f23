//! Background maintenance of a data directory: checkpoints, `.idx` files, unlinking, and the check of free space.
//!
//! One task does all of it, in this order, so that a checkpoint never contains more than the log holds and no file is
//! unlinked that a kept checkpoint needs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::index_files::{index_path, open_index, read_frames, write_index};
use super::unlink::Unlinking;
use super::{DataDir, DataDirError, Replay};
use crate::checkpoint::file::off_thread;
use crate::checkpoint::state::{Operation, ReplicaHead};
use crate::checkpoint::{Checkpoint, StateDelta};
use crate::ids::{LogId, LogPosition, RaftIndex, ReplicaId, RunId};
use crate::index::rebuild::Take;
use crate::index::{IndexError, file, in_memory_file};
use crate::log::{ReplicaLog, SegmentInfo};
use crate::rewrite::choose::{gain_min, is_mostly_dead};
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;

/// Verdicts of so many entries are passed in one call of the log.
const VERDICT_ENTRIES_MAX: usize = 4096;
/// Interval of the check whether the log has grown enough for a checkpoint.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// While space is short, generations are replaced no more often than this.
const FORCED_INTERVAL: Duration = Duration::from_secs(2);

/// How to handle an index file for which the disk has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoRoom {
    /// Its index entries are in memory: it is written later.
    Later,
    /// Its index entries exist nowhere else: the file's image is held in memory until the next start.
    Held,
}

/// The last entry of each replica that the oldest generation contains.
pub(super) fn oldest_kept(checkpoint: &Checkpoint) -> BTreeMap<ReplicaId, LogId> {
    let Some(heads) = checkpoint.oldest() else { return BTreeMap::new() };
    heads.iter().filter_map(|(id, head)| Some((*id, head.applied?))).collect()
}

/// The last entry of each replica that the newest generation contains.
pub(super) fn checkpointed(checkpoint: &Checkpoint) -> BTreeMap<ReplicaId, LogId> {
    checkpoint.heads().iter().filter_map(|(id, head)| Some((*id, head.applied?))).collect()
}

/// Starts the task; it ends when the directory is closed, fails or is dropped.
pub(super) fn start(directory: &Arc<DataDir>) {
    let weak: Weak<DataDir> = Arc::downgrade(directory);
    let interval = directory.options.maintenance_interval;
    drop(rt::spawn_critical("maintenance", directory.owner(), async move {
        let mut forced_at: Option<rt::Instant> = None;
        loop {
            let asleep_since = rt::now();
            let directory = loop {
                rt::sleep(interval.min(LOOK_INTERVAL)).await;
                let Some(directory) = weak.upgrade() else { return };
                if directory.has_grown() || rt::now().since(asleep_since) >= interval {
                    break directory;
                }
            };
            if directory.closing.load(Ordering::SeqCst) || directory.failure.get().is_some() {
                return;
            }
            if let Err(error) = directory.maintain(&mut forced_at).await {
                tracing::error!(%error, "maintenance of the data directory failed");
            }
        }
    }));
}

impl DataDir {
    /// One round.
    async fn maintain(&self, forced_at: &mut Option<rt::Instant>) -> Result<(), DataDirError> {
        let settled = self.settle().await;
        // First, and whatever else fails: what comes next may wait for space.
        self.unlink_dead(Unlinking::Paced).await?;
        self.unlink_runs(Unlinking::Paced).await?;
        // An index that cannot be rebuilt must not end the checkpoints: the log would grow until the disk is full.
        if let Err(error) = settled {
            tracing::error!(%error, "indexing what has become durable failed");
        }
        let now = rt::now();
        let short = !self.reserve.has_room();
        let interval = if short { FORCED_INTERVAL } else { self.options.reclaim_interval };
        let may_force = forced_at.is_none_or(|at| now.since(at) >= interval);
        let forced = may_force && self.is_generation_due(short).await;
        let due = self.due(now, forced);
        if forced {
            *forced_at = Some(now);
        }
        if forced || !due.is_empty() {
            self.checkpoint(&due, forced, forced).await?;
        }
        self.relocate().await?;
        self.write_index_files().await
    }

    /// True if a new generation would free space, and nothing else does.
    async fn is_generation_due(&self, short: bool) -> bool {
        if !self.dead_runs().is_empty() || self.runs_wait_for_older(&*self.checkpoint.lock().await) {
            return true;
        }
        if let Some(last_dead) = self.last_dead_segment()
            && (short || self.older_generation_holds_back(last_dead).await)
        {
            return true;
        }
        match self.last_to_rewrite().await {
            Some(last) => self.older_generation_holds_back(last).await,
            None => false,
        }
    }

    /// The last of the mostly dead segments that the rewriter would choose if they were not needed for recovery, if there
    /// is enough to gain.
    async fn last_to_rewrite(&self) -> Option<u64> {
        let needed_from = self.needed_from().await?;
        let table = &self.index.table;
        let (mut gain, mut all, mut last) = (0, 0, None);
        for segment in self.log.segments().into_iter().filter(|segment| segment.sealed) {
            let live_bytes = table.live_bytes(segment.sequence);
            all += segment.file_bytes;
            if segment.sequence >= needed_from && is_mostly_dead(live_bytes, segment.file_bytes) {
                gain += segment.file_bytes - live_bytes;
                last = Some(segment.sequence);
            }
        }
        last.filter(|_| gain >= gain_min(all, u64::from(self.options.log.segment_bytes)))
    }

    /// Checkpoints every dirty replica now; durable when this returns.
    pub async fn checkpoint_now(&self) -> Result<(), DataDirError> {
        let all: Vec<_> = self.sources.lock().keys().copied().collect();
        self.checkpoint(&all, false, true).await
    }

    /// Runs all maintenance now: a checkpoint in a new generation, `.idx` files, unlinking.
    pub async fn maintain_now(&self) -> Result<(), DataDirError> {
        let all: Vec<_> = self.sources.lock().keys().copied().collect();
        self.settle().await?;
        self.relocate().await?;
        self.checkpoint(&all, true, true).await?;
        self.write_index_files().await?;
        self.unlink_dead(Unlinking::AtOnce).await?;
        self.unlink_runs(Unlinking::AtOnce).await
    }

    /// Indexes what has become durable, counts what died, checks the free space.
    pub(super) async fn settle(&self) -> Result<(), DataDirError> {
        for replica in self.log.replicas() {
            let placed = self.index.place_durable(replica, |writer, index| self.final_place(writer, index));
            placed.map_err(|error| self.fail("index", error))?;
        }
        let (index, disk, path) = (Arc::clone(&self.index), Arc::clone(&self.disk), self.path.clone());
        let work = move || {
            let settled = index.settle_all();
            disk.space(&path).map(|space| (space, settled))
        };
        let (space, settled) =
            off_thread(&self.disk, work).await.map_err(|error| DataDirError::io(&self.path, error))?;
        self.reserve.observe(space.free_bytes, space.total_bytes);
        match settled {
            Err(IndexError::Damaged { segment }) => self.rebuild_index(segment).await,
            // Readers would be served one of two contents.
            Err(error @ IndexError::Conflict { .. }) => {
                Err(self.fail("index", io::Error::new(io::ErrorKind::InvalidData, error.to_string())))
            }
            Err(error) => Err(DataDirError::Damaged { path: self.path.display().to_string(), what: error.to_string() }),
            Ok(()) => Ok(()),
        }
    }

    /// True if so much was written since the last checkpoint that recovery would have much to read.
    fn has_grown(&self) -> bool {
        let before = self.checkpoint_at_bytes.load(Ordering::Relaxed);
        self.log.stats().bytes.saturating_sub(before) >= self.options.checkpoint_bytes
    }

    /// Replicas that are due for a checkpoint.
    fn due(&self, now: rt::Instant, all: bool) -> Vec<ReplicaId> {
        let mut due = Vec::new();
        // Recovery reads from the first entry that the checkpoint lacks: a replica that is hardly used must not hold
        // back that position.
        let all = all || self.has_grown();
        let mut sources = self.sources.lock();
        sources.retain(|_, source| source.source.strong_count() > 0);
        for (replica, source) in sources.iter_mut() {
            let bytes = self.index.bytes_since_checkpoint(*replica);
            if bytes == 0 {
                source.dirty_since = None;
                continue;
            }
            let since = *source.dirty_since.get_or_insert(now);
            if all
                || source.withheld
                || bytes >= self.options.checkpoint_bytes
                || now.since(since) >= self.options.checkpoint_interval
            {
                source.dirty_since = None;
                due.push(*replica);
            }
        }
        due
    }

    /// Takes the replicas' state deltas, writes the verdicts of the entries that they contain, then one checkpoint
    /// transaction: without a delta only if `even_without_deltas`.
    async fn checkpoint(
        &self,
        replicas: &[ReplicaId],
        rotate: bool,
        even_without_deltas: bool,
    ) -> Result<(), DataDirError> {
        if self.is_replaying() {
            return Ok(());
        }
        let mut checkpoint = self.checkpoint.lock().await;
        let mut deltas = Vec::new();
        for replica in replicas {
            let source = self.sources.lock().get(replica).and_then(|source| source.source.upgrade());
            let Some(log) = self.log.replica(*replica) else { continue };
            let delta = source.and_then(|source| source.take_delta());
            let withheld = delta.is_none() && self.index.bytes_since_checkpoint(*replica) > 0;
            if let Some(source) = self.sources.lock().get_mut(replica) {
                source.withheld = withheld;
            }
            if let Some(delta) = delta {
                self.write_verdicts(&log, delta.applied.index).await.map_err(|error| self.fail("verdicts", error))?;
                deltas.push(delta);
            }
        }
        if deltas.is_empty() && !even_without_deltas {
            return Ok(());
        }
        let mut operations = self.run_operations(&checkpoint);
        operations.extend(self.operations(&checkpoint, deltas).await);
        let log_bytes = self.log.stats().bytes;
        self.transact_cut(&mut checkpoint, operations, rotate).await?;
        self.checkpoint_at_bytes.store(log_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// True while entries are replayed because no checkpoint was valid: a first checkpoint in the middle of the replay
    /// would bring back purges that lie after it. What was purged was committed; for entries behind those that are known to
    /// be committed a shard needs a majority, and one that has none must not hold back the others.
    pub(super) fn is_replaying(&self) -> bool {
        self.opened_without_checkpoint && {
            let mut replaying = self.replaying.lock();
            replaying.retain(|replica, replay| self.is_behind(*replica, replay.last));
            let needs = |replay: &Replay| Some(replay.committed.min(replay.last)).filter(|upto| *upto > RaftIndex(0));
            replaying.iter().any(|(replica, replay)| needs(replay).is_some_and(|upto| self.is_behind(*replica, upto)))
        }
    }

    /// True until a replica has applied again what its log held when the directory was opened. Its log starts may be
    /// those of the checkpoint's older generation until then: of what lies below the later ones nothing need be there.
    pub(super) fn replays(&self, replica: ReplicaId) -> bool {
        let mut replaying = self.replaying.lock();
        let is_behind = replaying.get(&replica).is_some_and(|replay| self.is_behind(replica, replay.last));
        if !is_behind {
            replaying.remove(&replica);
        }
        is_behind
    }

    /// True if the replica has applied less than the entries up to `last` that its log has still.
    fn is_behind(&self, replica: ReplicaId, last: RaftIndex) -> bool {
        let Some(log) = self.log.replica(replica) else { return false };
        let applied = self.index.recorded(replica).max(self.checkpointed(replica).map(|id| id.index));
        // A tail that was never committed may have been truncated since.
        applied < log.last_log_id().map(|id| id.index.min(last))
    }

    /// False while no checkpoint is valid: then none is written before everything is replayed.
    #[must_use]
    pub fn has_checkpoint(&self) -> bool {
        !self.is_replaying()
    }

    /// Accepts the loss of a replica: when this returns all that it applied is in both generations of the checkpoint, and
    /// what is lost lies before the position from which it is recovered.
    ///
    /// # Errors
    /// When the checkpoint cannot be written. The replica is still marked as lost then.
    pub async fn accept_loss(&self, replica: ReplicaId) -> Result<(), DataDirError> {
        let refused =
            |what: &str| DataDirError::Damaged { path: self.path.display().to_string(), what: what.to_owned() };
        let log = self.log.replica(replica).ok_or_else(|| refused("no such replica"))?;
        if self.is_replaying() {
            return Err(refused("no checkpoint counts: what a replica decided cannot be told from what it lost"));
        }
        self.settle().await?;
        self.checkpoint(&[replica], true, true).await?;
        let upto = self.checkpointed(replica).filter(|id| Some(id.index) == self.index.recorded(replica));
        let upto = upto.ok_or_else(|| refused("the checkpoint does not hold what was applied"))?;
        log.accept_loss();
        log.begin_after(upto);
        // In both generations.
        self.checkpoint(&[replica], true, true).await?;
        self.checkpoint(&[replica], true, true).await
    }

    /// Before a replica is removed, writes the remaining verdicts on its durable entries to the log: index files list
    /// them.
    pub(super) async fn write_last_verdicts(&self, replica: ReplicaId) -> io::Result<()> {
        let Some(log) = self.log.replica(replica).filter(|log| !log.is_removed()) else { return Ok(()) };
        let synced = log.last_synced().map(|id| id.index);
        match synced.min(self.index.recorded(replica)) {
            Some(upto) => self.write_verdicts(&log, upto).await,
            None => Ok(()),
        }
    }

    /// Writes the verdicts on entries to the log before a checkpoint contains these entries.
    pub(super) async fn write_verdicts(&self, log: &ReplicaLog, upto: RaftIndex) -> io::Result<()> {
        let replica = log.id();
        let synced = log.last_synced().map(|id| id.index);
        let is_synced = synced >= Some(upto) || mutants::is_on(Bug::CheckpointPastSynced);
        assert!(is_synced, "replica {replica}: a state delta at {} passes what is synced", upto.0);
        assert!(self.index.recorded(replica) >= Some(upto), "replica {replica}: entry {} was not recorded", upto.0);
        self.place_up_to(log, upto).await?;
        let verdicts = self.index.verdicts_up_to(replica, upto);
        if mutants::is_on(Bug::VerdictsNotWritten) {
            self.index.forget_verdicts(replica, upto);
            return Ok(());
        }
        if mutants::is_on(Bug::CheckpointPastSynced) {
            let log = log.clone();
            drop(rt::spawn(async move { log.write_verdicts(verdicts).await }));
            self.index.forget_verdicts(replica, upto);
            return Ok(());
        }
        for chunk in verdicts.chunks(VERDICT_ENTRIES_MAX) {
            let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { continue };
            let places = log.write_verdicts(chunk.to_vec()).await?;
            let segments = || places.iter().map(|place| place.segment);
            let entries = (first.log_id.index, last.log_id.index);
            // A segment with verdicts that the table does not know of would be unlinked before its time.
            let (Some(from), Some(to)) = (segments().min(), segments().max()) else {
                panic!("replica {replica}: the verdicts on entries {entries:?} were written nowhere")
            };
            self.index.table.verdicts(from, to, replica, entries);
        }
        self.index.forget_verdicts(replica, upto);
        Ok(())
    }

    /// The last entry in the checkpoint of each replica whose entries no other replica reads.
    fn released(
        &self,
        checkpoint: &Checkpoint,
        deltas: &BTreeMap<ReplicaId, StateDelta>,
    ) -> BTreeMap<ReplicaId, LogId> {
        let sources: Vec<_> =
            self.sources.lock().iter().map(|(replica, source)| (*replica, source.source.clone())).collect();
        let releasing = sources.into_iter().filter(|(_, source)| source.upgrade().is_some_and(|s| s.releases()));
        let contained = |replica: &ReplicaId| match deltas.get(replica) {
            Some(delta) => Some(delta.applied),
            None => checkpoint.heads().get(replica).and_then(|head| head.applied),
        };
        releasing.filter_map(|(replica, _)| Some((replica, contained(&replica)?))).collect()
    }

    /// The transaction for some deltas: it also holds the recovery points of all replicas, log starts and removed
    /// replicas.
    pub(super) async fn operations(&self, checkpoint: &Checkpoint, deltas: Vec<StateDelta>) -> Vec<Operation> {
        // No replica is created meanwhile: the recovery points of the others might lie after its first frame.
        let _creating = self.creating.write().await;
        let mut deltas: BTreeMap<ReplicaId, StateDelta> =
            deltas.into_iter().map(|delta| (delta.replica, delta)).collect();
        let mut operations = Vec::new();
        let recovery_points = self.log.recovery_points_without(&self.released(checkpoint, &deltas));
        let replicas: BTreeSet<_> = recovery_points.iter().map(|point| point.replica).collect();
        for recovery_point in recovery_points {
            let replica = &recovery_point.replica.clone();
            let known = checkpoint.heads().get(replica);
            let mut head = ReplicaHead { recovery_point, applied: None, membership: bytes::Bytes::new(), checksum: 0 };
            if let Some(known) = known {
                (head.applied, head.membership, head.checksum) =
                    (known.applied, known.membership.clone(), known.checksum);
            }
            let mut changes = Vec::new();
            if let Some(delta) = deltas.remove(replica) {
                (head.applied, head.membership, head.checksum) =
                    (Some(delta.applied), delta.membership, delta.checksum);
                changes = delta.changes;
            }
            if known != Some(&head) {
                operations.push(Operation::Replica(head));
            }
            operations.extend(changes.into_iter().map(|(key, value)| match value {
                Some(value) => Operation::Put { replica: *replica, key, value },
                None => Operation::Delete { replica: *replica, key },
            }));
        }
        let left = checkpoint.heads().keys().filter(|replica| !replicas.contains(replica));
        operations.extend(left.map(|replica| Operation::Remove(*replica)));
        // Of all lineages, not only of those whose owner is here.
        let log_starts = self.index.take_log_starts();
        operations.extend(log_starts.into_iter().map(|(key, log_start)| Operation::LogStart(key, log_start)));
        for key in std::mem::take(&mut *self.forgotten.lock()) {
            operations.push(Operation::Forget(key));
            let row = checkpoint.newest().owners.row_of(key).filter(|owner| !replicas.contains(owner));
            operations.extend(row.map(|owner| Operation::Disown(owner, key.partition)));
        }
        operations
    }

    /// Everything before this position is applied and in the checkpoint, or void.
    async fn settled_before(&self) -> LogPosition {
        let mut settled = self.log.durable_upto();
        let checkpoint = self.checkpoint.lock().await;
        for replica in self.log.replicas() {
            let Some(log) = self.log.replica(replica) else { continue };
            let applied = checkpoint.heads().get(&replica).and_then(|head| head.applied);
            if let Some(lowest) = log.lowest_place_above(applied.max(log.purged()).map(|id| id.index)) {
                settled = settled.min(lowest);
            }
        }
        settled
    }

    /// Writes the `.idx` of every sealed segment in which nothing waits to be applied.
    async fn write_index_files(&self) -> Result<(), DataDirError> {
        let settled = self.settled_before().await;
        for segment in self.log.segments() {
            let due =
                segment.sealed && segment.sequence < settled.segment && !self.index.table.is_indexed(segment.sequence);
            if !due {
                continue;
            }
            let Some(ranges) = self.index.table.ranges(segment.sequence) else {
                self.rebuild_index(segment.sequence).await?;
                continue;
            };
            let index = Arc::clone(&self.index);
            let encode = move || {
                let entries = index.entries_in(segment.sequence);
                let runs = entries.iter().map(|(key, runs)| (*key, runs.iter().map(Vec::as_slice).collect())).collect();
                Ok(file::encode(segment.sequence, segment.used_bytes, &ranges, &runs))
            };
            let image = off_thread(&self.disk, encode).await.map_err(|error| DataDirError::io(&self.path, error))?;
            self.install_index(segment, image.into(), NoRoom::Later).await?;
        }
        Ok(())
    }

    /// Rebuilds a segment's index from its frames and their verdicts, and writes its `.idx` again.
    pub(super) async fn rebuild_index(&self, sequence: u64) -> Result<(), DataDirError> {
        if let Some(run) = RunId::of_file(sequence) {
            return self.rebuild_run_index(run).await;
        }
        let Some(segment) = self.log.segments().into_iter().find(|segment| segment.sequence == sequence) else {
            return Ok(());
        };
        let image = self.rebuilt_image(segment).await?;
        self.install_index(segment, image.into(), NoRoom::Held).await
    }

    /// The bytes of a segment's `.idx`, from its frames and their verdicts.
    pub(super) async fn rebuilt_image(&self, segment: SegmentInfo) -> Result<Vec<u8>, DataDirError> {
        let mut contents = read_frames(&self.disk, &self.log, BTreeSet::from([segment.sequence]), Take::All).await?;
        let contents = contents.remove(&segment.sequence).unwrap_or_default();
        Ok(file::encode(segment.sequence, segment.used_bytes, &contents.ranges, &contents.entries()))
    }

    /// Writes an `.idx` file and lets the index read from it.
    async fn install_index(&self, segment: SegmentInfo, image: Bytes, no_room: NoRoom) -> Result<(), DataDirError> {
        // A reader that found damage may rebuild the same file meanwhile; for an unlinked segment nothing is written.
        let _writing = self.index_files.lock().await;
        if !self.log.segments().iter().any(|other| other.sequence == segment.sequence) {
            return Ok(());
        }
        let path = index_path(&self.path, segment.sequence);
        let written = write_index(&self.disk, &path, image.clone()).await;
        let opened = match (written.map_err(|error| self.fail("index file", error))?, no_room) {
            (true, _) => open_index(&self.disk, &self.path, segment.sequence, segment.used_bytes).await?,
            (false, NoRoom::Later) => return Ok(()),
            (false, NoRoom::Held) => {
                let held = in_memory_file::open(image, segment.sequence, segment.used_bytes);
                Some(held.map_err(|error| DataDirError::io(&path, error))?)
            }
        };
        let damaged = |what: String| DataDirError::Damaged { path: path.display().to_string(), what };
        let opened = opened.ok_or_else(|| damaged("it does not read back".to_owned()))?;
        let index = Arc::clone(&self.index);
        let install = move || Ok(index.install(segment.sequence, opened));
        let installed = off_thread(&self.disk, install).await.map_err(|error| DataDirError::io(&path, error))?;
        installed.map_err(|error| damaged(error.to_string()))?;
        self.counters.index_files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The last sealed segment without live bytes, if there is one.
    fn last_dead_segment(&self) -> Option<u64> {
        let is_dead = |segment: &SegmentInfo| segment.sealed && self.index.table.live_bytes(segment.sequence) == 0;
        self.log.segments().into_iter().filter(is_dead).map(|segment| segment.sequence).max()
    }

    /// True if dead segments wait for the older generation alone: a new one would free them, at once or by letting Raft
    /// purge what it held back. Without this a directory that becomes idle after much was deleted would keep the space
    /// until something is written again.
    async fn older_generation_holds_back(&self, last_dead: u64) -> bool {
        let checkpoint = self.checkpoint.lock().await;
        let Some(oldest) = checkpoint.oldest() else { return false };
        let applied_later = checkpoint
            .heads()
            .iter()
            .any(|(replica, head)| oldest.get(replica).is_none_or(|old| old.applied < head.applied));
        let points_later = self.log.recovery_points().iter().any(|point| {
            let old = oldest.get(&point.replica).map_or(0, |old| old.recovery_point.position.segment);
            old <= last_dead && old < point.position.segment
        });
        applied_later || points_later
    }

    /// The first segment that some kept generation may need for recovery.
    pub(super) async fn needed_from(&self) -> Option<u64> {
        let checkpoint = self.checkpoint.lock().await;
        let (oldest, newest) = (checkpoint.oldest()?, checkpoint.heads());
        let oldest = if mutants::is_on(Bug::SegmentUnlinkedEarly) { newest } else { oldest };
        if self.log.replicas().iter().any(|replica| !oldest.contains_key(replica)) {
            return None;
        }
        oldest.values().chain(newest.values()).map(|head| head.recovery_point.position.segment).min()
    }

    /// Forgets the partitions that are gone, and that no run and no segment from `oldest_segment` on lists.
    pub(super) fn prune(&self, oldest_segment: u64) {
        let pruned = self.index.prune(oldest_segment);
        self.index.forget_owners(&pruned, &self.log.replicas());
        self.forgotten.lock().extend(pruned);
    }
}
