//! A source of response bytes that are not in memory as a whole: they are copied piece by piece while they are sent.
//!
//! So a large Fetch response costs one piece of memory. May not know: sockets, what the bytes mean.

use std::cell::RefCell;

use bytes::BytesMut;
use ottla_storage::read::{PIECE_BYTES, ReadError, ReadStream};

/// A source of further bytes of a response.
pub trait Source: Send + Sync {
    /// Bytes that are not sent yet.
    fn left(&self) -> usize;
    /// Whether the next `bytes_max` bytes can be copied without waiting for a disk.
    fn is_ready(&self, bytes_max: usize) -> bool;
    /// Appends the next bytes, `bytes_max` at most, if they are ready. They count as sent only after [`Self::advance`].
    fn copy(&self, out: &mut BytesMut, bytes_max: usize) -> Result<(), ReadError>;
    /// As [`Self::copy`], on a blocking thread, ready or not.
    fn read(&self, out: &mut BytesMut, bytes_max: usize) -> Result<(), ReadError>;
    /// `bytes` more are sent.
    fn advance(&mut self, bytes: usize);
    /// Time has passed: what [`Self::is_ready`] has found in memory may be evicted.
    fn grew_old(&mut self);
}

impl Source for ReadStream {
    fn left(&self) -> usize {
        ReadStream::left(self)
    }

    fn is_ready(&self, bytes_max: usize) -> bool {
        self.is_resident(bytes_max)
    }

    fn copy(&self, out: &mut BytesMut, bytes_max: usize) -> Result<(), ReadError> {
        ReadStream::copy(self, out, bytes_max)
    }

    fn read(&self, out: &mut BytesMut, bytes_max: usize) -> Result<(), ReadError> {
        ReadStream::read(self, out, bytes_max)
    }

    fn advance(&mut self, bytes: usize) {
        ReadStream::advance(self, bytes);
    }

    fn grew_old(&mut self) {
        ReadStream::grew_old(self);
    }
}

/// Scratch buffers that a thread keeps; the one used last is taken first, since it is still in the CPU cache.
const POOLED_MAX: usize = 4;

thread_local! {
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for a piece.
pub(super) fn scratch() -> BytesMut {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(PIECE_BYTES))
}

/// Returns a buffer to the pool.
pub(super) fn recycle(mut buffer: BytesMut) {
    if buffer.capacity() < PIECE_BYTES {
        return;
    }
    buffer.clear();
    POOL.with_borrow_mut(|pool| {
        if pool.len() < POOLED_MAX {
            pool.push(buffer);
        }
    });
}
