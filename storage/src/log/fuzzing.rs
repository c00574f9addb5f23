//! The log's part of the fuzz targets: frames, headers, marks, and the recovery of a segment file that holds anything.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::batch::{CRC_FROM, HEADER_BYTES, crc32c};
use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId};
use uuid::Uuid;

use super::commit::{CommitHeader, FLAG_CLEAN};
use super::frame::{DESCRIPTOR_BYTES, HEAD_BYTES, RawFrame, Stamp, decode, encode, padded};
use super::frame_body::{from_raw, to_raw};
use super::prepared_mark::PreparedMark;
use super::segment_header::{HeaderFound, ReplicaRow, SegmentHeader};
use super::types::{EntryRange, FrameBody, GroupCreation, LogError, LogOptions, NoSink};
use super::{Log, segment_path};
use crate::entry::{Entry, EntryBatch, EntryKind, EntryVerdicts, Verdict, Vote};
use crate::fuzzing::input::{disk_with, long, put_word, split, with_selector, word};
use crate::ids::{Lineage, LogId, LogPosition, RaftIndex, ReplicaId, Term};
use ottla_env::disk::{Disk, OpenMode, read_exact_at};
use ottla_env::sim;
use ottla_env::sim::disk::{SimDisk, SimDiskOptions};

const STAMP: Stamp = Stamp { incarnation: 11, replica: ReplicaId(3), sequence: 5, durable_upto: 0 };

/// Makes the length and the checksum of the frame at the beginning right; its length, if its parts fit.
fn mend_frame(bytes: &mut [u8]) -> Option<usize> {
    bytes.get(..HEAD_BYTES)?;
    let (count, payload_bytes) = (word(bytes, 20) as usize, word(bytes, 72) as usize);
    let described = HEAD_BYTES.checked_add(count.checked_mul(DESCRIPTOR_BYTES)?)?;
    let batches_at = described.checked_add(payload_bytes)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytes.get(8..batches_at)?);
    let mut end = batches_at;
    for number in 0..count {
        let batch_bytes = word(bytes, HEAD_BYTES + number * DESCRIPTOR_BYTES + 20) as usize;
        let batch = bytes.get(end..end.checked_add(batch_bytes)?)?;
        crc.update(batch.get(..HEADER_BYTES)?);
        end += batch_bytes;
    }
    put_word(bytes, 4, crc.finalize());
    put_word(bytes, 0, u32::try_from(end).ok()?);
    Some(end)
}

/// Makes the checksum of a header right that covers everything from byte 12 to the length it announces at byte 12.
fn mend_header(bytes: &mut [u8]) -> Option<usize> {
    let length = word(bytes, 12) as usize;
    let crc = crc32fast::hash(bytes.get(12..length)?);
    put_word(bytes, 8, crc);
    Some(length)
}

/// One frame: what is read is written again and reads the same, as bytes and as what it means.
pub(crate) fn frame(data: &[u8]) {
    let Some((mend, mut bytes)) = split(data) else { return };
    if mend {
        let _ = mend_frame(&mut bytes);
    }
    let incarnation = long(&bytes, 8);
    let Some(decoded) = decode(&Bytes::from(bytes), 0, incarnation) else { return };
    if decoded.damaged_batches.is_empty() {
        let mut out = Vec::new();
        encode(&mut out, decoded.stamp, &decoded.frame);
        let again = decode(&Bytes::from(out), 0, incarnation).unwrap();
        assert!((again.stamp, &again.frame) == (decoded.stamp, &decoded.frame));
    }
    if let Some(body) = from_raw(decoded.frame, decoded.stamp.replica) {
        assert!(from_raw(to_raw(body.clone()), decoded.stamp.replica) == Some(body));
    }
}

fn log_id(index: u64) -> LogId {
    LogId { term: Term(2), index: RaftIndex(index) }
}

/// A batch whose head and checksum are sound.
fn batch(fill: u8, bytes: usize) -> EntryBatch {
    let mut data = vec![fill; HEADER_BYTES + bytes];
    let length = u32::try_from(data.len() - 12).unwrap();
    data[8..12].copy_from_slice(&length.to_be_bytes());
    data[16] = 2;
    data[23..27].copy_from_slice(&0_u32.to_be_bytes());
    let crc = crc32c(&data[CRC_FROM..]);
    data[17..21].copy_from_slice(&crc.to_be_bytes());
    let partition = PartitionId { topic: Uuid::from_u128(7), index: i32::from(fill % 3) };
    EntryBatch { partition, data: Bytes::from(data) }
}

fn entry(index: u64, batches: Vec<EntryBatch>) -> Entry {
    let (kind, payload) = (EntryKind::Normal, Bytes::from_static(b"command"));
    Entry { log_id: log_id(index), kind, clock_ms: 1_000, payload, batches: batches.into() }
}

fn bodies() -> Vec<FrameBody> {
    let vote = Vote { term: Term(3), voted_for: ReplicaId(3), committed: true };
    let accepted = |offset| Verdict::Accepted { base_offset: Offset(offset), epoch: LeaderEpoch(4) };
    let payload = Bytes::from_static(b"a shard");
    let creation = GroupCreation { replica: ReplicaId(3), payload, vote: Some(vote), purged: Some(log_id(1)) };
    let verdicts = vec![accepted(7), Verdict::Rejected, accepted(1 << 40)];
    vec![
        FrameBody::Create(creation),
        FrameBody::Vote(vote),
        FrameBody::Entry(entry(2, Vec::new())),
        FrameBody::Entry(entry(3, vec![batch(1, 0), batch(2, 30)])),
        FrameBody::Truncate(Some(log_id(2))),
        FrameBody::Truncate(None),
        FrameBody::Purge(log_id(1)),
        FrameBody::Verdicts(vec![EntryVerdicts {
            log_id: log_id(2),
            verdicts: verdicts.clone(),
            lineages: Vec::new(),
            relocated_to: None,
        }]),
        FrameBody::Verdicts(vec![EntryVerdicts {
            log_id: log_id(2),
            verdicts,
            lineages: vec![Some(Lineage(5)), None, Some(Lineage(5))],
            relocated_to: Some(9),
        }]),
        FrameBody::Remove,
        FrameBody::Lost,
    ]
}

pub(crate) fn frame_seeds() -> Vec<Vec<u8>> {
    let encoded = |body| {
        let raw: RawFrame = to_raw(body);
        let mut out = Vec::new();
        encode(&mut out, STAMP, &raw);
        out
    };
    with_selector(bodies().into_iter().map(encoded))
}

/// The header of a commit.
pub(crate) fn commit(data: &[u8]) {
    let Some((mend, mut bytes)) = split(data) else { return };
    if mend {
        let _ = mend_header(&mut bytes);
    }
    let Some((header, length)) = CommitHeader::decode(&bytes) else { return };
    let mut out = Vec::new();
    header.encode(&mut out);
    assert!(out == bytes[..length], "what was read is written differently");
}

pub(crate) fn commit_seeds() -> Vec<Vec<u8>> {
    let header = |this: Vec<(ReplicaId, u64)>, previous| {
        let header = CommitHeader {
            incarnation: 11,
            segment: 1,
            number: 4,
            durable_upto: LogPosition { segment: 1, byte: 8192 },
            boot_id: 9,
            body_bytes: 96,
            flags: FLAG_CLEAN,
            this,
            previous,
        };
        let mut out = Vec::new();
        header.encode(&mut out);
        out
    };
    let one = vec![(ReplicaId(3), 5)];
    let two = vec![(ReplicaId(3), 6), (ReplicaId(8), 1)];
    with_selector([header(Vec::new(), Vec::new()), header(one.clone(), two.clone()), header(two, one)])
}

/// The header of a segment.
pub(crate) fn segment_header(data: &[u8]) {
    let Some((mend, mut bytes)) = split(data) else { return };
    if mend {
        let _ = mend_header(&mut bytes);
    }
    let HeaderFound::Sound(header, length) = SegmentHeader::decode(&bytes) else { return };
    assert!(length <= bytes.len());
    let mut out = Vec::new();
    header.encode(&mut out);
    assert!(SegmentHeader::decode(&out) == HeaderFound::Sound(header, out.len()));
}

pub(crate) fn segment_header_seeds() -> Vec<Vec<u8>> {
    let row = |replica: u64, creation: &'static [u8]| ReplicaRow {
        replica: ReplicaId(replica),
        sequence: 9,
        vote: (replica > 1).then_some(Vote { term: Term(2), voted_for: ReplicaId(1), committed: replica > 2 }),
        purged: (replica > 1).then_some(log_id(3)),
        lost: replica == 3,
        creation: Bytes::from_static(creation),
    };
    let header = |rows| {
        let previous_end = LogPosition { segment: 1, byte: 4096 };
        let mut out = Vec::new();
        SegmentHeader { segment: 2, incarnation: 5, first_commit: 7, previous_end, rows }.encode(&mut out);
        out
    };
    with_selector([header(Vec::new()), header(vec![row(1, b"")]), header(vec![row(2, b"group"), row(3, b"12345678")])])
}

/// The mark of a prepared segment.
pub(crate) fn mark(data: &[u8]) {
    let Some((mend, mut bytes)) = split(data) else { return };
    if mend && bytes.len() >= 32 {
        let crc = crc32fast::hash(&bytes[12..32]);
        put_word(&mut bytes, 8, crc);
    }
    if let Some(mark) = PreparedMark::decode(&bytes) {
        assert!(mark.encode()[..32] == bytes[..32]);
    }
}

pub(crate) fn mark_seeds() -> Vec<Vec<u8>> {
    with_selector([PreparedMark { sequence: 1, boot_id: 9 }.encode()[..40].to_vec()])
}

const SEGMENT_BYTES: u32 = 64 << 10;
const DIR: &str = "/data/log";

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        cache_bytes_max: 16 << 10,
        zero_ahead_bytes_per_second: 0,
        reserve_bytes: 0,
        quiet_bytes: 16 << 10,
        ..LogOptions::default()
    }
}

/// Makes the checksums of everything that seems to begin somewhere in a segment right.
fn mend_segment(bytes: &mut [u8]) {
    if bytes.starts_with(b"OTTLASEG") {
        let _ = mend_header(bytes);
    }
    let mut at = 0;
    while at < bytes.len() {
        let commit = &mut bytes[at..];
        let header = if commit.starts_with(b"OTTLACMT") { mend_header(commit) } else { None };
        at += header.unwrap_or(8).max(8).next_multiple_of(8);
        while let Some(frame) = bytes.get_mut(at..).filter(|_| header.is_some()).and_then(mend_frame) {
            at += padded(frame);
        }
    }
}

/// A log of one segment file: it opens or is refused, every entry that it lists can be read, and what one recovery has
/// accepted the next one finds.
pub(crate) fn recovery(data: &[u8]) {
    let Some((mend, mut image)) = split(data) else { return };
    if mend {
        mend_segment(&mut image);
    }
    sim::run(1, move || async move {
        let dir = Path::new(DIR);
        let disk: Arc<dyn Disk> = Arc::new(disk_with(&segment_path(dir, 1), &image, SEGMENT_BYTES as usize));
        let opened = Log::open(Arc::clone(&disk), dir, options(), Vec::new(), &mut NoSink).await;
        let Ok((log, found)) = opened else { return };
        for replica in &found {
            let (Some(last), Some(reader)) = (replica.last_log_id, log.replica(replica.id)) else { continue };
            let range = EntryRange { first: RaftIndex(last.index.0.saturating_sub(3)), last: last.index };
            let _ = reader.read(range, 1 << 20).await;
        }
        let closed = log.close().await;
        if closed.is_err() || found.iter().any(|replica| replica.lost.is_some()) {
            return;
        }
        drop(log);
        let (log, again) = match Log::open(disk, dir, options(), Vec::new(), &mut NoSink).await {
            // Crafted: the checksum of the header speaks of what lay where the first opening has written.
            Err(LogError::NewerFormat { .. }) => return,
            opened => opened.unwrap(),
        };
        assert_eq!(again, found, "recovery was believed, and the next one finds something else");
        log.close().await.unwrap();
    });
}

pub(crate) fn recovery_seeds() -> Vec<Vec<u8>> {
    let image = |rounds: u64| {
        let report = sim::run(1, move || async move {
            let disk = SimDisk::new(1, SimDiskOptions::default());
            let handle: Arc<dyn Disk> = Arc::new(disk.clone());
            let dir = Path::new(DIR);
            let (log, _) = Log::open(handle, dir, options(), Vec::new(), &mut NoSink).await.unwrap();
            for id in 1..=rounds.min(2) {
                let payload = Bytes::from_static(b"a shard");
                let creation = GroupCreation { replica: ReplicaId(id), payload, vote: None, purged: None };
                let replica = log.create_group(creation).await.unwrap();
                for index in 1..=rounds {
                    let (sender, receiver) = tokio::sync::oneshot::channel();
                    let entries = vec![entry(index, vec![batch(1, 20), batch(2, 5)])];
                    replica.append(entries, Box::new(move |outcome| drop(sender.send(outcome))));
                    receiver.await.unwrap().unwrap();
                }
                replica.truncate_after(Some(log_id(1))).await.unwrap();
                replica.purge(log_id(1)).await.unwrap();
            }
            let used = log.segments().last().map_or(0, |segment| segment.used_bytes);
            let file = disk.open(&segment_path(dir, 1), OpenMode::Read).unwrap();
            let mut image = vec![0; used as usize];
            read_exact_at(&*file, &mut image, 0).unwrap();
            log.close().await.unwrap();
            image
        });
        report.output
    };
    with_selector([image(0), image(1), image(3)])
}
