//! Counts what died when a log start moved, and compares what a replay tells again with what is known. Both may have to
//! read the disk, and do so without a lock.
//!
//! May not know: who moves log starts.

use ottla_protocol::ids::Offset;

use super::batch_index::{BatchIndex, Partition};
use super::partition::{Boundary, confirm};
use super::{Access, ExtentKey, IndexError};

impl BatchIndex {
    /// Raises a log start offset; `GONE` for a partition that was dropped.
    pub(crate) fn raise_log_start(&self, key: ExtentKey, log_start: Offset) {
        let partition = self.partition_or_new(key);
        {
            let mut partition = partition.write();
            if log_start <= partition.log_start {
                return;
            }
            partition.raise_log_start(log_start);
        }
        // What cannot be counted without disk I/O is counted by the next `settle_all`.
        let _ = self.settle(&partition, Access::Resident);
        self.changed_log_starts.lock().insert(key, log_start);
    }

    /// Counts the batches that died. The disk is read without the partition's lock: a request that waits for the lock would
    /// wait for the disk.
    pub(super) fn settle(&self, partition: &Partition, access: Access) -> Result<(), IndexError> {
        loop {
            let (log_start, slice) = {
                let partition = partition.read();
                if partition.is_settled() {
                    return Ok(());
                }
                (partition.log_start, partition.boundary_slice().cloned())
            };
            let boundary = slice.map(|slice| Boundary::find(log_start, &slice, access)).transpose()?;
            let mut died = Vec::new();
            let settled = partition.write().settle(boundary, &mut died);
            for dead in died {
                self.table.remove(dead.segment, u64::from(dead.entries), dead.bytes);
            }
            if settled? {
                return Ok(());
            }
        }
    }

    /// Counts the batches of one partition that died (lie below log start now).
    pub(crate) fn settle_one(&self, key: ExtentKey, access: Access) -> Result<(), IndexError> {
        match self.partition(key) {
            Some(partition) => self.settle(&partition, access),
            None => Ok(()),
        }
    }

    /// Counts the batches of all partitions that died, and compares what a replay told again with what is known; on a
    /// blocking thread.
    ///
    /// # Errors
    /// [`IndexError::Conflict`] if an offset was used twice.
    pub(crate) fn settle_all(&self) -> Result<(), IndexError> {
        for (_, partition) in self.all() {
            self.settle(&partition, Access::MayBlock)?;
            loop {
                let Some((told, slice)) = partition.read().next_unconfirmed() else { break };
                slice.map_or(Ok(()), |slice| confirm(&slice, &told, Access::MayBlock))?;
                partition.write().confirmed(&told);
            }
        }
        Ok(())
    }
}
