//! Recovery of a log: syncs what is there, reads it again, finds the end, voids what lies after it, and continues.
//!
//! A kill -9 leaves bytes that were written and never synced. They must not count as durable before they are: files are
//! synced first, and their cached pages dropped, since the page cache may hold what a failed sync never wrote.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::doublewrite;
use super::prepare::{Preparation, Prepared, make_segment};
use super::reader::{SegmentReader, is_zero};
use super::replay::Replayed;
use super::replica::Replica;
use super::scan::{ScannedSegment, SegmentFile, Walk};
use super::segment_header::{HeaderFound, ReplicaRow};
use super::segments::{Segment, parse_name, segment_path};
use super::shared::Shared;
use super::types::{FrameSink, LogError, LogOptions, RecoveredReplica, RecoveryPoint};
use super::writer::{Tail, Writer};
use crate::ids::{LogPosition, ReplicaId};
use ottla_env::disk::{Disk, OpenMode, PAGE_BYTES};
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;

/// A log that is ready to be written.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Writer,
    pub(crate) recovered: Vec<RecoveredReplica>,
    /// Replicas whose mark as lost must still be written.
    pub(crate) newly_lost: Vec<ReplicaId>,
    /// The first commit must record how those that follow are synced.
    pub(crate) mark_session: bool,
}

fn io_error(path: &Path) -> impl Fn(std::io::Error) -> LogError + '_ {
    move |source| LogError::Io { path: path.to_owned(), source }
}

/// Recovers the log in `dir`, or creates one.
pub(crate) async fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: LogOptions,
    recovery_points: Vec<RecoveryPoint>,
    sink: &mut dyn FrameSink,
) -> Result<Opened, LogError> {
    disk.create_dir_all(dir).map_err(io_error(dir))?;
    doublewrite::restore(&*disk, dir).await?;
    let all = list(&*disk, dir)?;
    let from = recovery_points.iter().map(|point| point.position.segment).min().unwrap_or(0);
    let (older, scanned): (Vec<SegmentFile>, Vec<SegmentFile>) = all.into_iter().partition(|f| f.sequence < from);
    sync_all(&*disk, dir, &scanned, recovery_points.iter().map(|point| point.position).min()).await?;
    let walk = Walk::new(disk.boot_id(), options.quiet_bytes);
    let mut walk = walk.run(&scanned, recovery_points, sink)?;
    // So that readers find a sound frame there.
    if !mutants::is_on(Bug::CorrectionNotWritten) {
        doublewrite::overwrite(&*disk, dir, &walk.corrections).await?;
    }
    let unbegun = &scanned[walk.segments.len()..];
    let next_segment = scanned.last().or(older.last()).map_or(0, |f| f.sequence) + 1;
    let unsynced_loss = walk.unsynced_boot.is_some_and(|boot| boot != disk.boot_id());
    if mutants::is_on(Bug::TornTailLeft) {
        pass_over_rest(&mut walk)?;
    }
    let replayed = std::mem::take(&mut walk.found).replay(unsynced_loss, options.held.as_ref(), &options.accept_loss);

    let end = walk.end();
    let ready = if end.is_some() { ready(&*disk, unbegun, &options)? } else { VecDeque::new() };
    void(&*disk, dir, &walk, unbegun, &ready).await?;
    let nowhere = LogPosition { segment: 0, byte: 0 };
    let next_segment = if end.is_some() { next_segment } else { next_segment + 1 };
    let shared = Arc::new(Shared::new(
        disk.clone(),
        dir.to_owned(),
        options.clone(),
        Preparation::new(next_segment, ready),
        [walk.begun_at, walk.last_commit_at.or(end), end].map(|place| place.unwrap_or(nowhere)),
    ));
    older_segments(&shared, &older, &walk)?;
    for segment in &walk.segments {
        shared.segments.insert(open_segment(segment, true));
    }
    let tail = match walk.segments.last() {
        Some(last) => tail_of(&shared, last, &walk)?,
        None => first_tail(&shared, dir, next_segment - 1, &walk).await?,
    };
    let began = end.is_none();
    let (rows, recovered, newly_lost) = settle(&shared, replayed);
    let mut writer = Writer::new(shared.clone(), tail, rows);
    if began {
        writer.begin_segment();
    }
    let mark_session = walk.had_unsynced || !options.sync;
    Ok(Opened { shared, writer, recovered, newly_lost, mark_session })
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentFile>, LogError> {
    let mut files = Vec::new();
    for entry in disk.list(dir).map_err(io_error(dir))? {
        if let Some(sequence) = parse_name(&entry.name) {
            let path = segment_path(dir, sequence);
            let file = disk.open(&path, OpenMode::Write).map_err(io_error(&path))?;
            files.push(SegmentFile { sequence, path, file });
        }
    }
    Ok(files)
}

/// Makes durable what earlier processes wrote, before it is read. Drops cached pages that a failed sync may have left: they
/// can only be in the last segment that was begun, since a segment is begun when the one before is durable, and after
/// `from`.
async fn sync_all(
    disk: &dyn Disk,
    dir: &Path,
    files: &[SegmentFile],
    from: Option<LogPosition>,
) -> Result<(), LogError> {
    let mut last_begun = 0;
    for (number, file) in files.iter().enumerate() {
        if !mutants::is_on(Bug::UnsyncedBytesBelieved) {
            file.file.sync_data().await.map_err(io_error(&file.path))?;
        }
        let mut reader = SegmentReader::new(file.file.clone()).map_err(io_error(&file.path))?;
        if !matches!(reader.header(), HeaderFound::None) {
            last_begun = number;
        }
    }
    let cached = if mutants::is_on(Bug::CachedPagesBelieved) { files.len() } else { last_begun };
    for file in &files[cached.min(files.len())..] {
        let known = from.filter(|from| from.segment == file.sequence).map_or(0, |from| from.byte);
        file.file.drop_cached(u64::from(known)).map_err(io_error(&file.path))?;
    }
    disk.sync_dir(dir).map_err(io_error(dir))
}

/// Files that an earlier process of this boot prepared, and that were not written since.
fn ready(disk: &dyn Disk, unbegun: &[SegmentFile], options: &LogOptions) -> Result<VecDeque<Prepared>, LogError> {
    let mut ready = VecDeque::new();
    let boot_id = disk.boot_id();
    for file in unbegun {
        let reader = SegmentReader::new(file.file.clone()).map_err(io_error(&file.path))?;
        let is_whole = reader.file_bytes == u64::from(options.segment_bytes);
        let untouched = reader.mark(file.sequence).is_some_and(|mark| boot_id != 0 && mark.boot_id == boot_id);
        if is_whole && untouched {
            let SegmentFile { sequence, file, path } = file.clone();
            ready.push_back(Prepared { sequence, file, path, file_bytes: reader.file_bytes });
        }
    }
    Ok(ready)
}

/// Clears what lies after the end, which must never be read again: zeroes torn bytes, removes files never begun.
async fn void(
    disk: &dyn Disk,
    dir: &Path,
    walk: &Walk,
    unbegun: &[SegmentFile],
    ready: &VecDeque<Prepared>,
) -> Result<(), LogError> {
    let is_ready = |file: &SegmentFile| ready.iter().any(|ready| ready.sequence == file.sequence);
    let useless: Vec<&SegmentFile> = unbegun.iter().filter(|file| !is_ready(file)).collect();
    for file in &useless {
        disk.unlink(&file.path).map_err(io_error(&file.path))?;
    }
    if !useless.is_empty() {
        disk.sync_dir(dir).map_err(io_error(dir))?;
    }
    let Some(last) = walk.segments.last().filter(|_| !walk.end_is_zero) else { return Ok(()) };
    let error = io_error(&last.file.path);
    let mut reader = SegmentReader::new(last.file.file.clone()).map_err(&error)?;
    let end = u64::from(last.used_bytes);
    if reader.is_zero_from(end) {
        return Ok(());
    }
    tracing::warn!(path = %last.file.path.display(), byte = end, "torn tail: what lies behind the last whole commit is void");
    let mut at = end;
    while at < reader.file_bytes {
        let page_end = ((at / PAGE_BYTES as u64 + 1) * PAGE_BYTES as u64).min(reader.file_bytes);
        let bytes = reader.bytes(at, (page_end - at) as usize);
        if !is_zero(&bytes) {
            last.file.file.write_at(&vec![0; bytes.len()], at).map_err(&error)?;
        }
        at = page_end;
    }
    last.file.file.sync_data().await.map_err(&error)
}

/// For a seeded bug: takes a torn tail for a part of the log.
fn pass_over_rest(walk: &mut Walk) -> Result<(), LogError> {
    let Some(last) = walk.segments.last_mut().filter(|_| !walk.end_is_zero) else { return Ok(()) };
    let mut reader = SegmentReader::new(last.file.file.clone()).map_err(io_error(&last.file.path))?;
    let page = PAGE_BYTES as u64;
    let mut end = u64::from(last.used_bytes).next_multiple_of(page);
    while end < reader.file_bytes && !is_zero(&reader.bytes(end, PAGE_BYTES)) {
        end += page;
    }
    last.used_bytes = end as u32;
    Ok(())
}

/// Lists the segments before the one where the scan began, for readers.
fn older_segments(shared: &Shared, older: &[SegmentFile], walk: &Walk) -> Result<(), LogError> {
    let mut ends = walk.previous_ends.clone();
    let mut found = Vec::new();
    for file in older {
        let mut reader = SegmentReader::new(file.file.clone()).map_err(io_error(&file.path))?;
        if let HeaderFound::Sound(header, _) = reader.header() {
            ends.insert(header.previous_end.segment, header.previous_end.byte);
            found.push((file, header.incarnation, reader.file_bytes));
        } else {
            found.push((file, 0, reader.file_bytes));
        }
    }
    for (file, incarnation, file_bytes) in found {
        let used_bytes = ends.get(&file.sequence).copied().unwrap_or(file_bytes as u32);
        let scanned = ScannedSegment { file: file.clone(), incarnation, used_bytes, file_bytes };
        shared.segments.insert(open_segment(&scanned, true));
    }
    Ok(())
}

fn open_segment(scanned: &ScannedSegment, sealed: bool) -> Arc<Segment> {
    Arc::new(Segment {
        sequence: scanned.file.sequence,
        file: scanned.file.file.clone(),
        path: scanned.file.path.clone(),
        incarnation: scanned.incarnation,
        file_bytes: scanned.file_bytes,
        used_bytes: AtomicU32::new(scanned.used_bytes),
        batches: AtomicU32::new(0),
        sealed: AtomicBool::new(sealed),
    })
}

fn tail_of(shared: &Shared, last: &ScannedSegment, walk: &Walk) -> Result<Tail, LogError> {
    let segment = open_segment(last, false);
    segment.batches.store(walk.tail_batches, Ordering::Release);
    shared.segments.insert(segment.clone());
    let byte = last.used_bytes.next_multiple_of(8);
    let page_start = byte - byte % PAGE_BYTES as u32;
    let mut page = vec![0; (byte - page_start) as usize];
    ottla_env::disk::read_exact_at(&*last.file.file, &mut page, u64::from(page_start))
        .map_err(io_error(&last.file.path))?;
    Ok(Tail {
        segment,
        byte,
        commit_byte: walk.last_commit_at.map_or(0, |at| at.byte),
        page,
        next_commit: walk.last_commit + 1,
        previous: walk.last_sequences.clone(),
    })
}

/// The first segment of a log.
async fn first_tail(shared: &Shared, dir: &Path, sequence: u64, walk: &Walk) -> Result<Tail, LogError> {
    let made = make_segment(&*shared.disk, dir, sequence, &shared.options, || false).await;
    let prepared = made.map_err(io_error(dir))?;
    let segment = Arc::new(Segment {
        sequence,
        file: prepared.file,
        path: prepared.path,
        incarnation: rt::random_u64(),
        file_bytes: prepared.file_bytes,
        used_bytes: AtomicU32::new(0),
        batches: AtomicU32::new(0),
        sealed: AtomicBool::new(false),
    });
    Ok(Tail {
        segment,
        byte: 0,
        commit_byte: 0,
        page: Vec::new(),
        next_commit: walk.last_commit + 1,
        previous: Vec::new(),
    })
}

/// Registers the replicas; returns the rows of the next segment's table, the report, and the replicas newly marked as lost.
fn settle(
    shared: &Shared,
    replayed: Vec<Replayed>,
) -> (BTreeMap<ReplicaId, ReplicaRow>, Vec<RecoveredReplica>, Vec<ReplicaId>) {
    let mut rows = BTreeMap::new();
    let mut recovered = Vec::new();
    let mut newly_lost = Vec::new();
    for replica in replayed {
        let Replayed {
            id,
            creation,
            begins_after,
            state,
            lost,
            damaged,
            damaged_unproven,
            committed,
            newly_lost: new,
            missing,
        } = replica;
        let (synced, next) = (state.synced_sequence, state.next_sequence);
        assert_eq!(next, synced + 1, "replica {id}: recovered up to frame {synced}");
        let last = state.slots.back().map_or(0, |slot| slot.sequence);
        assert!(last <= synced, "replica {id}: entry in frame {last}, recovered up to frame {synced}");
        if let Some(why) = &lost {
            tracing::error!(replica = %id, %why, "this replica lost bytes that may have been acknowledged: it takes no part in any quorum until it is a new member");
        }
        if !damaged.is_empty() {
            tracing::error!(replica = %id, entries = damaged.len(), first = %damaged[0], "records are damaged on disk: reading them fails, everything else is served");
        }
        rows.insert(
            id,
            ReplicaRow {
                replica: id,
                sequence: state.synced_sequence,
                vote: state.vote,
                purged: state.purged,
                lost: state.lost && !new && missing.is_none(),
                creation: creation.clone(),
            },
        );
        if new {
            newly_lost.push(id);
        }
        recovered.push(RecoveredReplica {
            id,
            creation: creation.clone(),
            vote: state.vote,
            purged: state.purged,
            begins_after,
            last_log_id: state.last_log_id(),
            sequence: state.synced_sequence,
            lost,
            damaged,
            damaged_unproven,
            committed,
            missing,
        });
        shared.replicas.lock().insert(id, Arc::new(Replica::with_state(id, creation, state)));
    }
    (rows, recovered, newly_lost)
}
