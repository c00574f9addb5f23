//! The machine under the comparison: what it is, its memory kept warm, its page cache emptied for one directory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use rustix::fs::{Advice, fadvise};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::process;

fn first_value(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or("", |(_, value)| value).trim().to_owned()
}

fn kib(name: &str) -> u64 {
    first_value("/proc/meminfo", name).split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

pub(crate) fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64)
}

/// The file system below a path: source, type and options, as the kernel lists them.
fn mount_of(path: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let below = |line: &&str| line.split(' ').nth(1).is_some_and(|point| path.starts_with(point));
    let longest = mounts.lines().filter(below).max_by_key(|line| line.split(' ').nth(1).map_or(0, str::len));
    longest.unwrap_or_default().to_owned()
}

/// What a reader has to know of the machine. The kernel's limits on dirty pages say when unsynced writes begin to cost.
pub(crate) fn describe(data: &Path) -> Value {
    let sysctl = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/vm/{name}")).unwrap_or_default();
        format!("vm.{name}={}", text.trim())
    };
    let dirty = ["dirty_background_ratio", "dirty_ratio", "dirty_background_bytes", "dirty_bytes"]
        .into_iter()
        .chain(["dirty_expire_centisecs", "dirty_writeback_centisecs"]);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "cores": cores(),
        "processor": first_value("/proc/cpuinfo", "model name"),
        "memory_mib": kib("MemTotal") / 1024,
        "kernel": kernel.trim(),
        "disk": mount_of(data),
        "writeback": dirty.map(sysctl).collect::<Vec<String>>(),
        "dirty_limit_mib": kib("MemAvailable") / 1024 / 5,
    })
}

/// As many open files as the system allows: Kafka needs three or four a partition. Children inherit it.
pub(crate) fn raise_limits() {
    let limit = getrlimit(Resource::Nofile);
    for wanted in [Some(1_000_000), limit.maximum] {
        let maximum = limit.maximum.max(wanted);
        if setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum }).is_ok() {
            break;
        }
    }
}

/// Keeps free memory scarce by filling the page cache with the zeroes of a sparse file.
///
/// A virtual machine gives free pages back to its host, and the first touch of one that went costs ten times a warm one:
/// a broker would be measured by how many of those it met. A machine that has served for a while has no free pages; its
/// kernel takes clean ones of the page cache, which are warm. So it is here.
struct Filler {
    file: File,
    at: u64,
    left_mib: u64,
}

static FILLER: Mutex<Option<Filler>> = Mutex::new(None);
/// Free memory that is left alone.
const FREE_MIB: u64 = 1536;
const SPARSE_BYTES: u64 = 8 << 40;
const PIECE_MIB: usize = 4;

/// Begins to keep memory warm, with at most so many MiB in all, and does it for the first time; seconds it took.
pub(crate) fn warm_memory(directory: &Path, mib_max: u64) -> f64 {
    let began = Instant::now();
    let path = directory.join("zeroes");
    let file = File::create(&path).and_then(|file| file.set_len(SPARSE_BYTES).and_then(|()| File::open(&path)));
    let file = file.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    *FILLER.lock().unwrap() = Some(Filler { file, at: 0, left_mib: mib_max });
    warm_again();
    began.elapsed().as_secs_f64()
}

fn warm_again() {
    let mut filler = FILLER.lock().unwrap();
    let Some(filler) = filler.as_mut() else { return };
    let mut piece = vec![0; PIECE_MIB << 20];
    // As much as is free now, and no more: the kernel frees some again meanwhile.
    let free_mib = (kib("MemFree") / 1024).saturating_sub(FREE_MIB).min(filler.left_mib);
    for _ in 0..free_mib / PIECE_MIB as u64 {
        if filler.file.read_exact_at(&mut piece, filler.at).is_err() {
            return;
        }
        filler.at = (filler.at + piece.len() as u64) % SPARSE_BYTES;
        filler.left_mib -= PIECE_MIB as u64;
    }
}

/// Bytes free for us on the file system of a path.
pub(crate) fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |fs| fs.f_bavail * fs.f_frsize)
}

/// Writes everything to disk and warms what was freed, so that what one peer left does not burden the other.
pub(crate) fn settle() {
    rustix::fs::sync();
    warm_again();
}

/// Takes the files of a directory out of the page cache. Works for clean pages that no process has mapped: sync first, and
/// with the broker stopped.
pub(crate) fn drop_cache(directory: &Path) {
    settle();
    for (path, _) in process::files(directory) {
        if let Ok(file) = std::fs::File::open(&path) {
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
    }
}
