//! The codecs of record batches, each with a limit on what may come out.
//!
//! Invariant: decompression never holds more than the limit plus one codec block, whatever the input claims.
//! May not know: what the bytes are.

mod gzip;
mod lz4;
mod snappy;
#[cfg(test)]
mod tests;
mod zstd;

use std::io::Read;

use bytes::Bytes;

use crate::error::ErrorCode;

/// The codec of a batch's records; the numbers are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Codec {
    /// Not compressed.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy in xerial's framing; raw Snappy is read as well.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// Zstandard (KIP-110).
    Zstd = 4,
}

/// Why bytes cannot be compressed or decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// The input is not valid for the codec.
    #[error("{codec} data is damaged")]
    Damaged {
        /// The codec.
        codec: Codec,
    },
    /// The output would exceed the limit.
    #[error("{codec} data is larger than {limit} bytes when decompressed")]
    TooLarge {
        /// The codec.
        codec: Codec,
        /// The limit.
        limit: usize,
    },
    /// The codec refused the input or the level.
    #[error("{codec} failed to compress")]
    Failed {
        /// The codec.
        codec: Codec,
    },
}

impl CompressionError {
    /// What Kafka answers.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Damaged { .. } => ErrorCode::CorruptMessage,
            Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::Failed { .. } => ErrorCode::UnknownServerError,
        }
    }
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number in a batch's attributes.
    #[must_use]
    pub fn id(self) -> u8 {
        self as u8
    }

    /// The codec with this number.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.id() == id)
    }

    /// The name in `compression.type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec that `compression.type` names; `uncompressed` is the topic's word for none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "uncompressed" => Some(Self::None),
            name => Self::ALL.into_iter().find(|codec| codec.name() == name),
        }
    }

    /// The levels that the codec takes, as `compression.gzip.level` and its like are bounded.
    #[must_use]
    pub fn levels(self) -> Option<std::ops::RangeInclusive<i32>> {
        match self {
            Self::None | Self::Snappy => None,
            Self::Gzip => Some(gzip::LEVELS),
            Self::Lz4 => Some(lz4::LEVELS),
            Self::Zstd => Some(zstd::levels()),
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Compresses; `level` is the codec's own scale, None its default.
pub fn compress(codec: Codec, level: Option<i32>, input: &[u8]) -> Result<Bytes, CompressionError> {
    let output = match codec {
        Codec::None => return Ok(Bytes::copy_from_slice(input)),
        Codec::Gzip => gzip::compress(level, input),
        Codec::Snappy => snappy::compress(input),
        Codec::Lz4 => lz4::compress(input),
        Codec::Zstd => zstd::compress(level, input),
    };
    output.map(Bytes::from).ok_or(CompressionError::Failed { codec })
}

/// Decompresses to at most `limit` bytes.
pub fn decompress(codec: Codec, input: &Bytes, limit: usize) -> Result<Bytes, CompressionError> {
    let output = match codec {
        Codec::None if input.len() > limit => Err(Stop::TooLarge),
        Codec::None => return Ok(input.clone()),
        Codec::Gzip => gzip::decompress(input, limit),
        Codec::Snappy => snappy::decompress(input, limit),
        Codec::Lz4 => lz4::decompress(input, limit),
        Codec::Zstd => zstd::decompress(input, limit),
    };
    output.map(Bytes::from).map_err(|stop| match stop {
        Stop::Damaged => CompressionError::Damaged { codec },
        Stop::TooLarge => CompressionError::TooLarge { codec, limit },
    })
}

/// Why a codec stopped; [`decompress`] adds which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Damaged,
    TooLarge,
}

/// Reads everything, but stops one byte past the limit. Grows with the output, not by a claimed size.
fn read_limited(reader: impl Read, input_bytes: usize, limit: usize) -> Result<Vec<u8>, Stop> {
    let mut output = Vec::with_capacity(input_bytes.saturating_mul(3).min(limit));
    reader.take(limit as u64 + 1).read_to_end(&mut output).map_err(|_| Stop::Damaged)?;
    if output.len() > limit { Err(Stop::TooLarge) } else { Ok(output) }
}
