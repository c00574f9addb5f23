//! The batches of one read and where they are.
//!
//! May not know: who reads.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ottla_protocol::ids::Offset;

use super::batch::{is_sound, patch};
use super::cold::{self, ColdReads, SPAN_BYTES_MAX, SPAN_GAP_MAX};
use super::mapped::OpenSegment;
use super::{PIECE_BYTES, ReadError, VerifyBelow, damaged, residency};
use crate::env::rt;
use crate::index::{BatchLine, ExtentKey, Planned};
use crate::rewrite::damage::{Damage, Spot};

/// Batches this near are asked about with one system call; what lies between them is as hot as they are.
const RESIDENT_GAP_MAX: usize = 256 * 1024;

const UNSOUND: &str = "its checksum or length does not hold";

/// Where batches of a plan are.
#[derive(Debug)]
pub(super) enum Source {
    Segment(Arc<OpenSegment>),
    /// Committed, but not durable here yet.
    Memory(Bytes),
}

/// Batches that lie near each other in one segment, and the bytes from the first to the last.
pub(super) struct Span {
    pub(super) batches: Range<usize>,
    pub(super) bytes: Range<usize>,
}

/// Where a read notes what it finds damaged, and of which partition.
#[derive(Debug, Clone)]
pub(crate) struct Noting {
    pub(crate) damage: Arc<Damage>,
    pub(crate) key: ExtentKey,
}

impl Noting {
    fn batch(&self, line: &BatchLine) {
        self.damage.batch(line.position.segment, Spot { key: self.key, offset: line.base_offset.0 });
    }
}

/// The batches of one read, with their segments pinned until the plan is dropped.
#[derive(Debug)]
pub struct ReadPlan {
    from: Offset,
    /// Each with the number of its source.
    pub(super) batches: Vec<(BatchLine, u32)>,
    pub(super) sources: Vec<Source>,
    bytes: usize,
    /// Batches before this place were not written by this process: their checksums are verified.
    verify_below: VerifyBelow,
    cold: Arc<ColdReads>,
    noting: Noting,
}

impl ReadPlan {
    pub(crate) fn new(
        from: Offset,
        verify_below: VerifyBelow,
        cold: Arc<ColdReads>,
        noting: Noting,
        planned: Vec<Planned>,
        mut open: impl FnMut(u64) -> std::io::Result<Option<Arc<OpenSegment>>>,
    ) -> Result<Self, ReadError> {
        let batches = Vec::with_capacity(planned.len());
        let mut plan = Self { from, batches, sources: Vec::new(), bytes: 0, verify_below, cold, noting };
        let mut last: Option<u64> = None;
        for Planned { line, data } in planned {
            match data {
                Some(data) => {
                    plan.sources.push(Source::Memory(data));
                    last = None;
                }
                None if last == Some(line.position.segment) => {}
                None => match open(line.position.segment) {
                    Ok(Some(segment)) => {
                        plan.sources.push(Source::Segment(segment));
                        last = Some(line.position.segment);
                    }
                    // What comes before the unreadable batch is served.
                    _ if !plan.batches.is_empty() => break,
                    Ok(None) => return Err(ReadError::Moved(line.base_offset)),
                    Err(error) => return Err(damaged(&line, &error.to_string())),
                },
            }
            plan.bytes += line.bytes as usize;
            let source = u32::try_from(plan.sources.len() - 1).unwrap_or(u32::MAX);
            plan.batches.push((line, source));
        }
        Ok(plan)
    }

    /// The batches' lines, in order.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &BatchLine> {
        self.batches.iter().map(|(line, _)| line)
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
        self.batches.capacity() * size_of::<(BatchLine, u32)>() + self.sources.capacity() * size_of::<Source>()
    }

    /// Offset after the last batch of the plan; `from` if the plan is empty.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.batches.last().map_or(self.from, |(line, _)| line.end_offset())
    }

    pub(super) fn source(&self, number: u32) -> Option<&Source> {
        self.sources.get(number as usize)
    }

    /// The span that begins with batch `first`, which lies in a segment: neighbours up to `gap_max` apart, `bytes_max`
    /// together and below batch `end`.
    pub(super) fn span(&self, first: usize, end: usize, gap_max: usize, bytes_max: usize) -> Option<Span> {
        let (line, source) = self.batches.get(first)?;
        let start = line.position.byte as usize;
        let mut span = Span { batches: first..first + 1, bytes: start..start + line.bytes as usize };
        while let Some((line, next)) = self.batches.get(span.batches.end).filter(|_| span.batches.end < end) {
            let at = line.position.byte as usize;
            let grown = at + line.bytes as usize;
            if next != source || at < span.bytes.end || at - span.bytes.end > gap_max || grown - start > bytes_max {
                break;
            }
            span.batches.end += 1;
            span.bytes.end = grown;
        }
        Some(span)
    }

    /// True if every page of these batches is known to be in memory: then they may be copied on an async thread.
    pub(super) fn are_resident(&self, batches: Range<usize>) -> bool {
        self.are_resident_within(batches.clone(), RESIDENT_GAP_MAX) || self.are_resident_within(batches, 0)
    }

    fn are_resident_within(&self, batches: Range<usize>, gap_max: usize) -> bool {
        let mut at = batches.start;
        while at < batches.end {
            let Some((_, source)) = self.batches.get(at) else { return true };
            match self.source(*source) {
                Some(Source::Memory(_)) => at += 1,
                Some(Source::Segment(open)) => {
                    let (Some(mapped), Some(span)) = (&open.mapped, self.span(at, batches.end, gap_max, usize::MAX))
                    else {
                        return false;
                    };
                    match mapped.bytes().get(span.bytes) {
                        Some(range) if residency::is_resident(range) => at = span.batches.end,
                        _ => return false,
                    }
                }
                None => return false,
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
    pub(super) fn is_to_verify(&self, line: &BatchLine) -> bool {
        self.verify_below.covers(line.position)
    }

    /// Everything, base offset and leader epoch patched: copied here if resident, else read on a blocking thread. On
    /// damage what comes before it; damage of the first batch is the error.
    pub async fn read(mut self) -> Result<BytesMut, ReadError> {
        let mut out = BytesMut::with_capacity(self.bytes);
        if self.is_resident() {
            self.copy_resident(&mut out)?;
            return Ok(out);
        }
        self.on_disk(move |plan| {
            plan.each_from_disk(|batch, line| {
                let at = out.len();
                out.extend_from_slice(batch);
                patch(&mut out[at..], line);
            })?;
            Ok(out)
        })
        .await
        .map(|(_, out)| out)
    }

    /// Does something on a blocking thread, when it is this plan's turn at the disk.
    pub(super) async fn on_disk<T: Send + 'static>(
        mut self,
        work: impl FnOnce(&mut Self) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<(Self, T), ReadError> {
        let turn = self.cold.turn().await;
        let offset = self.batches.first().map_or(self.from, |(line, _)| line.base_offset);
        let work = rt::spawn_blocking(move || {
            let _turn = turn;
            let done = work(&mut self)?;
            Ok((self, done))
        });
        work.await.unwrap_or_else(|_| Err(ReadError::Damaged { offset, cause: "the read was cut short".to_owned() }))
    }

    /// What comes before a damaged batch is served; damage of the first is the error.
    fn cut(&mut self, number: usize, error: ReadError) -> Result<(), ReadError> {
        if let Some((line, _)) = self.batches.get(number) {
            tracing::error!(%error, segment = line.position.segment, byte = line.position.byte, "damaged batch");
            self.noting.batch(line);
        }
        self.batches.truncate(number);
        self.bytes = self.batches.iter().map(|(line, _)| line.bytes as usize).sum();
        if number == 0 { Err(error) } else { Ok(()) }
    }

    /// The bytes of a resident batch.
    pub(super) fn resident(&self, number: usize) -> Result<&[u8], ReadError> {
        let Some((line, source)) = self.batches.get(number) else { return Ok(&[]) };
        let (start, length) = (line.position.byte as usize, line.bytes as usize);
        let batch = match self.source(*source) {
            Some(Source::Memory(data)) => data.get(..),
            Some(Source::Segment(open)) => {
                open.mapped.as_ref().and_then(|mapped| mapped.bytes().get(start..start + length))
            }
            None => None,
        };
        batch
            .filter(|batch| batch.len() == length)
            .ok_or_else(|| damaged(line, "it lies beyond the end of its segment"))
    }

    /// An error if a page of the batch's mapping could not be read.
    pub(super) fn check_fault(&self, number: usize) -> Result<(), ReadError> {
        let Some((line, source)) = self.batches.get(number) else { return Ok(()) };
        match self.source(*source) {
            Some(Source::Segment(open)) if open.mapped.as_ref().is_some_and(super::mapped::Mapped::faulted) => {
                Err(damaged(line, "the disk could not read its page"))
            }
            _ => Ok(()),
        }
    }

    /// Looks at each batch's head, which this process has written.
    pub(super) fn check_resident(&mut self) -> Result<(), ReadError> {
        for number in 0..self.batches.len() {
            let sound = self.resident(number).map(|batch| is_sound(batch, false));
            let checked = sound.and_then(|sound| self.check_fault(number).map(|()| sound));
            let error = match (checked, self.batches.get(number)) {
                (Ok(false), Some((line, _))) => damaged(line, UNSOUND),
                (Err(error), _) => error,
                _ => continue,
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
        let Some((line, _)) = self.batches.get(number) else { return Ok(()) };
        let at = out.len();
        out.extend_from_slice(self.resident(number)?);
        self.check_fault(number)?;
        if !is_sound(&out[at..], self.is_to_verify(line)) {
            return Err(damaged(line, UNSOUND));
        }
        patch(&mut out[at..], line);
        Ok(())
    }

    /// Reads every batch from the disk, verifies it and shows it. Nothing is believed because it is in memory. Only on a
    /// blocking thread.
    pub(super) fn each_from_disk(&mut self, mut show: impl FnMut(&[u8], &BatchLine)) -> Result<(), ReadError> {
        let mut at = 0;
        while at < self.batches.len() {
            match self.span_from_disk(at, &mut show) {
                Ok(next) => at = next,
                Err((number, error)) => return self.cut(number, error),
            }
        }
        Ok(())
    }

    /// The batches of the span that begins with batch `first`; gives the number of the next one, or of the damaged one.
    fn span_from_disk(
        &self,
        first: usize,
        show: &mut impl FnMut(&[u8], &BatchLine),
    ) -> Result<usize, (usize, ReadError)> {
        let Some((line, source)) = self.batches.get(first) else { return Ok(first + 1) };
        let open = match self.source(*source) {
            Some(Source::Segment(open)) => open,
            _ => {
                let data = self.resident(first).map_err(|error| (first, error))?;
                if !is_sound(data, false) {
                    return Err((first, damaged(line, "its length does not hold")));
                }
                show(data, line);
                return Ok(first + 1);
            }
        };
        let Some(span) = self.span(first, self.batches.len(), SPAN_GAP_MAX, SPAN_BYTES_MAX) else {
            return Ok(first + 1);
        };
        let (start, bytes) = (span.bytes.start, span.bytes.len());
        self.cold.ask_ahead(open.sequence, &*open.file, start as u64, span.bytes.end as u64);
        let looked = cold::with_span(&*open.file, start as u64, bytes, |image| {
            for number in span.batches.clone() {
                let Some((line, _)) = self.batches.get(number) else { break };
                let at = line.position.byte as usize - start;
                match image.get(at..at + line.bytes as usize) {
                    Some(batch) if is_sound(batch, true) => show(batch, line),
                    _ => return Err((number, damaged(line, UNSOUND))),
                }
            }
            Ok(span.batches.end)
        });
        match looked {
            Ok(outcome) => outcome,
            // Which of several batches the disk cannot read is found out one by one.
            Err(_) if span.batches.len() > 1 => self.one_from_disk(open, first, show),
            Err(error) => Err((first, damaged(line, &error.to_string()))),
        }
    }

    fn one_from_disk(
        &self,
        open: &OpenSegment,
        number: usize,
        show: &mut impl FnMut(&[u8], &BatchLine),
    ) -> Result<usize, (usize, ReadError)> {
        let Some((line, _)) = self.batches.get(number) else { return Ok(number + 1) };
        let looked = cold::with_span(&*open.file, u64::from(line.position.byte), line.bytes as usize, |batch| {
            let sound = is_sound(batch, true);
            if sound {
                show(batch, line);
            }
            sound
        });
        match looked {
            Ok(true) => Ok(number + 1),
            Ok(false) => Err((number, damaged(line, UNSOUND))),
            Err(error) => Err((number, damaged(line, &error.to_string()))),
        }
    }
}

const _: () = assert!(SPAN_GAP_MAX <= SPAN_BYTES_MAX && PIECE_BYTES <= SPAN_BYTES_MAX);
