//! Repair of damaged data: batches are fetched from other replicas by partition and offset (design section 4, recovery).
//!
//! ```text
//!  a batch that does not read back -> its file is rewritten, and that batch is fetched
//!  offsets that the index lacks    -> what held them is fetched into a run
//! ```
//! Readers record the damage that they find; the rewriter's task tries to repair it at once, and then in every round. May
//! not know: which the other replicas are, and how requests reach them.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use ottla_env::mutants::{self, Bug};
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::ids::Offset;

use super::import::Import;
use super::peers::{Exported, Peers};
use super::rewriter::Outcome;
use super::{DataDir, DataDirError};
use crate::ids::{ReplicaId, RunId};
use crate::index::partition::{GONE, Gap};
use crate::index::{ExtentKey, IndexedBatch};
use crate::read::damage::Spot;
use crate::rewrite::copy::Cursor;
use crate::runs::writer::{PushError, RunWriter};

/// What can be done about a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prospect {
    /// No reader needs it any more.
    Gone,
    /// Not now: it is still being written, or no replica has what is missing.
    Later,
    Now,
}

impl DataDir {
    /// Registers the other replicas that have a replica's batches; held weakly.
    pub fn register_peers(&self, replica: ReplicaId, peers: Weak<dyn Peers>) {
        self.rewriter.peers.lock().insert(replica, peers);
    }

    /// Marks a replica that waits to be removed and has no readers: its damaged batches do not prevent the repair of a
    /// file.
    pub fn set_aside(&self, replica: ReplicaId) {
        self.rewriter.aside.lock().insert(replica);
    }

    /// The replica whose readers need these bytes; `None` if no replica owns them, or their owner is set aside.
    pub(super) fn reader_of(&self, key: ExtentKey) -> Option<ReplicaId> {
        self.index.owner(key).filter(|owner| !self.rewriter.aside.lock().contains(owner))
    }

    /// Damaged or missing batches that were fetched from another replica since the directory was opened.
    #[must_use]
    pub fn repaired_batches(&self) -> u64 {
        self.rewriter.repaired_batches.load(Ordering::Relaxed)
    }

    /// Fetches from the other replicas; ends when the directory is closed.
    async fn fetch_from_peers(&self, key: ExtentKey, offsets: Range<Offset>) -> io::Result<Exported> {
        let owner = self.index.owner(key);
        let peers = owner.and_then(|owner| self.rewriter.peers.lock().get(&owner).and_then(Weak::upgrade));
        let peers = peers.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no other replica is known"))?;
        tokio::select! {
            biased;
            () = self.rewriter.stop.notified() => Err(io::Error::new(io::ErrorKind::NotConnected, "closing")),
            found = peers.fetch(key.partition, offsets) => found,
        }
    }

    /// Continues after the damaged batch at which a step ended: with the copy of another replica, or without the batch if
    /// it has no readers. Returns how many were fetched; the error is that of the step if no replica returns it now.
    pub(super) async fn pass_damaged(
        &self,
        cursor: &mut Cursor,
        writer: &mut RunWriter,
        error: PushError,
    ) -> Result<usize, PushError> {
        let Some((key, indexed)) = cursor.damaged() else { return Err(error) };
        let Some(replica) = self.reader_of(key) else {
            cursor.skip_damaged();
            return Ok(0);
        };
        let offset = indexed.base_offset;
        self.rewriter.damage.batch(indexed.position.segment, Spot { key, offset });
        let Some(batch) = self.sound_copy(replica, key, &indexed).await else { return Err(error) };
        cursor.replace_damaged(&batch, writer)?;
        tracing::warn!(replica = replica.0, partition = %key.partition, offset = offset.0,
            "a damaged batch was fetched from another replica");
        Ok(1)
    }

    /// Drops the record of a damaged file that no reader needs any more.
    pub(super) fn forget_damaged(&self, file: u64) {
        self.rewriter.damage.forget_file(file);
        self.rewriter.left_alone.lock().remove(&file);
    }

    /// The copy of a damaged batch from another replica; `None` if none returns it now.
    async fn sound_copy(&self, replica: ReplicaId, key: ExtentKey, indexed: &IndexedBatch) -> Option<Bytes> {
        let base = indexed.base_offset;
        let from = base.max(self.index.log_start(key));
        match self.fetch_from_peers(key, from..indexed.end_offset()).await {
            Ok(found) => {
                let batch = found.batches.into_iter().next()?.data;
                BatchHeader::parse(&batch).filter(|header| header.base_offset == base).map(|_| batch)
            }
            Err(error) => {
                tracing::warn!(replica = replica.0, partition = %key.partition, offset = base.0, %error,
                    "no other replica gives the damaged batch");
                None
            }
        }
    }

    /// Counts a batch that was missing or damaged and is repaired.
    pub(super) fn count_repaired(&self, batches: usize) {
        self.rewriter.repaired_batches.fetch_add(batches as u64, Ordering::Relaxed);
    }

    /// The next job of this round, if known damage can be repaired.
    pub(super) async fn repair_once(self: &Arc<Self>) -> Result<Option<Outcome>, DataDirError> {
        let damage = &self.rewriter.damage;
        while let Some((file, spot)) = damage.next_file() {
            match self.prospect(file, spot).await {
                Prospect::Gone => self.forget_damaged(file),
                Prospect::Later => {}
                Prospect::Now => return self.rewrite(&BTreeSet::from([file])).await.map(Some),
            }
        }
        while let Some((key, offsets)) = damage.next_gap() {
            // What is applied again after a start is not missing.
            if self.index.owner(key).is_some_and(|owner| self.replays(owner)) && !mutants::is_on(Bug::GapFilledEarly) {
                continue;
            }
            match self.index.gap(key, offsets) {
                None => damage.forget_gap(key),
                Some(gap) => {
                    if let Some(outcome) = self.fill(key, gap).await? {
                        return Ok(Some(outcome));
                    }
                }
            }
        }
        Ok(None)
    }

    async fn prospect(&self, file: u64, spot: Spot) -> Prospect {
        let log_start = self.index.log_start(spot.key);
        if log_start == GONE || self.index.table.live_bytes(file) == 0 {
            return Prospect::Gone;
        }
        if let Some(run) = RunId::of_file(file) {
            if self.runs.get(run).is_none_or(|run| run.leaving) {
                return Prospect::Gone;
            }
        } else {
            let segment = self.log.segments().into_iter().find(|segment| segment.sequence == file);
            let Some(segment) = segment.filter(|_| !self.index.is_rewritten(file)) else { return Prospect::Gone };
            if !segment.sealed && self.accepts_writes() {
                self.log.end_segment(file);
            }
            // Once it has an index nothing in it is applied again, so that runs can replace it.
            if !segment.sealed || !self.index.table.is_indexed(file) {
                return Prospect::Later;
            }
        }
        let from = spot.offset.max(log_start);
        match self.fetch_from_peers(spot.key, from..from.plus(1)).await {
            Ok(found) if !found.batches.is_empty() => Prospect::Now,
            _ => Prospect::Later,
        }
    }

    /// Fetches what the index lacks into runs, as far as other replicas have it; `None` if they return nothing.
    async fn fill(self: &Arc<Self>, key: ExtentKey, gap: Gap) -> Result<Option<Outcome>, DataDirError> {
        let Some(replica) = self.index.owner(key) else {
            self.rewriter.damage.forget_gap(key);
            return Ok(None);
        };
        let mut import = self.begin_gap(replica, key, &gap);
        let (fetched, made) = (self.fetch_gap(key, &gap, &mut import).await, import.made());
        let runs = match fetched {
            Ok(batches) => import.into_runs().await.map(|runs| (batches, runs)),
            Err(error) => Err(error),
        };
        match runs {
            Ok((_, runs)) if runs.is_empty() => Ok(None),
            Ok((batches, runs)) => {
                self.commit_runs(&BTreeSet::new(), runs).await?;
                self.count_repaired(batches);
                self.rewriter.damage.forget_gap(key);
                tracing::warn!(replica = replica.0, partition = %key.partition, from = gap.from.0, to = gap.to.0, batches,
                    "batches whose frames are damaged were fetched from another replica");
                Ok(Some(Outcome::Done))
            }
            Err(error) => {
                self.remove_files(made).await?;
                match error.kind() {
                    io::ErrorKind::InvalidData => {
                        tracing::warn!(replica = replica.0, partition = %key.partition, %error, "what was fetched is not what is lacking");
                        Ok(None)
                    }
                    io::ErrorKind::StorageFull => Ok(Some(Outcome::NoSpace)),
                    _ => Err(self.fail("run", error)),
                }
            }
        }
    }

    /// Adds batches until the gap is filled, or no replica returns more. An error is the disk's, or says that they do
    /// not fit.
    async fn fetch_gap(&self, key: ExtentKey, gap: &Gap, import: &mut Import) -> io::Result<usize> {
        let mut batches = 0;
        loop {
            let from = import.position(key.partition);
            if from >= gap.to {
                return Ok(batches);
            }
            let found = match self.fetch_from_peers(key, from..gap.to).await {
                Ok(found) if !found.batches.is_empty() => found,
                _ => return Ok(batches),
            };
            for batch in found.batches {
                import.push(key.partition, batch).await?;
                batches += 1;
            }
        }
    }
}
