//! The encoded responses of a connection that are not written yet:
//! - small ones share one buffer;
//! - large ones are chunks of their own;
//! - records are copied from their source only when the socket takes them, a piece at a time.
//!
//! Records for a slow client are never copied ahead, and the copied piece can be dropped at any time, so that a client
//! that does not read costs no memory. May not know: sockets, what a response means.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use ottla_storage::read::{PIECE_BYTES, ReadError};

use super::source::{self, Source};
use crate::limits::{GATHERED_BYTES_MAX, WRITE_BURST_BYTES};

/// The most slices of one write (the kernel's limit is 1,024).
const SLICES_MAX: usize = 64;

enum Chunk {
    Bytes(Bytes),
    Source(Box<dyn Source>),
}

impl Chunk {
    fn left(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Source(source) => source.left(),
        }
    }

    fn advance(&mut self, bytes: usize) {
        match self {
            Self::Bytes(chunk) => chunk.advance(bytes),
            Self::Source(source) => source.advance(bytes),
        }
    }
}

/// Whether the bytes of the next write are in memory.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// They are.
    Ready,
    /// They must be read from a disk first: [`ResponseQueue::disk_read`].
    OnDisk,
}

/// A piece to be read on a blocking thread.
pub struct DiskRead {
    source: Box<dyn Source>,
    piece: BytesMut,
}

impl DiskRead {
    /// Reads the piece; may wait for the disk.
    pub fn run(mut self) -> Result<Self, ReadError> {
        self.source.read(&mut self.piece, PIECE_BYTES)?;
        Ok(self)
    }
}

/// Bytes to write, in order.
#[derive(Default)]
pub struct ResponseQueue {
    /// Chunks that are not written yet; they come before `tail`.
    chunks: VecDeque<Chunk>,
    /// Bytes of the chunks.
    bytes: usize,
    /// A copy of the chunks' first bytes, dropped when it is written; empty if nothing was copied.
    piece: BytesMut,
    /// Bytes of `piece` that are written.
    piece_written: usize,
    tail: BytesMut,
    /// Bytes of `tail` that are written.
    tail_written: usize,
}

impl std::fmt::Debug for ResponseQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseQueue")
            .field("chunks", &self.chunks.len())
            .field("bytes", &self.len())
            .finish_non_exhaustive()
    }
}

impl ResponseQueue {
    /// Bytes not written yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes + self.tail.len()
    }

    /// Whether everything is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer that small responses are appended to.
    pub fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends bytes without copying them.
    pub fn push_bytes(&mut self, bytes: Bytes) {
        self.push(Chunk::Bytes(bytes));
    }

    /// Appends the remaining bytes of a source.
    pub fn push_source(&mut self, source: Box<dyn Source>) {
        self.push(Chunk::Source(source));
    }

    fn push(&mut self, chunk: Chunk) {
        self.seal_tail();
        if chunk.left() > 0 {
            self.bytes += chunk.left();
            self.chunks.push_back(chunk);
        }
    }

    /// Copies the next piece, if there is one to copy. Called before each [`Self::with_slices`].
    pub fn prepare(&mut self) -> Result<Next, ReadError> {
        if self.chunks.is_empty() || !self.piece.is_empty() {
            return Ok(Next::Ready);
        }
        self.seal_tail();
        let is_large = |chunk: &Chunk| matches!(chunk, Chunk::Bytes(bytes) if bytes.len() > GATHERED_BYTES_MAX);
        let first_source = self.chunks.iter().position(|chunk| matches!(chunk, Chunk::Source(_)));
        // Bytes in memory are written without a copy; small ones before a source are copied into its first piece.
        if first_source.is_none_or(|first| self.chunks.iter().take(first).any(is_large)) {
            return Ok(Next::Ready);
        }
        let mut piece = source::scratch();
        for chunk in &self.chunks {
            let room = PIECE_BYTES.saturating_sub(piece.len());
            match chunk {
                Chunk::Bytes(bytes) if bytes.len() <= room.min(GATHERED_BYTES_MAX) => piece.extend_from_slice(bytes),
                Chunk::Source(source) if room > 0 && source.is_ready(room) => source.copy(&mut piece, room)?,
                Chunk::Bytes(_) | Chunk::Source(_) => break,
            }
        }
        let ready = !piece.is_empty();
        self.piece_written = 0;
        self.piece = piece;
        Ok(if ready { Next::Ready } else { Next::OnDisk })
    }

    /// After [`Next::OnDisk`], the piece to read from a disk; the caller passes it on to [`Self::disk_was_read`].
    pub fn disk_read(&mut self) -> Option<DiskRead> {
        match self.chunks.pop_front() {
            Some(Chunk::Source(source)) => Some(DiskRead { source, piece: std::mem::take(&mut self.piece) }),
            other => {
                self.chunks.extend(other);
                None
            }
        }
    }

    /// Takes the piece back after it was read.
    pub fn disk_was_read(&mut self, read: DiskRead) {
        self.chunks.push_front(Chunk::Source(read.source));
        self.piece = read.piece;
        self.piece_written = 0;
    }

    /// Calls `write` with the slices to write next.
    pub fn with_slices<T>(&mut self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        if !self.piece.is_empty() {
            return write(&[IoSlice::new(self.piece.get(self.piece_written..).unwrap_or_default())]);
        }
        if self.chunks.is_empty() {
            // The common case: a single buffer, which keeps its memory for the next burst.
            return write(&[IoSlice::new(self.tail.get(self.tail_written..).unwrap_or_default())]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            let Chunk::Bytes(bytes) = chunk else { break };
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        write(slices.get(..count).unwrap_or_default())
    }

    /// `bytes` more are written. Returns true when nothing is left.
    pub fn advance(&mut self, bytes: usize) -> bool {
        if self.chunks.is_empty() {
            self.tail_written += bytes;
            return self.tail_written >= self.tail.len() && self.reset();
        }
        if !self.piece.is_empty() {
            self.piece_written += bytes;
            if self.piece_written >= self.piece.len() {
                self.drop_piece();
            }
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        let mut bytes = bytes;
        while let Some(first) = self.chunks.front_mut() {
            let of_first = bytes.min(first.left());
            first.advance(of_first);
            bytes -= of_first;
            if first.left() > 0 {
                break;
            }
            // A written chunk frees its memory at once, not at the end of the burst.
            self.chunks.pop_front();
        }
        self.is_empty() && self.reset()
    }

    /// The connection has waited for the client: bytes that were in the page cache may be evicted by now.
    pub fn grew_old(&mut self) {
        for chunk in &mut self.chunks {
            if let Chunk::Source(source) = chunk {
                source.grew_old();
            }
        }
    }

    /// Memory of the copied piece, if there is one.
    #[must_use]
    pub fn piece_bytes(&self) -> usize {
        if self.piece.is_empty() { 0 } else { self.piece.capacity() }
    }

    /// Drops the copied piece; it is copied again when the client reads on.
    pub fn drop_piece(&mut self) {
        self.piece_written = 0;
        source::recycle(std::mem::take(&mut self.piece));
    }

    /// Frees memory that an idle connection does not need.
    pub fn release_idle_memory(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.bytes += self.tail.len();
            self.chunks.push_back(Chunk::Bytes(self.tail.split().freeze()));
        }
    }

    fn reset(&mut self) -> bool {
        self.bytes = 0;
        self.tail_written = 0;
        self.tail.clear();
        if self.tail.capacity() > WRITE_BURST_BYTES {
            self.tail = BytesMut::new();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Bytes that must be read from a disk now and then.
    struct Scripted {
        bytes: Bytes,
        every_other_on_disk: bool,
    }

    impl Source for Scripted {
        fn left(&self) -> usize {
            self.bytes.len()
        }
        fn is_ready(&self, _bytes_max: usize) -> bool {
            !self.every_other_on_disk || self.bytes.len().is_multiple_of(2)
        }
        fn copy(&self, out: &mut BytesMut, bytes_max: usize) -> Result<(), ReadError> {
            assert!(self.is_ready(bytes_max));
            self.read(out, bytes_max)
        }
        fn read(&self, out: &mut BytesMut, bytes_max: usize) -> Result<(), ReadError> {
            out.extend_from_slice(&self.bytes[..bytes_max.min(self.bytes.len())]);
            Ok(())
        }
        fn advance(&mut self, bytes: usize) {
            self.bytes.advance(bytes);
        }
        fn grew_old(&mut self) {}
    }

    fn next_slices(responses: &mut ResponseQueue) -> Vec<u8> {
        if responses.prepare().unwrap() == Next::OnDisk {
            let read = responses.disk_read().unwrap().run().unwrap();
            responses.disk_was_read(read);
        }
        responses.with_slices(|slices| slices.iter().flat_map(|slice| slice.iter().copied()).collect())
    }

    proptest! {
        #[test]
        fn everything_comes_out_once_and_in_order(
            parts in proptest::collection::vec((0..4_u8, 1_usize..300), 1..200),
            step in 1_usize..500,
            drop_every in 1_usize..10,
        ) {
            let mut responses = ResponseQueue::default();
            let mut expected = Vec::new();
            for (number, (kind, length)) in parts.into_iter().enumerate() {
                // Now and then more than what is gathered.
                let length = if number % 50 == 7 { length + GATHERED_BYTES_MAX } else { length };
                let piece = vec![number as u8; length];
                expected.extend_from_slice(&piece);
                match kind {
                    0 => responses.tail().extend_from_slice(&piece),
                    1 => responses.push_bytes(piece.into()),
                    _ => responses.push_source(Box::new(Scripted { bytes: piece.into(), every_other_on_disk: kind == 3 })),
                }
            }
            prop_assert_eq!(responses.len(), expected.len());
            let mut out = Vec::new();
            let mut writes = 0;
            while !responses.is_empty() {
                let mut taken = next_slices(&mut responses);
                taken.truncate(step.max(taken.len() / 3));
                prop_assert!(!taken.is_empty());
                out.extend_from_slice(&taken);
                let finished = responses.advance(taken.len());
                prop_assert_eq!(finished, out.len() == expected.len());
                writes += 1;
                if writes % drop_every == 0 {
                    responses.drop_piece();
                }
            }
            prop_assert!(out == expected);
        }
    }

    #[test]
    fn a_large_source_is_never_in_memory_as_a_whole() {
        let mut responses = ResponseQueue::default();
        responses.tail().extend_from_slice(b"head");
        let bytes = Bytes::from(vec![5; 3 * PIECE_BYTES]);
        responses.push_source(Box::new(Scripted { bytes, every_other_on_disk: false }));
        let first = next_slices(&mut responses);
        assert_eq!((first.len(), &first[..5]), (PIECE_BYTES, &b"head\x05"[..]));
        assert!(!responses.advance(100));
        assert!(responses.piece.capacity() <= PIECE_BYTES + PIECE_BYTES / 8);
        responses.drop_piece();
        assert_eq!(responses.piece.capacity(), 0);
        assert_eq!(responses.len(), 4 + 3 * PIECE_BYTES - 100);
        assert!(next_slices(&mut responses).iter().all(|byte| *byte == 5));
    }
}
