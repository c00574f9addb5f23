//! openraft's log storage over a replica's part of the shared log.
//!
//! Entries are readable when `append` returns, completions come in order, a vote is durable when `save_vote` returns.
//! The committed id is only kept in memory: after a restart the checkpoint's applied id takes its place. May not know:
//! what an entry means.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;

use futures_util::Stream;
use openraft::entry::RaftEntry;
use openraft::storage::{
    IOFlushed, LeaderBoundedStreamError, LeaderBoundedStreamResult, RaftLogReader, RaftLogStorage,
};
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId};
use openraft::{LogState, errors::LeaderChanged};
use ottla_env::mutants::{self, Bug};
use ottla_storage::ids::{LogId, RaftIndex};
use ottla_storage::log::EntryRange;
use parking_lot::Mutex;

use crate::damage::Damage;
use crate::directory::EntryLog;
use crate::openraft_types::{
    LogEntry, RaftLogId, RaftVote, TypeConfig, from_raft_log_id, from_raft_vote, to_raft_log_id, to_raft_vote,
};

/// Bytes of entries in one append, except for a single longer entry: several appends are in flight, and on a slow link a long one
/// holds up all behind it.
const APPEND_BYTES_MAX: usize = 1 << 20;

/// The log of one replica as openraft's log storage; clones share everything.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: Arc<dyn EntryLog>,
    committed: Arc<Mutex<Option<RaftLogId>>>,
    read_bytes_max: usize,
    damage: Arc<Damage>,
}

impl LogStore {
    pub(crate) fn new(log: Arc<dyn EntryLog>, read_bytes_max: usize) -> Self {
        LogStore { log, committed: Arc::default(), read_bytes_max, damage: Arc::default() }
    }

    /// Entries up to this one are known to be committed: openraft applies them before it starts.
    pub(crate) fn with_committed(self, committed: Option<LogId>) -> Self {
        *self.committed.lock() = committed.map(to_raft_log_id);
        self
    }

    /// The damage found in this log.
    pub(crate) fn damage(&self) -> Arc<Damage> {
        self.damage.clone()
    }

    /// The part of `range` that exists.
    fn clip(&self, range: &impl RangeBounds<u64>) -> Option<EntryRange> {
        let first = match range.start_bound() {
            Bound::Included(&index) => index,
            Bound::Excluded(&index) => index.checked_add(1)?,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&index) => index.saturating_add(1),
            Bound::Excluded(&index) => index,
            Bound::Unbounded => u64::MAX,
        };
        let mut first = first.max(self.log.purged().map_or(0, |id| id.index.0 + 1));
        // Raft's first entry has index 0; openraft's suite also begins at 1.
        if first == 0 && self.log.log_id(RaftIndex(0)).is_none() {
            first = 1;
        }
        let end = end.min(self.log.last_log_id().map_or(0, |id| id.index.0 + 1));
        (first < end).then(|| EntryRange { first: RaftIndex(first), last: RaftIndex(end - 1) })
    }

    async fn read(&self, range: EntryRange, reader: Reader) -> io::Result<Vec<LogEntry>> {
        let entries = match reader {
            Reader::Peer if !mutants::is_on(Bug::DamagedRecordsReplicated) => {
                self.log.read(range, self.read_bytes_max.min(APPEND_BYTES_MAX)).await
            }
            Reader::Peer | Reader::Apply => self.log.read_to_apply(range, self.read_bytes_max).await,
        };
        // Apply needs the headers alone, and cannot continue without them.
        if matches!(reader, Reader::Apply)
            && entries.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)
        {
            self.damage.set_fatal();
        }
        Ok(entries?.into_iter().map(LogEntry::from).collect())
    }

    /// The entries before a damaged one; none if the first one is damaged: then, if it is committed, a member that
    /// lacks it is to get a snapshot. An error stops this replica.
    async fn read_for_peer(&self, range: EntryRange) -> io::Result<Vec<LogEntry>> {
        let error = match self.read(range, Reader::Peer).await {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => error,
            read => return read,
        };
        if let Ok(first) = self.read(EntryRange { last: range.first, ..range }, Reader::Peer).await {
            return Ok(first);
        }
        let committed = self.committed.lock().as_ref().is_some_and(|id| id.index >= range.first.0);
        if !committed && !self.damage.is_committed(range.first) {
            self.damage.set_fatal();
            return Err(error);
        }
        tracing::warn!(%error, "it cannot be sent: a member that lacks it gets a snapshot");
        self.damage.until_purged(range.first).await;
        Ok(Vec::new())
    }

    async fn read_all(&self, range: impl RangeBounds<u64>, reader: Reader) -> io::Result<Vec<LogEntry>> {
        let Some(mut range) = self.clip(&range) else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        while range.first <= range.last {
            let part = self.read(range, reader).await?;
            let Some(next) = part.last().map(next_index) else { break };
            range.first = next;
            all.extend(part);
        }
        Ok(all)
    }

    fn vote(&self) -> Option<RaftVote> {
        self.log.vote().map(to_raft_vote)
    }

    fn leads(&self, leader: &LeaderId<u64, u64>) -> Result<(), LeaderBoundedStreamError<TypeConfig>> {
        let vote = self.vote();
        if vote.is_some_and(|vote| vote.committed && vote.leader_id == *leader) {
            return Ok(());
        }
        Err(LeaderBoundedStreamError::LeaderChanged(LeaderChanged::new(*leader, vote)))
    }

    /// The first index in `range` whose term is above `term`, by bisection: terms never fall along a log.
    fn first_above(&self, term: u64, mut low: u64, mut high: u64) -> io::Result<u64> {
        while low < high {
            let middle = low + (high - low) / 2;
            if self.term_of(middle)? > term {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    fn term_of(&self, index: u64) -> io::Result<u64> {
        match self.log.log_id(RaftIndex(index)) {
            Some(id) => Ok(id.term.0),
            None => Err(io::Error::other(format!("entry {index} is missing"))),
        }
    }
}

/// The reader of entries. Records that are damaged on disk are never sent to a peer; apply needs their headers only.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Peer,
    Apply,
}

fn next_index(entry: &LogEntry) -> RaftIndex {
    RaftIndex(entry.log_id_parts().1 + 1)
}

/// Entries are applied without a gap, from `first` on; a log that was never purged may begin later.
fn check_contiguous(first: RaftIndex, part: &[LogEntry]) -> io::Result<()> {
    let begin = part.first().map_or(first.0, |entry| entry.log_id_parts().1);
    let whole = (begin == first.0 || first.0 == 0) && part.iter().zip(begin..).all(|(e, i)| e.log_id_parts().1 == i);
    if whole { Ok(()) } else { Err(io::Error::other(format!("the log has a hole at or after {}", first.0))) }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, io::Error> {
        // At start openraft looks for memberships in what it reads, and apply may follow.
        self.read_all(range, Reader::Apply).await
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        Ok(self.vote())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, io::Error> {
        match self.clip(&(start..end)) {
            Some(range) => self.read_for_peer(range).await,
            None => Ok(Vec::new()),
        }
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<LogEntry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let store = self.clone();
        let remaining = self.clip(&range);
        let chunks = futures_util::stream::unfold(remaining, move |remaining| {
            let store = store.clone();
            async move {
                let range = remaining?;
                match store.read(range, Reader::Apply).await {
                    Ok(part) => {
                        if let Err(hole) = check_contiguous(range.first, &part) {
                            return Some((vec![Err(hole)], None));
                        }
                        let first = part.last().map(next_index)?;
                        let last = range.last;
                        let rest = (first <= last).then_some(EntryRange { first, last });
                        Some((part.into_iter().map(Ok).collect::<Vec<_>>(), rest))
                    }
                    Err(error) => Some((vec![Err(error)], None)),
                }
            }
        });
        futures_util::StreamExt::flat_map(chunks, futures_util::stream::iter)
    }

    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderId<u64, u64>,
        range: RB,
    ) -> impl Stream<Item = LeaderBoundedStreamResult<TypeConfig>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let read = async {
            // Checked before and after: what was read in between belongs to the leader's log.
            self.leads(&leader)?;
            let entries = self.read_all(range, Reader::Peer).await?;
            self.leads(&leader)?;
            Ok(entries)
        };
        let items = match read.await {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        futures_util::stream::iter(items)
    }

    async fn get_key_log_ids(&mut self, range: RangeInclusive<RaftLogId>) -> Result<Vec<RaftLogId>, io::Error> {
        // openraft needs the LAST id of each term (its documentation of this method says the first; its own
        // implementation and `LogIdList` say the last).
        let (first, last) = range.into_inner();
        let mut keys = Vec::new();
        let (mut term, mut index) = (first.leader_id.term, first.index);
        while term < last.leader_id.term {
            index = self.first_above(term, index + 1, last.index)?;
            keys.push(RaftLogId::new(CommittedLeaderId::new(term), index - 1));
            term = self.term_of(index)?;
        }
        keys.push(last);
        Ok(keys)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        Ok(LogState {
            last_purged_log_id: self.log.purged().map(to_raft_log_id),
            last_log_id: self.log.last_log_id().map(to_raft_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        self.log.save_vote(from_raft_vote(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        *self.committed.lock() = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        Ok(*self.committed.lock())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + Send,
        I::IntoIter: Send,
    {
        let entries = entries.into_iter().map(LogEntry::into_inner).collect();
        let leads = || self.log.vote().is_some_and(|vote| vote.committed && vote.voted_for == self.log.id());
        if mutants::is_on(Bug::FollowerAcksBeforeSync) && !leads() {
            self.log.append(entries, Box::new(drop));
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.log.append(entries, Box::new(move |synced| callback.io_completed(synced)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        self.log.truncate_after(last.as_ref().map(from_raft_log_id)).await
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        self.log.purge(from_raft_log_id(&upto)).await
    }
}
