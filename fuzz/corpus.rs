//! The kept inputs of the fuzz targets, for the tests of each crate: every test run tries each input that
//! fuzzing has kept.

#![allow(clippy::disallowed_methods)]

/// The kept inputs of a target; none if it has not been fuzzed yet.
pub(crate) fn kept(target: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}
