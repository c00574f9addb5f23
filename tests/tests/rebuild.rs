//! Indexes and checkpoint are derived: deleting them loses nothing that the log can restore.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::Raw;

fn files(below: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn contents(paths: &[PathBuf]) -> BTreeMap<PathBuf, Vec<u8>> {
    paths.iter().map(|p| (p.clone(), std::fs::read(p).unwrap())).collect()
}

/// An index is written some time after its segment was sealed.
fn wait_for_indexes(broker: &Broker, count: usize) {
    broker.wait_until("the indexes of sealed segments", 60, || files(broker.data(), ".idx").len() >= count);
}

#[test]
fn deleting_every_index_and_the_checkpoint_loses_nothing() {
    let mut broker = Broker::start(&[("OTTLA_LOG_SEGMENT_BYTES", "4194304")]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", 4, &[]);
    let value = vec![b'v'; 64 << 10];
    for n in 0..400 {
        assert_eq!(raw.produce("t", n % 4, TestBatch::of(&[&value, b"small"]).encode()).error_code, 0);
    }
    let before: Vec<_> = (0..4).map(|p| raw.read_all("t", p)).collect();
    wait_for_indexes(&broker, 3);
    broker.stop();
    let indexes = files(broker.data(), ".idx");
    let kept = contents(&indexes);
    let checkpoints = files(broker.data(), ".ckpt");
    assert!(!checkpoints.is_empty(), "there is a checkpoint");
    for path in indexes.iter().chain(&checkpoints) {
        std::fs::remove_file(path).unwrap();
    }
    broker.run();
    let mut raw = Raw::connect(broker.address());
    let after: Vec<_> = (0..4).map(|p| raw.read_all("t", p)).collect();
    assert!(before == after, "every record is at its offset");
    wait_for_indexes(&broker, indexes.len());
    broker.stop();
    let rebuilt = contents(&indexes);
    assert!(kept == rebuilt, "the rebuilt indexes are equal to those that were deleted");
}
