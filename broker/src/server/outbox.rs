//! Answers of one burst on their way to the socket: small ones in one buffer, large records as chunks of their
//! own, all in one vectored write. May not know: sockets, what an answer means.

use std::io::IoSlice;

use bytes::{Bytes, BytesMut};

use crate::limits::WRITE_BURST_BYTES;

/// Most pieces that one write carries (the kernel's limit is 1,024).
const SLICES_MAX: usize = 64;

/// Bytes to write, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Whole pieces, before `tail`; those before `done` are written.
    chunks: Vec<Bytes>,
    done: usize,
    /// Bytes of the first unwritten piece that are written.
    written: usize,
    tail: BytesMut,
    bytes: usize,
}

impl Outbox {
    /// Bytes waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes + self.tail.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer that small answers are appended to.
    pub fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends pieces that are not copied.
    pub fn push_chunks(&mut self, chunks: Vec<Bytes>) {
        self.seal_tail();
        for chunk in chunks {
            self.bytes += chunk.len();
            if !chunk.is_empty() {
                self.chunks.push(chunk);
            }
        }
    }

    /// Calls `write` with what is to be written next.
    pub fn with_slices<T>(&mut self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        if self.chunks.is_empty() {
            // The common case: one buffer, which keeps its memory for the next burst.
            return write(&[IoSlice::new(self.tail.get(self.written..).unwrap_or_default())]);
        }
        self.seal_tail();
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(self.chunks.iter().skip(self.done)) {
            let skip = if count == 0 { self.written } else { 0 };
            *slice = IoSlice::new(chunk.get(skip..).unwrap_or_default());
            count += 1;
        }
        write(slices.get(..count).unwrap_or_default())
    }

    /// `bytes` more are written. True when nothing is left.
    pub fn advance(&mut self, bytes: usize) -> bool {
        self.written += bytes;
        if self.chunks.is_empty() {
            return self.written >= self.tail.len() && self.reset();
        }
        while let Some(first) = self.chunks.get_mut(self.done)
            && self.written >= first.len()
        {
            self.written -= first.len();
            self.bytes = self.bytes.saturating_sub(first.len());
            // The memory of what is written is free at once, not at the end of the burst.
            *first = Bytes::new();
            self.done += 1;
        }
        self.done == self.chunks.len() && self.tail.is_empty() && self.reset()
    }

    /// Gives memory back that an idle connection does not need.
    pub fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.bytes += self.tail.len();
            self.chunks.push(self.tail.split().freeze());
        }
    }

    fn reset(&mut self) -> bool {
        self.chunks.clear();
        (self.done, self.written, self.bytes) = (0, 0, 0);
        self.tail.clear();
        if self.tail.capacity() > WRITE_BURST_BYTES {
            self.tail = BytesMut::new();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everything_comes_out_once_and_in_order(
            parts in proptest::collection::vec((any::<bool>(), 1_usize..300), 1..200),
            step in 1_usize..500,
        ) {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for (number, (chunk, length)) in parts.into_iter().enumerate() {
                let piece = vec![number as u8; length];
                expected.extend_from_slice(&piece);
                if chunk { outbox.push_chunks(vec![piece.into()]) } else { outbox.tail().extend_from_slice(&piece) }
            }
            prop_assert_eq!(outbox.len(), expected.len());
            let mut out = Vec::new();
            while !outbox.is_empty() {
                let taken = outbox.with_slices(|slices| {
                    let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
                    all.into_iter().take(step).collect::<Vec<_>>()
                });
                out.extend_from_slice(&taken);
                let finished = outbox.advance(taken.len());
                prop_assert_eq!(finished, out.len() == expected.len());
            }
            prop_assert_eq!(out, expected);
        }
    }
}
