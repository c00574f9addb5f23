//! The mark of a prepared (preallocated) segment file: its first page until the segment's first commit is written.
//!
//! ```text
//!  0            8       12        16         24        32
//!  | "OTTLAPRE" | crc32 | version | sequence | boot id | zeros to the page
//! ```
//! `crc32` covers everything from byte 12. The first write of a segment overwrites its first page. So while the mark is
//! present nothing in the file was ever durable; and if the machine has not restarted since the mark was made, nothing was
//! written after it either: a killed process leaves the front of its write, never a later part alone.
//!
//! May not know: what follows it in the file.

use super::frame::{u32_le, u64_le};
use ottla_env::disk::PAGE_BYTES;

const MAGIC: [u8; 8] = *b"OTTLAPRE";
const VERSION: u32 = 1;
const MARK_BYTES: usize = 32;

/// A prepared file's first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PreparedMark {
    pub(crate) sequence: u64,
    /// The boot under which the file was made.
    pub(crate) boot_id: u64,
}

impl PreparedMark {
    /// The mark as a page.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_BYTES);
        page.extend_from_slice(&MAGIC);
        page.extend_from_slice(&[0; 4]);
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&self.sequence.to_le_bytes());
        page.extend_from_slice(&self.boot_id.to_le_bytes());
        let crc = crc32fast::hash(&page[12..]);
        page[8..12].copy_from_slice(&crc.to_le_bytes());
        page.resize(PAGE_BYTES, 0);
        page
    }

    /// The mark on this page, if there is a sound one.
    pub(crate) fn decode(page: &[u8]) -> Option<Self> {
        let head = page.get(..MARK_BYTES)?;
        let sound =
            head[..8] == MAGIC && crc32fast::hash(&head[12..]) == u32_le(head, 8) && u32_le(head, 12) == VERSION;
        sound.then(|| Self { sequence: u64_le(head, 16), boot_id: u64_le(head, 24) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mark_comes_back_as_it_was_and_a_damaged_one_not_at_all(
            sequence in any::<u64>(),
            boot_id in any::<u64>(),
            at in 0..MARK_BYTES,
            bit in 0..8_u8,
        ) {
            let mark = PreparedMark { sequence, boot_id };
            let mut page = mark.encode();
            prop_assert_eq!(page.len(), PAGE_BYTES);
            prop_assert_eq!(PreparedMark::decode(&page), Some(mark));
            page[at] ^= 1 << bit;
            prop_assert_eq!(PreparedMark::decode(&page), None);
        }
    }
}
