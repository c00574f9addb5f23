//! Frames of a connection between two nodes: many groups share it, and responses come in any order.
//!
//!  | length u32 | crc u32 | kind u8 | number u64 | from u64 | to u64 | body |      length: of what follows it; crc: of what follows it
//!
//! May not know: the content of a message.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ottla_env::net::Duplex;
use ottla_storage::ids::ReplicaId;

use super::handshake::VERSIONS;
use crate::net::Message;
use crate::net::message_codec::MessageEncoder;

/// A ping is sent that often on a connection that has no responses outstanding: a node that receives nothing at all takes the
/// connection for dead.
pub(super) const IDLE_PING_INTERVAL: Duration = Duration::from_secs(5);

/// The longest frame that a node sends.
pub(super) const FRAME_BYTES_MAX: usize = 256 << 20;
const _: () = assert!(ottla_storage::log::ENTRY_BYTES_MAX + (1 << 19) <= FRAME_BYTES_MAX);
/// Bytes of a frame besides its body.
const HEAD_BYTES: usize = 4 + 4 + 1 + 8 + 8 + 8;
/// Buffer space reserved where the length of a frame is not known.
const READ_BYTES: usize = 64 << 10;
/// Buffer space reserved at once for a frame that announces it. A buffer that doubles as bytes arrive copies a common append once
/// more.
const TRUSTED_BYTES: usize = 2 << 20;

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message that expects a response.
    Request = 0,
    /// The response to the request of this number.
    Response = 1,
    /// The request of this number gets no response; the body says why.
    NoResponse = 2,
    /// Request for a sign of life.
    Ping = 3,
    /// Response to `Ping`.
    Pong = 4,
    /// The sender has received so many bytes of frames over this connection; the number says how many. Since version 3.
    Received = 5,
}

/// A frame as received.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) from: ReplicaId,
    pub(super) to: ReplicaId,
    pub(super) body: Bytes,
}

/// A frame to be sent, in parts.
#[derive(Debug)]
pub(super) struct EncodedFrame {
    pub(super) parts: Vec<Bytes>,
    pub(super) bytes: usize,
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn encode_frame(kind: Kind, number: u64, (from, to): (ReplicaId, ReplicaId), body: Vec<Bytes>) -> EncodedFrame {
    let bytes = HEAD_BYTES + body.iter().map(Bytes::len).sum::<usize>();
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    head.put_u32(u32::try_from(bytes - 4).unwrap_or(u32::MAX));
    head.put_u32(0);
    head.put_u8(kind as u8);
    head.put_u64(number);
    head.put_u64(from.0);
    head.put_u64(to.0);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[8..]);
    body.iter().for_each(|part| crc.update(part));
    head[4..8].copy_from_slice(&crc.finalize().to_be_bytes());
    let mut parts = vec![head.freeze()];
    parts.extend(body);
    EncodedFrame { parts, bytes }
}

const NO_REPLICA: (ReplicaId, ReplicaId) = (ReplicaId(0), ReplicaId(0));

impl EncodedFrame {
    /// A request. An error if it is too long to be sent.
    pub(super) fn request(
        number: u64,
        ends: (ReplicaId, ReplicaId),
        message: &Message,
        version: u8,
    ) -> io::Result<Self> {
        Self::message(Kind::Request, number, ends, message, version)
    }

    /// A response, or the reason why there is none.
    pub(super) fn response(number: u64, response: &Result<Message, crate::net::NoResponse>) -> Self {
        let why = match response {
            Ok(message) => match Self::message(Kind::Response, number, NO_REPLICA, message, *VERSIONS.end()) {
                Ok(encoded) => return encoded,
                Err(error) => error.to_string(),
            },
            Err(why) => why.0.clone(),
        };
        encode_frame(Kind::NoResponse, number, NO_REPLICA, vec![why.into()])
    }

    /// A frame without a body.
    pub(super) fn bare(kind: Kind) -> Self {
        encode_frame(kind, 0, NO_REPLICA, Vec::new())
    }

    /// Says how many bytes of frames have been received.
    pub(super) fn received(total: u64) -> Self {
        encode_frame(Kind::Received, total, NO_REPLICA, Vec::new())
    }

    /// `version`: of the receiver of a request. What responds to a request is of the version of that request.
    fn message(
        kind: Kind,
        number: u64,
        ends: (ReplicaId, ReplicaId),
        message: &Message,
        version: u8,
    ) -> io::Result<Self> {
        let mut parts = MessageEncoder::new(version);
        parts.message(message);
        if parts.bytes() > FRAME_BYTES_MAX - HEAD_BYTES {
            return Err(damaged("a message is too long for a frame"));
        }
        Ok(encode_frame(kind, number, ends, parts.finish()))
    }
}

/// What was read of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A whole frame.
    Frame(Frame),
    /// Bytes that are no frame yet.
    Bytes,
}

/// Reads frames; bytes of the next frame that were read already are kept.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    buffer: BytesMut,
    received: u64,
}

impl FrameReader {
    /// What comes next: a frame, or only more bytes of one, for a long frame on a slow link takes longer than a node may be
    /// silent; `None` at the end of the connection. Cancelling the future loses nothing.
    pub(super) async fn next(&mut self, from: &Duplex) -> io::Result<Option<Read>> {
        let lacking = match self.whole()? {
            Ok(frame) => return Ok(Some(Read::Frame(frame))),
            Err(lacking) => lacking,
        };
        // A long frame's buffer grows with the bytes received, not with the length announced.
        self.buffer.reserve(lacking.min(self.buffer.len().max(TRUSTED_BYTES)));
        match from.read(&mut self.buffer).await? {
            0 if self.buffer.is_empty() => Ok(None),
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.received += count as u64;
                Ok(Some(Read::Bytes))
            }
        }
    }

    /// Bytes of frames received so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The frame at the front, or how many bytes it lacks.
    fn whole(&mut self) -> io::Result<Result<Frame, usize>> {
        let Some(length) = self.buffer.first_chunk::<4>() else { return Ok(Err(READ_BYTES)) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if !(HEAD_BYTES - 4..=FRAME_BYTES_MAX).contains(&length) {
            return Err(damaged("the length of a frame is out of range"));
        }
        if let Some(lacking) = (length + 4).checked_sub(self.buffer.len()).filter(|lacking| *lacking > 0) {
            return Ok(Err(lacking));
        }
        self.buffer.advance(4);
        let mut frame = self.buffer.split_to(length).freeze();
        if frame.get_u32() != crc32fast::hash(&frame) {
            return Err(damaged("the checksum of a frame does not hold"));
        }
        let kind = match frame.get_u8() {
            0 => Kind::Request,
            1 => Kind::Response,
            2 => Kind::NoResponse,
            3 => Kind::Ping,
            4 => Kind::Pong,
            5 => Kind::Received,
            _ => return Err(damaged("a frame is of no known kind")),
        };
        let (number, from, to) = (frame.get_u64(), ReplicaId(frame.get_u64()), ReplicaId(frame.get_u64()));
        Ok(Ok(Frame { kind, number, from, to, body: frame }))
    }
}

/// Frames to be written next, as parts that are not copied together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    parts: VecDeque<Bytes>,
    bytes: usize,
}

/// The front of a batch: so many of its bytes.
pub(super) struct Front<'a> {
    batch: &'a mut Batch,
    left: usize,
}

impl Batch {
    /// Adds a frame.
    pub(super) fn push(&mut self, frame: EncodedFrame) {
        self.bytes += frame.bytes;
        self.parts.extend(frame.parts.into_iter().filter(|part| !part.is_empty()));
    }

    /// Bytes to be written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its first bytes, at most so many.
    pub(super) fn front(&mut self, bytes_max: usize) -> Front<'_> {
        let left = self.bytes.min(bytes_max);
        Front { batch: self, left }
    }
}

impl Buf for Front<'_> {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        let chunk = self.batch.chunk();
        &chunk[..chunk.len().min(self.left)]
    }

    fn advance(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
        self.batch.advance(count);
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let (mut left, mut filled) = (self.left, 0);
        for (slot, part) in into.iter_mut().zip(&self.batch.parts) {
            if left == 0 {
                break;
            }
            let count = part.len().min(left);
            *slot = IoSlice::new(&part[..count]);
            left -= count;
            filled += 1;
        }
        filled
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
        while let Some(part) = self.parts.front_mut() {
            if part.len() > count {
                part.advance(count);
                return;
            }
            count -= part.len();
            self.parts.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let slots = into.iter_mut().zip(&self.parts);
        slots.map(|(slot, part)| *slot = IoSlice::new(part)).count()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::net::NoResponse;
    use crate::net::message_codec::decode;
    use crate::net::message_samples::samples;
    use crate::net::peer::connected_pair;
    use ottla_env::sim;

    fn ends() -> (ReplicaId, ReplicaId) {
        (ReplicaId(5), ReplicaId(u64::MAX))
    }

    async fn next_frame(frames: &mut FrameReader, from: &Duplex) -> io::Result<Option<Frame>> {
        loop {
            match frames.next(from).await? {
                Some(Read::Frame(frame)) => return Ok(Some(frame)),
                Some(Read::Bytes) => {}
                None => return Ok(None),
            }
        }
    }

    #[test]
    fn frames_come_back_through_a_stream() {
        sim::run(1, || async {
            let (near, far) = connected_pair().await;
            let writer = async move {
                let mut batch = Batch::default();
                for (number, message) in (1..).zip(samples()) {
                    batch.push(EncodedFrame::request(number, ends(), &message, *VERSIONS.end()).unwrap());
                }
                batch.push(EncodedFrame::bare(Kind::Ping));
                batch.push(EncodedFrame::response(4, &Err(NoResponse("gone".to_owned()))));
                near.write_all(&mut batch).await.unwrap();
                assert_eq!(batch.bytes(), 0);
            };
            let reader = async move {
                let mut frames = FrameReader::default();
                for (number, message) in (1..).zip(samples()) {
                    let frame = next_frame(&mut frames, &far).await.unwrap().unwrap();
                    assert_eq!((frame.kind, frame.number, (frame.from, frame.to)), (Kind::Request, number, ends()));
                    assert_eq!(decode(frame.body), Ok(message));
                }
                assert_eq!(next_frame(&mut frames, &far).await.unwrap().unwrap().kind, Kind::Ping);
                let refused = next_frame(&mut frames, &far).await.unwrap().unwrap();
                assert_eq!((refused.kind, refused.number, &refused.body[..]), (Kind::NoResponse, 4, &b"gone"[..]));
                assert_eq!(next_frame(&mut frames, &far).await.unwrap(), None);
            };
            futures_util::future::join(writer, reader).await;
        });
    }

    #[test]
    fn a_flipped_bit_anywhere_ends_the_connection() {
        let encoded = EncodedFrame::request(3, ends(), &Message::AppendEntriesConflict, 1).unwrap();
        let sound = encoded.parts.concat();
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            sim::run(1, move || async move {
                let (near, far) = connected_pair().await;
                near.write_all(&mut &bytes[..]).await.unwrap();
                drop(near);
                let read = next_frame(&mut FrameReader::default(), &far).await;
                assert!(read.is_err(), "bit {bit}: {read:?}");
            });
        }
    }
}
