//! FNV-1a over 64 bits: the checksums and digests of replicated state.
//!
//! They tell whether replicas hold the same (design section 3, invariant I6); they do not protect bytes on disk, which
//! have CRCs. May not know: what is summed.

/// The state before the first byte.
pub(crate) const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// The state after these bytes.
pub(crate) fn fnv1a(state: u64, bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(state, |state, byte| (state ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// Of a record: key and value, each preceded by its length.
pub(crate) fn record_hash(key: &[u8], value: &[u8]) -> u64 {
    let lengths = [key.len() as u64, value.len() as u64];
    let prefix = lengths.iter().flat_map(|n| n.to_le_bytes());
    fnv1a(OFFSET_BASIS, prefix.chain(key.iter().copied()).chain(value.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the algorithm's authors.
    #[test]
    fn known_inputs_have_their_known_sums() {
        assert_eq!(fnv1a(OFFSET_BASIS, []), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(OFFSET_BASIS, *b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(OFFSET_BASIS, *b"foobar"), 0x8594_4171_f739_67e8);
    }
}
