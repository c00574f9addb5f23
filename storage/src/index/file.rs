//! The `.idx` file of a sealed segment: an index of its batches, sorted by partition and offset.
//!
//! ```text
//!  0          8         12          16        24      28           32        36         40         44
//!  | OTTLAIDX | version | dir bytes | segment | used  | entry count | entries | verdicts | extents | dir crc | header crc |
//!  directory: entries  x (replica 8, first index 8, last index 8)      replicas with accepted batches here
//!             verdicts x (replica 8, first index 8, last index 8)      replicas with verdict frames here
//!             extents  x (topic 16, partition 4, 0 4, lineage 8, first index entry 4, count 4,
//!                         base offset 8, end offset 8, greatest timestamp 8, bytes 8)
//!  index entries: entry count x 40 bytes, see `index_entry`
//! ```
//!
//! All integers are little-endian. Header and directory are checked when the file is opened, an entry when it is read.
//! The file is a pure function of the segment's frames and their verdicts: a rebuilt one is equal byte for byte.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_protocol::ids::{Offset, PartitionId};
use uuid::Uuid;

use super::ExtentKey;
use super::index_entry::{INDEX_ENTRY_BYTES, IndexEntry};
use super::open_file::IndexFile;
use super::segment_slice::{FileEntries, IndexEntries, SegmentSlice};
use crate::ids::{Lineage, RaftIndex, ReplicaId};
use crate::page_cache::mapped::Mapped;
use crate::space::table::{IndexRange, SegmentRanges};
use ottla_env::disk::{File, is_unreadable, read_exact_at};

const MAGIC: &[u8; 8] = b"OTTLAIDX";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 52;
const RANGE_BYTES: usize = 24;
const EXTENT_BYTES: usize = 72;

/// Limit of the entry count in a header; a segment is full long before.
const INDEX_ENTRIES_MAX: u32 = 1 << 26;
/// Limit of the directory's size.
const DIRECTORY_BYTES_MAX: u32 = 1 << 30;

/// An `.idx` file as read when it is opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) ranges: SegmentRanges,
    pub(crate) slices: Vec<(ExtentKey, SegmentSlice)>,
}

/// The bytes of the file for a segment with these index entries. A key's slices must be in offset order.
pub(crate) fn encode(
    segment: u64,
    used_bytes: u32,
    ranges: &SegmentRanges,
    slices: &BTreeMap<ExtentKey, Vec<&[IndexEntry]>>,
) -> Vec<u8> {
    let mut directory = Vec::new();
    for (replica, (first, last)) in ranges.entries.iter().chain(&ranges.verdicts) {
        directory.extend_from_slice(&replica.0.to_le_bytes());
        directory.extend_from_slice(&first.0.to_le_bytes());
        directory.extend_from_slice(&last.0.to_le_bytes());
    }
    let mut index_entries = Vec::new();
    let (mut entry_count, mut extents) = (0u32, 0u32);
    for (key, runs) in slices {
        for run in runs {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let count = run.len() as u32;
            directory.extend_from_slice(key.partition.topic.as_bytes());
            directory.extend_from_slice(&key.partition.index.to_le_bytes());
            directory.extend_from_slice(&0u32.to_le_bytes());
            directory.extend_from_slice(&key.lineage.0.to_le_bytes());
            directory.extend_from_slice(&entry_count.to_le_bytes());
            directory.extend_from_slice(&count.to_le_bytes());
            directory.extend_from_slice(&first.base_offset.0.to_le_bytes());
            directory.extend_from_slice(&last.end_offset().0.to_le_bytes());
            let newest = run.iter().map(|entry| entry.max_timestamp_ms).max().unwrap_or(i64::MIN);
            directory.extend_from_slice(&newest.to_le_bytes());
            directory.extend_from_slice(&last.bytes_through().to_le_bytes());
            run.iter().for_each(|entry| entry.encode(&mut index_entries));
            entry_count += count;
            extents += 1;
        }
    }
    let mut out = Vec::with_capacity(HEADER_BYTES + directory.len() + index_entries.len());
    let word = |n: usize| {
        assert!(u32::try_from(n).is_ok(), "segment {segment}: {n} in the header of its index");
        (n as u32).to_le_bytes()
    };
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&word(directory.len()));
    out.extend_from_slice(&segment.to_le_bytes());
    out.extend_from_slice(&used_bytes.to_le_bytes());
    out.extend_from_slice(&entry_count.to_le_bytes());
    out.extend_from_slice(&word(ranges.entries.len()));
    out.extend_from_slice(&word(ranges.verdicts.len()));
    out.extend_from_slice(&extents.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&directory).to_le_bytes());
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&directory);
    out.extend_from_slice(&index_entries);
    out
}

/// Takes integers off the front of checked bytes.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }
}

#[derive(Debug, Clone, Copy)]
struct Header {
    directory_bytes: u32,
    entry_count: u32,
    entries: u32,
    verdicts: u32,
    extents: u32,
    directory_crc: u32,
}

fn decode_header(bytes: &[u8; HEADER_BYTES], segment: u64, used_bytes: u32) -> Option<Header> {
    let mut words = Words(bytes);
    let magic: [u8; 8] = words.take()?;
    let version = words.u32()?;
    let directory_bytes = words.u32()?;
    let found = (words.u64()?, words.u32()?);
    let header = Header {
        directory_bytes,
        entry_count: words.u32()?,
        entries: words.u32()?,
        verdicts: words.u32()?,
        extents: words.u32()?,
        directory_crc: words.u32()?,
    };
    let crc = words.u32()?;
    let expected = u64::from(header.entries) * RANGE_BYTES as u64
        + u64::from(header.verdicts) * RANGE_BYTES as u64
        + u64::from(header.extents) * EXTENT_BYTES as u64;
    let sound = &magic == MAGIC
        && version == VERSION
        && crc == crc32fast::hash(&bytes[..HEADER_BYTES - 4])
        && found == (segment, used_bytes)
        && header.entry_count <= INDEX_ENTRIES_MAX
        && header.directory_bytes <= DIRECTORY_BYTES_MAX
        && u64::from(header.directory_bytes) == expected;
    sound.then_some(header)
}

fn decode_ranges(words: &mut Words<'_>, count: u32) -> Option<BTreeMap<ReplicaId, IndexRange>> {
    let mut ranges = BTreeMap::new();
    for _ in 0..count {
        let replica = ReplicaId(words.u64()?);
        ranges.insert(replica, (RaftIndex(words.u64()?), RaftIndex(words.u64()?)));
    }
    Some(ranges)
}

fn decode_extent(words: &mut Words<'_>, segment: u64, file: &Arc<IndexFile>) -> Option<(ExtentKey, SegmentSlice)> {
    let topic = Uuid::from_bytes(words.take()?);
    let index = i32::from_le_bytes(words.take()?);
    words.u32()?;
    let lineage = Lineage(words.u64()?);
    let (first, count) = (words.u32()?, words.u32()?);
    let slice = SegmentSlice {
        segment,
        base_offset: Offset(words.i64()?),
        end_offset: Offset(words.i64()?),
        max_timestamp_ms: words.i64()?,
        bytes: words.u64()?,
        dead_entries: 0,
        dead_bytes: 0,
        entries: IndexEntries::File(FileEntries { file: Arc::clone(file), first, count }),
    };
    let sound = first.checked_add(count)? <= file.entry_count
        && slice.base_offset <= slice.end_offset
        // Positions in a file have four bytes.
        && slice.bytes <= u64::from(u32::MAX);
    sound.then_some((ExtentKey { partition: PartitionId { topic, index }, lineage }, slice))
}

/// Reads and checks header and directory. `None` if the file is damaged, cannot be read or is of another segment: it is to
/// be rebuilt.
pub(crate) fn open(file: Arc<dyn File>, segment: u64, used_bytes: u32) -> std::io::Result<Option<Opened>> {
    match open_readable(file, segment, used_bytes) {
        Err(error) if is_unreadable(&error) => {
            tracing::error!(segment, %error, "a page of an index file is lost");
            Ok(None)
        }
        opened => opened,
    }
}

fn open_readable(file: Arc<dyn File>, segment: u64, used_bytes: u32) -> std::io::Result<Option<Opened>> {
    let bytes = file.bytes()?;
    let mut image = [0; HEADER_BYTES];
    if bytes < HEADER_BYTES as u64 {
        return Ok(None);
    }
    read_exact_at(&*file, &mut image, 0)?;
    let Some(header) = decode_header(&image, segment, used_bytes) else { return Ok(None) };
    let entries_at = HEADER_BYTES as u64 + u64::from(header.directory_bytes);
    if bytes != entries_at + u64::from(header.entry_count) * INDEX_ENTRY_BYTES as u64 {
        return Ok(None);
    }
    let mut directory = vec![0; header.directory_bytes as usize];
    read_exact_at(&*file, &mut directory, HEADER_BYTES as u64)?;
    if crc32fast::hash(&directory) != header.directory_crc {
        return Ok(None);
    }
    let mapped = file.map()?.map(Mapped::new).filter(Mapped::is_guarded);
    let index = Arc::new(IndexFile { segment, file, mapped, entries_at, entry_count: header.entry_count });
    let mut words = Words(&directory);
    Ok((|| {
        let entries = decode_ranges(&mut words, header.entries)?;
        let verdicts = decode_ranges(&mut words, header.verdicts)?;
        let mut slices = Vec::with_capacity(header.extents as usize);
        for _ in 0..header.extents {
            slices.push(decode_extent(&mut words, segment, &index)?);
        }
        Some(Opened { ranges: SegmentRanges { entries, verdicts }, slices })
    })())
}
