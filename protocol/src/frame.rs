//! Splits a growing buffer into length-prefixed frames.
//!
//!     0        4
//!     | length | api key | version | correlation id | ...      length counts what follows it
//!
//! Invariant: a frame's size is checked against the limit of its API before the rest of it is awaited, and the buffer
//! grows as bytes arrive, never by an announced length. May not know: sockets, or what is in the body.

use bytes::{Buf, Bytes, BytesMut};

use crate::versions::ApiKey;

/// Largest frame that may carry records unless configured otherwise (`socket.request.max.bytes`).
pub const DATA_FRAME_BYTES_MAX: usize = 100 * 1024 * 1024;
/// Largest frame of every other API: a group's assignment, or a metadata request for very many topics.
pub const CONTROL_FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest frame before authentication: a SASL token fits, a memory attack does not.
pub const UNAUTHENTICATED_FRAME_BYTES_MAX: usize = 64 * 1024;

const LENGTH_BYTES: usize = 4;
const API_KEY_BYTES: usize = 2;
const HEADER_BYTES_MIN: usize = crate::header::FIXED_HEAD_BYTES;

/// The size limits of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Limit of Produce, the one API that carries records in.
    pub data_bytes_max: usize,
    /// Limit of every other API.
    pub control_bytes_max: usize,
    /// While false, [`UNAUTHENTICATED_FRAME_BYTES_MAX`] holds for everything.
    pub authenticated: bool,
}

/// Why a connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative, or too small for a header.
    #[error("frame length {length} cannot hold a request header")]
    BadLength {
        /// The length as announced.
        length: i32,
    },
    /// The length is above the limit of this API.
    #[error("frame of {length} bytes is above the limit of {limit} bytes")]
    TooLarge {
        /// The length as announced.
        length: usize,
        /// The limit that it exceeds.
        limit: usize,
    },
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { data_bytes_max: DATA_FRAME_BYTES_MAX, control_bytes_max: CONTROL_FRAME_BYTES_MAX, authenticated: true }
    }
}

impl FrameLimits {
    /// The limits of a connection with this `socket.request.max.bytes`.
    #[must_use]
    pub fn with_request_bytes_max(bytes: usize, authenticated: bool) -> Self {
        Self { data_bytes_max: bytes, control_bytes_max: bytes.min(CONTROL_FRAME_BYTES_MAX), authenticated }
    }

    fn largest(&self) -> usize {
        if self.authenticated {
            self.data_bytes_max.max(self.control_bytes_max)
        } else {
            UNAUTHENTICATED_FRAME_BYTES_MAX
        }
    }

    fn of(&self, api_key: i16) -> usize {
        if !self.authenticated {
            UNAUTHENTICATED_FRAME_BYTES_MAX
        } else if api_key == ApiKey::Produce.code() {
            self.data_bytes_max
        } else {
            self.control_bytes_max
        }
    }
}

/// Takes the next whole frame, without its length prefix, out of `buffer`; None means that bytes are missing.
///
/// The frame shares the buffer's memory. After an error the stream has no known boundary: close.
pub fn next_frame(buffer: &mut BytesMut, limits: &FrameLimits) -> Result<Option<Bytes>, FrameError> {
    let Some(length) = announced_length(buffer, limits)? else {
        return Ok(None);
    };
    if buffer.len() < LENGTH_BYTES + length {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// How many bytes are missing until the next frame is whole; 0 if it is whole or its length is not known yet.
/// A reader may use it to choose how much to read, never to allocate that much at once.
#[must_use]
pub fn missing_bytes(buffer: &BytesMut, limits: &FrameLimits) -> usize {
    match announced_length(buffer, limits) {
        Ok(Some(length)) => (LENGTH_BYTES + length).saturating_sub(buffer.len()),
        _ => 0,
    }
}

fn announced_length(buffer: &BytesMut, limits: &FrameLimits) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*prefix);
    let bytes = match usize::try_from(length) {
        Ok(bytes) if bytes >= HEADER_BYTES_MIN => bytes,
        _ => return Err(FrameError::BadLength { length }),
    };
    let limit = match buffer.first_chunk::<{ LENGTH_BYTES + API_KEY_BYTES }>() {
        Some([_, _, _, _, high, low]) => limits.of(i16::from_be_bytes([*high, *low])),
        None => limits.largest(),
    };
    if bytes > limit {
        return Err(FrameError::TooLarge { length: bytes, limit });
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::*;

    use super::*;

    fn framed(api_key: i16, body: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_i32(8 + body.len() as i32);
        out.put_i16(api_key);
        out.put_slice(&[0; 6]);
        out.put_slice(body);
        out
    }

    fn refused(bytes: &[u8], limits: &FrameLimits) -> FrameError {
        next_frame(&mut BytesMut::from(bytes), limits).unwrap_err()
    }

    #[test]
    fn a_length_that_cannot_hold_a_header_closes() {
        let limits = FrameLimits::default();
        for length in [i32::MIN, -1, 0, 7] {
            assert_eq!(refused(&length.to_be_bytes(), &limits), FrameError::BadLength { length });
        }
    }

    #[test]
    fn http_and_tls_on_the_plaintext_port_close_at_once() {
        let limits = FrameLimits::default();
        assert!(matches!(refused(b"GET / HTTP/1.1\r\n", &limits), FrameError::TooLarge { .. }));
        assert!(matches!(refused(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01], &limits), FrameError::TooLarge { .. }));
    }

    #[test]
    fn only_produce_may_be_large_and_nothing_before_authentication() {
        let mut limits = FrameLimits::default();
        let announce = |api_key: i16, length: usize| {
            let mut out = BytesMut::new();
            out.put_i32(length as i32);
            out.put_i16(api_key);
            out
        };
        let large = CONTROL_FRAME_BYTES_MAX + 1;
        assert_eq!(next_frame(&mut announce(0, large), &limits), Ok(None));
        assert!(next_frame(&mut announce(3, large), &limits).is_err());
        limits.authenticated = false;
        let token = UNAUTHENTICATED_FRAME_BYTES_MAX;
        assert_eq!(next_frame(&mut announce(36, token), &limits), Ok(None));
        assert!(next_frame(&mut announce(0, token + 1), &limits).is_err());
    }

    #[test]
    fn an_announced_size_allocates_nothing() {
        let mut buffer = BytesMut::with_capacity(16);
        buffer.put_i32(100 * 1024 * 1024);
        buffer.put_i16(0);
        let limits = FrameLimits::default();
        assert_eq!(next_frame(&mut buffer, &limits), Ok(None));
        assert!(buffer.capacity() <= 16);
        assert_eq!(missing_bytes(&buffer, &limits), 100 * 1024 * 1024 - 2);
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_however_the_bytes_arrive(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6),
            cuts in prop::collection::vec(1usize..64, 1..200),
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| framed(3, body).to_vec()).collect();
            let mut buffer = BytesMut::new();
            let mut out = Vec::new();
            let mut rest = &stream[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                buffer.put_slice(now);
                rest = later;
                while let Some(frame) = next_frame(&mut buffer, &FrameLimits::default()).unwrap() {
                    out.push(frame[8..].to_vec());
                }
            }
            prop_assert_eq!(out, bodies);
            prop_assert!(buffer.is_empty());
        }
    }
}
