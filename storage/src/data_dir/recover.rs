//! Opening a data directory: lock, identity, checkpoint, log, index, in this order.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;

use super::failure::Failure;
use super::identity::{Expected, Identity, LINEAGE_FORMAT_VERSION};
use super::index_files::{LOG_DIR, index_path, open_index, read_frames};
use super::rewriter_state::Rewriter;
use super::{
    Counters, DataDir, DataDirError, DataDirOptions, RecoveredReplica, Replay, maintain, rewriter, run_files, scrub,
};
use crate::checkpoint::file::{LoadError, off_thread};
use crate::checkpoint::state::State;
use crate::checkpoint::{Checkpoint, Found};
use crate::ids::{RaftIndex, ReplicaId};
use crate::index::BatchIndex;
use crate::index::file::Opened;
use crate::index::rebuild::Take;
use crate::log::{self, Log, NoSink};
use crate::page_cache::mapped::OpenSegments;
use crate::read::VerifyBelow;
use crate::space::reserve::Reserve;
use ottla_env::disk::{DirLock, Disk};

const LOCK: &str = "lock";
const STATE: &str = "state";

impl DataDir {
    /// Locks, checks and recovers the directory; creates it if it is empty.
    pub async fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        options: DataDirOptions,
    ) -> Result<(Arc<Self>, Vec<RecoveredReplica>), DataDirError> {
        let lock = take_lock(&disk, path).await?;
        let identity = identify(&disk, path, &options).await?;
        for name in [LOG_DIR, STATE] {
            disk.create_dir_all(&path.join(name)).map_err(|error| DataDirError::io(&path.join(name), error))?;
        }
        disk.sync_dir(path).map_err(|error| DataDirError::io(path, error))?;
        let failure = Arc::new(Failure::new(options.on_failure.clone()));
        let found = Checkpoint::open(&disk, &path.join(STATE)).await.map_err(|error| checkpoint_error(path, error))?;
        let (log, recovered) = open_log(&disk, path, &options, &failure, &found).await?;
        if !found.existed && !recovered.is_empty() {
            tracing::warn!(path = %path.display(), "no checkpoint counts: everything is replayed from the log");
        }
        let index = Arc::new(BatchIndex::default());
        run_files::mark_rewritten(&index, &found);
        let moves = identity.format_version >= LINEAGE_FORMAT_VERSION;
        load_index(&disk, path, &log, &index, &found.state, moves).await?;
        let runs = run_files::load(&disk, path, &index, &found).await?;
        index.keep_replicas(&log.replicas());
        let replicas = join(recovered, &found, moves);
        let opened_without_checkpoint = found.checkpoint.heads().is_empty();
        let replaying = replays_of(&replicas);
        let space = disk.space(path).map_err(|error| DataDirError::io(path, error))?;
        let rewriter = Rewriter::new(options.rewrite);
        let reserve = Reserve::new(u64::from(options.log.segment_bytes), options.log.reserve_bytes);
        reserve.observe(space.free_bytes, space.total_bytes);
        let verify_below = VerifyBelow { log: log.durable_upto(), run: runs.next_id() };
        log.note_batches(index.entries_before(log.recovered_from()));
        let directory = Arc::new(Self {
            path: path.to_owned(),
            disk,
            options,
            identity: Mutex::new(identity),
            identifying: tokio::sync::Mutex::new(()),
            lock: Mutex::new(Some(lock)),
            log,
            index,
            oldest_kept: Mutex::new(maintain::oldest_kept(&found.checkpoint)),
            checkpointed: Mutex::new(maintain::checkpointed(&found.checkpoint)),
            checkpoint: tokio::sync::Mutex::new(found.checkpoint),
            checkpoint_at_bytes: AtomicU64::new(0),
            creating: tokio::sync::RwLock::new(()),
            opened_without_checkpoint,
            replaying: Mutex::new(replaying),
            index_files: tokio::sync::Mutex::new(()),
            forgotten: Mutex::default(),
            sources: Mutex::default(),
            open_segments: OpenSegments::default(),
            runs,
            rewriter,
            disk_reads: Arc::default(),
            reserve,
            unlink_pace: Mutex::default(),
            failure,
            counters: Counters::default(),
            closing: AtomicBool::new(false),
            verify_below,
        });
        maintain::start(&directory);
        rewriter::start(&directory);
        scrub::start(&directory);
        Ok((directory, replicas))
    }
}

async fn take_lock(disk: &Arc<dyn Disk>, path: &Path) -> Result<Box<dyn DirLock>, DataDirError> {
    let (work_disk, work_path) = (Arc::clone(disk), path.to_owned());
    let lock = off_thread(disk, move || {
        work_disk.create_dir_all(&work_path)?;
        work_disk.lock(&work_path.join(LOCK))
    });
    lock.await.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => DataDirError::InUse(path.display().to_string()),
        _ => DataDirError::io(path, error),
    })
}

/// Reads or creates the directory's identity. A directory with data but without `node.json` is refused.
async fn identify(disk: &Arc<dyn Disk>, path: &Path, options: &DataDirOptions) -> Result<Identity, DataDirError> {
    let expected = Expected {
        node_id: options.node_id,
        cluster_id: options.cluster_id.as_deref(),
        directory_id: options.directory_id_expected,
    };
    if let Some(mut identity) = Identity::read(&**disk, path)? {
        identity.check(path, expected)?;
        if identity.cluster_id.is_none() && options.cluster_id.is_some() {
            identity.cluster_id.clone_from(&options.cluster_id);
            identity.write(disk, path).await.map_err(|error| DataDirError::io(path, error))?;
        }
        return Ok(identity);
    }
    if let Some(wanted) = options.directory_id_expected {
        let what = format!("it is empty, but metadata expects directory {wanted} here: it was wiped");
        return Err(DataDirError::Foreign { path: path.display().to_string(), what });
    }
    let io = |error| DataDirError::io(path, error);
    for name in [LOG_DIR, STATE] {
        let exists = disk.list(path).map_err(io)?.iter().any(|entry| entry.name == name);
        if exists && !disk.list(&path.join(name)).map_err(io)?.is_empty() {
            let what =
                format!("node.json is missing, but {name}/ holds data: restore node.json, or empty the directory");
            return Err(DataDirError::Damaged { path: path.display().to_string(), what });
        }
    }
    let identity = Identity::new(expected);
    identity.write(disk, path).await.map_err(io)?;
    Ok(identity)
}

fn checkpoint_error(path: &Path, error: LoadError) -> DataDirError {
    let state = path.join(STATE);
    match error {
        LoadError::Io(error) => DataDirError::io(&state, error),
        LoadError::NewerFormat(found) => {
            DataDirError::NewerFormat { path: state.display().to_string(), found, supported: 1 }
        }
        LoadError::Damaged(what) => DataDirError::Damaged { path: state.display().to_string(), what: what.to_owned() },
    }
}

async fn open_log(
    disk: &Arc<dyn Disk>,
    path: &Path,
    options: &DataDirOptions,
    failure: &Arc<Failure>,
    found: &Found,
) -> Result<(Log, Vec<log::RecoveredReplica>), DataDirError> {
    let mut log_options = options.log.clone();
    let (failure, told) = (Arc::clone(failure), log_options.on_failure.take());
    log_options.on_failure = Some(Arc::new(move |log_failure| {
        failure.set(&format!("{}: {}", log_failure.operation, log_failure.message));
        if let Some(told) = &told {
            told(log_failure);
        }
    }));
    // Only the valid checkpoint holds what purged entries decided: later entries are applied again, if they are still
    // in the log.
    log_options.held = Some(applied_in(&found.state));
    let recovery_points = found.checkpoint.heads().values().map(|head| head.recovery_point.clone()).collect();
    Ok(Log::open(Arc::clone(disk), &path.join(LOG_DIR), log_options, recovery_points, &mut NoSink).await?)
}

/// Last applied entry of each replica in the checkpoint.
fn applied_in(state: &State) -> BTreeMap<ReplicaId, RaftIndex> {
    let applied =
        |(id, replica): (&ReplicaId, &crate::checkpoint::state::ReplicaState)| Some((*id, replica.head.applied?.index));
    state.replicas.iter().filter_map(applied).collect()
}

/// True if the file lists entries that are to be applied again: it is newer than the valid checkpoint. Replay and
/// snapshots add after the last index entry that is known, so nothing may be listed ahead of them: a segment before this
/// one may have lost its file.
fn lists_unapplied(log: &Log, applied: &BTreeMap<ReplicaId, RaftIndex>, opened: &Opened) -> bool {
    let unapplied = |replica: &ReplicaId, last: RaftIndex| applied.get(replica).is_none_or(|applied| last > *applied);
    let mut listed = opened.ranges.entries.iter();
    listed.any(|(replica, (_, last))| log.replica(*replica).is_some() && unapplied(replica, *last))
}

/// Reads the `.idx` files, and the frames of segments that have none: of each replica what is applied, and no more.
async fn load_index(
    disk: &Arc<dyn Disk>,
    path: &Path,
    log: &Log,
    index: &BatchIndex,
    state: &State,
    moves: bool,
) -> Result<(), DataDirError> {
    index.set_owners(state.owners.clone());
    index.set_compacted(&state.compacted);
    for (key, log_start) in &state.log_starts {
        index.raise_log_start(*key, *log_start);
    }
    // The checkpoint has them.
    index.take_log_starts();
    let damaged = |segment: u64, error: &dyn std::fmt::Display| DataDirError::Damaged {
        path: index_path(path, segment).display().to_string(),
        what: error.to_string(),
    };
    remove_orphans(disk, path, log).map_err(|error| DataDirError::io(path, error))?;
    let applied = applied_in(state);
    let mut wanted = BTreeSet::new();
    for segment in log.segments() {
        let opened =
            if segment.sealed { open_index(disk, path, segment.sequence, segment.used_bytes).await? } else { None };
        let opened = opened.filter(|opened| !lists_unapplied(log, &applied, opened));
        let installed = opened.map(|opened| index.install(segment.sequence, opened));
        if let Some(Err(error)) = &installed {
            // Header and directory are sound, but an index entry is not: only a lookup that reads it finds that.
            tracing::warn!(segment = segment.sequence, %error, "index file is damaged: it is rebuilt from the log");
            index.forget(segment.sequence);
        }
        if !matches!(installed, Some(Ok(()))) {
            wanted.insert(segment.sequence);
        }
    }
    // Only where partitions have moved can bytes outlive the replica that wrote them.
    let here = moves.then(|| log.replicas().into_iter().collect());
    for (segment, contents) in read_frames(disk, log, wanted, Take::Applied { upto: applied, here }).await? {
        index.install_entries(segment, contents.ranges, contents.slices).map_err(|e| damaged(segment, &e))?;
    }
    Ok(())
}

/// Removes `.idx` files whose segment is gone, and those that were being written.
fn remove_orphans(disk: &Arc<dyn Disk>, path: &Path, log: &Log) -> io::Result<()> {
    let known: BTreeSet<PathBuf> = log.segments().iter().map(|segment| index_path(path, segment.sequence)).collect();
    for entry in disk.list(&path.join(LOG_DIR))? {
        let file = path.join(LOG_DIR).join(&entry.name);
        let is_orphan = entry.name.ends_with(".idx") && !known.contains(&file);
        if is_orphan || entry.name.ends_with(".idx.new") {
            disk.unlink(&file)?;
        }
    }
    Ok(())
}

/// What is to be applied again. The child of a split has nothing to apply before its parent has applied that.
fn replays_of(replicas: &[RecoveredReplica]) -> BTreeMap<ReplicaId, Replay> {
    let sound = replicas.iter().filter(|replica| replica.lost.is_none() && replica.unseeded.is_none());
    let replay = |replica: &RecoveredReplica| {
        Some((replica.id, Replay { committed: replica.committed, last: replica.last_log_id?.index }))
    };
    sound.filter_map(replay).collect()
}

/// Combines what the log and the checkpoint hold of each replica.
fn join(recovered: Vec<log::RecoveredReplica>, found: &Found, moves: bool) -> Vec<RecoveredReplica> {
    recovered
        .into_iter()
        .map(|replica| {
            let saved = found.state.replicas.get(&replica.id);
            let applied = saved.and_then(|saved| saved.head.applied);
            let mut lost = replica.lost;
            // Its creation is all that it wrote before any checkpoint, and nothing of its own is purged: it was not seeded.
            let point = saved.map(|saved| &saved.head.recovery_point).filter(|point| point.sequence <= 1);
            let begins_after = replica.begins_after.or(point.and_then(|point| point.purged));
            let is_new = moves && applied.is_none() && replica.purged == begins_after;
            let unseeded = replica.purged.filter(|_| is_new && lost.is_none());
            if lost.is_none() && unseeded.is_none() && replica.purged > applied {
                let purged = replica.purged.unwrap_or_default();
                lost =
                    Some(format!("entries up to {purged} are purged, and the checkpoint that contained them is gone"));
            }
            RecoveredReplica {
                id: replica.id,
                creation: replica.creation,
                vote: replica.vote,
                purged: replica.purged,
                unseeded,
                last_log_id: replica.last_log_id,
                applied,
                membership: saved.map(|saved| saved.head.membership.clone()).unwrap_or_default(),
                checksum: saved.map_or(0, |saved| saved.head.checksum),
                state: saved.map(|saved| saved.keys.clone().into_iter().collect()).unwrap_or_default(),
                lost,
                damaged: replica.damaged,
                damaged_unproven: replica.damaged_unproven,
                committed: replica.committed,
                missing: replica.missing,
            }
        })
        .collect()
}
