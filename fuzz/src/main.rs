//! One binary for all fuzz targets, driven by libFuzzer.
//!
//!     OTTLA_FUZZ=<target> ottla-fuzz [libFuzzer's options] corpus    fuzzes one target
//!     OTTLA_FUZZ=list ottla-fuzz                                     names them all
//!     OTTLA_FUZZ_SEEDS=<folder> ottla-fuzz                           writes the inputs to begin with, a folder a target
//!
//! A target is a function that takes any bytes and panics if a decoder does something wrong with them.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use ottla_protocol::fuzzing::{self as protocol, Target};

type Run = Box<dyn Fn(&[u8]) + Send + Sync>;

fn targets() -> Vec<Target> {
    let cases = ottla_storage::fuzzing::CASES.iter().chain(ottla_broker::fuzzing::CASES);
    let below = cases.map(|(name, run, seeds)| Target { name: (*name).to_owned(), run: Box::new(run), seeds: seeds() });
    let seeds = ottla_raft::fuzzing::membership_seeds();
    let raft = Target { name: "raft_membership".into(), run: Box::new(ottla_raft::fuzzing::membership), seeds };
    protocol::targets().into_iter().chain(below).chain([raft]).collect()
}

static RUN: OnceLock<Run> = OnceLock::new();

/// FNV-1a: a file's name says what is in it.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn write_seeds(folder: &Path) -> std::io::Result<()> {
    for target in targets() {
        let folder = folder.join(&target.name);
        std::fs::create_dir_all(&folder)?;
        for seed in &target.seeds {
            std::fs::write(folder.join(format!("{:016x}", hash(seed))), seed)?;
        }
    }
    Ok(())
}

fn choose() {
    if let Some(folder) = std::env::var_os("OTTLA_FUZZ_SEEDS") {
        write_seeds(Path::new(&folder)).expect("the seeds can be written");
        std::process::exit(0);
    }
    let wanted = std::env::var("OTTLA_FUZZ").unwrap_or_default();
    let found = targets().into_iter().find(|target| target.name == wanted);
    let Some(target) = found else {
        targets().iter().for_each(|target| println!("{}", target.name));
        std::process::exit(i32::from(wanted != "list"));
    };
    let _ = RUN.set(target.run);
}

fuzz_target!(init: choose(), |data: &[u8]| {
    if let Some(run) = RUN.get() {
        run(data);
    }
});
