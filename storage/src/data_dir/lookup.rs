//! Lookups in a data directory: batches by offset and by time, sizes, retention points.
//!
//! A lookup is served at once from what is in memory, else on a blocking thread. If it finds a damaged `.idx` file, the
//! file is rebuilt from the log and the lookup is repeated.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ottla_protocol::ids::Offset;

use super::DataDir;
use crate::compact::PassDone;
use crate::ids::RunId;
use crate::index::{Access, BatchIndex, Bounds, DirtyBytes, ExtentKey, Found, IndexError, IndexedBatch, Planned};
use crate::read::{Noting, ReadError, ReadPlan, ReadRequest, Wanted};
use ottla_env::rt;

/// Attempts to plan a read when a file is unlinked in between: each time its batches have moved to a run.
const MOVES_MAX: usize = 4;

impl DataDir {
    /// Looks something up in the index, without blocking on the disk if that is possible.
    pub(super) async fn look_up<T, F>(&self, offset: Offset, lookup: F) -> Result<T, ReadError>
    where
        T: Send + 'static,
        F: Fn(&BatchIndex, Access) -> Result<T, IndexError> + Send + Sync + Clone + 'static,
    {
        if let Some(reason) = self.poisoned() {
            return Err(ReadError::Poisoned(reason.to_string()));
        }
        let mut outcome = lookup(&self.index, Access::Resident);
        // A lookup may find several damaged files: each of them is rebuilt once.
        let (mut waited, mut rebuilt) = (false, BTreeSet::new());
        loop {
            match outcome {
                Err(IndexError::NotResident) if !waited => waited = true,
                Err(IndexError::Damaged { segment }) if rebuilt.insert(segment) => {
                    tracing::warn!(segment, "index file is damaged: rebuilding it from the log");
                    if let Err(error) = self.rebuild_index(segment).await {
                        return Err(ReadError::Damaged { offset, cause: error.to_string() });
                    }
                }
                other => return other.map_err(|error| ReadError::Damaged { offset, cause: error.to_string() }),
            }
            let (index, lookup) = (Arc::clone(&self.index), lookup.clone());
            let work = rt::spawn_blocking(move || lookup(&index, Access::MayBlock));
            outcome = match work.await {
                Ok(outcome) => outcome,
                Err(error) => return Err(ReadError::Damaged { offset, cause: error.to_string() }),
            };
        }
    }

    /// Plans a read; pins what it needs.
    pub async fn plan_read(&self, request: ReadRequest) -> Result<ReadPlan, ReadError> {
        for _ in 0..MOVES_MAX {
            let mut search = Search::new(request);
            while let Some(bounds) = search.bounds() {
                let planned =
                    self.look_up(bounds.from, move |index, access| index.plan(request.key, bounds, access)).await;
                if let Err(ReadError::Damaged { offset, .. }) = &planned {
                    self.counters.damaged_reads.fetch_add(1, Ordering::Relaxed);
                    self.rewriter.damage.gap(request.key, *offset..request.up_to);
                }
                search.take(planned?);
            }
            match search.open(self) {
                Err(ReadError::Moved(_)) => {}
                outcome => return outcome,
            }
        }
        self.counters.damaged_reads.fetch_add(1, Ordering::Relaxed);
        Err(ReadError::Damaged { offset: request.from, cause: "its file is not there".to_owned() })
    }

    /// Plans a read without waiting; `None` if it would have to block.
    pub fn try_plan_read(&self, request: ReadRequest) -> Option<Result<ReadPlan, ReadError>> {
        if let Some(reason) = self.poisoned() {
            return Some(Err(ReadError::Poisoned(reason.to_string())));
        }
        let mut search = Search::new(request);
        while let Some(bounds) = search.bounds() {
            search.take(self.index.plan(request.key, bounds, Access::Resident).ok()?);
        }
        match search.open(self) {
            Err(ReadError::Moved(_)) => None,
            outcome => Some(outcome),
        }
    }

    pub(super) fn open_plan(&self, key: ExtentKey, from: Offset, planned: Vec<Planned>) -> Result<ReadPlan, ReadError> {
        let file = |number| match RunId::of_file(number) {
            Some(run) => self.runs.file(run),
            None => self.log.segment(number).map(|segment| Arc::clone(&segment.file)),
        };
        let open = |number| self.open_segments.get(number, || file(number));
        let noting = Noting { damage: Arc::clone(&self.rewriter.damage), key };
        let plan = ReadPlan::new(from, self.verify_below, Arc::clone(&self.disk_reads), noting, planned, open);
        if matches!(plan, Err(ReadError::Damaged { .. })) {
            self.counters.damaged_reads.fetch_add(1, Ordering::Relaxed);
        }
        plan
    }

    /// The batch that holds `offset`.
    pub async fn batch_at(&self, key: ExtentKey, offset: Offset) -> Result<Option<IndexedBatch>, ReadError> {
        self.look_up(offset, move |index, access| index.at(key, offset, access)).await
    }

    /// The first batch, not wholly below log start, whose greatest timestamp is at least `timestamp_ms`.
    pub async fn batch_by_time(&self, key: ExtentKey, timestamp_ms: i64) -> Result<Option<IndexedBatch>, ReadError> {
        self.look_up(Offset(0), move |index, access| index.by_time(key, timestamp_ms, access)).await
    }

    /// The first batch with the greatest timestamp of the partition.
    pub async fn batch_of_max_timestamp(&self, key: ExtentKey) -> Result<Option<IndexedBatch>, ReadError> {
        self.look_up(Offset(0), move |index, access| index.of_max_timestamp(key, access)).await
    }

    /// Bytes of the partition's batches from log start on, as used by DescribeLogDirs and `retention.bytes`.
    #[must_use]
    pub fn bytes_of(&self, key: ExtentKey) -> u64 {
        self.index.bytes_of(key)
    }

    /// The log start offset by retention: the end of the longest prefix of whole batches, all below `up_to` (the high
    /// watermark), that are older than `cutoff_ms`, or whose removal leaves at least `bytes_max` bytes. `None` if
    /// nothing is to be deleted.
    pub async fn retention_point(
        &self,
        key: ExtentKey,
        up_to: Offset,
        cutoff_ms: Option<i64>,
        bytes_max: Option<u64>,
    ) -> Result<Option<Offset>, ReadError> {
        let lookup = move |index: &BatchIndex, access| index.retention_point(key, up_to, cutoff_ms, bytes_max, access);
        self.look_up(Offset(0), lookup).await
    }

    /// What a pass of compaction could go over: whole batches from `horizon` on that end at or below `up_to`, up to the first with a
    /// timestamp of `before_ms` or later.
    pub async fn dirty_bytes(
        &self,
        key: ExtentKey,
        horizon: Offset,
        up_to: Offset,
        before_ms: i64,
    ) -> Result<DirtyBytes, ReadError> {
        let lookup = move |index: &BatchIndex, access| index.dirty_bytes(key, horizon, up_to, before_ms, access);
        self.look_up(horizon, lookup).await
    }
}

/// The batches of a read while the index is searched for them: once as a rule, again where all that a search found is passed over.
struct Search {
    request: ReadRequest,
    /// Where the next search begins; none is needed if there is none.
    next: Option<Offset>,
    found_at: Option<Offset>,
    planned: Vec<Planned>,
    pass: Option<PassDone>,
}

impl Search {
    fn new(request: ReadRequest) -> Self {
        Self { request, next: Some(request.from), found_at: None, planned: Vec::new(), pass: None }
    }

    fn bounds(&self) -> Option<Bounds> {
        let ReadRequest { up_to, bytes_max, at_least_one, .. } = self.request;
        self.next.map(|from| Bounds { from, up_to, bytes_max: bytes_max as u64, at_least_one })
    }

    fn take(&mut self, found: Found) {
        let Found { batches: planned, pass } = found;
        self.next = None;
        // Nothing follows what was passed over before: that is the reader's.
        let Some((first, last)) = planned.first().zip(planned.last()) else { return };
        self.pass = pass;
        self.found_at.get_or_insert(first.indexed.base_offset);
        let is_passed = |planned: &Planned| planned.indexed.is_empty();
        if self.request.wanted == Wanted::All || !planned.iter().any(is_passed) {
            self.planned = planned;
        } else if planned.iter().all(is_passed) {
            let end = last.indexed.end_offset();
            self.next = Some(end).filter(|end| *end < self.request.up_to);
            self.planned = vec![last.clone()];
        } else {
            self.planned = planned.into_iter().filter(|planned| !is_passed(planned)).collect();
        }
    }

    fn open(self, directory: &DataDir) -> Result<ReadPlan, ReadError> {
        let plan = directory.open_plan(self.request.key, self.request.from, self.planned)?;
        Ok(plan.found_at(self.found_at).left_by(self.pass))
    }
}
