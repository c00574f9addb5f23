//! The machine under the comparison: what it is, its memory kept warm, its page cache emptied for one directory.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

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

static WARM_MIB: AtomicU64 = AtomicU64::new(0);

/// How much memory is to be warm before each turn.
///
/// A virtual machine gives free pages back to its host after seconds, and the first touch of one that went costs ten times
/// a warm one: 2 CPU seconds a GB, as much as everything else together. A turn that begins with warm pages and writes no
/// more than those measures the broker.
pub(crate) fn keep_warm(mib: u64) {
    WARM_MIB.store(mib, Ordering::Relaxed);
}

/// Bytes that a turn may write before it meets cold memory.
pub(crate) fn warm_bytes() -> u64 {
    (WARM_MIB.load(Ordering::Relaxed) << 20) / 4 * 3
}

fn warm_memory() {
    let mib = WARM_MIB.load(Ordering::Relaxed).min(kib("MemAvailable") / 2048);
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mib / 32 {
        let mut piece = vec![0_u8; 32 << 20];
        piece.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        pieces.push(std::hint::black_box(piece));
    }
}

/// Bytes free for us on the file system of a path.
pub(crate) fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |fs| fs.f_bavail * fs.f_frsize)
}

/// Writes everything to disk.
pub(crate) fn sync() {
    rustix::fs::sync();
}

/// Comes before each turn: what one peer left does not burden the other, and memory is warm.
pub(crate) fn settle() {
    sync();
    warm_memory();
}

/// Takes the files of a directory out of the page cache. Works for clean pages that no process has mapped: sync first, and
/// with the broker stopped.
pub(crate) fn drop_cache(directory: &Path) {
    sync();
    for (path, _) in process::files(directory) {
        if let Ok(file) = std::fs::File::open(&path) {
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
    }
}
