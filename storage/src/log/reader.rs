//! A segment file as recovery reads it: in large windows, with unreadable pages as zeros, commit by commit.
//!
//! May not know: what a break means. It only finds what is sound and where the next sound commit lies.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::commit::{self, CommitHeader};
use super::correct::{Correction, correction_of};
use super::frame::{self, Decoded, padded};
use super::prepared_mark::PreparedMark;
use super::segment_header::{HEADER_BYTES_MAX, HeaderFound, SegmentHeader};
use crate::ids::LogPosition;
use ottla_env::disk::{File, PAGE_BYTES};
use ottla_env::mutants::{self, Bug};

const WINDOW_BYTES: usize = 1 << 20;
/// Samples of a segment beyond what is read of it.
const SAMPLE_EVERY_BYTES: u64 = 1 << 20;

pub(crate) struct SegmentReader {
    file: Arc<dyn File>,
    pub(crate) file_bytes: u64,
    window: Bytes,
    window_at: u64,
}

/// A commit whose header is sound and whose body lies within the file.
#[derive(Debug, Clone)]
pub(crate) struct FoundCommit {
    pub(crate) header: CommitHeader,
    /// First byte of its header.
    pub(crate) at: u64,
    /// First byte of its frames.
    pub(crate) body_at: u64,
    /// First byte after its frames.
    pub(crate) end: u64,
    pub(crate) body: Bytes,
}

/// Reads what the device still returns; the pages that it does not return are zeros.
pub(super) fn read_by_page(file: &dyn File, window: &mut [u8], at: u64) {
    let mut done = 0;
    while done < window.len() {
        let place = at + done as u64;
        let in_page = PAGE_BYTES - (place % PAGE_BYTES as u64) as usize;
        let take = in_page.min(window.len() - done);
        let target = &mut window[done..done + take];
        if let Err(e) = file.read_at(target, place) {
            tracing::error!(byte = place, error = %e, "a page of the log cannot be read");
            target.fill(0);
        }
        done += take;
    }
}

impl SegmentReader {
    pub(crate) fn new(file: Arc<dyn File>) -> io::Result<Self> {
        let file_bytes = file.bytes()?;
        Ok(Self { file, file_bytes, window: Bytes::new(), window_at: 0 })
    }

    /// Limits the reader as if the file ended there.
    pub(crate) fn up_to(mut self, bytes: Option<u64>) -> Self {
        self.file_bytes = bytes.unwrap_or(u64::MAX).min(self.file_bytes);
        self
    }

    /// Bytes at a position, fewer at the end of the file. Pages that cannot be read are zeros, so that no checksum matches.
    pub(crate) fn bytes(&mut self, at: u64, length: usize) -> Bytes {
        let left = usize::try_from(self.file_bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let length = length.min(left);
        let within = at.checked_sub(self.window_at).and_then(|from| usize::try_from(from).ok());
        if let Some(from) = within
            && from.saturating_add(length) <= self.window.len()
        {
            return self.window.slice(from..from + length);
        }
        self.window = self.read(at, length.max(WINDOW_BYTES).min(left));
        self.window_at = at;
        self.window.slice(..length)
    }

    fn read(&self, at: u64, length: usize) -> Bytes {
        let mut buffer = BytesMut::zeroed(length);
        if self.file.read_at(&mut buffer, at).is_err() {
            read_by_page(&*self.file, &mut buffer, at);
        }
        buffer.freeze()
    }

    /// The first page, or less of a shorter file.
    fn first_page(&self) -> Bytes {
        self.read(0, usize::try_from(self.file_bytes).unwrap_or(PAGE_BYTES).min(PAGE_BYTES))
    }

    /// The mark of a prepared file.
    pub(crate) fn mark(&self, sequence: u64) -> Option<PreparedMark> {
        PreparedMark::decode(&self.first_page()).filter(|mark| mark.sequence == sequence)
    }

    /// The segment's header.
    pub(crate) fn header(&mut self) -> HeaderFound {
        let first = self.first_page();
        match SegmentHeader::announced_bytes(&first) {
            Some(length) if length <= first.len() => SegmentHeader::decode(&first),
            Some(length) if length <= HEADER_BYTES_MAX => SegmentHeader::decode(&self.bytes(0, length)),
            _ => HeaderFound::None,
        }
    }

    /// The commit that begins exactly here.
    pub(crate) fn commit_at(&mut self, at: u64, segment: u64, incarnation: Option<u64>) -> Option<FoundCommit> {
        let first = self.bytes(at, commit::HEAD_BYTES);
        let length = CommitHeader::announced_bytes(&first)?;
        let (header, length) = CommitHeader::decode(&self.bytes(at, length))?;
        if header.segment != segment || incarnation.is_some_and(|i| i != header.incarnation) {
            return None;
        }
        let body_at = at + length as u64;
        let end = body_at + u64::from(header.body_bytes);
        if end > self.file_bytes {
            return None;
        }
        let body = self.bytes(body_at, header.body_bytes as usize);
        Some(FoundCommit { header, at, body_at, end, body })
    }

    /// The commit that follows a commit which ended here: at once, or on the next page.
    pub(crate) fn commit_after(
        &mut self,
        end: u64,
        segment: u64,
        incarnation: u64,
        number: u64,
    ) -> Option<FoundCommit> {
        let next_page = end.next_multiple_of(PAGE_BYTES as u64);
        [end, next_page]
            .into_iter()
            .filter_map(|at| self.commit_at(at, segment, Some(incarnation)))
            .find(|commit| commit.header.number == number)
    }

    /// The first commit from here on whose number is greater than `above`; searches every 8th byte.
    pub(crate) fn find_commit(
        &mut self,
        from: u64,
        segment: u64,
        incarnation: Option<u64>,
        above: u64,
    ) -> Option<FoundCommit> {
        let mut at = from.next_multiple_of(8);
        while at < self.file_bytes {
            let page_end = (at / PAGE_BYTES as u64 + 1) * PAGE_BYTES as u64;
            let page = self.bytes(at, (page_end - at) as usize);
            if !is_zero(&page) {
                for (number, word) in page.chunks_exact(8).enumerate() {
                    if word != commit::MAGIC {
                        continue;
                    }
                    let found = self.commit_at(at + number as u64 * 8, segment, incarnation);
                    if let Some(commit) = found.filter(|c| c.header.number > above) {
                        return Some(commit);
                    }
                }
            }
            at = page_end;
        }
        None
    }

    /// True if this commit or a later one of the segment was written when more than `place` was durable.
    pub(crate) fn says_durable(&mut self, first: &FoundCommit, place: LogPosition) -> bool {
        let mut next = Some(first.clone());
        while let Some(commit) = next {
            let CommitHeader { segment, incarnation, number, durable_upto, .. } = commit.header;
            if durable_upto > place {
                return true;
            }
            next = self.find_commit(commit.at + 8, segment, Some(incarnation), number);
        }
        false
    }

    /// Sound frames anywhere in a damaged range; `end` is exclusive.
    pub(crate) fn salvage(&mut self, from: u64, end: u64, incarnation: u64) -> Vec<(u64, Decoded)> {
        let mut found = Vec::new();
        let mut at = from.next_multiple_of(8);
        let wanted = incarnation.to_le_bytes();
        while at + (frame::HEAD_BYTES as u64) <= end {
            let head = self.bytes(at, frame::HEAD_BYTES);
            if head.get(8..16) == Some(&wanted[..]) {
                let length = (frame::u32_le(&head, 0) as usize).min((end - at) as usize);
                let bytes = self.bytes(at, length);
                if let Some(decoded) = frame::decode(&bytes, 0, incarnation) {
                    let next = at + padded(decoded.frame_bytes) as u64;
                    found.push((at, decoded));
                    at = next;
                    continue;
                }
            }
            at += 8;
        }
        found
    }

    /// True if nothing but zeros follows.
    pub(crate) fn is_zero_from(&mut self, from: u64) -> bool {
        self.is_zero(from, self.file_bytes)
    }

    /// True if the next `quiet_bytes` are zero, and the sampled pages after them: enough where a write can only have left
    /// its front.
    pub(crate) fn is_quiet_from(&mut self, from: u64, quiet_bytes: u64) -> bool {
        let to = from.saturating_add(quiet_bytes).min(self.file_bytes);
        if !self.is_zero(from, to) {
            return false;
        }
        let page = PAGE_BYTES as u64;
        let places = to.next_multiple_of(SAMPLE_EVERY_BYTES)..self.file_bytes.saturating_sub(page - 1);
        let samples: Vec<u64> = places.step_by(SAMPLE_EVERY_BYTES as usize).collect();
        // Sequential reads would each wait for the device and for its readahead.
        for at in &samples {
            let _ = self.file.will_need(*at, page);
        }
        samples.iter().all(|at| is_zero(&self.read(*at, PAGE_BYTES)))
    }

    /// True if a range holds nothing but zeros.
    pub(crate) fn is_zero(&mut self, from: u64, to: u64) -> bool {
        let mut at = from;
        while at < to {
            let left = usize::try_from(to - at).unwrap_or(WINDOW_BYTES);
            let bytes = self.read(at, WINDOW_BYTES.min(left));
            if !is_zero(&bytes) {
                return false;
            }
            at += bytes.len() as u64;
        }
        true
    }
}

impl FoundCommit {
    /// All frames of the commit, or `None` if one of them or one of their batches is not sound.
    pub(crate) fn frames(&self) -> Option<Vec<(u64, Decoded)>> {
        let mut frames = Vec::new();
        let mut at = 0;
        while at < self.body.len() {
            let decoded = match frame::decode(&self.body, at, self.header.incarnation) {
                Some(decoded) => decoded,
                None if mutants::is_on(Bug::FrameAfterDamageAccepted) => {
                    at += 8;
                    continue;
                }
                None => return mutants::is_on(Bug::TornTailAccepted).then_some(frames),
            };
            if !decoded.damaged_batches.is_empty() && !mutants::is_on(Bug::TornTailAccepted) {
                return None;
            }
            let next = at + padded(decoded.frame_bytes);
            frames.push((self.body_at + at as u64, decoded));
            at = next;
        }
        (at == self.body.len()).then_some(frames)
    }
}

/// A commit whose frames are whole once some bytes of them are corrected.
pub(crate) struct Corrected {
    pub(crate) frames: Vec<(u64, Decoded)>,
    /// Positions in the file, and the right bytes.
    pub(crate) bytes: Vec<(u64, u8)>,
}

impl FoundCommit {
    /// The frames of a commit that is whole but for a byte in a frame or in several, each proven by its frame's CRC. A torn
    /// write is never so nearly whole.
    pub(crate) fn corrected(&self) -> Option<Corrected> {
        let mut body = self.body.to_vec();
        let mut bytes = Vec::new();
        let mut at = 0;
        while at < body.len() {
            let frame = body.get_mut(at..)?;
            if !frame::is_sound(frame, self.header.incarnation) {
                let Correction { at: wrong, byte } = correction_of(frame, self.header.incarnation)?;
                *frame.get_mut(wrong)? = byte;
                bytes.push((self.body_at + (at + wrong) as u64, byte));
            }
            at += padded(frame::u32_le(frame, 0) as usize);
        }
        let whole = FoundCommit { body: body.into(), ..self.clone() };
        Some(Corrected { frames: whole.frames()?, bytes }).filter(|corrected| !corrected.bytes.is_empty())
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    static ZERO: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    bytes.chunks(PAGE_BYTES).all(|chunk| chunk == &ZERO[..chunk.len()])
}
