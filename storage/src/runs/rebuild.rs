//! Rebuilds the index of a run from the run alone: for a `.idx` file that is missing or damaged.
//!
//! May not know: where the index file is written. Runs on a thread that may block.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::batch::{HEADER_BYTES, MAGIC, RawHeader};

use super::Listing;
use super::format::{Extent, TAIL_BYTES, Tables, decode_tables, tables_at};
use crate::ids::LogPosition;
use crate::index::file::encode;
use crate::index::index_entry::IndexEntry;
use crate::index::{ExtentKey, IndexedBatch};
use crate::space::table::SegmentRanges;
use ottla_env::disk::{File, read_exact_at};

/// Entries by partition, each a series of consecutive offsets.
#[derive(Debug, Default)]
pub(crate) struct RunEntries(BTreeMap<ExtentKey, Vec<Vec<IndexEntry>>>);

impl RunEntries {
    /// Adds the next batch of a partition.
    pub(crate) fn push(&mut self, key: ExtentKey, batch: &IndexedBatch) {
        let slices = self.0.entry(key).or_default();
        let follows = slices.last().and_then(|slice| slice.last()).is_some_and(|last: &IndexEntry| {
            last.end_offset() == batch.base_offset
                && last.bytes_through() + u64::from(batch.bytes) <= u64::from(u32::MAX)
        });
        if !follows {
            slices.push(Vec::new());
        }
        if let Some(slice) = slices.last_mut() {
            let bytes_before = slice.last().map_or(0, IndexEntry::bytes_through);
            slice.push(IndexEntry::new(batch, u32::try_from(bytes_before).unwrap_or(u32::MAX)));
        }
    }

    /// The bytes of the run's `.idx`.
    pub(crate) fn encode(&self, run: &Listing) -> Vec<u8> {
        let slices = self.0.iter().map(|(key, slices)| (*key, slices.iter().map(Vec::as_slice).collect())).collect();
        encode(run.id.file_number(), run.used_bytes(), &SegmentRanges::default(), &slices)
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn read_tables(run: &Listing, file: &Arc<dyn File>) -> io::Result<(Tables, u64)> {
    let bytes = file.bytes()?;
    let mut tail = [0; TAIL_BYTES];
    let tail_at = bytes.checked_sub(TAIL_BYTES as u64).ok_or_else(|| damaged("the run is too short"))?;
    read_exact_at(&**file, &mut tail, tail_at)?;
    let at = tables_at(&tail, bytes).ok_or_else(|| damaged("the run's tail is damaged"))?;
    let length = usize::try_from(bytes - at).map_err(|_| damaged("the run's tables are too long"))?;
    let mut image = vec![0; length];
    read_exact_at(&**file, &mut image, at)?;
    let tables = decode_tables(run, &Bytes::from(image)).ok_or_else(|| damaged("the run's tables are damaged"))?;
    Ok((tables, at))
}

/// Walks the batches of one extent from header to header.
fn read_extent(
    run: &Listing,
    file: &Arc<dyn File>,
    extent: &Extent,
    data_end: u64,
    stand_ins: &BTreeMap<u32, i64>,
    entries: &mut RunEntries,
) -> io::Result<()> {
    let key = ExtentKey { partition: extent.partition, lineage: run.lineage };
    let mut byte = extent.first_byte;
    for _ in 0..extent.batches {
        let mut head = [0; HEADER_BYTES];
        read_exact_at(&**file, &mut head, u64::from(byte))?;
        let Some(header) = RawHeader::of(&head) else { return Err(damaged("a batch of the run has no header")) };
        let bytes = u32::try_from(header.total_bytes()).map_err(|_| damaged("a batch of the run is too long"))?;
        let end = u64::from(byte) + u64::from(bytes);
        // A length below that of the header would never reach the next batch.
        let sound = header.magic() == MAGIC && end <= data_end && bytes as usize >= HEADER_BYTES;
        let (Some(record_count), true) = (header.offset_count(), sound) else {
            return Err(damaged("a batch header of the run is damaged"));
        };
        entries.push(
            key,
            &IndexedBatch {
                base_offset: header.base_offset(),
                record_count,
                max_timestamp_ms: stand_ins.get(&byte).copied().unwrap_or_else(|| header.max_timestamp()),
                epoch: header.leader_epoch(),
                position: LogPosition { segment: run.id.file_number(), byte },
                bytes,
            },
        );
        byte = u32::try_from(end).map_err(|_| damaged("the run is too long"))?;
    }
    Ok(())
}

/// The bytes of a run's `.idx`, from the run.
pub(crate) fn index_image(run: &Listing, file: &Arc<dyn File>) -> io::Result<Vec<u8>> {
    let (tables, data_end) = read_tables(run, file)?;
    let stand_ins = tables.stand_ins.iter().map(|stand_in| (stand_in.byte, stand_in.timestamp_ms)).collect();
    let mut entries = RunEntries::default();
    for extent in &tables.extents {
        read_extent(run, file, extent, data_end, &stand_ins, &mut entries)?;
    }
    Ok(entries.encode(run))
}
