//! The machine under the comparison: what it is, its page cache filled, or emptied for one directory.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// Memory that filling the page cache leaves free.
const FREE_MIB: u64 = 400;
/// A file without blocks: reading it fills the page cache and no disk. Its size is near the largest that ext4 has.
const HOLE_BYTES: u64 = 15 << 40;
const PIECE_BYTES: u64 = 4 << 20;
const REMOVERS: usize = 16;

struct Filler {
    file: std::fs::File,
    next: AtomicU64,
}

static FILLER: OnceLock<Filler> = OnceLock::new();

/// From now on the page cache is full before each turn.
///
/// Beside a broker's log memory is always full of its pages, and a new page takes the place of an old one. A virtual machine
/// with free memory is another thing: it gives free pages back to its host after seconds, and the first touch of one that
/// went costs 1.5 to 2.7 CPU seconds a GB, more than all of a broker's own work. Measured with batches of 16 KiB: 50 us a
/// request while free memory is used up, 20 us from then on.
pub(crate) fn keep_full(path: &Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(HOLE_BYTES)?;
    let _ = FILLER.set(Filler { file, next: AtomicU64::new(0) });
    Ok(())
}

fn fill_cache() {
    let Some(filler) = FILLER.get() else { return };
    // What the kernel frees meanwhile is not chased without end.
    let most = filler.next.load(Ordering::Relaxed) + (kib("MemFree") << 10) + (FREE_MIB << 20);
    let fill = || {
        let mut piece = vec![0; PIECE_BYTES as usize];
        while kib("MemFree") / 1024 > FREE_MIB {
            let offset = filler.next.fetch_add(PIECE_BYTES, Ordering::Relaxed);
            if offset >= most || filler.file.read_exact_at(&mut piece, offset % HOLE_BYTES).is_err() {
                break;
            }
        }
    };
    std::thread::scope(|scope| (0..cores() as usize).for_each(|_| drop(scope.spawn(fill))));
}

/// Bytes free for us on the file system of a path.
pub(crate) fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |fs| fs.f_bavail * fs.f_frsize)
}

/// MB/s of one file that is written from end to end and then synced; it is removed again.
pub(crate) fn write_speed(path: &Path, bytes: u64) -> f64 {
    let piece: Vec<u8> = (0..PIECE_BYTES).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let pieces = (bytes / PIECE_BYTES).max(1);
    let began = Instant::now();
    let write = || {
        let file = std::fs::File::create(path)?;
        (0..pieces).try_for_each(|n| file.write_all_at(&piece, n * PIECE_BYTES))?;
        file.sync_all()
    };
    write().unwrap_or_else(|e: std::io::Error| panic!("{}: {e}", path.display()));
    let took = began.elapsed().as_secs_f64();
    let _ = std::fs::remove_file(path);
    (pieces * PIECE_BYTES) as f64 / 1e6 / took
}

/// Writes everything to disk.
pub(crate) fn sync() {
    rustix::fs::sync();
}

/// Comes before each turn: what one peer left does not burden the other, and the page cache is full.
pub(crate) fn settle() {
    sync();
    fill_cache();
}

/// Removes a directory. A disk may be told of each block that gets free, and each file waits for that: several at a time.
pub(crate) fn remove(directory: &Path) {
    let files = process::files(directory);
    let part = files.len().div_ceil(REMOVERS).max(1);
    let all = |some: &[(PathBuf, u64)]| some.iter().for_each(|(path, _)| drop(std::fs::remove_file(path)));
    std::thread::scope(|scope| files.chunks(part).for_each(|some| drop(scope.spawn(move || all(some)))));
    let _ = std::fs::remove_dir_all(directory);
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
