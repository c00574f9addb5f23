//! The index of one partition under one replica: its pieces in offset order, its log start, its size.
//!
//! Invariant: pieces do not overlap, and batches that lie wholly below log start count as dead.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::line::Line;
use super::piece::{Lines, Piece};
use super::{Access, BatchLine, IndexError};
use crate::env::mutants::{self, Bug};
use crate::ids::{RaftIndex, RunId};

/// Log start of a partition that is gone: everything lies below it.
pub(crate) const GONE: i64 = i64::MAX;

/// A batch that is applied but not yet durable here, so that its place is not known.
#[derive(Debug, Clone)]
pub(crate) struct Unplaced {
    pub(crate) index: RaftIndex,
    pub(crate) line: BatchLine,
    pub(crate) data: Bytes,
}

/// What died or came back when a log start moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Died {
    pub(crate) segment: u64,
    pub(crate) lines: u32,
    pub(crate) bytes: u64,
}

/// Pieces and log start of one partition.
#[derive(Debug, Default)]
pub(crate) struct PartitionIndex {
    pub(crate) log_start: i64,
    /// `log_start` up to which `dead_lines` of the pieces are exact.
    pub(crate) settled_log_start: i64,
    pub(crate) pieces: VecDeque<Piece>,
    pub(crate) unplaced: VecDeque<Unplaced>,
    /// The newest segment that ever held a batch, dead ones included: its `.idx` still lists them.
    newest_segment: Option<u64>,
    /// The runs whose indexes list it, with dead batches or live ones.
    runs: Vec<RunId>,
}

/// Offsets of which nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Where the batch before them ends; one that holds `from` may begin there.
    pub(crate) known_end: i64,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// One step of a search from an offset on.
pub(crate) enum Step {
    /// Lines from memory, and the offset after the last.
    Lines(Vec<BatchLine>),
    /// The lines are in a file: search this copy without the lock.
    InFile(Piece),
    /// Committed, but only in memory so far.
    Unplaced(Vec<Unplaced>),
    /// Nothing at or above the offset that begins below the bound.
    End,
    /// The batch that held this offset is not known, and others are behind it or it lies below the bound.
    Lacking(i64),
}

/// True if both speak of one batch. What was fetched from another replica lies in a run, and its frame may be here too.
fn is_same(known: &BatchLine, told: &BatchLine) -> bool {
    let fetched = RunId::of_file(known.position.segment).is_some();
    let position = if fetched { told.position } else { known.position };
    BatchLine { position, ..*known } == *told
}

impl PartitionIndex {
    /// Offset after the last batch known.
    pub(crate) fn end_offset(&self) -> Option<i64> {
        match self.unplaced.back() {
            Some(last) => Some(last.line.end_offset().0),
            None => self.pieces.back().map(|piece| piece.end_offset),
        }
    }

    /// A partition that went may come back to the same replica: it begins anew at this offset. False if it never went.
    pub(crate) fn revive(&mut self, base_offset: i64) -> bool {
        let gone = self.log_start == GONE;
        if gone {
            self.log_start = base_offset;
            self.settled_log_start = self.settled_log_start.min(base_offset);
        }
        gone
    }

    /// Adds a batch behind the others. False if it is known already (an entry applied again after a restart).
    pub(crate) fn push(&mut self, batch: &BatchLine) -> Result<bool, IndexError> {
        let known_end = self.pieces.back().map_or(i64::MIN, |piece| piece.end_offset);
        if batch.base_offset.0 < known_end {
            self.confirm(batch)?;
            return Ok(false);
        }
        let continues = self.pieces.back().is_some_and(|piece| {
            piece.segment == batch.position.segment
                && piece.end_offset == batch.base_offset.0
                && matches!(piece.lines, Lines::Memory(_))
        });
        if !continues {
            self.pieces.push_back(Piece::new(batch.position.segment, batch.base_offset.0));
        }
        self.newest_segment = self.newest_segment.max(Some(batch.position.segment));
        if let Some(piece) = self.pieces.back_mut() {
            let bytes_before = u32::try_from(piece.bytes).unwrap_or(u32::MAX);
            piece.push(Line::new(batch, bytes_before));
            if batch.end_offset().0 <= self.log_start {
                piece.dead_lines += 1;
                piece.dead_bytes += u64::from(batch.bytes);
            }
        }
        Ok(true)
    }

    /// Offsets are never reused with other content (I2): what is known at this offset must be this very batch. Only a
    /// replay after a restart comes here, so waiting for the disk holds up nobody.
    fn confirm(&self, told: &BatchLine) -> Result<(), IndexError> {
        let offset = told.base_offset;
        // Lines below log start may have been dropped, and nobody reads them.
        if told.end_offset().0 <= self.log_start {
            return Ok(());
        }
        let Some(piece) = self.pieces.get(self.piece_above(offset.0)) else { return Err(IndexError::NoSuchLine) };
        let number = piece.lines.first_ending_above(offset.0, Access::MayBlock);
        match number.and_then(|number| piece.lines.get(number, Access::MayBlock)) {
            Ok(line) if is_same(&line.batch(piece.segment), told) => Ok(()),
            // The file is read back from the frames as soon as a reader meets the damage.
            Err(IndexError::Damaged { .. }) => Ok(()),
            Ok(line) => {
                let known = Box::new(line.batch(piece.segment));
                Err(IndexError::Conflict { offset, known, told: Box::new(*told) })
            }
            Err(error) => Err(error),
        }
    }

    /// Adds a piece read from an `.idx` file or from frames, in its place.
    pub(crate) fn insert(&mut self, piece: Piece) {
        let at = self.pieces.partition_point(|other| other.base_offset < piece.base_offset);
        self.pieces.insert(at, piece);
    }

    /// The file lists batches of the partition, whether these are needed or not.
    pub(crate) fn note_file(&mut self, file: u64) {
        match RunId::of_file(file) {
            None => self.newest_segment = self.newest_segment.max(Some(file)),
            Some(run) if self.runs.contains(&run) => {}
            Some(run) => self.runs.push(run),
        }
    }

    /// The segment or run is gone, and its lines with it.
    pub(crate) fn forget(&mut self, segment: u64) {
        self.pieces.retain(|piece| piece.segment != segment);
        if let Some(run) = RunId::of_file(segment) {
            self.runs.retain(|other| *other != run);
        }
    }

    /// True if the partition is gone and no run and no segment from `oldest_segment` on lists it.
    pub(crate) fn is_forgettable(&self, oldest_segment: u64) -> bool {
        self.log_start == GONE
            && self.unplaced.is_empty()
            && self.runs.is_empty()
            && self.newest_segment.is_none_or(|newest| newest < oldest_segment)
    }

    /// Number of the first piece that ends above `offset`.
    pub(crate) fn piece_above(&self, offset: i64) -> usize {
        self.pieces.partition_point(|piece| piece.end_offset <= offset)
    }

    /// The first of these offsets, which were all recorded, of which nothing is known.
    pub(crate) fn gap(&self, offsets: &Range<i64>) -> Option<Gap> {
        let mut from = offsets.start.max(self.log_start);
        let before = self.piece_above(from).checked_sub(1).and_then(|before| self.pieces.get(before));
        let mut known_end = before.map_or(0, |piece| piece.end_offset);
        let pieces = self.pieces.iter().map(|piece| (piece.base_offset, piece.end_offset));
        let unplaced = self.unplaced.iter().map(|unplaced| (unplaced.line.base_offset.0, unplaced.line.end_offset().0));
        let mut to = offsets.end;
        for (base, end) in pieces.chain(unplaced) {
            if base > from {
                to = to.min(base);
                break;
            }
            if end > from {
                (known_end, from) = (end, end);
            }
        }
        (from < to).then_some(Gap { known_end, from, to })
    }

    /// The next lines from `offset` on that begin below `up_to`, until `bytes_max` is passed.
    ///
    /// Offsets are dense, and whatever begins below `up_to` was recorded: what is not found was in a damaged frame.
    pub(crate) fn step(&self, offset: i64, up_to: i64, bytes_max: u64) -> Step {
        let from = offset.max(self.log_start);
        let Some(piece) = self.pieces.get(self.piece_above(from)) else { return self.step_unplaced(from, up_to) };
        if piece.base_offset > from && from < up_to {
            return Step::Lacking(from);
        }
        if piece.base_offset >= up_to {
            return Step::End;
        }
        match &piece.lines {
            Lines::File(_) => Step::InFile(piece.clone()),
            Lines::Memory(memory) => {
                let lines = memory.as_slice();
                let passed = from.saturating_add(i64::from(mutants::is_on(Bug::FetchSkipsABatch)));
                let first = lines.partition_point(|line| line.end_offset() <= passed);
                let mut bytes = 0;
                let taken = lines[first..]
                    .iter()
                    .take_while(|line| {
                        let room = bytes <= bytes_max && line.base_offset < up_to;
                        bytes += u64::from(line.bytes);
                        room
                    })
                    .map(|line| line.batch(piece.segment))
                    .collect();
                Step::Lines(taken)
            }
        }
    }

    fn step_unplaced(&self, from: i64, up_to: i64) -> Step {
        if mutants::is_on(Bug::HwBeforeIndex) {
            return Step::End;
        }
        let lines: Vec<_> = self
            .unplaced
            .iter()
            .filter(|unplaced| unplaced.line.end_offset().0 > from && unplaced.line.base_offset.0 < up_to)
            .cloned()
            .collect();
        match lines.first() {
            Some(first) if first.line.base_offset.0 <= from => Step::Unplaced(lines),
            _ if from < up_to => Step::Lacking(from),
            _ => Step::End,
        }
    }

    /// Bytes of the batches that do not lie wholly below log start.
    pub(crate) fn live_bytes(&self) -> u64 {
        let placed: u64 = self.pieces.iter().map(Piece::live_bytes).sum();
        placed + self.live_unplaced().map(|line| u64::from(line.bytes)).sum::<u64>()
    }

    /// Lines without a place that do not lie wholly below log start: a batch can be deleted before it is durable here.
    pub(crate) fn live_unplaced(&self) -> impl Iterator<Item = &BatchLine> {
        let lines = self.unplaced.iter().map(|unplaced| &unplaced.line);
        lines.filter(|line| line.end_offset().0 > self.log_start)
    }

    /// Raises the log start; [`Self::settle`] does the accounting.
    pub(crate) fn raise_log_start(&mut self, log_start: i64) {
        self.log_start = self.log_start.max(log_start);
    }

    /// True if everything below log start is counted as dead.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled_log_start == self.log_start
    }

    /// Counts what the last moves of log start have killed and drops dead pieces whose lines are on disk. Those in
    /// memory stay: the `.idx` file holds every accepted batch, so that it can be rebuilt byte for byte.
    pub(crate) fn settle(&mut self, access: Access, died: &mut Vec<Died>) -> Result<(), IndexError> {
        if self.is_settled() {
            return Ok(());
        }
        let log_start = self.log_start;
        let first_settled = self.settled_log_start;
        for piece in &mut self.pieces {
            if piece.base_offset >= log_start {
                break;
            }
            if piece.end_offset <= first_settled {
                continue;
            }
            let (lines, bytes) = if piece.end_offset <= log_start {
                (piece.lines.count(), piece.bytes)
            } else {
                let number = piece.lines.first_ending_above(log_start, access)?;
                (number, u64::from(piece.lines.get(number, access)?.bytes_before))
            };
            // Lines of a file may say what its directory does not.
            if lines < piece.dead_lines || bytes < piece.dead_bytes || bytes > piece.bytes {
                return Err(IndexError::Damaged { segment: piece.segment });
            }
            if lines > piece.dead_lines {
                died.push(Died {
                    segment: piece.segment,
                    lines: lines - piece.dead_lines,
                    bytes: bytes - piece.dead_bytes,
                });
                piece.dead_lines = lines;
                piece.dead_bytes = bytes;
            }
        }
        self.settled_log_start = log_start;
        self.drop_dead_pieces();
        Ok(())
    }

    /// Drops dead pieces at the front whose lines are on disk.
    pub(crate) fn drop_dead_pieces(&mut self) {
        while let Some(front) = self.pieces.front() {
            if front.live_lines() > 0 || matches!(front.lines, Lines::Memory(_)) {
                break;
            }
            self.pieces.pop_front();
        }
    }
}
