//! What the kernel says of a process: CPU seconds, memory, bytes to and from the disk.

use std::path::Path;

/// Ticks per second in `/proc`; the kernel's interface fixes it.
const TICKS: f64 = 100.0;

/// One look at a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: f64,
    pub(crate) read_bytes: u64,
    pub(crate) write_bytes: u64,
}

impl Usage {
    /// What two processes used together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            read_bytes: self.read_bytes + other.read_bytes,
            write_bytes: self.write_bytes + other.write_bytes,
        }
    }

    /// What was used since an earlier look.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu - before.cpu,
            read_bytes: self.read_bytes.saturating_sub(before.read_bytes),
            write_bytes: self.write_bytes.saturating_sub(before.write_bytes),
        }
    }
}

fn numbers_of_stat(pid: &str) -> Vec<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().map(|w| w.parse().unwrap_or(0.0)).collect()
}

/// CPU, reads and writes of a process until now.
pub(crate) fn usage(pid: u32) -> Usage {
    let numbers = numbers_of_stat(&pid.to_string());
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let of = |name: &str| {
        let line = io.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    Usage {
        cpu: numbers.get(11..13).map_or(0.0, |t| t.iter().sum::<f64>() / TICKS),
        read_bytes: of("read_bytes:"),
        write_bytes: of("write_bytes:"),
    }
}

/// CPU seconds of this process and of the children that it has waited for: what the clients cost.
pub(crate) fn client_cpu() -> f64 {
    numbers_of_stat("self").get(11..15).map_or(0.0, |t| t.iter().sum::<f64>() / TICKS)
}

/// Memory of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Memory {
    /// All that is resident.
    Resident,
    /// That without the pages of files: what the process has allocated.
    Anonymous,
}

/// Memory of a process in bytes.
pub(crate) fn memory(pid: u32, memory: Memory) -> u64 {
    let name = match memory {
        Memory::Resident => "VmRSS:",
        Memory::Anonymous => "RssAnon:",
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Every file below a directory with its size on disk.
pub(crate) fn files(below: &Path) -> Vec<(std::path::PathBuf, u64)> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(below) else { return found };
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((entry.path(), meta.blocks() * 512));
        }
    }
    found
}

/// Bytes that a directory takes on disk.
pub(crate) fn disk_bytes(directory: &Path) -> u64 {
    files(directory).iter().map(|(_, bytes)| bytes).sum()
}
