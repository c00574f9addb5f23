//! Batches that lie in two files: each offset is listed once.
//!
//! A snapshot is taken over frames that were decided in an earlier life and not applied again yet: it brings their batches
//! in runs, and from the next start on both count. Which of the two is listed does not matter, since offsets are never
//! reused with other content (I2). May not know: the table that counts what lives.

use super::line::Line;
use super::partition::PartitionIndex;
use super::piece::Piece;
use super::{Access, IndexError};

/// A piece that comes, put beside those that are known.
pub(super) struct Sorted {
    /// What the piece lists too: they are taken out for it.
    pub(super) replaced: Vec<Piece>,
    /// What is to be added: mostly the piece as it is.
    pub(super) lacking: Vec<Piece>,
}

fn is_within(inner: &Piece, outer: &Piece) -> bool {
    inner.base_offset >= outer.base_offset && inner.end_offset <= outer.end_offset
}

impl PartitionIndex {
    /// Makes room for a piece: known ones that lie within it go, and of the piece itself remains what the others lack. Reads
    /// its lines if it shares only a part with another.
    pub(super) fn make_room(&mut self, piece: Piece) -> Result<Sorted, IndexError> {
        let first = self.piece_above(piece.base_offset);
        let end = self.pieces.partition_point(|known| known.base_offset < piece.end_offset).max(first);
        if self.pieces.range(first..end).any(|known| is_within(&piece, known)) {
            return Ok(Sorted { replaced: Vec::new(), lacking: Vec::new() });
        }
        let (replaced, kept): (Vec<_>, Vec<_>) =
            self.pieces.range(first..end).cloned().partition(|known| is_within(known, &piece));
        let lacking = if kept.is_empty() { vec![piece] } else { lacking_in(&kept, &piece)? };
        self.pieces.retain(|known| !replaced.iter().any(|replaced| replaced.covers_as(known)));
        Ok(Sorted { replaced, lacking })
    }
}

/// The lines of a piece of which these have nothing.
fn lacking_in(known: &[Piece], piece: &Piece) -> Result<Vec<Piece>, IndexError> {
    let mut lacking: Vec<Piece> = Vec::new();
    for line in piece.lines.range(0, piece.lines.count(), Access::MayBlock)? {
        if known.iter().any(|known| known.base_offset < line.end_offset() && line.base_offset < known.end_offset) {
            continue;
        }
        if lacking.last().is_none_or(|piece| piece.end_offset != line.base_offset) {
            lacking.push(Piece::new(piece.segment, line.base_offset));
        }
        if let Some(lacking) = lacking.last_mut() {
            let bytes_before = u32::try_from(lacking.bytes).unwrap_or(u32::MAX);
            lacking.push(Line { bytes_before, ..line });
        }
    }
    Ok(lacking)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Two records a batch.
    fn piece(segment: u64, from: i64, to: i64) -> Piece {
        let mut piece = Piece::new(segment, from);
        for base_offset in (from..to).step_by(2) {
            let bytes_before = u32::try_from(piece.bytes).unwrap();
            let (byte, bytes, record_count) = (bytes_before, 10, 2);
            piece.push(Line { base_offset, max_timestamp_ms: 0, byte, bytes, record_count, epoch: 1, bytes_before });
        }
        piece
    }

    fn extents(pieces: &[Piece]) -> Vec<(u64, i64, i64, u64)> {
        pieces.iter().map(|piece| (piece.segment, piece.base_offset, piece.end_offset, piece.bytes)).collect()
    }

    #[test]
    fn each_offset_is_listed_once() {
        let mut partition = PartitionIndex::default();
        partition.insert(piece(1, 10, 20));
        partition.insert(piece(2, 24, 40));
        let mut sorted = |from, to| {
            let sorted = partition.make_room(piece(9, from, to)).unwrap();
            (extents(&sorted.replaced), extents(&sorted.lacking))
        };
        assert_eq!(sorted(40, 50), (vec![], vec![(9, 40, 50, 50)]), "it touches");
        assert_eq!(sorted(20, 24), (vec![], vec![(9, 20, 24, 20)]), "it fits between");
        assert_eq!(sorted(24, 40), (vec![], vec![]), "it is known");
        assert_eq!(sorted(12, 14), (vec![], vec![]), "it is known, as a part");
        assert_eq!(sorted(30, 44), (vec![], vec![(9, 40, 44, 20)]), "a part is known");
        assert_eq!(
            sorted(0, 30),
            (vec![(1, 10, 20, 50)], vec![(9, 0, 24, 120)]),
            "it holds one, and a part of another"
        );
        assert_eq!(sorted(22, 42), (vec![(2, 24, 40, 80)], vec![(9, 22, 42, 100)]), "it holds one");
        assert_eq!(extents(&partition.pieces.iter().cloned().collect::<Vec<_>>()), []);
    }
}
