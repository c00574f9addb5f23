//! The header of a commit: the frames that one write and one sync make durable together. A scan resynchronises on it after
//! damage.
//!
//! ```text
//!  0                8        12              16            24         32              40             48
//!  | "OTTLACMT"     | crc32  | header length | incarnation | segment  | commit number | durable_upto | boot id ...
//!  48        56             60      64               68                   72
//!  | boot id | body length  | flags | count of this  | count of previous  | (replica id, last sequence) of this, then of previous
//! ```
//! The frames follow at once, each padded to 8 bytes; `body length` is their sum. `crc32` covers the header from byte 12.
//! Commit numbers of a log are consecutive over all segments and begin with 1. The lists name the last sequence number of
//! each replica in this commit and in the one before it: what a damaged commit held is known from the next one.
//!
//! Invariant: everything before `durable_upto` was durable before this commit was written, so damage there is proven.

use crate::ids::{LogPosition, ReplicaId};

use super::frame::{NUMBER_MAX, u32_le, u64_le};

/// First bytes of every commit.
pub(crate) const MAGIC: [u8; 8] = *b"OTTLACMT";
/// Length without the lists.
pub(crate) const HEAD_BYTES: usize = 72;
const PAIR_BYTES: usize = 16;
/// No header is longer: 64 Ki replicas in one commit and as many in the one before.
pub(crate) const HEADER_BYTES_MAX: usize = HEAD_BYTES + 2 * 65_536 * PAIR_BYTES;

/// Written without waiting for a sync (`ottla.sync=false`).
pub(crate) const FLAG_UNSYNCED: u32 = 1;
/// The log was closed after this commit.
pub(crate) const FLAG_CLEAN: u32 = 2;

/// Last sequence numbers by replica.
pub(crate) type LastSequences = Vec<(ReplicaId, u64)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommitHeader {
    pub(crate) incarnation: u64,
    pub(crate) segment: u64,
    pub(crate) number: u64,
    pub(crate) durable_upto: LogPosition,
    pub(crate) boot_id: u64,
    pub(crate) body_bytes: u32,
    pub(crate) flags: u32,
    pub(crate) this: LastSequences,
    pub(crate) previous: LastSequences,
}

/// A position as one number.
pub(crate) fn pack(position: LogPosition) -> u64 {
    assert!(position.segment < 1 << 32, "segment number");
    position.segment << 32 | u64::from(position.byte)
}

/// The reverse of [`pack`].
pub(crate) fn unpack(packed: u64) -> LogPosition {
    LogPosition { segment: packed >> 32, byte: (packed & u64::from(u32::MAX)) as u32 }
}

impl CommitHeader {
    /// Length of the header for so many replicas in both lists together.
    pub(crate) fn bytes_for(replicas: usize) -> usize {
        HEAD_BYTES + replicas * PAIR_BYTES
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let length = Self::bytes_for(self.this.len() + self.previous.len());
        assert!(length <= HEADER_BYTES_MAX, "a commit header of {length} bytes");
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(length as u32).to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&pack(self.durable_upto).to_le_bytes());
        out.extend_from_slice(&self.boot_id.to_le_bytes());
        out.extend_from_slice(&self.body_bytes.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&(self.this.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.previous.len() as u32).to_le_bytes());
        for (replica, sequence) in self.this.iter().chain(&self.previous) {
            out.extend_from_slice(&replica.0.to_le_bytes());
            out.extend_from_slice(&sequence.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[start + 12..]);
        out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
    }

    /// Length of the header that seems to begin here, before it is verified.
    pub(crate) fn announced_bytes(bytes: &[u8]) -> Option<usize> {
        let head = bytes.get(..16)?;
        let length = u32_le(head, 12) as usize;
        (head[..8] == MAGIC && (HEAD_BYTES..=HEADER_BYTES_MAX).contains(&length)).then_some(length)
    }

    /// The header that begins here, with its length; `None` if there is no sound one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let length = Self::announced_bytes(bytes)?;
        let head = bytes.get(..length)?;
        let (this, previous) = (u32_le(head, 64) as usize, u32_le(head, 68) as usize);
        if crc32fast::hash(&head[12..]) != u32_le(head, 8)
            || this.checked_add(previous)?.checked_mul(PAIR_BYTES)? != length - HEAD_BYTES
        {
            return None;
        }
        let number = u64_le(head, 32);
        let mut pairs =
            head[HEAD_BYTES..].chunks_exact(PAIR_BYTES).map(|pair| (ReplicaId(u64_le(pair, 0)), u64_le(pair, 8)));
        let header = Self {
            incarnation: u64_le(head, 16),
            segment: u64_le(head, 24),
            number,
            durable_upto: unpack(u64_le(head, 40)),
            boot_id: u64_le(head, 48),
            body_bytes: u32_le(head, 56),
            flags: u32_le(head, 60),
            this: pairs.by_ref().take(this).collect(),
            previous: pairs.collect(),
        };
        let sequences = header.this.iter().chain(&header.previous).map(|(_, sequence)| *sequence);
        (number > 0 && sequences.chain([number]).all(|number| number <= NUMBER_MAX)).then_some((header, length))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn headers() -> impl Strategy<Value = CommitHeader> {
        let list = || proptest::collection::vec((any::<u64>().prop_map(ReplicaId), 0..=NUMBER_MAX), 0..5);
        ((any::<[u64; 3]>(), 1..=NUMBER_MAX), any::<(u32, u32)>(), any::<(u32, u32)>(), list(), list()).prop_map(
            |(([incarnation, segment, boot_id], number), at, (body_bytes, flags), this, previous)| CommitHeader {
                incarnation,
                segment,
                number,
                durable_upto: LogPosition { segment: u64::from(at.0), byte: at.1 },
                boot_id,
                body_bytes,
                flags,
                this,
                previous,
            },
        )
    }

    proptest! {
        #[test]
        fn a_commit_header_comes_back_as_it_was(header in headers(), rest in 0..40_usize) {
            let mut out = Vec::new();
            header.encode(&mut out);
            let length = out.len();
            out.resize(length + rest, 0xee);
            prop_assert_eq!(CommitHeader::decode(&out), Some((header, length)));
        }

        #[test]
        fn a_damaged_commit_header_is_none(header in headers(), at in any::<proptest::sample::Index>(), bit in 0..8_u8) {
            let mut out = Vec::new();
            header.encode(&mut out);
            let at = at.index(out.len());
            out[at] ^= 1 << bit;
            prop_assert_eq!(CommitHeader::decode(&out), None);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(tail);
            let _ = CommitHeader::decode(&bytes);
        }
    }
}
