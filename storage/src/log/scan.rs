//! The recovery scan: walks the segments in order, distinguishes a torn tail from proven damage, passes on sound frames.
//!
//! A break is a torn tail unless something written later proves that what lies there was durable: a commit whose
//! `durable_upto` is beyond it, or the header of a later segment. Then it is damage: the sound frames in it are salvaged,
//! and the walk continues after it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::commit::{FLAG_CLEAN, FLAG_UNSYNCED, LastSequences};
use super::frame::Decoded;
use super::frame_body::from_raw;
use super::reader::{Corrected, FoundCommit, SegmentReader};
use super::replay::{Damage, Found};
use super::segment_header::{FORMAT_VERSION, HeaderFound, SegmentHeader};
use super::types::{BatchPlace, EntryPlace, FrameSink, LogError, RecoveryPoint, ScannedFrame};
use crate::ids::LogPosition;
use ottla_env::disk::{File, PAGE_BYTES};

/// A segment file to be read.
#[derive(Clone)]
pub(crate) struct SegmentFile {
    pub(crate) sequence: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
}

/// A segment with a header.
#[derive(Clone)]
pub(crate) struct ScannedSegment {
    pub(crate) file: SegmentFile,
    pub(crate) incarnation: u64,
    pub(crate) used_bytes: u32,
    pub(crate) file_bytes: u64,
}

/// Where the log ends and how the last commit was written.
#[derive(Default)]
pub(crate) struct Walk {
    /// This boot; 0 if that is not known.
    boot_id: u64,
    quiet_bytes: u64,
    /// Limit up to which files are read.
    bytes_max: Option<u64>,
    pub(crate) segments: Vec<ScannedSegment>,
    /// The ends of segments, by the headers of those that follow.
    pub(crate) previous_ends: BTreeMap<u64, u32>,
    /// Where the walk began.
    pub(crate) begun_at: Option<LogPosition>,
    /// First byte of the last commit.
    pub(crate) last_commit_at: Option<LogPosition>,
    /// The boot under which the last commit was written.
    last_boot_id: u64,
    /// Nothing but zeros follows in the last segment.
    pub(crate) end_is_zero: bool,
    /// Number of the last commit.
    pub(crate) last_commit: u64,
    /// Batches in the last segment.
    pub(crate) tail_batches: u32,
    pub(crate) last_sequences: LastSequences,
    /// The last commit was not synced by its writer, and not closed cleanly: the boot under which it was written.
    pub(crate) unsynced_boot: Option<u64>,
    pub(crate) had_unsynced: bool,
    /// The frames of every replica, for replay.
    pub(crate) found: Found,
    /// Corrected bytes: position and right value.
    pub(crate) corrections: Vec<(SegmentFile, u64, u8)>,
}

fn io_error(path: &std::path::Path) -> impl Fn(std::io::Error) -> LogError + '_ {
    move |source| LogError::Io { path: path.to_owned(), source }
}

impl Walk {
    /// A walk by a process of this boot. `quiet_bytes`: see [`super::types::LogOptions`].
    pub(crate) fn new(boot_id: u64, quiet_bytes: u32) -> Self {
        Walk { boot_id, quiet_bytes: u64::from(quiet_bytes), ..Walk::default() }
    }

    /// Limits the read of a segment to this byte.
    pub(crate) fn up_to(mut self, byte: u32) -> Self {
        self.bytes_max = Some(u64::from(byte));
        self
    }

    /// Walks all files, the first of them from the lowest recovery point on. Files that are not in `segments` afterwards
    /// hold nothing.
    pub(crate) fn run(
        self,
        files: &[SegmentFile],
        recovery_points: Vec<RecoveryPoint>,
        sink: &mut dyn FrameSink,
    ) -> Result<Self, LogError> {
        let mut walk = self;
        let from = recovery_points.iter().map(|point| point.position).min();
        walk.found.recovery_points(recovery_points);
        for (number, file) in files.iter().enumerate() {
            let reader = SegmentReader::new(file.file.clone()).map_err(io_error(&file.path))?;
            let mut reader = reader.up_to(walk.bytes_max);
            let begun = match reader.header() {
                HeaderFound::Newer(found) => {
                    return Err(LogError::NewerFormat { path: file.path.clone(), found, supported: FORMAT_VERSION });
                }
                HeaderFound::Sound(header, length) if header.segment == file.sequence => {
                    walk.junction(&header, sink)?;
                    walk.found.table(&header);
                    walk.previous_ends.insert(header.previous_end.segment, header.previous_end.byte);
                    let first = length.next_multiple_of(PAGE_BYTES) as u64;
                    let start_at = from.filter(|from| number == 0 && from.segment == file.sequence);
                    let start = start_at.and_then(|start_at| walk.resume(&mut reader, start_at, header.incarnation));
                    Some((header.incarnation, start.unwrap_or(first)))
                }
                HeaderFound::Sound(..) | HeaderFound::None => walk.headless(file, &mut reader, &files[number + 1..])?,
            };
            let Some((incarnation, start)) = begun else { break };
            walk.segment(file, &mut reader, incarnation, start, sink);
        }
        Ok(walk)
    }

    /// Begins at a sound commit at the recovery point: what earlier commits hold is in the recovery points. If there is
    /// none, the whole segment is read, and the damage is found.
    fn resume(&mut self, reader: &mut SegmentReader, start_at: LogPosition, incarnation: u64) -> Option<u64> {
        let commit = reader.commit_at(u64::from(start_at.byte), start_at.segment, Some(incarnation))?;
        commit.frames()?;
        self.last_commit = commit.header.number - 1;
        Some(commit.at)
    }

    /// True if nothing follows `end`. The write of a killed process begins there; after a power failure a device may have
    /// written any part of it.
    fn nothing_follows(&self, reader: &mut SegmentReader, end: u64) -> bool {
        if self.boot_id != 0 && self.last_boot_id == self.boot_id {
            reader.is_quiet_from(end, self.quiet_bytes)
        } else {
            reader.is_zero_from(end)
        }
    }

    /// Where the last segment ended.
    pub(crate) fn end(&self) -> Option<LogPosition> {
        self.segments.last().map(|s| LogPosition { segment: s.file.sequence, byte: s.used_bytes })
    }

    /// Checks the end of the previous segment, which a segment's header names. If the walk ended before it, the rest is
    /// damaged.
    fn junction(&mut self, header: &SegmentHeader, sink: &mut dyn FrameSink) -> Result<(), LogError> {
        let Some(end) = self.end() else {
            self.last_commit = header.first_commit - 1;
            return Ok(());
        };
        let previous = header.previous_end;
        if previous.segment != end.segment {
            // Segments in between were unlinked: Raft needed nothing in them.
            self.found.hole(header);
        } else {
            let lost = (header.first_commit - 1).saturating_sub(self.last_commit);
            self.rest_is_damaged(previous.byte, Some(lost), sink)?;
        }
        self.last_commit = header.first_commit - 1;
        Ok(())
    }

    /// Takes what lies between the end of the walk in its last segment and `used_bytes` as damaged. `commits`: how many
    /// the header of the next segment counts there; if that is unknown, zeros are none.
    pub(crate) fn rest_is_damaged(
        &mut self,
        used_bytes: u32,
        commits: Option<u64>,
        sink: &mut dyn FrameSink,
    ) -> Result<(), LogError> {
        let Some(last) = self.segments.last().filter(|last| last.used_bytes < used_bytes).cloned() else {
            return Ok(());
        };
        let mut reader = SegmentReader::new(last.file.file.clone()).map_err(io_error(&last.file.path))?;
        let (from, to) = (u64::from(last.used_bytes), u64::from(used_bytes));
        if commits.is_none() && reader.is_zero(from, to) {
            return Ok(());
        }
        self.damaged(&last, &mut reader, from, to, commits.unwrap_or(u64::MAX), None, sink);
        if let Some(segment) = self.segments.last_mut() {
            segment.used_bytes = used_bytes;
        }
        Ok(())
    }

    /// Classifies a file without a sound header: never begun, torn, or damaged. Returns its incarnation and where to
    /// continue.
    fn headless(
        &mut self,
        file: &SegmentFile,
        reader: &mut SegmentReader,
        later: &[SegmentFile],
    ) -> Result<Option<(u64, u64)>, LogError> {
        // Its first write was never durable, or there was none.
        let unbegun = reader.mark(file.sequence).is_some() || self.nothing_follows(reader, 0);
        let first = if unbegun { None } else { reader.find_commit(0, file.sequence, None, self.last_commit) };
        let begin = LogPosition { segment: file.sequence, byte: 0 };
        if let Some(commit) = first.filter(|first| reader.says_durable(first, begin)) {
            self.lose_header(file, commit.header.number.saturating_sub(self.last_commit + 1), commit.at);
            self.last_commit = commit.header.number - 1;
            self.found.last_known(&commit.header.previous);
            return Ok(Some((commit.header.incarnation, commit.at)));
        }
        for other in later {
            let mut reader = SegmentReader::new(other.file.clone()).map_err(io_error(&other.path))?;
            if let HeaderFound::Sound(header, _) = reader.header()
                && header.segment == other.sequence
            {
                self.lose_header(file, u64::MAX, 0);
                return Ok(Some((0, u64::MAX)));
            }
        }
        Ok(None)
    }

    fn lose_header(&mut self, file: &SegmentFile, commits: u64, to: u64) {
        tracing::error!(path = %file.path.display(), "the segment's header is damaged");
        self.found.damage(Damage { segment: file.sequence, to, lists_complete: commits <= 1 });
    }

    fn segment(
        &mut self,
        file: &SegmentFile,
        reader: &mut SegmentReader,
        incarnation: u64,
        start: u64,
        sink: &mut dyn FrameSink,
    ) {
        let mut segment =
            ScannedSegment { file: file.clone(), incarnation, used_bytes: 0, file_bytes: reader.file_bytes };
        sink.segment(file.sequence);
        self.tail_batches = 0;
        self.end_is_zero = false;
        let mut end = start.min(reader.file_bytes);
        self.begun_at.get_or_insert(LogPosition { segment: file.sequence, byte: end as u32 });
        loop {
            let next = reader.commit_after(end, file.sequence, incarnation, self.last_commit + 1);
            if let Some((commit, frames)) = next.as_ref().and_then(|commit| Some((commit, commit.frames()?))) {
                self.accept(&segment, commit, frames, sink);
                end = commit.end;
                continue;
            }
            if let Some((commit, corrected)) = next.as_ref().and_then(|commit| Some((commit, commit.corrected()?))) {
                let Corrected { frames, bytes } = corrected;
                tracing::error!(path = %file.path.display(), ?bytes, "a damaged byte of the log is corrected by its frame's checksum");
                self.corrections.extend(bytes.into_iter().map(|(at, byte)| (file.clone(), at, byte)));
                self.accept(&segment, commit, frames, sink);
                end = commit.end;
                continue;
            }
            let Some(after) = self.proof_of_damage(reader, file.sequence, incarnation, end) else { break };
            let lost = after.header.number - self.last_commit - 1;
            self.damaged(&segment, reader, end, after.at, lost, next, sink);
            self.found.last_known(&after.header.previous);
            self.last_commit = after.header.number - 1;
            end = after.at;
        }
        segment.used_bytes = end as u32;
        self.segments.push(segment);
    }

    /// The first commit after a break, if it or a later one proves that the bytes at the break were durable.
    fn proof_of_damage(
        &mut self,
        reader: &mut SegmentReader,
        segment: u64,
        incarnation: u64,
        end: u64,
    ) -> Option<FoundCommit> {
        self.end_is_zero = self.nothing_follows(reader, end);
        if self.end_is_zero {
            return None;
        }
        // The commit at the break itself proves nothing.
        let first = reader.find_commit(end, segment, Some(incarnation), self.last_commit + 1)?;
        let broken = LogPosition { segment, byte: end as u32 };
        reader.says_durable(&first, broken).then_some(first)
    }

    /// Salvages the sound frames in a damaged range; replay decides which replicas may lack frames.
    #[allow(clippy::too_many_arguments)]
    fn damaged(
        &mut self,
        segment: &ScannedSegment,
        reader: &mut SegmentReader,
        from: u64,
        to: u64,
        commits: u64,
        broken: Option<FoundCommit>,
        sink: &mut dyn FrameSink,
    ) {
        tracing::error!(path = %segment.file.path.display(), from, to, commits, "damage in the log, before what was durable");
        let known = u64::from(broken.is_some());
        if let Some(commit) = &broken {
            self.found.last_known(&commit.header.this);
        }
        // The header after the range lists the last commit before it; the broken commit's own header lists itself.
        self.found.damage(Damage { segment: segment.file.sequence, to, lists_complete: commits <= 1 + known });
        for (at, decoded) in reader.salvage(from, to, segment.incarnation) {
            let commit_byte = broken.as_ref().map_or(from, |c| c.at) as u32;
            self.frame(segment, at, commit_byte, decoded, sink);
        }
    }

    fn accept(
        &mut self,
        segment: &ScannedSegment,
        commit: &FoundCommit,
        frames: Vec<(u64, Decoded)>,
        sink: &mut dyn FrameSink,
    ) {
        for (at, decoded) in frames {
            self.frame(segment, at, commit.at as u32, decoded, sink);
        }
        let header = &commit.header;
        self.last_commit = header.number;
        self.last_commit_at = Some(LogPosition { segment: segment.file.sequence, byte: commit.at as u32 });
        self.last_boot_id = header.boot_id;
        self.last_sequences.clone_from(&header.this);
        let unsynced = header.flags & FLAG_UNSYNCED != 0;
        self.had_unsynced = unsynced;
        self.unsynced_boot = (unsynced && header.flags & FLAG_CLEAN == 0).then_some(header.boot_id);
    }

    fn frame(
        &mut self,
        segment: &ScannedSegment,
        at: u64,
        commit_byte: u32,
        decoded: Decoded,
        sink: &mut dyn FrameSink,
    ) {
        let position = LogPosition { segment: segment.file.sequence, byte: at as u32 };
        let Decoded { stamp, frame, frame_bytes, batch_ranges, damaged_batches } = decoded;
        let batches: Vec<BatchPlace> = frame
            .batches
            .iter()
            .zip(&batch_ranges)
            .map(|(batch, range)| BatchPlace {
                partition: batch.partition,
                position: LogPosition { byte: position.byte + range.start as u32, ..position },
                bytes: range.len() as u32,
            })
            .collect();
        self.tail_batches += batches.len() as u32;
        let Some(body) = from_raw(frame, stamp.replica) else {
            tracing::error!(replica = %stamp.replica, sequence = stamp.sequence, "a frame whose checksum holds makes no sense");
            return;
        };
        let place = EntryPlace { position, frame_bytes: frame_bytes as u32, commit_byte };
        self.found.frame(stamp.replica, stamp.sequence, place, &body, !damaged_batches.is_empty());
        // A batch that fails its checksum is passed on like any other: its offsets stay known, and reading it fails.
        let scanned = ScannedFrame {
            replica: stamp.replica,
            sequence: stamp.sequence,
            position,
            frame_bytes: frame_bytes as u32,
            body,
        };
        sink.frame(&scanned, &batches);
    }
}
