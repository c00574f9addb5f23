//! The file of a run: live batches of one lineage and retention class, grouped by partition, ready to be sent.
//!
//! ```text
//!  0          8         12      16      20         24   32            40        48
//!  | OTTLARUN | version | crc32 | class | rewrites | id | incarnation | lineage | zeros to the page |
//!  batches from byte 4096 on, end to end: whole, as the client sent them but for base offset and leader epoch
//!  tables: extents   x (topic 16, partition 4, batch count 4, first byte 4, 0 4)
//!          stand-ins x (byte 4, 0 4, timestamp 8)
//!  tail, the last 48 bytes: | extents 4 | stand-ins 4 | tables at 8 | incarnation 8 | id 8 | crc32 4 | 0 4 | OTTLAEND |
//! ```
//!
//! All integers are little-endian. The header's CRC covers its other fields, the tail's the tables and the tail before it;
//! batches have their own CRC-32C. An extent is a series of batches of one partition that follow each other in the
//! file. A stand-in is the time of a batch that has no timestamps: the proposer's clock, which the batch does not hold.
//! Invariant: a run with its tail holds everything that its `.idx` holds; a run is never changed and its id never reused.

use bytes::Bytes;
use ottla_protocol::ids::PartitionId;
use uuid::Uuid;

use super::Listing;
use crate::ids::{Lineage, RunId};
use ottla_env::disk::PAGE_BYTES;

const MAGIC: &[u8; 8] = b"OTTLARUN";
const TAIL_MAGIC: &[u8; 8] = b"OTTLAEND";
/// The version written, and the newest read.
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 48;
/// Batches begin here.
pub(crate) const DATA_FROM: u32 = PAGE_BYTES as u32;
/// Bytes of the tail.
pub(crate) const TAIL_BYTES: usize = 48;
const EXTENT_BYTES: usize = 32;
const STAND_IN_BYTES: usize = 16;

/// Batches of one partition that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) partition: PartitionId,
    pub(crate) batches: u32,
    pub(crate) first_byte: u32,
}

/// The timestamp used for a batch without timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StandIn {
    pub(crate) byte: u32,
    pub(crate) timestamp_ms: i64,
}

/// The content of the tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) extents: Vec<Extent>,
    /// In the order of their bytes.
    pub(crate) stand_ins: Vec<StandIn>,
}

/// The content of a header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFound {
    Sound { id: RunId, incarnation: u64, lineage: Lineage },
    Newer(u32),
    Damaged,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn header_crc(head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[8..12]);
    hasher.update(&head[16..HEADER_BYTES]);
    hasher.finalize()
}

/// The header page of a run.
pub(crate) fn encode_header(run: &Listing) -> Vec<u8> {
    let mut out = Vec::with_capacity(PAGE_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&u32::from(run.class.0).to_le_bytes());
    out.extend_from_slice(&run.rewrites.to_le_bytes());
    out.extend_from_slice(&run.id.0.to_le_bytes());
    out.extend_from_slice(&run.incarnation.to_le_bytes());
    out.extend_from_slice(&run.lineage.0.to_le_bytes());
    let crc = header_crc(&out);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out.resize(PAGE_BYTES, 0);
    out
}

/// The header at the beginning of a run.
pub(crate) fn decode_header(head: &[u8]) -> HeaderFound {
    if head.len() < HEADER_BYTES || !head.starts_with(MAGIC) || u32_at(head, 12) != header_crc(head) {
        return HeaderFound::Damaged;
    }
    match u32_at(head, 8) {
        VERSION => HeaderFound::Sound {
            id: RunId(u64_at(head, 24)),
            incarnation: u64_at(head, 32),
            lineage: Lineage(u64_at(head, 40)),
        },
        newer => HeaderFound::Newer(newer),
    }
}

/// Tables and tail, to stand at byte `at`: they end the file.
pub(crate) fn encode_tables(run: &Listing, tables: &Tables, at: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for extent in &tables.extents {
        out.extend_from_slice(extent.partition.topic.as_bytes());
        out.extend_from_slice(&extent.partition.index.to_le_bytes());
        out.extend_from_slice(&extent.batches.to_le_bytes());
        out.extend_from_slice(&extent.first_byte.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }
    for stand_in in &tables.stand_ins {
        out.extend_from_slice(&stand_in.byte.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&stand_in.timestamp_ms.to_le_bytes());
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    out.extend_from_slice(&count(tables.extents.len()));
    out.extend_from_slice(&count(tables.stand_ins.len()));
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(&run.incarnation.to_le_bytes());
    out.extend_from_slice(&run.id.0.to_le_bytes());
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(TAIL_MAGIC);
    out
}

/// Bytes that the tables of so many extents and stand-ins take, tail included.
pub(crate) fn tables_bytes(extents: usize, stand_ins: usize) -> u64 {
    (extents * EXTENT_BYTES + stand_ins * STAND_IN_BYTES + TAIL_BYTES) as u64
}

/// Where the tables begin, by the last bytes of the file; not verified before [`decode_tables`].
pub(crate) fn tables_at(tail: &[u8; TAIL_BYTES], file_bytes: u64) -> Option<u64> {
    let at = u64_at(tail, 8);
    let bytes = tables_bytes(u32_at(tail, 0) as usize, u32_at(tail, 4) as usize);
    let sound = tail.ends_with(TAIL_MAGIC) && at >= u64::from(DATA_FROM) && at.checked_add(bytes) == Some(file_bytes);
    sound.then_some(at)
}

/// The tables in the bytes from [`tables_at`] to the end of the file; `None` if they are damaged or of another run.
pub(crate) fn decode_tables(run: &Listing, image: &Bytes) -> Option<Tables> {
    let (tables, tail) = image.split_at_checked(image.len().checked_sub(TAIL_BYTES)?)?;
    let (extents, stand_ins) = (u32_at(tail, 0) as usize, u32_at(tail, 4) as usize);
    let sound = crc32fast::hash(image.get(..image.len() - 16)?) == u32_at(tail, 32)
        && u64_at(tail, 16) == run.incarnation
        && u64_at(tail, 24) == run.id.0
        && tables.len() == extents * EXTENT_BYTES + stand_ins * STAND_IN_BYTES;
    if !sound {
        return None;
    }
    let (first, second) = tables.split_at(extents * EXTENT_BYTES);
    let extent = |row: &[u8]| {
        let topic = Uuid::from_slice(&row[..16]).ok()?;
        let partition = PartitionId { topic, index: u32_at(row, 16).cast_signed() };
        Some(Extent { partition, batches: u32_at(row, 20), first_byte: u32_at(row, 24) })
    };
    let stand_in = |row: &[u8]| StandIn { byte: u32_at(row, 0), timestamp_ms: u64_at(row, 8).cast_signed() };
    Some(Tables {
        extents: first.chunks_exact(EXTENT_BYTES).map(extent).collect::<Option<_>>()?,
        stand_ins: second.chunks_exact(STAND_IN_BYTES).map(stand_in).collect(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::runs::retention_class::RetentionClass;

    fn listing(id: u64, class: u8) -> Listing {
        Listing {
            id: RunId(id),
            lineage: Lineage(id ^ 5),
            incarnation: id.wrapping_mul(77),
            bytes: 0,
            batch_bytes: 0,
            class: RetentionClass(class),
            rewrites: 2,
        }
    }

    fn tables() -> impl Strategy<Value = Tables> {
        let extents = prop::collection::vec((any::<u128>(), any::<i32>(), any::<u32>(), any::<u32>()), 0..6);
        let stand_ins = prop::collection::vec((any::<u32>(), any::<i64>()), 0..6);
        (extents, stand_ins).prop_map(|(extents, stand_ins)| Tables {
            extents: extents
                .into_iter()
                .map(|(topic, index, batches, first_byte)| Extent {
                    partition: PartitionId { topic: Uuid::from_u128(topic), index },
                    batches,
                    first_byte,
                })
                .collect(),
            stand_ins: stand_ins.into_iter().map(|(byte, timestamp_ms)| StandIn { byte, timestamp_ms }).collect(),
        })
    }

    proptest! {
        #[test]
        fn header_and_tables_come_back_as_they_were(id in 0..u64::MAX / 4, class in any::<u8>(), tables in tables(), at in 4096..1_u64 << 32) {
            let run = listing(id, class);
            let header = encode_header(&run);
            prop_assert_eq!(header.len(), PAGE_BYTES);
            prop_assert_eq!(u32_at(&header, 16), u32::from(run.class.0));
            let sound = HeaderFound::Sound { id: run.id, incarnation: run.incarnation, lineage: run.lineage };
            prop_assert_eq!(decode_header(&header), sound);
            // No more than the header is read of a run that is opened.
            prop_assert_eq!(decode_header(&header[..HEADER_BYTES]), decode_header(&header));
            prop_assert_eq!(decode_header(&header[..HEADER_BYTES - 1]), HeaderFound::Damaged);
            let image = encode_tables(&run, &tables, at);
            prop_assert_eq!(image.len() as u64, tables_bytes(tables.extents.len(), tables.stand_ins.len()));
            let tail = image.last_chunk::<TAIL_BYTES>().unwrap();
            prop_assert_eq!(tables_at(tail, at + image.len() as u64), Some(at));
            prop_assert_eq!(tables_at(tail, at + image.len() as u64 + 1), None);
            prop_assert_eq!(decode_tables(&run, &Bytes::from(image.clone())), Some(tables));
            prop_assert_eq!(decode_tables(&listing(id + 1, class), &Bytes::from(image)), None, "of another run");
        }

        #[test]
        fn a_flipped_bit_is_seen(tables in tables(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let run = listing(9, 3);
            let mut header = encode_header(&run);
            header[at.index(HEADER_BYTES)] ^= 1 << bit;
            prop_assert_eq!(decode_header(&header), HeaderFound::Damaged);
            let mut image = encode_tables(&run, &tables, 4096);
            // The last twelve bytes, zeros and magic, are looked at by `tables_at`.
            let checked = image.len() - 12;
            image[at.index(checked)] ^= 1 << bit;
            prop_assert_eq!(decode_tables(&run, &Bytes::from(image)), None);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), file_bytes in any::<u64>()) {
            let _ = decode_header(&bytes);
            let _ = decode_tables(&listing(1, 1), &Bytes::from(bytes.clone()));
            if let Some(tail) = bytes.last_chunk::<TAIL_BYTES>() {
                let _ = tables_at(tail, file_bytes);
            }
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut header = encode_header(&listing(1, 1));
        header[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
        let crc = header_crc(&header);
        header[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode_header(&header), HeaderFound::Newer(VERSION + 1));
    }
}
