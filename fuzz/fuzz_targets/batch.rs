//! What a producer sends for one partition. The checksum is made right first, for no fuzzer guesses it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla_protocol::batch::{self, BatchLimits};
use ottla_protocol::compression::Codec;
use ottla_protocol::records::{self, RecordRules, TimestampBounds};

const LIMIT: usize = 64 * 1024;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    let _ = batch::split_batches(&Bytes::copy_from_slice(data)).count();
    if let Some(header) = batch::BatchHeader::parse(&bytes) {
        let end = header.total_bytes().clamp(batch::CRC_FROM, bytes.len().max(batch::CRC_FROM));
        let crc = batch::crc32c(&bytes[batch::CRC_FROM..end]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let bytes = Bytes::from(bytes);
    let limits = BatchLimits { batch_bytes_max: 1 << 20, zstd_allowed: true, control_allowed: true };
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
});
