//! Reads of batches: from the mapping when resident, with pread on a blocking thread when not.
//!
//! May not know: fetch sessions, isolation levels or who reads.

mod fault;
pub(crate) mod mapped;
pub(crate) mod residency;

use std::sync::Arc;

use bytes::BytesMut;
use ottla_protocol::ids::Offset;

use crate::env::disk::{PAGE_BYTES, read_exact_at};
use crate::env::rt;
use crate::ids::{LogPosition, RunId};
use crate::index::{BatchLine, ExtentKey, Planned};
use mapped::OpenSegment;

/// Bytes that are copied at a time: what stays in the processor's cache until it is sent.
pub const PIECE_BYTES: usize = 256 * 1024;

/// Bytes of a batch before what its own CRC-32C covers.
const BATCH_CRC_FROM: usize = 21;
/// Bytes of a batch's header.
const BATCH_HEADER_BYTES: usize = 61;

/// What is to be read of one partition.
#[derive(Debug, Clone, Copy)]
pub struct ReadRequest {
    /// The partition, as the replica carries it.
    pub key: ExtentKey,
    /// The first offset wanted; the batch that holds it is the first one read, whole.
    pub from: Offset,
    /// Batches that begin at or above this offset are not read (the high watermark or the LSO).
    pub up_to: Offset,
    /// Bytes after which no further batch is added.
    pub bytes_max: usize,
    /// Read the first batch even if it is longer than `bytes_max`.
    pub at_least_one: bool,
}

/// Why batches cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The batch at this offset is damaged on disk, or its place cannot be read.
    #[error("batch at offset {offset} cannot be read: {cause}")]
    Damaged {
        /// Base offset of the batch.
        offset: Offset,
        /// What is wrong with it.
        cause: String,
    },
    /// The file of a batch went while the read was planned: its batches lie elsewhere now, or nowhere. Ask again.
    #[error("the batch at offset {0} has moved")]
    Moved(Offset),
    /// The directory has failed; nothing is served from it any more.
    #[error("data directory has failed: {0}")]
    Poisoned(String),
}

/// What was written by an earlier process: segments before a place, runs before a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VerifyBelow {
    pub(crate) log: LogPosition,
    pub(crate) run: RunId,
}

impl VerifyBelow {
    fn covers(self, position: LogPosition) -> bool {
        match RunId::of_file(position.segment) {
            Some(run) => run < self.run,
            None => position < self.log,
        }
    }
}

/// Where the bytes of a planned batch are.
#[derive(Debug)]
enum Source {
    Segment(Arc<OpenSegment>),
    /// Committed, but not durable here yet.
    Memory(bytes::Bytes),
}

/// The batches of one read, with their segments pinned until the plan is dropped.
#[derive(Debug)]
pub struct ReadPlan {
    from: Offset,
    batches: Vec<(BatchLine, Source)>,
    bytes: usize,
    /// Batches before this place were not written by this process: their checksums are verified.
    verify_below: VerifyBelow,
    /// Batches copied so far.
    copied: usize,
}

impl ReadPlan {
    pub(crate) fn new(
        from: Offset,
        verify_below: VerifyBelow,
        planned: Vec<Planned>,
        mut open: impl FnMut(u64) -> std::io::Result<Option<Arc<OpenSegment>>>,
    ) -> Result<Self, ReadError> {
        let mut plan = Self { from, batches: Vec::with_capacity(planned.len()), bytes: 0, verify_below, copied: 0 };
        let mut last: Option<Arc<OpenSegment>> = None;
        for Planned { line, data } in planned {
            let source = match (data, &last) {
                (Some(data), _) => Source::Memory(data),
                (None, Some(open)) if open.sequence == line.position.segment => Source::Segment(Arc::clone(open)),
                (None, _) => match open(line.position.segment) {
                    Ok(Some(segment)) => {
                        last = Some(Arc::clone(&segment));
                        Source::Segment(segment)
                    }
                    // What comes before the unreadable batch is served.
                    _ if !plan.batches.is_empty() => break,
                    Ok(None) => return Err(ReadError::Moved(line.base_offset)),
                    Err(error) => return Err(damaged(&line, &error.to_string())),
                },
            };
            plan.bytes += line.bytes as usize;
            plan.batches.push((line, source));
        }
        Ok(plan)
    }

    /// True if there is nothing to read at the offset.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Bytes of the whole plan.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Offset of the first batch, which may lie below what was asked for.
    #[must_use]
    pub fn base_offset(&self) -> Option<Offset> {
        self.batches.first().map(|(line, _)| line.base_offset)
    }

    /// Offset after the last batch of the plan; `from` if the plan is empty.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.batches.last().map_or(self.from, |(line, _)| line.end_offset())
    }

    /// Records in the plan.
    #[must_use]
    pub fn record_count(&self) -> u64 {
        self.batches.iter().map(|(line, _)| u64::from(line.record_count)).sum()
    }

    /// True if every page is known to be in memory: then the plan may be copied on an async thread.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        let mut at = self.copied;
        while let Some((line, source)) = self.batches.get(at) {
            at += 1;
            let Source::Segment(open) = source else { continue };
            let Some(mapped) = &open.mapped else { return false };
            let start = line.position.byte as usize;
            let mut end = start + line.bytes as usize;
            // Neighbours are asked about together.
            while let Some((next, Source::Segment(other))) = self.batches.get(at) {
                let byte = next.position.byte as usize;
                if !Arc::ptr_eq(open, other) || byte < end || byte - end > PAGE_BYTES {
                    break;
                }
                end = byte + next.bytes as usize;
                at += 1;
            }
            match mapped.bytes().get(start..end) {
                Some(range) if residency::is_resident(range) => {}
                _ => return false,
            }
        }
        true
    }

    /// Appends every batch to `out`, base offset and leader epoch patched. Only if [`Self::is_resident`], or on a blocking
    /// thread. On damage `out` holds the batches before the damaged one; damage of the first is the error.
    pub fn copy_patched(&mut self, out: &mut BytesMut) -> Result<(), ReadError> {
        while self.copy_piece(out, usize::MAX)? {}
        Ok(())
    }

    /// Appends the next whole batches, about `bytes_max` of them and at least one. False if there are no more.
    pub fn copy_piece(&mut self, out: &mut BytesMut, bytes_max: usize) -> Result<bool, ReadError> {
        let hot = self.is_resident();
        self.copy(out, bytes_max, hot)
    }

    fn copy(&mut self, out: &mut BytesMut, bytes_max: usize, hot: bool) -> Result<bool, ReadError> {
        let start = out.len();
        while let Some((line, source)) = self.batches.get(self.copied) {
            if out.len() > start && out.len() - start + line.bytes as usize > bytes_max {
                break;
            }
            let at = out.len();
            if let Err(error) = append(out, line, source, hot, self.verify_below) {
                out.truncate(at);
                tracing::error!(%error, segment = line.position.segment, byte = line.position.byte, "damaged batch");
                let first = self.copied == 0;
                self.batches.truncate(self.copied);
                return if first { Err(error) } else { Ok(false) };
            }
            self.copied += 1;
        }
        Ok(self.copied < self.batches.len())
    }

    /// Everything: copied here if resident, else read on a blocking thread.
    pub async fn read(mut self) -> Result<BytesMut, ReadError> {
        let mut out = BytesMut::with_capacity(self.bytes);
        if self.is_resident() {
            while self.copy(&mut out, PIECE_BYTES, true)? {}
            return Ok(out);
        }
        let offset = self.base_offset().unwrap_or(self.from);
        let work = rt::spawn_blocking(move || {
            while self.copy(&mut out, PIECE_BYTES, false)? {}
            Ok(out)
        });
        work.await.unwrap_or_else(|_| Err(ReadError::Damaged { offset, cause: "the read was cut short".to_owned() }))
    }
}

fn damaged(line: &BatchLine, cause: &str) -> ReadError {
    ReadError::Damaged { offset: line.base_offset, cause: cause.to_owned() }
}

/// Appends one batch and patches its head: both fields lie outside the batch's CRC.
fn append(
    out: &mut BytesMut,
    line: &BatchLine,
    source: &Source,
    hot: bool,
    verify_below: VerifyBelow,
) -> Result<(), ReadError> {
    let (at, length) = (out.len(), line.bytes as usize);
    let mut verify = true;
    match source {
        Source::Memory(data) => {
            out.extend_from_slice(data);
            verify = false;
        }
        Source::Segment(open) => {
            let start = line.position.byte as usize;
            match &open.mapped {
                Some(mapped) if hot => {
                    let range = mapped.bytes().get(start..start + length);
                    out.extend_from_slice(range.ok_or_else(|| damaged(line, "it lies beyond the end of its segment"))?);
                    if mapped.faulted() {
                        return Err(damaged(line, "the disk could not read its page"));
                    }
                    verify = verify_below.covers(line.position);
                }
                _ => {
                    out.resize(at + length, 0);
                    read_exact_at(&*open.file, &mut out[at..], u64::from(line.position.byte))
                        .map_err(|error| damaged(line, &error.to_string()))?;
                }
            }
        }
    }
    let batch = &mut out[at..];
    if batch.len() != length || !is_sound(batch, verify) {
        return Err(damaged(line, "its checksum or length does not hold"));
    }
    batch[..8].copy_from_slice(&line.base_offset.0.to_be_bytes());
    batch[12..16].copy_from_slice(&line.epoch.0.to_be_bytes());
    Ok(())
}

/// True if the bytes are one whole batch of format 2; its CRC-32C is summed only if `verify`.
pub(crate) fn is_sound(batch: &[u8], verify: bool) -> bool {
    if batch.len() < BATCH_HEADER_BYTES || batch[16] != 2 {
        return false;
    }
    let length = u32::from_be_bytes([batch[8], batch[9], batch[10], batch[11]]);
    if length as usize != batch.len() - 12 {
        return false;
    }
    let crc = u32::from_be_bytes([batch[17], batch[18], batch[19], batch[20]]);
    !verify || crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &batch[BATCH_CRC_FROM..]) == u64::from(crc)
}
