//! A piece: the consecutive lines of one partition in one segment, in memory or in the segment's `.idx` file.
//!
//! May not know: other pieces, and who searches.

use std::sync::Arc;

use super::line::Line;
use super::open_file::IndexFile;
use super::{Access, IndexError};

/// Lines of a block share one greatest timestamp, so that a search by time skips blocks.
const BLOCK_LINES: usize = 256;

/// Lines held in memory, until the segment's `.idx` is written.
#[derive(Debug, Default, Clone)]
pub(crate) struct MemoryLines {
    lines: Vec<Line>,
    block_max_timestamp_ms: Vec<i64>,
}

impl MemoryLines {
    fn push(&mut self, line: Line) {
        if self.lines.len().is_multiple_of(BLOCK_LINES) {
            self.block_max_timestamp_ms.push(i64::MIN);
        }
        if let Some(max) = self.block_max_timestamp_ms.last_mut() {
            *max = (*max).max(line.max_timestamp_ms);
        }
        self.lines.push(line);
    }

    pub(crate) fn as_slice(&self) -> &[Line] {
        &self.lines
    }
}

/// Lines `first..first + count` of an `.idx` file.
#[derive(Debug, Clone)]
pub(crate) struct FileLines {
    pub(crate) file: Arc<IndexFile>,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// Where the lines of a piece are.
#[derive(Debug, Clone)]
pub(crate) enum Lines {
    Memory(MemoryLines),
    File(FileLines),
}

impl Lines {
    pub(crate) fn count(&self) -> u32 {
        match self {
            Self::Memory(memory) => u32::try_from(memory.lines.len()).unwrap_or(u32::MAX),
            Self::File(file) => file.count,
        }
    }

    /// One line.
    pub(crate) fn get(&self, number: u32, access: Access) -> Result<Line, IndexError> {
        match self {
            Self::Memory(memory) => memory.lines.get(number as usize).copied().ok_or(IndexError::NoSuchLine),
            Self::File(lines) if number < lines.count => lines.file.line(lines.first + number, access),
            Self::File(_) => Err(IndexError::NoSuchLine),
        }
    }

    /// `count` lines from number `first` on.
    pub(crate) fn range(&self, first: u32, count: u32, access: Access) -> Result<Vec<Line>, IndexError> {
        match self {
            Self::Memory(memory) => {
                let lines = memory.lines.get(first as usize..(first + count) as usize);
                lines.map(<[Line]>::to_vec).ok_or(IndexError::NoSuchLine)
            }
            Self::File(lines) if first + count <= lines.count => {
                lines.file.lines(lines.first + first, count as usize, access)
            }
            Self::File(_) => Err(IndexError::NoSuchLine),
        }
    }

    /// Number of the first line whose end lies above `offset`; `count` if there is none.
    pub(crate) fn first_ending_above(&self, offset: i64, access: Access) -> Result<u32, IndexError> {
        match self {
            Self::Memory(memory) => {
                let number = memory.lines.partition_point(|line| line.end_offset() <= offset);
                u32::try_from(number).map_err(|_| IndexError::NoSuchLine)
            }
            Self::File(lines) => lines.file.first_ending_above(lines.first, lines.count, offset, access),
        }
    }

    /// The first line from number `from` on whose greatest timestamp is at least `timestamp_ms`.
    pub(crate) fn first_at_or_after(
        &self,
        from: u32,
        timestamp_ms: i64,
        access: Access,
    ) -> Result<Option<Line>, IndexError> {
        match self {
            Self::Memory(memory) => Ok(memory.first_at_or_after(from as usize, timestamp_ms)),
            Self::File(lines) => {
                let mut number = from;
                while number < lines.count {
                    let block = lines.file.lines(
                        lines.first + number,
                        BLOCK_LINES.min((lines.count - number) as usize),
                        access,
                    )?;
                    if let Some(line) = block.iter().find(|line| line.max_timestamp_ms >= timestamp_ms) {
                        return Ok(Some(*line));
                    }
                    number += u32::try_from(block.len()).unwrap_or(u32::MAX).max(1);
                }
                Ok(None)
            }
        }
    }
}

impl MemoryLines {
    fn first_at_or_after(&self, from: usize, timestamp_ms: i64) -> Option<Line> {
        let mut at = from;
        while at < self.lines.len() {
            let block = at / BLOCK_LINES;
            let end = ((block + 1) * BLOCK_LINES).min(self.lines.len());
            if self.block_max_timestamp_ms.get(block).is_some_and(|max| *max >= timestamp_ms)
                && let Some(line) = self.lines[at..end].iter().find(|line| line.max_timestamp_ms >= timestamp_ms)
            {
                return Some(*line);
            }
            at = end;
        }
        None
    }
}

/// The consecutive lines of one partition in one segment.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// The segment that holds the batches.
    pub(crate) segment: u64,
    /// Offset of the first record.
    pub(crate) base_offset: i64,
    /// Offset after the last record.
    pub(crate) end_offset: i64,
    /// Greatest timestamp of all lines.
    pub(crate) max_timestamp_ms: i64,
    /// Bytes of all batches.
    pub(crate) bytes: u64,
    /// Lines that lie wholly below log start.
    pub(crate) dead_lines: u32,
    /// Bytes of those.
    pub(crate) dead_bytes: u64,
    pub(crate) lines: Lines,
}

impl Piece {
    pub(crate) fn new(segment: u64, base_offset: i64) -> Self {
        Self {
            segment,
            base_offset,
            end_offset: base_offset,
            max_timestamp_ms: i64::MIN,
            bytes: 0,
            dead_lines: 0,
            dead_bytes: 0,
            lines: Lines::Memory(MemoryLines::default()),
        }
    }

    /// Adds a line behind the others; the caller has checked that it follows. Does nothing if the lines are on disk.
    pub(crate) fn push(&mut self, line: Line) {
        if let Lines::Memory(memory) = &mut self.lines {
            memory.push(line);
            self.end_offset = line.end_offset();
            self.max_timestamp_ms = self.max_timestamp_ms.max(line.max_timestamp_ms);
            self.bytes += u64::from(line.bytes);
        }
    }

    /// True if both list the same batches of their segment.
    pub(crate) fn covers_as(&self, other: &Self) -> bool {
        let extent = |piece: &Self| (piece.segment, piece.base_offset, piece.end_offset, piece.lines.count());
        extent(self) == extent(other)
    }

    pub(crate) fn live_lines(&self) -> u32 {
        self.lines.count() - self.dead_lines
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.bytes - self.dead_bytes
    }
}
