//! The fuzz targets of what comes over the network: frames, batches, codecs, and the body of every request. Never part
//! of a release build. A function panics where a decoder does, or where what was decoded does not encode to the same.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
mod corpus;

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};

use crate::batch::{self, BatchLimits};
use crate::compression::{Codec, compress, decompress};
use crate::frame::{FrameLimits, missing_bytes, next_frame};
use crate::header::{FIXED_HEAD_BYTES, FixedHead};
use crate::records::{self, RecordRules, TimestampBounds};
use crate::request::{self, Request};
use crate::versions::{ApiRange, SUPPORTED};

/// A fuzz target.
pub struct Target {
    /// Its name, and that of its folder of kept inputs.
    pub name: String,
    /// What it does with an input.
    pub run: Box<dyn Fn(&[u8]) + Send + Sync>,
    /// Inputs to begin with.
    pub seeds: Vec<Vec<u8>>,
}

/// Bytes that a batch may become when it is decompressed.
const LIMIT: usize = 64 * 1024;

/// A target for each decoder.
#[must_use]
pub fn targets() -> Vec<Target> {
    let mut targets = vec![
        Target { name: "frame".into(), run: Box::new(frame), seeds: frame_seeds() },
        Target { name: "batch".into(), run: Box::new(batch), seeds: batch_seeds() },
    ];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let packed = |data: &[u8]| compress(codec, None, data).expect("anything can be compressed").to_vec();
        let seeds = vec![packed(b""), packed(b"hello"), packed(&[7; 500])];
        let name = format!("codec_{codec:?}").to_lowercase();
        targets.push(Target { name, run: Box::new(move |data| one_codec(codec, data)), seeds });
    }
    for row in SUPPORTED {
        let seeds = golden(row).into_iter().filter_map(|frame| request_seed(row, &frame)).collect();
        let name = format!("request_{}", snake(row.name));
        targets.push(Target { name, run: Box::new(move |data| body(row, data)), seeds });
    }
    targets
}

/// `OffsetCommit` as `offset_commit`.
pub(crate) fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// The requests kept in protocol/testdata for one API: whole frames without their length.
fn golden(row: &ApiRange) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let start = format!("{}_v", snake(row.name));
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.sort();
    let of_row = |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start));
    files.iter().filter(of_row).filter_map(|path| hex(&std::fs::read_to_string(path).ok()?)).collect()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

/// A body with the version that the target takes from the first byte; of three versions each tells enough.
fn request_seed(row: &ApiRange, frame: &[u8]) -> Option<Vec<u8>> {
    let head = FixedHead::parse(frame).ok()?;
    let wanted = [row.min, row.min + (row.max - row.min) / 2, row.max];
    let version = u8::try_from(head.version - row.min).ok()?;
    let client_id: [u8; 2] = frame.get(FIXED_HEAD_BYTES..)?.first_chunk().copied()?;
    let client_id_bytes = usize::try_from(i16::from_be_bytes(client_id)).unwrap_or(0);
    // The flexible header ends with its tags, of which these have none.
    let tags = usize::from(row.key.request_header_version(head.version) >= 2);
    let body = frame.get(FIXED_HEAD_BYTES + 2 + client_id_bytes + tags..)?;
    wanted.contains(&head.version).then(|| [&[version], body].concat())
}

/// The body of one request, the version by the first byte. What is decoded can be encoded, and decodes to the same again.
fn body(row: &ApiRange, data: &[u8]) {
    let Some((&version, body)) = data.split_first() else { return };
    let version = row.min + i16::from(version) % (row.max - row.min + 1);
    if !row.serves(version) {
        return;
    }
    let Ok(request) = Request::decode_body(row.key, version, Bytes::copy_from_slice(body)) else { return };
    if let Request::Produce(produce) = &request {
        let mut again = BytesMut::new();
        produce.encode(version, &mut again);
        assert_eq!(Request::decode_body(row.key, version, again.freeze()).as_ref(), Ok(&request));
    }
}

/// A connection's bytes, cut into frames and decoded: nothing panics, and no frame is above its limit.
fn frame(data: &[u8]) {
    let Some((&flags, data)) = data.split_first() else { return };
    let limits = FrameLimits { data_bytes_max: 4_096, control_bytes_max: 1_024, authenticated: flags & 1 != 0 };
    let mut buffer = BytesMut::new();
    for piece in data.chunks(usize::from(flags >> 1) + 1) {
        buffer.extend_from_slice(piece);
        let _ = missing_bytes(&buffer, &limits);
        loop {
            match next_frame(&mut buffer, &limits) {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= limits.data_bytes_max.max(65_536));
                    let _ = request::decode(frame);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let framed = |frame: &Vec<u8>| [&u32::try_from(frame.len()).unwrap_or(0).to_be_bytes(), &frame[..]].concat();
    let first = |row: &ApiRange| golden(row).first().map(framed);
    SUPPORTED.iter().filter_map(first).take(12).map(|frame| [&[255], &frame[..]].concat()).collect()
}

/// What a producer sends for one partition. The checksum is made right first, for no fuzzer guesses it.
fn batch(data: &[u8]) {
    let mut bytes = data.to_vec();
    let _ = batch::split_batches(&Bytes::copy_from_slice(data)).count();
    if let Some(header) = batch::BatchHeader::parse(&bytes) {
        let end = header.total_bytes().clamp(batch::CRC_FROM, bytes.len().max(batch::CRC_FROM));
        let crc = batch::crc32c(&bytes[batch::CRC_FROM..end]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let bytes = Bytes::from(bytes);
    let limits = BatchLimits { batch_bytes_max: 1 << 20, zstd_allowed: true, from_coordinator: true };
    let Ok(header) = batch::validate(&bytes, &limits) else { return };
    assert_eq!(header.total_bytes(), bytes.len());
    assert_eq!(header.offset_count(), i64::from(header.record_count));
    let rules = RecordRules { key_required: true, timestamps: Some(TimestampBounds::around(0, 1, i64::MAX)) };
    let Ok(checked) = records::check(&header, &bytes, &rules, LIMIT) else { return };
    let read = records::open(&header, &bytes, LIMIT).expect("it was checked");
    assert!(read.bytes().len() <= LIMIT);
    assert_eq!(read.iter().count(), header.record_count as usize);
    let rewritten = records::recompress(&header, &bytes, Codec::Lz4, None, LIMIT).expect("it was read");
    let again = batch::validate(&rewritten, &BatchLimits { batch_bytes_max: usize::MAX, ..limits }).expect("ours");
    assert_eq!(records::check(&again, &rewritten, &rules, LIMIT), Ok(checked));
}

fn batch_seeds() -> Vec<Vec<u8>> {
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let seed = |codec| {
        let mut builder = batch::BatchBuilder::new(codec);
        for n in 0..3_u8 {
            let header: (&[u8], Option<&[u8]>) = (b"h", Some(b"v"));
            let headers = if n == 1 { vec![header] } else { Vec::new() };
            let record =
                batch::NewRecord { timestamp: i64::from(n), key: Some(&[n]), value: Some(b"value"), headers: &headers };
            builder.push(&record);
        }
        builder.build().map(|batch| batch.to_vec()).ok()
    };
    codecs.into_iter().filter_map(seed).collect()
}

/// One codec: garbage in, no panic and never more than the limit out; and a round trip.
fn one_codec(codec: Codec, data: &[u8]) {
    if let Ok(output) = decompress(codec, &Bytes::copy_from_slice(data), LIMIT) {
        assert!(output.len() <= LIMIT);
    }
    let packed = compress(codec, None, data).expect("anything can be compressed");
    assert_eq!(decompress(codec, &packed, data.len()).expect("our own"), data);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every input that was kept for its target is accepted, and so are the seeds.
    #[test]
    fn every_target_accepts_its_corpus() {
        for target in targets() {
            target.seeds.iter().chain(&corpus::kept(&target.name)).for_each(|input| (target.run)(input));
        }
    }
}
