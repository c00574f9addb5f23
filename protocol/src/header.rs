//! The request header, parsed by hand: it is read before anything about the client is known.
//!
//!     0         2         4                8
//!     | api key | version | correlation id | client id (v1: nullable string) | tags (v2) ...
//!
//! The first eight bytes have the same shape in every version, so a response can always be correlated.
//! May not know: what the body holds.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use crate::versions::ApiKey;
use crate::wire::{Reader, WireError};

/// Length of the part that every version has.
pub const FIXED_HEAD_BYTES: usize = 8;

/// The part of the header that every version has; enough to choose limits and to correlate a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedHead {
    /// The API's number, known or not.
    pub api_key: i16,
    /// The requested version, known or not.
    pub version: i16,
    /// Repeated in the response.
    pub correlation_id: i32,
}

/// Header of a request whose API and version are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API.
    pub api_key: ApiKey,
    /// Its version, within the table's range.
    pub version: i16,
    /// Repeated in the response.
    pub correlation_id: i32,
    /// The client's name for itself; bytes that are not UTF-8 are replaced, for it only serves logs and quotas.
    pub client_id: Option<StrBytes>,
}

impl FixedHead {
    /// Reads the first eight bytes.
    pub fn parse(frame: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(frame);
        Ok(Self { api_key: reader.i16()?, version: reader.i16()?, correlation_id: reader.i32()? })
    }
}

/// Reads the rest of the header after [`FixedHead`]: returns the client id and the length of the whole header.
pub(crate) fn parse_rest(frame: &Bytes, header_version: i16) -> Result<(Option<StrBytes>, usize), WireError> {
    let mut reader = Reader::new(frame);
    reader.skip(FIXED_HEAD_BYTES)?;
    // The client id keeps its two-byte length even in the flexible header (KIP-482).
    let client_id = reader.nullable_bytes_i16()?.map(|raw| client_id(frame.slice_ref(raw)));
    if header_version >= 2 {
        reader.skip_tags()?;
    }
    Ok((client_id, reader.position()))
}

fn client_id(raw: Bytes) -> StrBytes {
    match StrBytes::from_utf8(raw.clone()) {
        Ok(valid) => valid,
        Err(_) => StrBytes::from_string(String::from_utf8_lossy(&raw).into_owned()),
    }
}
