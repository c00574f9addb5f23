//! The space reserve: refuses writes before the disk is full, and accepts them again when space is free.
//!
//! The log preallocates segments and stops at a reserve. Producers are refused once the prepared
//! room runs short and no further segment fits above the reserve; records that leaders elsewhere send once half of the reserve
//! is gone, too. What is left is for Raft's own commands, metadata, verdicts and checkpoints: without them nothing is freed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Free space of the file system, as last seen, against the reserve.
#[derive(Debug)]
pub(crate) struct Reserve {
    segment_bytes: u64,
    reserve_bytes: u64,
    free_bytes: AtomicU64,
    total_bytes: AtomicU64,
    refusing: AtomicBool,
}

impl Reserve {
    pub(crate) fn new(segment_bytes: u64, reserve_bytes: u64) -> Self {
        Self {
            segment_bytes,
            reserve_bytes,
            free_bytes: AtomicU64::new(u64::MAX),
            total_bytes: AtomicU64::new(0),
            refusing: AtomicBool::new(false),
        }
    }

    /// Prepared room below which producers are refused if no segment can be prepared.
    fn headroom_bytes_min(&self) -> u64 {
        (self.segment_bytes / 4).min(64 << 20)
    }

    /// Total and free bytes as last seen.
    pub(crate) fn observe(&self, free_bytes: u64, total_bytes: u64) {
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
    }

    /// Total and free bytes as last seen.
    pub(crate) fn disk_bytes(&self) -> (u64, u64) {
        (self.total_bytes.load(Ordering::Relaxed), self.free_bytes.load(Ordering::Relaxed))
    }

    /// True if another segment can be prepared above the reserve.
    pub(crate) fn has_room(&self) -> bool {
        self.free_bytes.load(Ordering::Relaxed) >= self.reserve_bytes.saturating_add(self.segment_bytes)
    }

    /// Whether records of a leader on another node may be appended, with this much prepared room in the log.
    pub(crate) fn accepts_replicated(&self, headroom_bytes: u64) -> bool {
        let free_bytes = self.free_bytes.load(Ordering::Relaxed);
        free_bytes >= self.reserve_bytes / 2 || headroom_bytes >= self.headroom_bytes_min()
    }

    /// Whether producers may write, with this much prepared room in the log.
    pub(crate) fn accepts(&self, headroom_bytes: u64) -> bool {
        let refusing = self.refusing.load(Ordering::Relaxed);
        // Once refused, prepared room does not count: the log takes it out of the reserve for Raft's own commands.
        let accepts = self.has_room() || (!refusing && headroom_bytes >= self.headroom_bytes_min());
        if accepts == refusing {
            self.refusing.store(!accepts, Ordering::Relaxed);
            if accepts {
                tracing::info!(headroom_bytes, "space was freed: writes are accepted again");
            } else {
                let (_, free_bytes) = self.disk_bytes();
                tracing::warn!(headroom_bytes, free_bytes, "disk nearly full: writes are refused until space is freed");
            }
        }
        accepts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn writes_stop_before_the_prepared_room_is_used_up_and_resume_when_space_is_freed() {
        let reserve = Reserve::new(256 * MIB, 512 * MIB);
        reserve.observe(10_000 * MIB, 20_000 * MIB);
        assert!(reserve.accepts(0), "a segment can be prepared at once");
        reserve.observe(600 * MIB, 20_000 * MIB);
        assert!(reserve.accepts(65 * MIB));
        assert!(!reserve.accepts(63 * MIB), "room is left for Raft and the checkpoint");
        assert!(!reserve.accepts(300 * MIB), "a segment taken out of the reserve is not for producers");
        assert!(reserve.accepts_replicated(0), "leaders elsewhere may use half of the reserve");
        reserve.observe(250 * MIB, 20_000 * MIB);
        assert!(reserve.accepts_replicated(65 * MIB) && !reserve.accepts_replicated(63 * MIB));
        reserve.observe(900 * MIB, 20_000 * MIB);
        assert!(reserve.accepts(63 * MIB));
    }
}
