//! The scrub reads every batch at a low rate and verifies its checksum: damage of data that no client reads is found while
//! another replica still has it.
//!
//! It records damage as readers do, and the rewriter's task repairs it. A pass begins at a random partition, so that a node
//! that is often restarted verifies all of its data, too. May not know: how damage is repaired.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ottla_protocol::ids::Offset;

use super::DataDir;
use crate::index::ExtentKey;
use crate::read::{ReadRequest, Wanted};
use ottla_env::rt;

/// Bytes that are read at once.
const STEP_BYTES: usize = 1 << 20;
/// The shortest pause between two steps: partitions that hold nearly nothing take no time by the rate.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// A pass begins no sooner after the one before.
const PASS_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Starts the task; it ends when the directory is closed, fails or is dropped.
pub(super) fn start(directory: &Arc<DataDir>) {
    let rate = directory.options.scrub_bytes_per_second;
    if rate == 0 {
        return;
    }
    let weak = Arc::downgrade(directory);
    drop(rt::spawn_critical("scrub", directory.owner(), async move {
        while pass(&weak, rate).await.is_some() {
            rt::sleep(PASS_INTERVAL).await;
        }
    }));
}

/// Verifies everything once; `None` when the directory is not open any more.
async fn pass(weak: &Weak<DataDir>, rate: u64) -> Option<()> {
    let mut pause = PAUSE_MIN;
    for key in weak.upgrade()?.scrub_order() {
        let mut from = Offset(0);
        loop {
            rt::sleep(pause).await;
            let directory = weak.upgrade()?;
            if directory.closing.load(Ordering::SeqCst) || directory.failure.get().is_some() {
                return None;
            }
            let Some((next, bytes)) = directory.scrub(key, from).await else { break };
            assert!(next > from, "lineage {}, {}: the scrub stays at {from}", key.lineage, key.partition);
            from = next;
            pause = PAUSE_MIN.max(Duration::from_millis(bytes.saturating_mul(1_000) / rate));
        }
    }
    weak.upgrade()?.counters.scrubs.fetch_add(1, Ordering::Relaxed);
    Some(())
}

impl DataDir {
    /// All partitions, from a random one on.
    fn scrub_order(&self) -> Vec<ExtentKey> {
        let mut keys: Vec<ExtentKey> = self.index.all().into_iter().map(|(key, _)| key).collect();
        if !keys.is_empty() {
            let first = rt::random_u64() % keys.len() as u64;
            keys.rotate_left(usize::try_from(first).unwrap_or(0));
        }
        keys
    }

    /// Verifies batches of a partition; returns where to go on and how many bytes were read, `None` at the end. Damage is
    /// recorded, and passed.
    async fn scrub(&self, key: ExtentKey, from: Offset) -> Option<(Offset, u64)> {
        let up_to = self.index.partition(key)?.read().end_offset()?;
        let from = from.max(self.index.log_start(key));
        let request = ReadRequest { key, from, up_to, bytes_max: STEP_BYTES, at_least_one: true, wanted: Wanted::All };
        // An index that lacks batches is recorded by this, too.
        let plan = self.plan_read(request).await.ok().filter(|plan| !plan.is_empty())?;
        let ends: Vec<Offset> = plan.indexed_batches().map(|indexed| indexed.end_offset()).collect();
        let bytes = plan.bytes() as u64;
        let sound = plan.verified().await.map_or(0, |plan| plan.indexed_batches().count());
        self.counters.scrubbed_bytes.fetch_add(bytes, Ordering::Relaxed);
        if sound < ends.len() {
            self.counters.damaged_reads.fetch_add(1, Ordering::Relaxed);
        }
        // Behind the damaged batch, or behind all.
        ends.get(sound).or(ends.last()).map(|end| (*end, bytes))
    }
}
