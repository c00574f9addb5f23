//! A streamed read, copied chunk by chunk while it is sent: no response is ever in memory as a whole, and a slow client
//! holds a plan and no bytes.
//!
//! Its batches are verified before its length is sent. If the disk fails to read them after that, the response ends, and
//! the connection with it. May not know: sockets.

use std::ops::Range;

use bytes::BytesMut;

use super::batch::patch_part;
use super::plan::{ReadPlan, Source};
use super::{ReadError, damaged};
use crate::index::IndexedBatch;
use ottla_env::disk::read_exact_at;

/// Whole batches with patched headers, from the first byte not sent yet.
#[derive(Debug)]
pub struct ReadStream {
    plan: ReadPlan,
    /// The batch that holds the next byte, and how much of it is sent.
    batch: usize,
    within: usize,
    left: usize,
    /// All pages were resident at the last check, a moment ago.
    resident: bool,
}

impl ReadPlan {
    /// The plan as a stream of verified batches: the length of a response is sent before its bytes are copied.
    pub async fn into_stream(mut self) -> Result<ReadStream, ReadError> {
        let verify = self.batches.iter().any(|(indexed, _)| self.is_to_verify(indexed));
        if !verify && self.is_resident() {
            self.check_resident()?;
            return Ok(ReadStream::new(self, true));
        }
        Ok(ReadStream::new(self.verified().await?, false))
    }
}

impl ReadStream {
    fn new(plan: ReadPlan, resident: bool) -> Self {
        Self { left: plan.bytes(), plan, batch: 0, within: 0, resident }
    }

    /// Number of bytes that are not sent yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// Memory of the stream itself, without the chunks that it returns.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.plan.memory_bytes()
    }

    /// Records that `bytes` more were sent.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.left, "{bytes} bytes were sent of a read that had {} left", self.left);
        self.left -= bytes;
        self.within += bytes;
        while let Some((indexed, _)) = self.plan.batches.get(self.batch)
            && self.within >= indexed.bytes as usize
        {
            self.within -= indexed.bytes as usize;
            self.batch += 1;
        }
    }

    /// Drops the cached residency: after some time pages may not be resident any more.
    pub fn grew_old(&mut self) {
        self.resident = false;
    }

    /// True if the next `bytes_max` bytes can be copied without waiting for the disk.
    #[must_use]
    pub fn is_resident(&self, bytes_max: usize) -> bool {
        if self.resident {
            return true;
        }
        let mut bytes = 0;
        let mut end = self.batch;
        while let Some((indexed, _)) = self.plan.batches.get(end)
            && bytes < bytes_max + self.within
        {
            bytes += indexed.bytes as usize;
            end += 1;
        }
        self.plan.are_resident(self.batch..end)
    }

    /// Appends the next bytes, `bytes_max` at most. They count as sent only after [`Self::advance`]. Only if
    /// [`Self::is_resident`].
    pub fn copy(&self, out: &mut BytesMut, bytes_max: usize) -> Result<(), ReadError> {
        self.each_part(bytes_max, |number, indexed, _, part| {
            let batch = self.plan.resident(number)?;
            out.extend_from_slice(&batch[part.clone()]);
            self.plan.check_fault(number)?;
            let at = out.len() - part.len();
            patch_part(&mut out[at..], part.start, indexed);
            Ok(())
        })
    }

    /// The same on a blocking thread, whether the bytes are resident or not.
    pub fn read(&self, out: &mut BytesMut, bytes_max: usize) -> Result<(), ReadError> {
        self.each_part(bytes_max, |number, indexed, source, part| {
            match source {
                Source::Memory(_) => out.extend_from_slice(&self.plan.resident(number)?[part.clone()]),
                Source::Segment(open) => {
                    let at = out.len();
                    out.resize(at + part.len(), 0);
                    let place = u64::from(indexed.position.byte) + part.start as u64;
                    read_exact_at(&*open.file, &mut out[at..], place)
                        .map_err(|error| damaged(indexed, &error.to_string()))?;
                }
            }
            let at = out.len() - part.len();
            patch_part(&mut out[at..], part.start, indexed);
            Ok(())
        })
    }

    /// The parts of batches that make up the next `bytes_max` bytes.
    fn each_part(
        &self,
        bytes_max: usize,
        mut put: impl FnMut(usize, &IndexedBatch, &Source, Range<usize>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let (mut number, mut within, mut missing) = (self.batch, self.within, bytes_max.min(self.left));
        while missing > 0 {
            let (indexed, source) = self.plan.batch(number);
            let end = (indexed.bytes as usize).min(within + missing);
            put(number, indexed, source, within..end)?;
            missing -= end - within;
            (number, within) = (number + 1, 0);
        }
        Ok(())
    }
}
