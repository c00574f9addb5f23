//! The writer task of a log: takes the queued frames, writes them as one commit of whole pages at a known position of a
//! prepared file, syncs once, and calls the callbacks in order. A failed write or sync stops the log for good.
//!
//! One commit is in flight. A second one would raise the rate only where bandwidth binds (above 3 GiB/s here) and costs
//! half as much latency again, so it is left out; the format allows it (fresh pages, `durable_upto` in every header).

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use super::commit::{CommitHeader, FLAG_CLEAN, FLAG_UNSYNCED, HEAD_BYTES, LastSequences};
use super::frame::{self, Kind, Stamp};
use super::group_commit::GroupCommit;
use super::prepare::Prepared;
use super::queue::{HEADER_BYTES_PER_REPLICA, Queued, Room, Work};
use super::replay::greater_vote;
use super::segment_header::{ReplicaRow, SegmentHeader};
use super::segments::Segment;
use super::shared::Shared;
use super::types::{EntryPlace, FrameBody, LogFailure};
use crate::entry::Vote;
use crate::ids::{LogId, LogPosition, RaftIndex, ReplicaId, Term};
use ottla_env::disk::PAGE_BYTES;
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;

/// The tail: where the log is continued.
pub(crate) struct Tail {
    pub(crate) segment: Arc<Segment>,
    /// End of what is written, a multiple of 8.
    pub(crate) byte: u32,
    /// First byte of its last commit.
    pub(crate) commit_byte: u32,
    /// The written part of the last page.
    pub(crate) page: Vec<u8>,
    pub(crate) next_commit: u64,
    pub(crate) previous: LastSequences,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    tail: Tail,
    /// Content of the next segment's header.
    rows: BTreeMap<ReplicaId, ReplicaRow>,
    fresh_page: bool,
    boot_id: u64,
    /// The bytes to write: from the beginning of the page that holds the tail.
    buffer: Vec<u8>,
    /// The segment's header is part of the next write.
    header: Option<SegmentHeader>,
    group_commit: GroupCommit,
    last_sync: Duration,
}

fn failure(operation: &'static str) -> impl Fn(io::Error) -> LogFailure {
    move |e| LogFailure { operation, kind: e.kind(), message: e.to_string() }
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, tail: Tail, rows: BTreeMap<ReplicaId, ReplicaRow>) -> Self {
        let fresh_page = match shared.options.fresh_page_per_commit {
            Some(fresh) => fresh,
            None => !shared.disk.writes_pages_whole(&shared.dir),
        };
        let boot_id = shared.disk.boot_id();
        Self {
            shared,
            tail,
            rows,
            fresh_page,
            boot_id,
            buffer: Vec::new(),
            header: None,
            group_commit: GroupCommit::default(),
            last_sync: Duration::ZERO,
        }
    }

    /// For a log without segments: the first commit writes the header of the first segment.
    pub(crate) fn begin_segment(&mut self) {
        if mutants::is_on(Bug::SegmentTableWrong) {
            self.rows.retain(|id, _| self.tail.previous.iter().any(|(replica, _)| replica == id));
        }
        self.header = Some(SegmentHeader {
            segment: self.tail.segment.sequence,
            incarnation: self.tail.segment.incarnation,
            first_commit: self.tail.next_commit,
            previous_end: LogPosition { segment: 0, byte: 0 },
            rows: self.rows.values().cloned().collect(),
        });
    }

    /// Writes an empty commit and syncs it, whatever the options: it records how the commits that follow are synced.
    pub(crate) async fn mark_session(&mut self) -> Result<(), LogFailure> {
        let end = self.assemble(&[], if self.shared.options.sync { 0 } else { FLAG_UNSYNCED });
        self.write(end.page_start, true).await?;
        self.written(end, &[], true);
        Ok(())
    }

    /// Runs until the log is closed or fails.
    pub(crate) async fn run(mut self) {
        loop {
            let mut room = self.room();
            let left_bytes = room.segment_bytes;
            if self.tail.segment.batches.load(Ordering::Acquire) >= self.shared.options.segment_batches_max {
                room.segment_bytes = 0;
            }
            self.shared.queue.some().await;
            self.delay_for_group_commit().await;
            match self.shared.queue.next(room).await {
                Work::Frames(frames) => {
                    if self.commit(frames, 0).await.is_err() {
                        return;
                    }
                }
                Work::Roll { frame_bytes } => {
                    let bytes_min = self.segment_bytes_for(frame_bytes);
                    if !self.roll(bytes_min).await {
                        break;
                    }
                }
                // An empty commit records where the old segment ends.
                Work::EndSegment(segment) if segment == self.tail.segment.sequence && self.header.is_none() => {
                    let bytes_min = self.segment_bytes_for(0);
                    if !self.roll(bytes_min).await {
                        break;
                    }
                    if self.commit(Vec::new(), 0).await.is_err() {
                        return;
                    }
                }
                Work::EndSegment(_) => {}
                Work::Closed => {
                    if left_bytes > 0 {
                        let _ = self.commit(Vec::new(), FLAG_CLEAN).await;
                    }
                    break;
                }
            }
        }
        self.shared.end();
    }

    /// Delays the commit for a moment, so that replicas that wrote lately become part of it.
    async fn delay_for_group_commit(&mut self) {
        let Some((expected, wait_max)) = self.group_commit.expected() else { return };
        let lacks = || poll_fn(|cx| Poll::Ready(self.shared.queue.lacks(&expected, cx.waker())));
        if !lacks().await || self.group_commit.skips() {
            return;
        }
        let deadline = rt::now() + wait_max;
        let all_came = loop {
            let left = deadline.since(rt::now());
            if left.is_zero() || !rt::doze(left) {
                break false;
            }
            if !lacks().await {
                break true;
            }
        };
        self.group_commit.waited(all_came);
    }

    fn room(&self) -> Room {
        let start = self.commit_start();
        let headers = self.header.as_ref().map_or(0, |h| h.encoded_bytes().next_multiple_of(PAGE_BYTES));
        let used = start as usize + headers + CommitHeader::bytes_for(self.tail.previous.len()) + PAGE_BYTES;
        Room {
            commit_bytes: self.shared.options.commit_bytes_max as usize,
            segment_bytes: (self.tail.segment.file_bytes as usize).saturating_sub(used),
        }
    }

    /// How long a segment must be for a frame of this length to be the first in it: [`Self::room`] the other way round.
    /// The table at its beginning has a row for each replica.
    fn segment_bytes_for(&self, frame_bytes: usize) -> u64 {
        let header = SegmentHeader::bytes_for(self.rows.values()).next_multiple_of(PAGE_BYTES);
        let commit = CommitHeader::bytes_for(self.tail.previous.len()) + PAGE_BYTES + HEADER_BYTES_PER_REPLICA;
        let needed = (header + commit + frame_bytes).next_multiple_of(PAGE_BYTES) as u64;
        needed.max(u64::from(self.shared.options.segment_bytes))
    }

    fn commit_start(&self) -> u32 {
        if self.fresh_page { self.tail.byte.next_multiple_of(PAGE_BYTES as u32) } else { self.tail.byte }
    }

    /// One commit, from the frames to their callbacks.
    async fn commit(&mut self, frames: Vec<Queued>, flags: u32) -> Result<(), ()> {
        let unsynced = if self.shared.options.sync { 0 } else { FLAG_UNSYNCED };
        let end = self.assemble(&frames, flags | unsynced);
        let unsynced_bug = mutants::is_on(Bug::AckBeforeSync) || mutants::is_on(Bug::CommitNotSynced);
        if let Err(failure) = self.write(end.page_start, self.shared.options.sync && !unsynced_bug).await {
            self.shared.fail(&failure, frames);
            return Err(());
        }
        let places = self.written(end, &frames, self.shared.options.sync);
        self.complete(frames, &places);
        if mutants::is_on(Bug::AckBeforeSync)
            && let Err(failure) = self.sync().await
        {
            self.shared.fail(&failure, Vec::new());
            return Err(());
        }
        Ok(())
    }

    /// Builds the pages to write in the buffer.
    fn assemble(&mut self, frames: &[Queued], flags: u32) -> Assembled {
        let start = self.commit_start();
        let page_start = start - start % PAGE_BYTES as u32;
        self.buffer.clear();
        if page_start < self.tail.byte {
            let Tail { segment, byte, page, .. } = &self.tail;
            let kept = (byte - page_start) as usize;
            assert_eq!(page.len(), kept, "segment {}: the last page before byte {byte}", segment.sequence);
            self.buffer.extend_from_slice(page);
        }
        if let Some(header) = &self.header {
            header.encode(&mut self.buffer);
            self.buffer.resize(self.buffer.len().next_multiple_of(PAGE_BYTES), 0);
        }
        let commit_byte = page_start + self.buffer.len() as u32;
        let header = self.commit_header(frames, flags);
        let this = header.this.clone();
        header.encode(&mut self.buffer);
        let body_start = self.buffer.len();
        let mut starts = Vec::with_capacity(frames.len());
        let stamp = Stamp {
            incarnation: self.tail.segment.incarnation,
            replica: ReplicaId(0),
            sequence: 0,
            durable_upto: super::commit::pack(header.durable_upto),
        };
        for queued in frames {
            starts.push(page_start + self.buffer.len() as u32);
            let stamp = Stamp { replica: queued.replica.id, sequence: queued.sequence, ..stamp };
            frame::encode(&mut self.buffer, stamp, &queued.frame);
        }
        let (segment, body_bytes) = (self.tail.segment.sequence, self.buffer.len() - body_start);
        assert_eq!(
            body_bytes, header.body_bytes as usize,
            "segment {segment}, byte {commit_byte}: bytes of the frames"
        );
        let end = page_start + self.buffer.len() as u32;
        self.buffer.resize(self.buffer.len().next_multiple_of(PAGE_BYTES), 0);
        assert!(
            page_start as usize + self.buffer.len() <= self.tail.segment.file_bytes as usize,
            "segment {segment}, byte {commit_byte}: a commit beyond its segment"
        );
        Assembled { page_start, commit_byte, starts, end, this }
    }

    fn commit_header(&self, frames: &[Queued], flags: u32) -> CommitHeader {
        let mut this: BTreeMap<ReplicaId, u64> = BTreeMap::new();
        let mut body = 0;
        for queued in frames {
            // A relocated frame has an older number.
            let known = self.rows.get(&queued.replica.id).map_or(0, |row| row.sequence);
            let last = this.entry(queued.replica.id).or_insert(known);
            let is_next = *last == 0 || queued.sequence == *last + 1;
            let is_copy = queued.frame.kind == Kind::Entry && queued.sequence <= *last;
            let (replica, sequence) = (queued.replica.id, queued.sequence);
            assert!(is_next || is_copy, "replica {replica}: frame {sequence} is queued after frame {last}");
            *last = queued.sequence.max(*last);
            body += queued.bytes;
        }
        CommitHeader {
            incarnation: self.tail.segment.incarnation,
            segment: self.tail.segment.sequence,
            number: self.tail.next_commit,
            durable_upto: self.shared.durable_upto(),
            boot_id: self.boot_id,
            body_bytes: body as u32,
            flags,
            this: this.into_iter().collect(),
            previous: self.tail.previous.clone(),
        }
    }

    async fn write(&mut self, page_start: u32, sync: bool) -> Result<(), LogFailure> {
        let file = &self.tail.segment.file;
        file.write_at(&self.buffer, u64::from(page_start)).map_err(failure("write"))?;
        if sync { self.sync().await } else { Ok(()) }
    }

    async fn sync(&mut self) -> Result<(), LogFailure> {
        let begun = rt::now();
        let synced = self.tail.segment.file.sync_data().await;
        if !mutants::is_on(Bug::SyncErrorIgnored) {
            synced.map_err(failure("sync"))?;
        }
        let nanos = rt::now().since(begun).as_nanos() as u64;
        self.last_sync = Duration::from_nanos(nanos);
        self.shared.counters.sync_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.shared.counters.sync_times.add(nanos);
        Ok(())
    }

    /// Advances the tail past what was written.
    fn written(&mut self, done: Assembled, frames: &[Queued], synced: bool) -> Vec<EntryPlace> {
        let counters = &self.shared.counters;
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters.frames.fetch_add(frames.len() as u64, Ordering::Relaxed);
        counters.bytes.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
        counters.commit_sizes.add(self.buffer.len() as u64);
        self.shared.preparation.written(self.buffer.len() as u64);
        let batches = frames.iter().map(|queued| queued.frame.batches.len() as u32).sum::<u32>();
        let tail_start = (done.end - done.page_start) as usize / PAGE_BYTES * PAGE_BYTES;
        let tail_end = (done.end - done.page_start) as usize;
        self.tail.page.clear();
        self.tail.page.extend_from_slice(&self.buffer[tail_start..tail_end]);
        self.tail.byte = done.end;
        self.tail.commit_byte = done.commit_byte;
        self.tail.next_commit += 1;
        self.group_commit.committed(&done.this, self.last_sync);
        self.tail.previous = done.this;
        self.header = None;
        let segment = &self.tail.segment;
        segment.batches.fetch_add(batches, Ordering::AcqRel);
        segment.used_bytes.store(done.end, Ordering::Release);
        self.shared.segments.insert(segment.clone());
        if synced {
            self.shared.set_durable_upto(LogPosition { segment: segment.sequence, byte: done.end });
            self.shared.set_resume_from(LogPosition { segment: segment.sequence, byte: done.commit_byte });
        }
        for queued in frames {
            note(&mut self.rows, queued);
        }
        let place = |(queued, byte): (&Queued, &u32)| EntryPlace {
            position: LogPosition { segment: segment.sequence, byte: *byte },
            frame_bytes: queued.frame.frame_bytes() as u32,
            commit_byte: done.commit_byte,
        };
        frames.iter().zip(&done.starts).map(place).collect()
    }

    /// Calls the callbacks, in the order of the frames.
    fn complete(&self, frames: Vec<Queued>, places: &[EntryPlace]) {
        assert_eq!(frames.len(), places.len(), "segment {}: frames and places", self.tail.segment.sequence);
        for (queued, place) in frames.into_iter().zip(places) {
            let replica = queued.replica;
            let is_entry = queued.frame.kind == Kind::Entry;
            let index = RaftIndex(queued.frame.index);
            let (evictable, waiters) = {
                let mut state = replica.state.lock();
                let (id, sequence, next) = (replica.id, queued.sequence, state.next_sequence);
                assert!(sequence < next, "replica {id}: frame {sequence} is durable, the next to be queued is {next}");
                state.synced(sequence);
                if let Some(vote) = vote_of(&queued.frame) {
                    state.vote = greater_vote(state.vote, vote);
                }
                if queued.frame.kind == Kind::Purge {
                    state.purged_synced = state.purged_synced.max(Some(id_of(&queued.frame)));
                }
                let is_placed = is_entry && state.placed(index, queued.sequence, *place);
                let evictable = state.slot(index).filter(|_| is_placed).map(|slot| slot.bytes);
                (evictable, state.take_waiters())
            };
            for waiter in waiters {
                // A caller that stopped waiting needs no answer.
                let _ = waiter.send(());
            }
            if let Some(bytes) = evictable {
                self.shared.cache.evictable(Arc::downgrade(&replica), index, queued.sequence, bytes);
            }
            queued.done.report(Ok(place.position));
        }
    }

    /// Rolls to the next segment, of at least `bytes_min`; false if there is none and the log closes. A segment without a
    /// write is not left behind, for recovery would take it for the end of the log: it is returned and made longer.
    async fn roll(&mut self, bytes_min: u64) -> bool {
        let unbegun = self.header.take();
        if unbegun.is_some() {
            let Segment { sequence, file, path, file_bytes, .. } = &*self.tail.segment;
            let (sequence, file, path, file_bytes) = (*sequence, file.clone(), path.clone(), *file_bytes);
            self.shared.preparation.put_back(Prepared { sequence, file, path, file_bytes });
        }
        let Some(prepared) = self.shared.preparation.take(bytes_min).await else {
            return false;
        };
        // A sealed segment is durable even where commits are not, as the next header implies.
        if !self.shared.options.sync && unbegun.is_none() {
            if let Err(failure) = self.tail.segment.file.sync_data().await.map_err(failure("sync")) {
                self.shared.fail(&failure, Vec::new());
                return false;
            }
            let end = LogPosition { segment: self.tail.segment.sequence, byte: self.tail.byte };
            self.shared.set_durable_upto(end);
            self.shared.set_resume_from(LogPosition { byte: self.tail.commit_byte, ..end });
        }
        let old = std::mem::replace(
            &mut self.tail.segment,
            Arc::new(Segment {
                sequence: prepared.sequence,
                file: prepared.file,
                path: prepared.path,
                incarnation: rt::random_u64(),
                file_bytes: prepared.file_bytes,
                used_bytes: AtomicU32::new(0),
                batches: AtomicU32::new(0),
                sealed: AtomicBool::new(false),
            }),
        );
        old.sealed.store(true, Ordering::Release);
        let end = LogPosition { segment: old.sequence, byte: self.tail.byte };
        let previous_end = unbegun.map_or(end, |header| header.previous_end);
        self.tail.byte = 0;
        self.tail.page.clear();
        self.begin_segment();
        if let Some(header) = &mut self.header {
            header.previous_end = previous_end;
        }
        true
    }
}

/// The commit that `assemble` put into the buffer.
struct Assembled {
    page_start: u32,
    commit_byte: u32,
    starts: Vec<u32>,
    end: u32,
    this: LastSequences,
}

fn id_of(raw: &frame::RawFrame) -> LogId {
    LogId { term: Term(raw.term), index: RaftIndex(raw.index) }
}

fn vote_of(raw: &frame::RawFrame) -> Option<Vote> {
    let vote = |committed| Vote { term: Term(raw.term), voted_for: ReplicaId(raw.index), committed };
    (raw.kind == Kind::Vote).then(|| vote(raw.detail != 0))
}

/// Updates the table of the next segment's header.
fn note(rows: &mut BTreeMap<ReplicaId, ReplicaRow>, queued: &Queued) {
    let id = queued.replica.id;
    let raw = &queued.frame;
    if raw.kind == Kind::Remove {
        rows.remove(&id);
        return;
    }
    let row = rows.entry(id).or_insert_with(|| ReplicaRow {
        replica: id,
        sequence: 0,
        vote: None,
        purged: None,
        lost: false,
        creation: queued.replica.creation.clone(),
    });
    row.sequence = row.sequence.max(queued.sequence);
    match raw.kind {
        Kind::Vote => row.vote = vote_of(raw).map_or(row.vote, |vote| greater_vote(row.vote, vote)),
        Kind::Purge => row.purged = row.purged.max(Some(id_of(raw))),
        Kind::Lost => row.lost = true,
        Kind::Create => {
            if let Some(FrameBody::Create(creation)) = super::frame_body::from_raw(raw.clone(), id) {
                row.vote = creation.vote;
                row.purged = creation.purged;
            }
        }
        Kind::Entry | Kind::Truncate | Kind::Verdicts | Kind::Remove => {}
    }
}

const _: () = assert!(HEAD_BYTES.is_multiple_of(8) && frame::HEAD_BYTES.is_multiple_of(8));
