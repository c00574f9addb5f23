//! A read that is copied piece by piece while it is sent: no answer is ever in memory as a whole, and whoever does not
//! read his answer holds a plan and no bytes.
//!
//! Its batches were seen whole before its length was told. What the disk takes back after that ends the answer, and the
//! connection with it. May not know: sockets.

use std::ops::Range;

use bytes::BytesMut;

use super::batch::{HEAD_BYTES, LENGTH_PLACE, patch};
use super::plan::{ReadPlan, Source};
use super::{ReadError, damaged};
use crate::env::disk::read_exact_at;
use crate::index::BatchLine;

/// Whole batches with patched heads, from the first byte not sent yet.
#[derive(Debug)]
pub struct ReadStream {
    plan: ReadPlan,
    /// The batch that holds the next byte, and how much of it is sent.
    batch: usize,
    within: usize,
    left: usize,
    /// Everything was resident when last looked at, a moment ago.
    resident: bool,
}

impl ReadPlan {
    /// The plan as a stream whose batches are known to be whole: an answer's length is told before its bytes are copied.
    pub async fn into_stream(mut self) -> Result<ReadStream, ReadError> {
        let verify = self.batches.iter().any(|(line, _)| self.is_to_verify(line));
        if !verify && self.is_resident() {
            self.check_resident()?;
            return Ok(ReadStream::new(self, true));
        }
        let (plan, ()) = self.on_disk(|plan| plan.each_from_disk(|_, _| {})).await?;
        Ok(ReadStream::new(plan, false))
    }
}

impl ReadStream {
    fn new(plan: ReadPlan, resident: bool) -> Self {
        Self { left: plan.bytes(), plan, batch: 0, within: 0, resident }
    }

    /// Bytes that are not sent yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// Memory that it takes beside the pieces it gives.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.plan.memory_bytes()
    }

    /// `bytes` more are sent.
    pub fn advance(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        self.within += bytes;
        while let Some((line, _)) = self.plan.batches.get(self.batch)
            && self.within >= line.bytes as usize
        {
            self.within -= line.bytes as usize;
            self.batch += 1;
        }
    }

    /// Time has passed: what was resident may not be any more.
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
        while let Some((line, _)) = self.plan.batches.get(end)
            && bytes < bytes_max + self.within
        {
            bytes += line.bytes as usize;
            end += 1;
        }
        self.plan.are_resident(self.batch..end)
    }

    /// Appends the next bytes, `bytes_max` at most. They count as sent only after [`Self::advance`]. Only if
    /// [`Self::is_resident`].
    pub fn copy(&self, out: &mut BytesMut, bytes_max: usize) -> Result<(), ReadError> {
        self.each_part(bytes_max, |number, line, _, part| {
            let batch = self.plan.resident(number)?;
            out.extend_from_slice(batch.get(part.clone()).unwrap_or_default());
            self.plan.check_fault(number)?;
            patch_part(out, part, line);
            Ok(())
        })
    }

    /// The same on a blocking thread, whether the bytes are resident or not.
    pub fn read(&self, out: &mut BytesMut, bytes_max: usize) -> Result<(), ReadError> {
        self.each_part(bytes_max, |number, line, source, part| {
            match source {
                Source::Memory(_) => {
                    out.extend_from_slice(self.plan.resident(number)?.get(part.clone()).unwrap_or_default())
                }
                Source::Segment(open) => {
                    let at = out.len();
                    out.resize(at + part.len(), 0);
                    let place = u64::from(line.position.byte) + part.start as u64;
                    read_exact_at(&*open.file, &mut out[at..], place)
                        .map_err(|error| damaged(line, &error.to_string()))?;
                }
            }
            patch_part(out, part, line);
            Ok(())
        })
    }

    /// The parts of batches that make up the next `bytes_max` bytes.
    fn each_part(
        &self,
        bytes_max: usize,
        mut put: impl FnMut(usize, &BatchLine, &Source, Range<usize>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let (mut number, mut within, mut missing) = (self.batch, self.within, bytes_max.min(self.left));
        while let Some((line, source)) = self.plan.batches.get(number).filter(|_| missing > 0) {
            let Some(source) = self.plan.source(*source) else { break };
            let end = (line.bytes as usize).min(within + missing);
            put(number, line, source, within..end)?;
            missing -= end - within;
            (number, within) = (number + 1, 0);
        }
        Ok(())
    }
}

/// Patches what of a batch's head lies in its `part`, which stands at the end of `out`.
fn patch_part(out: &mut BytesMut, part: Range<usize>, line: &BatchLine) {
    if part.start >= HEAD_BYTES {
        return;
    }
    let at = out.len() - part.len();
    let mut head = [0; HEAD_BYTES];
    patch(&mut head, line);
    for byte in part.start..part.end.min(HEAD_BYTES) {
        if !LENGTH_PLACE.contains(&byte) {
            out[at + byte - part.start] = head[byte];
        }
    }
}
