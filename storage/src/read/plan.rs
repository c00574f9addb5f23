//! A read plan: the batches of one read, and their sources.
//!
//! May not know: what the bytes are read for.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ottla_protocol::ids::Offset;

use super::batch::{is_sound, patch};
use super::damage::{Damage, Spot};
use super::readahead::{self, DiskReads, SPAN_BYTES_MAX, SPAN_GAP_MAX};
use super::{PIECE_BYTES, ReadError, VerifyBelow, damaged};
use crate::compact::PassDone;
use crate::index::{ExtentKey, IndexedBatch, Planned};
use crate::page_cache::mapped::{Mapped, OpenSegment};
use crate::page_cache::residency;
use ottla_env::rt;

/// The residency of batches this near is queried with one system call; what lies between them is as hot as they are.
const RESIDENT_GAP_MAX: usize = 256 * 1024;

const UNSOUND: &str = "its checksum or length does not hold";

/// The source of some batches of a plan.
#[derive(Debug)]
pub(super) enum Source {
    Segment(Arc<OpenSegment>),
    /// Committed, but not durable here yet.
    Memory(Bytes),
}

/// A span: batches that lie near each other in one segment, and the bytes from the first to the last.
pub(super) struct Span {
    pub(super) batches: Range<usize>,
    pub(super) bytes: Range<usize>,
}

/// Where a read records the damage that it finds, and the partition.
#[derive(Debug, Clone)]
pub(crate) struct Noting {
    pub(crate) damage: Arc<Damage>,
    pub(crate) key: ExtentKey,
}

impl Noting {
    fn batch(&self, indexed: &IndexedBatch) {
        self.damage.batch(indexed.position.segment, Spot { key: self.key, offset: indexed.base_offset });
    }
}

/// The batches of one read, with their segments pinned until the plan is dropped.
#[derive(Debug)]
pub struct ReadPlan {
    from: Offset,
    /// Base offset of the batch that the search found first, also if it is passed over.
    found_at: Option<Offset>,
    pass: Option<PassDone>,
    /// Each with the number of its source.
    pub(super) batches: Vec<(IndexedBatch, u32)>,
    pub(super) sources: Vec<Source>,
    bytes: usize,
    /// Batches before this place were not written by this process: their checksums are verified.
    verify_below: VerifyBelow,
    disk_reads: Arc<DiskReads>,
    noting: Noting,
}

impl ReadPlan {
    pub(crate) fn new(
        from: Offset,
        verify_below: VerifyBelow,
        disk_reads: Arc<DiskReads>,
        noting: Noting,
        planned: Vec<Planned>,
        mut open: impl FnMut(u64) -> std::io::Result<Option<Arc<OpenSegment>>>,
    ) -> Result<Self, ReadError> {
        let batches = Vec::with_capacity(planned.len());
        let found_at = planned.first().map(|first| first.indexed.base_offset);
        let mut plan = Self {
            from,
            found_at,
            pass: None,
            batches,
            sources: Vec::new(),
            bytes: 0,
            verify_below,
            disk_reads,
            noting,
        };
        let mut last: Option<u64> = None;
        for Planned { indexed, data } in planned {
            match data {
                Some(data) => {
                    plan.sources.push(Source::Memory(data));
                    last = None;
                }
                None if last == Some(indexed.position.segment) => {}
                None => match open(indexed.position.segment) {
                    Ok(Some(segment)) => {
                        plan.sources.push(Source::Segment(segment));
                        last = Some(indexed.position.segment);
                    }
                    // The batches before the unreadable one are served.
                    _ if !plan.batches.is_empty() => break,
                    Ok(None) => return Err(ReadError::Moved(indexed.base_offset)),
                    Err(error) => return Err(damaged(&indexed, &error.to_string())),
                },
            }
            plan.bytes += indexed.bytes as usize;
            let source = u32::try_from(plan.sources.len() - 1).unwrap_or(u32::MAX);
            plan.batches.push((indexed, source));
        }
        Ok(plan)
    }

    /// The search found a batch at this offset, which the plan may have passed over.
    pub(crate) fn found_at(self, offset: Option<Offset>) -> Self {
        Self { found_at: offset, ..self }
    }

    /// The batches are those that this pass of compaction has left.
    pub(crate) fn left_by(self, pass: Option<PassDone>) -> Self {
        Self { pass, ..self }
    }

    /// The pass of compaction that has left the batches, where one was done: below its cutoff there is no marker of a transaction
    /// any more, and nothing of one that was aborted.
    #[must_use]
    pub fn pass(&self) -> Option<PassDone> {
        self.pass
    }

    /// The batches' index entries, in order.
    pub(crate) fn indexed_batches(&self) -> impl Iterator<Item = &IndexedBatch> {
        self.batches.iter().map(|(indexed, _)| indexed)
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

    /// Memory that the plan itself takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.batches.capacity() * size_of::<(IndexedBatch, u32)>() + self.sources.capacity() * size_of::<Source>()
    }

    /// Base offset of the batch that holds the offset asked for, or, if that is gone, of the first one behind; `None` if the plan is
    /// empty.
    #[must_use]
    pub fn base_offset(&self) -> Option<Offset> {
        self.found_at
    }

    /// Offset after the last batch of the plan; `from` if the plan is empty.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.batches.last().map_or(self.from, |(indexed, _)| indexed.end_offset())
    }

    /// Batch `number` of the plan and its source: a caller counts to the plan's end, and each batch came with its source.
    pub(super) fn batch(&self, number: usize) -> (&IndexedBatch, &Source) {
        let batch = self.batches.get(number);
        let found = batch.and_then(|(indexed, source)| Some((indexed, self.sources.get(*source as usize)?)));
        found.unwrap_or_else(|| {
            let (key, from, count) = (self.noting.key, self.from, self.batches.len());
            panic!("lineage {}, {}: batch {number} of {count} from {from} on", key.lineage, key.partition)
        })
    }

    /// The span that begins with batch `first`, which lies in a segment: neighbours up to `gap_max` apart, `bytes_max`
    /// together and below batch `end`.
    pub(super) fn span(&self, first: usize, end: usize, gap_max: usize, bytes_max: usize) -> Span {
        let (indexed, _) = self.batch(first);
        let source = self.batches.get(first).map(|(_, source)| source);
        let start = indexed.position.byte as usize;
        let mut span = Span { batches: first..first + 1, bytes: start..start + indexed.bytes as usize };
        while let Some((indexed, next)) = self.batches.get(span.batches.end).filter(|_| span.batches.end < end) {
            let at = indexed.position.byte as usize;
            let grown = at + indexed.bytes as usize;
            if Some(next) != source || at < span.bytes.end || at - span.bytes.end > gap_max || grown - start > bytes_max
            {
                break;
            }
            span.batches.end += 1;
            span.bytes.end = grown;
        }
        span
    }

    /// True if every page of these batches is known to be in memory: then they may be copied on an async thread.
    pub(super) fn are_resident(&self, batches: Range<usize>) -> bool {
        self.are_resident_within(batches.clone(), RESIDENT_GAP_MAX) || self.are_resident_within(batches, 0)
    }

    fn are_resident_within(&self, batches: Range<usize>, gap_max: usize) -> bool {
        let mut at = batches.start;
        while at < batches.end {
            match self.batch(at).1 {
                Source::Memory(_) => at += 1,
                Source::Segment(open) => {
                    let Some(mapped) = &open.mapped else { return false };
                    let span = self.span(at, batches.end, gap_max, usize::MAX);
                    match mapped.bytes().get(span.bytes) {
                        Some(range) if residency::is_resident(range) => at = span.batches.end,
                        _ => return false,
                    }
                }
            }
        }
        true
    }

    /// True if every page is known to be in memory.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        self.are_resident(0..self.batches.len())
    }

    /// True if the checksum of a batch decides whether it is served.
    pub(super) fn is_to_verify(&self, indexed: &IndexedBatch) -> bool {
        self.verify_below.covers(indexed.position)
    }

    /// Reads all batches, with base offset and leader epoch patched: copied here if resident, else on a blocking thread.
    /// Returns what comes before a damaged batch; damage of the first batch is an error.
    pub async fn read(mut self) -> Result<BytesMut, ReadError> {
        let mut out = BytesMut::with_capacity(self.bytes);
        if self.is_resident() {
            self.copy_resident(&mut out)?;
            return Ok(out);
        }
        self.on_disk(move |plan| {
            plan.each_from_disk(|batch, indexed| {
                let at = out.len();
                out.extend_from_slice(batch);
                patch(&mut out[at..], indexed);
            })?;
            Ok(out)
        })
        .await
        .map(|(_, out)| out)
    }

    /// Reads all batches from the disk and verifies them. What is left of the plan ends before a damaged batch, which is
    /// recorded; damage of the first batch is an error.
    pub(crate) async fn verified(self) -> Result<Self, ReadError> {
        self.on_disk(|plan| plan.each_from_disk(|_, _| {})).await.map(|(plan, ())| plan)
    }

    /// Runs `work` on a blocking thread, with a permit to read from the disk.
    pub(super) async fn on_disk<T: Send + 'static>(
        mut self,
        work: impl FnOnce(&mut Self) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<(Self, T), ReadError> {
        let permit = self.disk_reads.permit().await;
        let offset = self.batches.first().map_or(self.from, |(indexed, _)| indexed.base_offset);
        let work = rt::spawn_blocking(move || {
            let _permit = permit;
            let done = work(&mut self)?;
            Ok((self, done))
        });
        work.await.unwrap_or_else(|_| Err(ReadError::Damaged { offset, cause: "the read was cut short".to_owned() }))
    }

    /// Truncates the plan before a damaged batch; damage of the first batch is an error.
    fn cut(&mut self, number: usize, error: ReadError) -> Result<(), ReadError> {
        let (indexed, _) = self.batch(number);
        tracing::error!(%error, segment = indexed.position.segment, byte = indexed.position.byte, "damaged batch");
        self.noting.batch(indexed);
        self.batches.truncate(number);
        self.bytes = self.batches.iter().map(|(indexed, _)| indexed.bytes as usize).sum();
        if number == 0 { Err(error) } else { Ok(()) }
    }

    /// The bytes of a resident batch.
    pub(super) fn resident(&self, number: usize) -> Result<&[u8], ReadError> {
        let (indexed, source) = self.batch(number);
        let (start, length) = (indexed.position.byte as usize, indexed.bytes as usize);
        let batch = match source {
            Source::Memory(data) => data.get(..),
            Source::Segment(open) => open.mapped.as_ref().and_then(|mapped| mapped.bytes().get(start..start + length)),
        };
        batch
            .filter(|batch| batch.len() == length)
            .ok_or_else(|| damaged(indexed, "it lies beyond the end of its segment"))
    }

    /// An error if a page of the batch's mapping could not be read.
    pub(super) fn check_fault(&self, number: usize) -> Result<(), ReadError> {
        let (indexed, source) = self.batch(number);
        match source {
            Source::Segment(open) if open.mapped.as_ref().is_some_and(Mapped::faulted) => {
                Err(damaged(indexed, "the disk could not read its page"))
            }
            _ => Ok(()),
        }
    }

    /// Checks each batch's header, which this process has written.
    pub(super) fn check_resident(&mut self) -> Result<(), ReadError> {
        for number in 0..self.batches.len() {
            let sound = self.resident(number).map(|batch| is_sound(batch, false));
            let checked = sound.and_then(|sound| self.check_fault(number).map(|()| sound));
            let error = match checked {
                Ok(true) => continue,
                Ok(false) => damaged(self.batch(number).0, UNSOUND),
                Err(error) => error,
            };
            return self.cut(number, error);
        }
        Ok(())
    }

    fn copy_resident(&mut self, out: &mut BytesMut) -> Result<(), ReadError> {
        for number in 0..self.batches.len() {
            let at = out.len();
            if let Err(error) = self.copy_one(number, out) {
                out.truncate(at);
                return self.cut(number, error);
            }
        }
        Ok(())
    }

    fn copy_one(&self, number: usize, out: &mut BytesMut) -> Result<(), ReadError> {
        let (indexed, _) = self.batch(number);
        let at = out.len();
        out.extend_from_slice(self.resident(number)?);
        self.check_fault(number)?;
        if !is_sound(&out[at..], self.is_to_verify(indexed)) {
            return Err(damaged(indexed, UNSOUND));
        }
        patch(&mut out[at..], indexed);
        Ok(())
    }

    /// Reads every batch from the disk, verifies it and passes it to `show`, whether it is in memory or not. Only on a
    /// blocking thread.
    pub(super) fn each_from_disk(&mut self, mut show: impl FnMut(&[u8], &IndexedBatch)) -> Result<(), ReadError> {
        let mut at = 0;
        while at < self.batches.len() {
            match self.span_from_disk(at, &mut show) {
                Ok(next) => at = next,
                Err((number, error)) => return self.cut(number, error),
            }
        }
        Ok(())
    }

    /// Reads the span that begins with batch `first`; returns the number of the next batch, or of the damaged one.
    fn span_from_disk(
        &self,
        first: usize,
        show: &mut impl FnMut(&[u8], &IndexedBatch),
    ) -> Result<usize, (usize, ReadError)> {
        let (indexed, source) = self.batch(first);
        let open = match source {
            Source::Segment(open) => open,
            Source::Memory(_) => {
                let data = self.resident(first).map_err(|error| (first, error))?;
                if !is_sound(data, false) {
                    return Err((first, damaged(indexed, "its length does not hold")));
                }
                show(data, indexed);
                return Ok(first + 1);
            }
        };
        let span = self.span(first, self.batches.len(), SPAN_GAP_MAX, SPAN_BYTES_MAX);
        let (start, bytes) = (span.bytes.start, span.bytes.len());
        self.disk_reads.read_ahead(open.sequence, &*open.file, start as u64, span.bytes.end as u64);
        let looked = readahead::with_span(&*open.file, start as u64, bytes, |image| {
            for number in span.batches.clone() {
                let (indexed, _) = self.batch(number);
                let at = indexed.position.byte as usize - start;
                match image.get(at..at + indexed.bytes as usize) {
                    Some(batch) if is_sound(batch, true) => show(batch, indexed),
                    _ => return Err((number, damaged(indexed, UNSOUND))),
                }
            }
            Ok(span.batches.end)
        });
        match looked {
            Ok(outcome) => outcome,
            // To find the batch that the disk cannot read, the batches are read one by one.
            Err(_) if span.batches.len() > 1 => self.one_from_disk(open, first, show),
            Err(error) => Err((first, damaged(indexed, &error.to_string()))),
        }
    }

    fn one_from_disk(
        &self,
        open: &OpenSegment,
        number: usize,
        show: &mut impl FnMut(&[u8], &IndexedBatch),
    ) -> Result<usize, (usize, ReadError)> {
        let (indexed, _) = self.batch(number);
        let looked =
            readahead::with_span(&*open.file, u64::from(indexed.position.byte), indexed.bytes as usize, |batch| {
                let sound = is_sound(batch, true);
                if sound {
                    show(batch, indexed);
                }
                sound
            });
        match looked {
            Ok(true) => Ok(number + 1),
            Ok(false) => Err((number, damaged(indexed, UNSOUND))),
            Err(error) => Err((number, damaged(indexed, &error.to_string()))),
        }
    }
}

const _: () = assert!(SPAN_GAP_MAX <= SPAN_BYTES_MAX && PIECE_BYTES <= SPAN_BYTES_MAX);
