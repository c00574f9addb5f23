//! Copies live batches from segments and runs into a run, piece by piece, each verified. Runs on a thread that may block.
//!
//! May not know: which files were chosen, or what becomes of the run.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::RetentionClass;
use crate::env::disk::{File, read_exact_at};
use crate::ids::ReplicaId;
use crate::index::line::Line;
use crate::index::piece::Piece;
use crate::index::{Access, BatchIndex, BatchLine, ExtentKey};
use crate::runs::writer::{PushError, RunWriter};

/// Bytes that one step copies, about.
pub(crate) const STEP_BYTES: usize = 1 << 20;
/// Lines taken from an index at a time.
const LINES_PER_READ: u32 = 256;
/// Batches that lie this close together are read together.
const GAP_BYTES: u64 = 8 << 10;
/// Most bytes of one read, a longer batch aside.
const READ_BYTES: u64 = 512 << 10;

/// What goes into the runs of one replica and class: pieces by partition, in the order of their offsets.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) replica: ReplicaId,
    pub(crate) class: RetentionClass,
    pub(crate) pieces: Vec<(ExtentKey, Piece)>,
}

/// Splits live pieces into groups; each partition's pieces stay in the order in which they come.
pub(crate) fn group(pieces: Vec<(ExtentKey, Piece)>, class_of: impl Fn(ExtentKey) -> RetentionClass) -> Vec<Group> {
    let mut groups: BTreeMap<(ReplicaId, RetentionClass), Vec<(ExtentKey, Piece)>> = BTreeMap::new();
    for (key, piece) in pieces {
        groups.entry((key.replica, class_of(key))).or_default().push((key, piece));
    }
    groups.into_iter().map(|((replica, class), pieces)| Group { replica, class, pieces }).collect()
}

/// The open files from which a job copies.
pub(crate) type Sources = BTreeMap<u64, Arc<dyn File>>;

/// How far the copying of a group has come.
pub(crate) struct Cursor {
    pieces: Vec<(ExtentKey, Piece)>,
    piece: usize,
    /// Number of the next line of the piece.
    line: u32,
    /// What the last step ended at: the next line, whose batch is damaged.
    damaged: Option<(ExtentKey, BatchLine)>,
}

impl Cursor {
    pub(crate) fn new(group: Group) -> Self {
        let line = group.pieces.first().map_or(0, |(_, piece)| piece.dead_lines);
        Self { pieces: group.pieces, piece: 0, line, damaged: None }
    }

    /// True when everything is copied.
    pub(crate) fn is_done(&self) -> bool {
        self.piece >= self.pieces.len()
    }

    /// Bytes still to be copied, at most.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.pieces.iter().skip(self.piece).map(|(_, piece)| piece.live_bytes()).sum()
    }

    /// Pieces still to be copied.
    pub(crate) fn pieces_left(&self) -> usize {
        self.pieces.len().saturating_sub(self.piece)
    }

    fn next_piece(&mut self) {
        self.piece += 1;
        self.line = self.pieces.get(self.piece).map_or(0, |(_, piece)| piece.dead_lines);
    }

    /// The damaged batch that ended the last step.
    pub(crate) fn damaged(&self) -> Option<(ExtentKey, BatchLine)> {
        self.damaged
    }

    /// Takes these bytes for the damaged batch; they are verified as every other.
    pub(crate) fn stand_in(&mut self, batch: &[u8], writer: &mut RunWriter) -> Result<(), PushError> {
        if let Some((key, line)) = &self.damaged {
            writer.push(*key, line, batch)?;
            self.line += 1;
            self.damaged = None;
        }
        Ok(())
    }

    /// Leaves the damaged batch out.
    pub(crate) fn leave_out(&mut self) {
        self.line += u32::from(self.damaged.take().is_some());
    }

    /// Copies about [`STEP_BYTES`], less if the run is full or the group is done. An error leaves the cursor at the batch
    /// that was not copied.
    pub(crate) fn step(
        &mut self,
        index: &BatchIndex,
        sources: &Sources,
        writer: &mut RunWriter,
        run_bytes: u64,
    ) -> Result<(), PushError> {
        while let Some((key, piece)) = self.pieces.get(self.piece) {
            if writer.is_full(run_bytes) || writer.buffered_bytes() >= STEP_BYTES {
                break;
            }
            let count = LINES_PER_READ.min(piece.lines.count().saturating_sub(self.line));
            if count == 0 {
                self.next_piece();
                continue;
            }
            let lines = piece.lines.range(self.line, count, Access::MayBlock)?;
            let source = sources.get(&piece.segment).ok_or_else(|| io::Error::other("a source is not open"))?;
            let log_start = index.log_start(*key);
            let live = lines.partition_point(|line| line.end_offset() <= log_start);
            let room = STEP_BYTES.saturating_sub(writer.buffered_bytes());
            let mut copied = live;
            let outcome = copy_lines(*key, piece.segment, &lines, &mut copied, &**source, writer, room);
            self.line += u32::try_from(copied).unwrap_or(count);
            if let (Err(PushError::Damaged { .. }), Some(line)) = (&outcome, lines.get(copied)) {
                self.damaged = Some((*key, line.batch(piece.segment)));
            }
            outcome?;
        }
        writer.flush()?;
        Ok(())
    }
}

/// Copies lines from number `copied` on until about `room` bytes are taken, and counts them there.
fn copy_lines(
    key: ExtentKey,
    segment: u64,
    lines: &[Line],
    copied: &mut usize,
    source: &dyn File,
    writer: &mut RunWriter,
    room: usize,
) -> Result<(), PushError> {
    let mut bytes = 0;
    let mut buffer = Vec::new();
    while let Some(first) = lines.get(*copied) {
        if bytes >= room {
            break;
        }
        let span = span_of(&lines[*copied..]);
        let start = u64::from(first.byte);
        let end = lines.get(*copied + span - 1).map_or(start, |last| u64::from(last.byte) + u64::from(last.bytes));
        buffer.resize(usize::try_from(end - start).unwrap_or(0), 0);
        let whole = read_exact_at(source, &mut buffer, start);
        for line in &lines[*copied..*copied + span] {
            let batch = line.batch(segment);
            match &whole {
                Ok(()) => {
                    let at = usize::try_from(u64::from(line.byte) - start).unwrap_or(usize::MAX);
                    let bytes = buffer.get(at..at + line.bytes as usize).unwrap_or_default();
                    writer.push(key, &batch, bytes)?;
                }
                // What cannot be read may lie between the batches.
                Err(_) => {
                    let mut alone = vec![0; line.bytes as usize];
                    read_exact_at(source, &mut alone, u64::from(line.byte)).map_err(|error| PushError::Damaged {
                        file: segment,
                        offset: line.base_offset,
                        cause: error.to_string(),
                    })?;
                    writer.push(key, &batch, &alone)?;
                }
            }
            bytes += line.bytes as usize;
            *copied += 1;
        }
    }
    Ok(())
}

/// How many lines from the front are read at once.
fn span_of(lines: &[Line]) -> usize {
    let Some(first) = lines.first() else { return 0 };
    let mut end = u64::from(first.byte) + u64::from(first.bytes);
    let mut count = 1;
    for line in &lines[1..] {
        let byte = u64::from(line.byte);
        let next_end = byte + u64::from(line.bytes);
        if byte < end || byte - end > GAP_BYTES || next_end - u64::from(first.byte) > READ_BYTES {
            break;
        }
        end = next_end;
        count += 1;
    }
    count
}
