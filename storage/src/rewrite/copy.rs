//! Copies live batches from segments and runs into a run, batch by batch, each verified. Runs on a thread that may
//! block.
//!
//! May not know: why the files were chosen, or how the run is committed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::RetentionClass;
use crate::ids::Lineage;
use crate::index::index_entry::IndexEntry;
use crate::index::segment_slice::SegmentSlice;
use crate::index::{Access, BatchIndex, ExtentKey, IndexedBatch};
use crate::runs::writer::{PushError, RunWriter};
use ottla_env::disk::{File, read_exact_at};

/// Bytes that one step copies, about.
pub(crate) const STEP_BYTES: usize = 1 << 20;
/// Entries taken from an index at a time.
const ENTRIES_PER_READ: u32 = 256;
/// Batches that lie this close together are read together.
const GAP_BYTES: u64 = 8 << 10;
/// Most bytes of one read, a longer batch aside.
const READ_BYTES: u64 = 512 << 10;

/// The input of the runs of one lineage and class: slices by partition, in the order of their offsets.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) lineage: Lineage,
    pub(crate) class: RetentionClass,
    pub(crate) slices: Vec<(ExtentKey, SegmentSlice)>,
}

/// Splits live slices into groups; each partition's slices stay in the order in which they come.
pub(crate) fn group(
    slices: Vec<(ExtentKey, SegmentSlice)>,
    class_of: impl Fn(ExtentKey) -> RetentionClass,
) -> Vec<Group> {
    let mut groups: BTreeMap<(Lineage, RetentionClass), Vec<(ExtentKey, SegmentSlice)>> = BTreeMap::new();
    for (key, slice) in slices {
        groups.entry((key.lineage, class_of(key))).or_default().push((key, slice));
    }
    groups.into_iter().map(|((lineage, class), slices)| Group { lineage, class, slices }).collect()
}

/// The open files from which a job copies.
pub(crate) type Sources = BTreeMap<u64, Arc<dyn File>>;

/// The progress of copying a group.
pub(crate) struct Cursor {
    slices: Vec<(ExtentKey, SegmentSlice)>,
    slice: usize,
    /// Number of the next entry of the slice.
    entry: u32,
    /// Where the last step ended: the next entry, if its batch is damaged.
    damaged: Option<(ExtentKey, IndexedBatch)>,
}

impl Cursor {
    pub(crate) fn new(group: Group) -> Self {
        let entry = group.slices.first().map_or(0, |(_, slice)| slice.dead_entries);
        Self { slices: group.slices, slice: 0, entry, damaged: None }
    }

    /// True when everything is copied.
    pub(crate) fn is_done(&self) -> bool {
        self.slice >= self.slices.len()
    }

    /// Bytes still to be copied, at most.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.slices.iter().skip(self.slice).map(|(_, slice)| slice.live_bytes()).sum()
    }

    /// Slices still to be copied.
    pub(crate) fn slices_left(&self) -> usize {
        self.slices.len().saturating_sub(self.slice)
    }

    fn next_slice(&mut self) {
        self.slice += 1;
        self.entry = self.slices.get(self.slice).map_or(0, |(_, slice)| slice.dead_entries);
    }

    /// The damaged batch that ended the last step.
    pub(crate) fn damaged(&self) -> Option<(ExtentKey, IndexedBatch)> {
        self.damaged
    }

    /// Adds these bytes in place of the damaged batch; they are verified as any other.
    pub(crate) fn replace_damaged(&mut self, batch: &[u8], writer: &mut RunWriter) -> Result<(), PushError> {
        if let Some((key, entry)) = &self.damaged {
            writer.push(*key, entry, batch)?;
            self.entry += 1;
            self.damaged = None;
        }
        Ok(())
    }

    /// Leaves the damaged batch out.
    pub(crate) fn skip_damaged(&mut self) {
        self.entry += u32::from(self.damaged.take().is_some());
    }

    /// Copies about [`STEP_BYTES`], less if the run is full or the group is done. An error leaves the cursor at the
    /// batch that was not copied.
    pub(crate) fn step(
        &mut self,
        index: &BatchIndex,
        sources: &Sources,
        writer: &mut RunWriter,
        run_bytes: u64,
    ) -> Result<(), PushError> {
        while let Some((key, slice)) = self.slices.get(self.slice) {
            if writer.is_full(run_bytes) || writer.buffered_bytes() >= STEP_BYTES {
                break;
            }
            let count = ENTRIES_PER_READ.min(slice.entries.count().saturating_sub(self.entry));
            if count == 0 {
                self.next_slice();
                continue;
            }
            let entries = slice.entries.range(self.entry, count, Access::MayBlock)?;
            let source = sources.get(&slice.segment).ok_or_else(|| io::Error::other("a source is not open"))?;
            let log_start = index.log_start(*key);
            let live = entries.partition_point(|entry| entry.end_offset() <= log_start);
            let room = STEP_BYTES.saturating_sub(writer.buffered_bytes());
            let mut copied = live;
            let outcome = copy_entries(*key, slice.segment, &entries, &mut copied, &**source, writer, room);
            self.entry += u32::try_from(copied).unwrap_or(count);
            if let (Err(PushError::Damaged { .. }), Some(entry)) = (&outcome, entries.get(copied)) {
                self.damaged = Some((*key, entry.batch(slice.segment)));
            }
            outcome?;
        }
        writer.flush()?;
        Ok(())
    }
}

/// Copies entries from number `copied` on until about `room` bytes are taken, and counts them there.
fn copy_entries(
    key: ExtentKey,
    segment: u64,
    entries: &[IndexEntry],
    copied: &mut usize,
    source: &dyn File,
    writer: &mut RunWriter,
    room: usize,
) -> Result<(), PushError> {
    let mut bytes = 0;
    let mut buffer = Vec::new();
    while let Some(first) = entries.get(*copied) {
        if bytes >= room {
            break;
        }
        let span = span_of(&entries[*copied..]);
        let start = u64::from(first.byte);
        let end = entries.get(*copied + span - 1).map_or(start, |last| u64::from(last.byte) + u64::from(last.bytes));
        buffer.resize(usize::try_from(end - start).unwrap_or(0), 0);
        let whole = read_exact_at(source, &mut buffer, start);
        for entry in &entries[*copied..*copied + span] {
            let batch = entry.batch(segment);
            match &whole {
                Ok(()) => {
                    let at = usize::try_from(u64::from(entry.byte) - start).unwrap_or(usize::MAX);
                    let bytes = buffer.get(at..at + entry.bytes as usize).unwrap_or_default();
                    writer.push(key, &batch, bytes)?;
                }
                // The unreadable bytes may lie between the batches.
                Err(_) => {
                    let mut alone = vec![0; entry.bytes as usize];
                    read_exact_at(source, &mut alone, u64::from(entry.byte)).map_err(|error| PushError::Damaged {
                        file: segment,
                        offset: entry.base_offset,
                        cause: error.to_string(),
                    })?;
                    writer.push(key, &batch, &alone)?;
                }
            }
            bytes += entry.bytes as usize;
            *copied += 1;
        }
    }
    Ok(())
}

/// How many entries from the front are read at once.
fn span_of(entries: &[IndexEntry]) -> usize {
    let Some(first) = entries.first() else { return 0 };
    let mut end = u64::from(first.byte) + u64::from(first.bytes);
    let mut count = 1;
    for entry in &entries[1..] {
        let byte = u64::from(entry.byte);
        let next_end = byte + u64::from(entry.bytes);
        if byte < end || byte - end > GAP_BYTES || next_end - u64::from(first.byte) > READ_BYTES {
            break;
        }
        end = next_end;
        count += 1;
    }
    count
}
