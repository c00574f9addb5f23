//! One connection of a raw load: what waits to be sent, what is in flight, and how far an answer has come.
//!
//! Knows bytes and offsets; when something is to be sent is the engine's business.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;

use super::frames::{Answers, FetchFrame, ProduceFrames};
use crate::peers::nats;

/// At most this many requests go into one write.
const REQUESTS_PER_WRITE: usize = 64;
/// Of a batch: base offset to last offset delta.
const BATCH_HEAD: usize = 27;

/// What a produce connection has to do.
#[derive(Default)]
pub(crate) struct Producing {
    /// Partition and time (ns since the load began) of requests that are not wholly sent.
    waiting: VecDeque<(u32, u64)>,
    /// How much of the first of them is sent.
    sent: usize,
    in_flight: VecDeque<u64>,
    answer: Vec<u8>,
    next_partition: u32,
    step: u32,
    partitions: u32,
}

impl Producing {
    /// Connection `number` of `connections` walks over its share of the partitions.
    pub(crate) fn new(number: u32, connections: u32, partitions: u32) -> Self {
        let step = if connections < partitions { connections } else { partitions };
        Self { next_partition: number % partitions, step, partitions, ..Self::default() }
    }

    pub(crate) fn push(&mut self, at: u64) {
        self.waiting.push_back((self.next_partition, at));
        self.next_partition = (self.next_partition + self.step) % self.partitions;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Sends what it can; true if something is left for later.
    pub(crate) fn flush(&mut self, stream: &mut TcpStream, frames: &ProduceFrames) -> std::io::Result<bool> {
        while !self.waiting.is_empty() {
            let mut slices = Vec::with_capacity(3 * REQUESTS_PER_WRITE);
            let mut skip = self.sent;
            for &(partition, _) in self.waiting.iter().take(REQUESTS_PER_WRITE) {
                for part in frames.parts(partition) {
                    let from = skip.min(part.len());
                    skip -= from;
                    if from < part.len() {
                        slices.push(IoSlice::new(&part[from..]));
                    }
                }
            }
            let written = match stream.write_vectored(&slices) {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(e),
            };
            self.sent += written;
            while let Some(&(partition, at)) = self.waiting.front() {
                let length = frames.len(partition);
                if self.sent < length {
                    break;
                }
                self.sent -= length;
                self.waiting.pop_front();
                self.in_flight.push_back(at);
            }
        }
        Ok(false)
    }

    /// Takes in bytes; calls back with the sending time and the error code of each answer.
    pub(crate) fn take(&mut self, bytes: &[u8], answers: &Answers, mut answered: impl FnMut(u64, i16)) {
        self.answer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((length, code)) = next_answer(&self.answer[at..], answers) {
            at += length;
            if let Some(code) = code {
                answered(self.in_flight.pop_front().expect("an answer without a request"), code);
            }
        }
        self.answer.drain(..at);
    }
}

/// How long the first thing that came is, and its error code if it answers a request; `None` if it is not whole yet.
fn next_answer(bytes: &[u8], answers: &Answers) -> Option<(usize, Option<i16>)> {
    match answers {
        Answers::Kafka { error_at } => {
            let length = frame_length(bytes)?;
            let code = bytes[..length].get(*error_at..*error_at + 2).map_or(-1, |c| i16::from_be_bytes([c[0], c[1]]));
            Some((length, Some(code)))
        }
        Answers::Nats => {
            let line = bytes.iter().position(|b| *b == b'\n')? + 1;
            let Some(length) = nats::message_length(&bytes[..line]) else { return Some((line, None)) };
            let payload = bytes.get(line..line + length + 2)?;
            let is_error = payload.windows(7).any(|w| w == b"\"error\"");
            Some((line + length + 2, Some(i16::from(is_error))))
        }
    }
}

/// The length of a whole frame at the beginning of some bytes, its length field included.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let length = i32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let whole = usize::try_from(length).ok()? + 4;
    (bytes.len() >= whole).then_some(whole)
}

/// What has come of the answer to a fetch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) error: i16,
    pub(crate) high_watermark: u64,
    /// The offset after the last whole batch; `None` if no whole batch came.
    pub(crate) next: Option<u64>,
    pub(crate) bytes: u64,
}

/// Reads answers of fetches as they stream by, without keeping their batches.
#[derive(Default)]
pub(crate) struct Fetching {
    head: Vec<u8>,
    batch: Vec<u8>,
    records_left: usize,
    skip: usize,
    found: Option<Fetched>,
}

impl Fetching {
    /// Takes in bytes; the answer if they complete it. Nothing may follow it: one request is in flight.
    pub(crate) fn take(&mut self, mut bytes: &[u8], head_length: usize) -> Option<Fetched> {
        if self.found.is_none() {
            let missing = head_length - self.head.len();
            let now = missing.min(bytes.len());
            self.head.extend_from_slice(&bytes[..now]);
            bytes = &bytes[now..];
            if self.head.len() < head_length {
                return None;
            }
            self.begin(head_length);
        }
        while self.records_left > 0 && !bytes.is_empty() {
            let now = if self.skip > 0 { self.skip } else { BATCH_HEAD - self.batch.len() };
            let now = now.min(bytes.len()).min(self.records_left);
            if self.skip > 0 {
                self.skip -= now;
            } else {
                self.batch.extend_from_slice(&bytes[..now]);
            }
            self.records_left -= now;
            bytes = &bytes[now..];
            if self.batch.len() == BATCH_HEAD {
                self.end_of_batch_head();
            }
        }
        if self.records_left > 0 {
            return None;
        }
        (self.skip, _) = (0, self.batch.clear());
        self.head.clear();
        self.found.take()
    }

    fn begin(&mut self, head_length: usize) {
        let number = |from: usize, to: usize| {
            let back = &self.head[head_length - from..head_length - to];
            back.iter().fold(0_i64, |n, byte| (n << 8) | i64::from(*byte))
        };
        let error = number(38, 36) as i16;
        let records = i32::from_be_bytes(self.head[head_length - 4..].try_into().unwrap());
        self.records_left = usize::try_from(records).unwrap_or(0);
        let high_watermark = u64::try_from(number(36, 28)).unwrap_or(0);
        self.found = Some(Fetched { error, high_watermark, next: None, bytes: self.records_left as u64 });
    }

    fn end_of_batch_head(&mut self) {
        let base = u64::from_be_bytes(self.batch[..8].try_into().unwrap());
        let length = u32::from_be_bytes(self.batch[8..12].try_into().unwrap()) as usize;
        let delta = u32::from_be_bytes(self.batch[23..27].try_into().unwrap());
        self.skip = length + 12 - BATCH_HEAD;
        // Kafka may end an answer within a batch.
        if let Some(found) = self.found.as_mut().filter(|_| self.skip <= self.records_left) {
            found.next = Some(base + u64::from(delta) + 1);
        }
        self.batch.clear();
    }
}

/// What a fetch connection has to do.
pub(crate) struct Reader {
    pub(crate) frame: FetchFrame,
    pub(crate) stream: Fetching,
    /// Partition and next offset.
    pub(crate) places: Vec<(u32, u64)>,
    pub(crate) current: usize,
    pub(crate) asked_at: Option<u64>,
}

impl Reader {
    /// Asks for the next offset of the current partition. A request is small: it always fits the socket's buffer.
    pub(crate) fn ask(&mut self, stream: &mut TcpStream, now: u64) -> std::io::Result<()> {
        let (partition, offset) = self.places[self.current];
        self.asked_at = Some(now);
        stream.write_all(self.frame.with(partition, offset))
    }
}

/// Reads what is there, once; 0 means that nothing is.
pub(crate) fn read_some(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    match stream.read(buffer) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(n),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::batch;

    /// An answer as `FetchFrame` describes it for a topic whose name has one letter.
    fn answer(error: i16, high_watermark: i64, records: &[u8]) -> (Vec<u8>, usize) {
        let mut body = Vec::new();
        for field in [0_i32, 0] {
            body.extend(field.to_be_bytes());
        }
        body.extend([0; 2 + 4]);
        body.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0]);
        body.extend(error.to_be_bytes());
        body.extend(high_watermark.to_be_bytes());
        body.extend([0; 8 + 8]);
        body.extend([255; 4 + 4]);
        body.extend(i32::try_from(records.len()).unwrap().to_be_bytes());
        let head = body.len() + 4;
        body.extend(records);
        let mut frame = i32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(body);
        (frame, head)
    }

    #[test]
    fn an_answer_is_understood_however_it_is_cut() {
        let mut records = batch(3, 50).to_vec();
        let mut second = batch(2, 70).to_vec();
        second[..8].copy_from_slice(&3_i64.to_be_bytes());
        records.extend(&second);
        // A third batch that does not come whole.
        records.extend(&second[..second.len() - 1]);
        let (bytes, head) = answer(0, 99, &records);
        let wanted = Fetched { error: 0, high_watermark: 99, next: Some(5), bytes: records.len() as u64 };
        for piece in [1, 7, 61, bytes.len()] {
            let mut fetching = Fetching::default();
            let mut found = Vec::new();
            for _ in 0..2 {
                found.extend(bytes.chunks(piece).filter_map(|part| fetching.take(part, head)));
            }
            assert_eq!(found.len(), 2, "pieces of {piece}");
            assert!(found.iter().all(|f| *f == wanted), "pieces of {piece}: {found:?}");
        }
    }

    #[test]
    fn an_empty_answer_and_an_error_are_answers() {
        let (bytes, head) = answer(6, 0, &[]);
        let found = Fetching::default().take(&bytes, head).unwrap();
        assert_eq!((found.error, found.next, found.bytes), (6, None, 0));
    }
}
