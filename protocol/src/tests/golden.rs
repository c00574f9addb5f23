//! Golden requests in `testdata/<api>_v<version>[_<what>].hex`: every served version of every API has one.
//!
//! The first lines of a file name the client that sent it. Requests that no available client sends were written by
//! kafka-protocol's encoder; these files are made again with OTTLA_BLESS=1 and then read as a diff. The others are
//! never rewritten.
#![allow(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::batch::{self, BatchLimits};
use crate::fuzzing::snake;
use crate::header::RequestHeader;
use crate::records::{self, RecordRules};
use crate::request::{Request, decode};
use crate::samples;
use crate::versions::{ApiKey, SUPPORTED};

const BY_ENCODER: &str = "written by the encoder of the kafka-protocol crate";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn path_of(api_key: ApiKey, version: i16) -> PathBuf {
    folder().join(format!("{}_v{version}.hex", snake(api_key.name())))
}

/// The client that sent it, and the bytes.
fn read(path: &Path) -> (String, Bytes) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (heads, lines): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
    let digits: Vec<u8> = lines.concat().bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    (heads.concat(), digits.chunks(2).map(byte).collect())
}

fn write(path: &Path, head: &str, bytes: &[u8]) {
    let mut text = format!("# {head}\n");
    for line in bytes.chunks(32) {
        for pair in line.chunks(2) {
            let digits: String = pair.iter().map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&digits);
            text.push(' ');
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    std::fs::write(path, text).unwrap();
}

fn served() -> impl Iterator<Item = (ApiKey, i16)> {
    let all = SUPPORTED.iter().flat_map(|row| (row.min..=row.max).map(move |version| (row, version)));
    all.filter(|(row, version)| row.serves(*version)).map(|(row, version)| (row.key, version))
}

#[test]
fn every_served_version_has_a_golden_request() {
    let bless = std::env::var_os("OTTLA_BLESS").is_some();
    for (api_key, version) in served() {
        let path = path_of(api_key, version);
        let sample = &samples::requests(api_key, version)[0];
        let by_encoder = !path.exists() || read(&path).0.contains(BY_ENCODER);
        if bless && by_encoder {
            let head = format!("{} v{version}, {BY_ENCODER}", api_key.name());
            write(&path, &head, &samples::frame(sample, version));
        }
        let (head, frame) = read(&path);
        let (header, request) = decode(frame).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let expected = (api_key, version);
        assert_eq!((header.api_key, header.version), expected, "{}", path.display());
        if head.contains(BY_ENCODER) {
            assert_eq!(&request, sample, "{}", path.display());
        }
    }
}

#[test]
fn every_golden_file_is_what_its_name_says() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (head, frame) = read(&path);
        assert!(!head.is_empty(), "{name} does not say who sent it");
        let (RequestHeader { api_key, version, .. }, request) =
            decode(frame).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(name.starts_with(&format!("{}_v{version}", snake(api_key.name()))), "{name}");
        if let Request::Produce(produce) = request
            && !head.contains(BY_ENCODER)
        {
            batches_are_sound(&name, version, &produce);
        }
        count += 1;
    }
    assert!(count >= served().count(), "{count} golden files");
}

/// What real clients send must pass every check, and every codec must read back.
fn batches_are_sound(name: &str, version: i16, request: &crate::produce::ProduceRequest) {
    let limits = BatchLimits { batch_bytes_max: 1 << 20, zstd_allowed: version >= 7, from_coordinator: false };
    for partition in request.topics.iter().flat_map(|topic| &topic.partitions) {
        let records = partition.records.clone().unwrap_or_else(|| panic!("{name}: no records"));
        let header = batch::validate(&records, &limits).unwrap_or_else(|error| panic!("{name}: {error}"));
        let rules = RecordRules { key_required: false, timestamps: None };
        let checked = records::check(&header, &records, &rules, 1 << 20).unwrap();
        assert_eq!(checked.faults, [], "{name}");
        assert_eq!(checked.max_timestamp, header.max_timestamp, "{name}");
        let codec = header.attributes.codec().unwrap().name();
        let stated = ["gzip", "snappy", "lz4", "zstd"].into_iter().find(|codec| name.ends_with(codec));
        assert_eq!(stated.unwrap_or("none"), codec, "{name}");
    }
}
