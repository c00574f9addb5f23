//! The replicated state of one replica and what changes or reads it: apply, cut, snapshot point.
//!
//! An entry is applied as a whole under one lock: state machine, verdicts to the batch index, publication, and only
//! then the reply. So a cut, taken under the same lock, lies exactly between two entries.
//!
//! Invariants:
//!
//! - A cut is never returned before all its entries are synced in this replica's own log.
//! - After a panic or a failed record the state is never used again.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_env::critical::count_panic;
use ottla_env::mutants::{self, Bug};
use ottla_env::{rt, watch};
use ottla_protocol::ids::PartitionId;
use ottla_storage::checkpoint::{CheckpointSource, StateDelta};
use ottla_storage::data_dir::{MergeCut, ReplicaSnapshot};
use ottla_storage::entry::{Entry, EntryKind};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use openraft::entry::RaftEntry;

use crate::checksum_points::ChecksumPoints;
use crate::damage::Damage;
use crate::directory::{Directory, EntryLog};
use crate::membership::Membership;
use crate::openraft_types::{
    LogEntry, SnapshotMeta, StoredMembership, encode_stored_membership, from_raft_membership, to_raft_log_id,
};
use crate::resize::{Merged, Resize};
use crate::seeded_child::SeededChild;
use crate::state_machine::{Absorbed, AbsorbedReplica, Applied, Extent, Reply, SplitOff, StateMachine};

/// The replicated state of one replica.
pub(crate) struct Applier {
    replica: ReplicaId,
    directory: Arc<dyn Directory>,
    log: Arc<dyn EntryLog>,
    damage: Arc<Damage>,
    /// The checksum of the state is kept after every so many entries.
    checksum_entries: u64,
    state: Mutex<AppliedState>,
    applied: watch::Sender<Option<LogId>>,
    resized: Notify,
    /// How many splits and merges are applied and not durable.
    resizes_open: watch::Sender<usize>,
}

struct AppliedState {
    state_machine: Box<dyn StateMachine>,
    applied: Option<LogId>,
    /// Memberships applied, oldest first, back to the one in force at the last snapshot point.
    memberships: Vec<StoredMembership>,
    /// The last one of them.
    members: Membership,
    /// What was split off or merged and is not taken yet, oldest first.
    resizes: VecDeque<Resize>,
    /// The last entry contained in a cut.
    cut_at: Option<LogId>,
    /// A cut whose entries are not all synced yet.
    pending: Option<StateDelta>,
    snapshot: Option<SnapshotMeta>,
    failed: Option<Arc<str>>,
    /// Nothing is applied any more; what was applied may still be cut.
    closed: bool,
    /// A snapshot is being installed: there is nothing to cut.
    installing: bool,
    /// Entries up to here may be purged, if the checkpoint contains them.
    purgeable: Option<LogId>,
    /// Checksums of the state after some entries.
    checksums: ChecksumPoints,
}

/// Where a replica's state begins in this process.
#[derive(Debug, Default)]
pub(crate) struct InitialState {
    /// The last entry that the checkpoint contains.
    pub(crate) applied: Option<LogId>,
    /// The last entry that is known to be committed; entries up to it are applied before anything else.
    pub(crate) committed: Option<LogId>,
    /// The membership in force at `applied`.
    pub(crate) membership: StoredMembership,
    /// The last entry whose records are damaged.
    pub(crate) damaged: Option<RaftIndex>,
}

impl Applier {
    pub(crate) fn new(
        directory: Arc<dyn Directory>,
        log: Arc<dyn EntryLog>,
        damage: Arc<Damage>,
        initial: InitialState,
        state_machine: Box<dyn StateMachine>,
        checksum_entries: u64,
    ) -> Arc<Self> {
        let InitialState { applied, membership, damaged, .. } = initial;
        // What is applied is committed, and so is what was found damaged: else the replica would not have been opened.
        damaged.into_iter().for_each(|index| damage.note_committed(index));
        // What is purged is contained in the checkpoint: its point serves as the snapshot.
        let snapshot = applied
            .map(|id| SnapshotMeta { last_log_id: Some(to_raft_log_id(id)), last_membership: membership.clone() });
        let state = AppliedState {
            state_machine,
            applied,
            members: from_raft_membership(membership.membership()),
            memberships: vec![membership],
            resizes: VecDeque::new(),
            cut_at: applied,
            pending: None,
            snapshot,
            failed: None,
            closed: false,
            installing: false,
            purgeable: None,
            checksums: ChecksumPoints::default(),
        };
        let replica = log.id();
        let (state, applied) = (Mutex::new(state), watch::Sender::new(applied));
        let (resized, resizes_open) = (Notify::new(), watch::Sender::new(0));
        Arc::new(Applier { replica, directory, log, damage, checksum_entries, state, applied, resized, resizes_open })
    }

    pub(crate) fn set_priority(&self, first: bool) {
        self.log.set_priority(first);
    }

    pub(crate) fn applied(&self) -> Option<LogId> {
        *self.applied.borrow()
    }

    pub(crate) fn watch_applied(&self) -> watch::Receiver<Option<LogId>> {
        self.applied.subscribe()
    }

    pub(crate) fn applied_state(&self) -> (Option<LogId>, StoredMembership) {
        let state = self.state.lock();
        (state.applied, state.memberships.last().cloned().unwrap_or_default())
    }

    /// The newest checksum of the state that is kept, and the entry after which it was taken.
    pub(crate) fn newest_checksum(&self) -> Option<(RaftIndex, u64)> {
        self.state.lock().checksums.newest()
    }

    /// The checksum of the state after an entry, if it is kept.
    pub(crate) fn checksum_at(&self, index: RaftIndex) -> Option<u64> {
        self.state.lock().checksums.at(index)
    }

    /// Why the state may not be used any more, if so.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.state.lock().failed.clone()
    }

    /// Nothing is applied after this returns.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
    }

    /// Applies the next entry and returns its reply. An error means that this replica has failed.
    pub(crate) fn apply(&self, entry: LogEntry) -> io::Result<Reply> {
        let membership = entry.get_membership();
        let entry = entry.into_inner();
        let mut state = self.state.lock();
        if let Some(reason) = &state.failed {
            return Err(io::Error::other(reason.to_string()));
        }
        if state.closed {
            return Err(io::Error::other("stopped"));
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            // The log store returns no entries with a gap; this check refuses to apply an entry twice.
            assert!(Some(entry.log_id) > state.applied, "an entry is applied twice");
            self.apply_whole(&mut state, &entry)
        }));
        let reply = match outcome {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Err(self.fail(&mut state, &entry, &format!("storage: {error}"))),
            Err(panic) => {
                let message = rt::panic_message(&*panic);
                count_panic("apply");
                return Err(self.fail(&mut state, &entry, &format!("apply panicked: {message}")));
            }
        };
        state.applied = Some(entry.log_id);
        if entry.log_id.index.0.is_multiple_of(self.checksum_entries) {
            let checksum = state.state_machine.checksum();
            state.checksums.note(entry.log_id.index, checksum);
        }
        if let Some(membership) = membership {
            state.members = from_raft_membership(&membership);
            state.memberships.push(StoredMembership::new(Some(to_raft_log_id(entry.log_id)), membership));
        }
        drop(state);
        self.applied.send_replace(Some(entry.log_id));
        Ok(reply)
    }

    /// The entry `log_id` is lost for good.
    pub(crate) fn mark_lost(&self, log_id: LogId) {
        let mut state = self.state.lock();
        state.state_machine.entries_lost(log_id);
    }

    fn apply_whole(&self, state: &mut AppliedState, entry: &Entry) -> io::Result<Reply> {
        let nothing = || Applied { verdicts: Vec::new(), reply: Reply::none(), split_off: None, absorbed: None };
        let Applied { verdicts, reply, split_off, absorbed } = match entry.kind {
            EntryKind::Blank => {
                state.state_machine.term_started(entry.log_id);
                nothing()
            }
            EntryKind::Membership => {
                state.state_machine.membership_changed(entry.log_id);
                nothing()
            }
            EntryKind::Normal => {
                if let Err(what) = state.state_machine.check(entry) {
                    self.damage.set_fatal();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                let applied = state.state_machine.apply(entry, &state.members);
                assert_eq!(applied.verdicts.len(), entry.batches.len(), "a verdict per batch");
                applied
            }
        };
        self.directory.record_applied(self.replica, entry, &verdicts)?;
        if let Some(split_off) = split_off {
            self.seed(state, entry.log_id, *split_off);
        }
        if let Some(Absorbed { from, partitions }) = absorbed {
            self.absorb(state, entry.log_id, &from, &partitions)?;
            state.state_machine.publish();
            // Behind it: readers find the partitions at one of the two.
            from.publish();
        } else {
            state.state_machine.publish();
        }
        Ok(reply)
    }

    /// Cuts the state at an entry, with what no checkpoint has taken of earlier cuts.
    fn cut_at(&self, state: &mut AppliedState, at: LogId) -> StateDelta {
        let earlier = state.pending.take().map(|cut| cut.changes).unwrap_or_default();
        let changes: BTreeMap<_, _> = earlier.into_iter().chain(state.state_machine.cut()).collect();
        state.cut_at = Some(at);
        StateDelta {
            replica: self.replica,
            applied: at,
            membership: state.memberships.last().map(encode_stored_membership).unwrap_or_default(),
            changes: changes.into_iter().collect(),
            checksum: state.state_machine.checksum(),
        }
    }

    /// Cuts the state at the split, and the child's with it.
    fn seed(&self, state: &mut AppliedState, at: LogId, split_off: SplitOff) {
        let parent = self.cut_at(state, at);
        let child = SeededChild::seed(&*self.directory, parent, split_off);
        self.begin_resize(state, Resize::Split(Box::new(child)));
    }

    /// Takes the bytes of what was absorbed, and cuts both states.
    fn absorb(
        &self,
        state: &mut AppliedState,
        at: LogId,
        from: &Arc<dyn AbsorbedReplica>,
        partitions: &[PartitionId],
    ) -> io::Result<()> {
        let absorbed = from.cut()?;
        let survivor = self.cut_at(state, at);
        let moved = self.directory.move_partitions(from.replica(), self.replica, partitions);
        let cut = MergeCut { absorbed, survivor, moved };
        self.begin_resize(state, Resize::Merge(Merged { cut, from: from.clone() }));
        Ok(())
    }

    fn begin_resize(&self, state: &mut AppliedState, resize: Resize) {
        state.resizes.push_back(resize);
        self.resizes_open.send_modify(|open| *open += 1);
        self.resized.notify_one();
    }

    /// The oldest split or merge that was not taken.
    pub(crate) fn take_resize(&self) -> Option<Resize> {
        self.state.lock().resizes.pop_front()
    }

    /// Waits until there is another one.
    pub(crate) async fn resized(&self) {
        self.resized.notified().await;
    }

    /// A split or merge is durable.
    pub(crate) fn end_resize(&self) {
        self.resizes_open.send_modify(|open| *open -= 1);
    }

    /// True if all splits and merges that were applied here are durable.
    pub(crate) fn has_no_open_resize(&self) -> bool {
        *self.resizes_open.borrow() == 0
    }

    /// Waits until all splits and merges are durable. If the disk fails this never ends: nothing may be written any more.
    pub(crate) async fn resizes_ended(&self) {
        let mut open = self.resizes_open.subscribe();
        // The sender is this applier's.
        let _ended = open.wait_for(|open| *open == 0).await;
    }

    /// What apply of an entry waits for.
    pub(crate) fn prerequisite(&self, entry: &LogEntry) -> Option<BoxFuture<'static, Result<(), String>>> {
        let entry = entry.inner();
        if entry.kind != EntryKind::Normal || !entry.batches.is_empty() {
            return None;
        }
        self.state.lock().state_machine.prerequisite(entry)
    }

    /// What an entry needs here never comes: this replica has failed, and is rebuilt from the others.
    pub(crate) fn lose(&self, entry: &LogEntry, what: &str) -> io::Error {
        self.damage.set_fatal();
        let mut state = self.state.lock();
        let entry = entry.inner();
        self.fail(&mut state, entry, what)
    }

    fn fail(&self, state: &mut AppliedState, entry: &Entry, reason: &str) -> io::Error {
        self.end(state, format!("entry {}: {reason}", entry.log_id))
    }

    /// Marks the state as failed: it is never used again.
    fn end(&self, state: &mut AppliedState, reason: String) -> io::Error {
        tracing::error!(replica = self.replica.0, "{reason}; this replica stops, the others go on");
        state.failed = Some(reason.as_str().into());
        state.pending = None;
        io::Error::other(reason)
    }

    /// Entries up to here are needed by no other member, or are beyond the purge horizon.
    pub(crate) fn set_purgeable(&self, upto: LogId) {
        let mut state = self.state.lock();
        state.purgeable = state.purgeable.max(Some(upto));
    }

    /// True while members that lag are not served by a snapshot.
    pub(crate) fn needs_entries(&self) -> bool {
        self.state.lock().state_machine.needs_entries()
    }

    /// The batches that belong to a state that another replica cut.
    pub(crate) fn extents(&self, keys: &[(Bytes, Bytes)]) -> io::Result<Vec<Extent>> {
        self.state.lock().state_machine.extents(keys)
    }

    pub(crate) fn begin_install(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.failed {
            return Err(io::Error::other(reason.to_string()));
        }
        state.installing = true;
        state.pending = None;
        Ok(())
    }

    /// The transaction failed: it is unknown which state holds after a restart, so this replica fails.
    pub(crate) fn install_failed(&self, error: &io::Error) -> io::Error {
        self.end(&mut self.state.lock(), format!("snapshot not installed: {error}"))
    }

    /// The transaction is durable: the state in memory follows.
    pub(crate) fn end_install(&self, meta: &SnapshotMeta, snapshot: &ReplicaSnapshot) -> io::Result<()> {
        let mut state = self.state.lock();
        let installed = catch_unwind(AssertUnwindSafe(|| {
            state.state_machine.install(snapshot.applied, &snapshot.keys)?;
            let checksum = state.state_machine.checksum();
            if checksum == snapshot.checksum {
                return Ok(());
            }
            Err(io::Error::other(format!("its checksum is {checksum:x}, not {:x}", snapshot.checksum)))
        }));
        let installed = installed.unwrap_or_else(|panic| {
            count_panic("install");
            Err(io::Error::other(rt::panic_message(&*panic)))
        });
        if let Err(error) = installed {
            return Err(self.end(&mut state, format!("snapshot not installed: {error}")));
        }
        state.applied = Some(snapshot.applied);
        state.cut_at = state.applied;
        state.checksums.clear();
        state.members = from_raft_membership(meta.last_membership.membership());
        state.memberships = vec![meta.last_membership.clone()];
        state.snapshot = Some(meta.clone());
        state.installing = false;
        drop(state);
        self.applied.send_replace(Some(snapshot.applied));
        Ok(())
    }

    /// The snapshot to offer to other members: never below what is purged.
    pub(crate) fn snapshot(&self) -> Option<SnapshotMeta> {
        self.state.lock().snapshot.clone()
    }

    /// Moves the snapshot point to what the checkpoint contains (`force`: to what is applied), copying nothing. `None`
    /// if it would not advance.
    pub(crate) fn advance_snapshot(&self, force: bool) -> Option<SnapshotMeta> {
        let kept = self.directory.checkpointed(self.replica);
        let mut state = self.state.lock();
        let beyond = mutants::is_on(Bug::PurgeBeyondCheckpoint);
        let point = if force || beyond { state.applied? } else { kept.min(state.purgeable)? };
        let id = to_raft_log_id(point);
        if state.snapshot.as_ref().is_some_and(|snapshot| snapshot.last_log_id >= Some(id)) {
            return None;
        }
        let upto = state.memberships.iter().rposition(|m| *m.log_id() <= Some(id)).unwrap_or(0);
        state.memberships.drain(..upto);
        let last_membership = state.memberships.first().cloned().unwrap_or_default();
        let snapshot = SnapshotMeta { last_log_id: Some(id), last_membership };
        state.snapshot = Some(snapshot.clone());
        Some(snapshot)
    }
}

impl AbsorbedReplica for Applier {
    fn replica(&self) -> ReplicaId {
        self.replica
    }

    fn begin_merge(&self) {
        // Under the lock under which cuts are taken.
        let _state = self.state.lock();
        self.resizes_open.send_modify(|open| *open += 1);
    }

    fn cut(&self) -> io::Result<StateDelta> {
        let mut state = self.state.lock();
        let at = match (&state.failed, state.applied) {
            (None, Some(at)) => at,
            (Some(reason), _) => return Err(io::Error::other(format!("replica {}: {reason}", self.replica))),
            (None, None) => return Err(io::Error::other(format!("replica {} has applied nothing", self.replica))),
        };
        Ok(self.cut_at(&mut state, at))
    }

    fn publish(&self) {
        self.state.lock().state_machine.publish();
    }

    fn end_merge(&self) {
        self.end_resize();
    }
}

impl CheckpointSource for Applier {
    fn releases(&self) -> bool {
        let state = self.state.lock();
        state
            .memberships
            .last()
            .is_some_and(|members| from_raft_membership(members.membership()).is_alone(self.replica))
    }

    fn take_delta(&self) -> Option<StateDelta> {
        let mut state = self.state.lock();
        if state.failed.is_some() || state.installing {
            return None;
        }
        let early = mutants::is_on(Bug::SplitCutTwice) || mutants::is_on(Bug::MergeCutTwice);
        if *self.resizes_open.borrow() > 0 && !early {
            return None;
        }
        if state.pending.is_none() && state.cut_at != state.applied {
            let taken = catch_unwind(AssertUnwindSafe(|| (state.state_machine.cut(), state.state_machine.checksum())));
            let (changes, checksum) = match taken {
                Ok(taken) => taken,
                Err(panic) => {
                    count_panic("cut");
                    let message = rt::panic_message(&*panic);
                    drop(self.end(&mut state, format!("cut panicked: {message}")));
                    return None;
                }
            };
            let membership = encode_stored_membership(state.memberships.last()?);
            let applied = state.applied?;
            state.cut_at = state.applied;
            state.pending = Some(StateDelta { replica: self.replica, applied, membership, changes, checksum });
        }
        // A majority of other replicas may have committed what this disk has not synced yet: then the cut waits.
        let synced = self.log.last_synced().map(|id| id.index);
        let ready = state.pending.as_ref().is_some_and(|cut| Some(cut.applied.index) <= synced);
        let ready = ready || mutants::is_on(Bug::CheckpointPastSynced);
        if ready { state.pending.take() } else { None }
    }
}
