//! A data directory in memory: what is synced survives a crash, a random prefix of the rest may.
//!
//! A model of the real one, small enough to be verified by reading. Writes are durable after a random delay, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_env::{rt, sim};
use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::checkpoint::{CheckpointSource, StateDelta};
use ottla_storage::data_dir::{Exported, ExportedBatch, RecoveredReplica, ReplicaSnapshot};
use ottla_storage::entry::{Entry, Verdict, Vote};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId};
use ottla_storage::log::{EntryRange, GroupCreation, OnSynced};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::directory::{Directory, EntryLog, SnapshotImport};
use crate::state_machine::Extent;

/// One replica on disk.
#[derive(Debug, Clone, Default)]
struct Image {
    creation: Bytes,
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
    applied: Option<LogId>,
    membership: Bytes,
    checksum: u64,
    state: BTreeMap<Bytes, Bytes>,
}

impl Image {
    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).max(self.purged)
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Create(creation) => self.creation = creation.payload.clone(),
            Change::Vote(vote) => self.vote = Some(*vote),
            Change::Append(entries) => {
                for entry in entries {
                    self.entries.split_off(&entry.log_id.index.0);
                    self.entries.insert(entry.log_id.index.0, entry.clone());
                }
            }
            Change::Truncate(last) => drop(self.entries.split_off(&last.map_or(0, |id| id.index.0 + 1))),
            Change::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index.0 + 1));
                self.purged = self.purged.max(Some(*upto));
            }
            Change::Import(snapshot) => {
                self.applied = Some(snapshot.applied);
                self.membership = snapshot.membership.clone();
                self.checksum = snapshot.checksum;
                self.state = snapshot.keys.iter().cloned().collect();
                self.change(&Change::Purge(snapshot.applied));
            }
            Change::Checkpoint(cut) => {
                self.applied = Some(cut.applied);
                self.membership = cut.membership.clone();
                self.checksum = cut.checksum;
                for (key, value) in &cut.changes {
                    match value {
                        Some(value) => drop(self.state.insert(key.clone(), value.clone())),
                        None => drop(self.state.remove(key)),
                    }
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Create(GroupCreation),
    Vote(Vote),
    Append(Vec<Entry>),
    Truncate(Option<LogId>),
    Purge(LogId),
    Checkpoint(StateDelta),
    Import(ReplicaSnapshot),
}

struct Write {
    replica: ReplicaId,
    change: Change,
    done: OnSynced,
}

/// What survives a crash of the node.
#[derive(Default)]
pub(crate) struct MemoryDisk {
    durable: Mutex<BTreeMap<ReplicaId, Image>>,
    queue: Mutex<Vec<Write>>,
    /// Every write fails from now on.
    pub(crate) broken: Mutex<bool>,
    /// No write completes.
    pub(crate) hangs: Mutex<bool>,
    /// Records of a leader elsewhere have no room.
    pub(crate) full: Mutex<bool>,
    /// Entries whose records are damaged.
    pub(crate) damaged: Mutex<BTreeSet<u64>>,
}

impl MemoryDisk {
    /// Power is lost: of the waiting writes, a random prefix has reached the disk.
    pub(crate) fn crash(&self) {
        let queue = std::mem::take(&mut *self.queue.lock());
        let survive = sim::random_below(queue.len() as u64 + 1);
        for (at, write) in queue.into_iter().enumerate() {
            if (at as u64) < survive {
                self.durable.lock().entry(write.replica).or_default().change(&write.change);
            }
        }
    }

    fn recovered(&self) -> Vec<RecoveredReplica> {
        let recover = |(&id, image): (&ReplicaId, &Image)| RecoveredReplica {
            id,
            creation: image.creation.clone(),
            vote: image.vote,
            purged: image.purged,
            unseeded: None,
            last_log_id: image.last(),
            applied: image.applied,
            membership: image.membership.clone(),
            checksum: image.checksum,
            state: image.state.clone().into_iter().collect(),
            lost: None,
            damaged: Vec::new(),
            damaged_unproven: None,
            committed: RaftIndex(0),
            missing: None,
        };
        self.durable.lock().iter().map(recover).collect()
    }
}

/// The directory while its node is up.
pub(crate) struct MemoryDirectory {
    disk: Arc<MemoryDisk>,
    live: Mutex<BTreeMap<ReplicaId, Image>>,
    synced: Mutex<BTreeMap<ReplicaId, LogId>>,
    sources: Mutex<BTreeMap<ReplicaId, Weak<dyn CheckpointSource>>>,
    kept: Mutex<BTreeMap<ReplicaId, LogId>>,
    pub(crate) recorded: Mutex<BTreeMap<ReplicaId, LogId>>,
    wake: Notify,
    sync_max: Duration,
    lies: bool,
}

impl MemoryDirectory {
    /// Opens the directory; a writer and a checkpointer run on the current node from now on.
    pub(crate) fn open(disk: Arc<MemoryDisk>, sync_max: Duration, lies: bool) -> (Arc<Self>, Vec<RecoveredReplica>) {
        let live = disk.durable.lock().clone();
        let ids = |of: fn(&Image) -> Option<LogId>| {
            live.iter().filter_map(|(&id, image)| Some((id, of(image)?))).collect::<BTreeMap<_, _>>()
        };
        let directory = Arc::new(MemoryDirectory {
            synced: Mutex::new(ids(Image::last)),
            kept: Mutex::new(ids(|image| image.applied)),
            live: Mutex::new(live.clone()),
            sources: Mutex::default(),
            recorded: Mutex::default(),
            wake: Notify::new(),
            sync_max,
            lies,
            disk,
        });
        rt::spawn(directory.clone().write());
        rt::spawn(directory.clone().checkpoint());
        let recovered = directory.disk.recovered();
        (directory, recovered)
    }

    async fn write(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            loop {
                let count = self.disk.queue.lock().len();
                if count == 0 {
                    break;
                }
                let most = u64::try_from(self.sync_max.as_nanos()).unwrap();
                rt::sleep(Duration::from_nanos(sim::random_below(most))).await;
                while *self.disk.hangs.lock() {
                    rt::sleep(Duration::from_millis(10)).await;
                }
                self.complete(count);
            }
        }
    }

    fn complete(&self, count: usize) {
        let writes: Vec<Write> = self.disk.queue.lock().drain(..count).collect();
        for Write { replica, change, done } in writes {
            if *self.disk.broken.lock() {
                done(Err(io::Error::other("EIO")));
                continue;
            }
            self.disk.durable.lock().entry(replica).or_default().change(&change);
            if let Some(last) = self.disk.durable.lock().get(&replica).and_then(Image::last) {
                self.synced.lock().insert(replica, last);
            }
            match &change {
                Change::Checkpoint(StateDelta { applied, .. }) | Change::Import(ReplicaSnapshot { applied, .. }) => {
                    self.kept.lock().insert(replica, *applied);
                }
                _ => {}
            }
            done(Ok(()));
        }
    }

    async fn checkpoint(self: Arc<Self>) {
        loop {
            rt::sleep(Duration::from_millis(200 + sim::random_below(800))).await;
            let sources: Vec<_> = self.sources.lock().values().filter_map(Weak::upgrade).collect();
            for cut in sources.into_iter().filter_map(|source| source.take_delta()) {
                self.push(cut.replica, Change::Checkpoint(cut), Box::new(|_| {}));
            }
        }
    }

    fn push(&self, replica: ReplicaId, change: Change, done: OnSynced) {
        if !matches!(change, Change::Checkpoint(_)) {
            self.live.lock().entry(replica).or_default().change(&change);
        }
        let done = if self.lies {
            done(Ok(()));
            Box::new(|_| {})
        } else {
            done
        };
        self.disk.queue.lock().push(Write { replica, change, done });
        self.wake.notify_one();
    }

    fn push_and_wait(&self, replica: ReplicaId, change: Change) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let (sender, done) = oneshot::channel();
            self.push(replica, change, Box::new(move |result| drop(sender.send(result))));
            done.await.unwrap_or_else(|_| Err(io::Error::other("writer gone")))
        })
    }
}

/// The directory as groups use it.
#[derive(Clone)]
pub(crate) struct Shared(pub(crate) Arc<MemoryDirectory>);

impl Directory for Shared {
    fn create_replica(&self, creation: GroupCreation) -> BoxFuture<'_, io::Result<Arc<dyn EntryLog>>> {
        Box::pin(async move {
            let replica = creation.replica;
            if self.0.live.lock().contains_key(&replica) {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            self.0.push_and_wait(replica, Change::Create(creation)).await?;
            Ok(Arc::new(MemoryLog { directory: self.0.clone(), replica }) as Arc<dyn EntryLog>)
        })
    }

    fn replica_log(&self, replica: ReplicaId) -> Option<Arc<dyn EntryLog>> {
        self.0.live.lock().contains_key(&replica).then(|| {
            let log: Arc<dyn EntryLog> = Arc::new(MemoryLog { directory: self.0.clone(), replica });
            log
        })
    }

    fn record_applied(&self, replica: ReplicaId, entry: &Entry, _verdicts: &[Verdict]) -> io::Result<()> {
        self.0.recorded.lock().insert(replica, entry.log_id);
        Ok(())
    }

    fn register(&self, replica: ReplicaId, source: Weak<dyn CheckpointSource>) {
        self.0.sources.lock().insert(replica, source);
    }

    fn checkpointed(&self, replica: ReplicaId) -> Option<LogId> {
        self.0.kept.lock().get(&replica).copied()
    }

    fn snapshot_of(&self, replica: ReplicaId) -> BoxFuture<'_, io::Result<Option<ReplicaSnapshot>>> {
        let of = |image: &Image| {
            Some(ReplicaSnapshot {
                applied: image.applied?,
                membership: image.membership.clone(),
                checksum: image.checksum,
                keys: image.state.clone().into_iter().collect(),
            })
        };
        let snapshot = self.0.disk.durable.lock().get(&replica).and_then(of);
        Box::pin(async move { Ok(snapshot) })
    }

    fn export(
        &self,
        _replica: ReplicaId,
        _partition: PartitionId,
        offsets: Range<Offset>,
        _bytes_max: usize,
    ) -> BoxFuture<'_, io::Result<Exported>> {
        Box::pin(async move { Ok(Exported { log_start: offsets.end, batches: Vec::new(), done: None }) })
    }

    fn accepts_replicated(&self) -> bool {
        !*self.0.disk.full.lock()
    }

    fn begin_import(self: Arc<Self>, replica: ReplicaId) -> Box<dyn SnapshotImport> {
        Box::new(MemoryImport { directory: self.0.clone(), replica })
    }
}

/// A snapshot of a ledger, which has no batches.
struct MemoryImport {
    directory: Arc<MemoryDirectory>,
    replica: ReplicaId,
}

impl SnapshotImport for MemoryImport {
    fn order(&self, _extents: &mut [Extent]) {}
    fn position(&self, _partition: PartitionId) -> Offset {
        Offset(0)
    }
    fn skip_to(&mut self, _partition: PartitionId, _offset: Offset) {}
    fn push(&mut self, _partition: PartitionId, _batch: ExportedBatch) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Err(io::Error::other("a ledger has no batches")) })
    }
    fn seal(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn commit<'a>(self: Box<Self>, snapshot: &'a ReplicaSnapshot) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move { self.directory.push_and_wait(self.replica, Change::Import(snapshot.clone())).await })
    }
}

/// One replica's log in memory.
pub(crate) struct MemoryLog {
    directory: Arc<MemoryDirectory>,
    replica: ReplicaId,
}

impl MemoryLog {
    fn image<T>(&self, of: impl FnOnce(&Image) -> T) -> T {
        of(&self.directory.live.lock()[&self.replica])
    }
}

impl EntryLog for MemoryLog {
    fn id(&self) -> ReplicaId {
        self.replica
    }
    fn set_priority(&self, _first: bool) {}
    fn append(&self, entries: Vec<Entry>, on_synced: OnSynced) {
        self.directory.push(self.replica, Change::Append(entries), on_synced);
    }
    fn save_vote(&self, vote: Vote) -> BoxFuture<'_, io::Result<()>> {
        self.directory.push_and_wait(self.replica, Change::Vote(vote))
    }
    fn truncate_after(&self, last: Option<LogId>) -> BoxFuture<'_, io::Result<()>> {
        self.directory.push_and_wait(self.replica, Change::Truncate(last))
    }
    fn purge(&self, upto: LogId) -> BoxFuture<'_, io::Result<()>> {
        self.directory.push_and_wait(self.replica, Change::Purge(upto))
    }
    fn vote(&self) -> Option<Vote> {
        self.image(|image| image.vote)
    }
    fn last_log_id(&self) -> Option<LogId> {
        self.image(Image::last)
    }
    fn last_synced(&self) -> Option<LogId> {
        self.directory.synced.lock().get(&self.replica).copied()
    }
    fn purged(&self) -> Option<LogId> {
        self.image(|image| image.purged)
    }
    fn behind(&self, bytes: u64) -> Option<LogId> {
        let mut left = bytes;
        self.image(|image| {
            let mut is_near = |entry: &&Entry| {
                left = left.saturating_sub(entry.payload.len() as u64 + 1);
                left > 0
            };
            image.entries.values().rev().find(|entry| !is_near(entry)).map(|entry| entry.log_id)
        })
    }
    fn log_id(&self, index: RaftIndex) -> Option<LogId> {
        self.image(|image| image.entries.get(&index.0).map(|entry| entry.log_id))
    }
    fn read(&self, range: EntryRange, bytes_max: usize) -> BoxFuture<'_, io::Result<Vec<Entry>>> {
        Box::pin(async move {
            let entries = self.read_to_apply(range, bytes_max).await?;
            let damaged = self.directory.disk.damaged.lock();
            match entries.iter().find(|entry| damaged.contains(&entry.log_id.index.0)) {
                Some(entry) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("entry {}", entry.log_id))),
                None => Ok(entries),
            }
        })
    }
    fn read_to_apply(&self, range: EntryRange, bytes_max: usize) -> BoxFuture<'_, io::Result<Vec<Entry>>> {
        let mut bytes = 0;
        let entries = self.image(|image| {
            let range = image.entries.range(range.first.0..=range.last.0);
            let fits = |(at, (_, entry)): &(usize, (&u64, &Entry))| {
                bytes += entry.payload.len();
                *at == 0 || bytes <= bytes_max
            };
            range.enumerate().take_while(fits).map(|(_, (_, entry))| entry.clone()).collect()
        });
        Box::pin(async move { Ok(entries) })
    }
}
