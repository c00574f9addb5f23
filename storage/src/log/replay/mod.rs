//! Replay: folds the frames of each replica into its state, in the order of their sequence numbers, never of positions.
//!
//! Pure. Also decides which replicas lost data (I11): a replica with a gap, or one that no later header clears, is marked
//! as lost unless the missing frames cannot have held a vote or an entry above the known commit.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::replica::{ReplicaState, Slot};
use super::segment_header::{ReplicaRow, SegmentHeader};
use super::types::{AcceptLoss, EntryPlace, FrameBody, GroupCreation, Missing, RecoveryPoint};
use crate::entry::{Entry, EntryKind, Vote};
use crate::ids::{LogId, LogPosition, RaftIndex, ReplicaId};
use ottla_env::mutants::{self, Bug};

/// A range of the log that was durable and is not sound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Damage {
    pub(crate) segment: u64,
    /// First sound byte after it.
    pub(crate) to: u64,
    /// The lists in the headers around it name every replica that had frames in it.
    pub(crate) lists_complete: bool,
}

#[derive(Debug, Clone)]
enum Light {
    Entry { id: LogId, place: EntryPlace, damaged: bool },
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
    Create(GroupCreation),
    Verdicts { last: RaftIndex },
    Remove,
    Lost,
}

#[derive(Debug, Clone)]
struct Frame {
    place: EntryPlace,
    light: Light,
    /// It is a relocated copy: frames with greater numbers were found before it.
    relocated: bool,
}

impl Frame {
    fn is_damaged(&self) -> bool {
        matches!(self.light, Light::Entry { damaged: true, .. })
    }
}

#[derive(Debug, Clone, Default)]
struct Replay {
    recovery_point: Option<RecoveryPoint>,
    base: Option<ReplicaRow>,
    /// The segment whose header table is the base.
    base_segment: Option<u64>,
    frames: BTreeMap<u64, Frame>,
    /// The greatest number found so far.
    greatest: u64,
    /// The segment in which the first of its frames was found.
    first_segment: Option<u64>,
    /// The greatest sequence number that any header knows.
    last_known: u64,
    /// The last segment whose table lists it.
    last_row: Option<ReplicaRow>,
    last_row_segment: u64,
    removed: bool,
}

/// Everything found, by replica.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    replicas: BTreeMap<ReplicaId, Replay>,
    damages: Vec<Damage>,
    tables: u64,
    has_recovery_points: bool,
}

/// A replica, as replayed from its frames.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) id: ReplicaId,
    pub(crate) creation: Bytes,
    /// See [`super::types::RecoveredReplica`].
    pub(crate) begins_after: Option<LogId>,
    pub(crate) state: ReplicaState,
    pub(crate) lost: Option<String>,
    /// Entries whose batches are damaged.
    pub(crate) damaged: Vec<LogId>,
    /// The first of them that is not known to be committed.
    pub(crate) damaged_unproven: Option<LogId>,
    /// Entries up to here are committed for certain.
    pub(crate) committed: RaftIndex,
    /// The mark as lost is not in the log yet.
    pub(crate) newly_lost: bool,
    /// Set in place of `lost`, where the loss is accepted.
    pub(crate) missing: Option<Missing>,
}

/// The greater of two votes; of equal ones the later.
pub(crate) fn greater_vote(old: Option<Vote>, new: Vote) -> Option<Vote> {
    match old {
        Some(old) if (old.term, old.committed) > (new.term, new.committed) => Some(old),
        _ => Some(new),
    }
}

impl Found {
    /// Sets where recovery of the known replicas begins.
    pub(crate) fn recovery_points(&mut self, recovery_points: Vec<RecoveryPoint>) {
        self.has_recovery_points = !recovery_points.is_empty();
        for point in recovery_points {
            let replay = self.replicas.entry(point.replica).or_default();
            replay.recovery_point = Some(point);
        }
    }

    /// Adds a segment's table: the state of all replicas when the segment was begun.
    pub(crate) fn table(&mut self, header: &SegmentHeader) {
        // After damage the table is no base: frames before it are still needed.
        let first = self.tables == 0 && self.damages.is_empty();
        self.tables += 1;
        for row in &header.rows {
            // A replica that is in the table and has no recovery point was removed between the two, perhaps before the
            // first frame that is read.
            if first && self.has_recovery_points && !self.replicas.contains_key(&row.replica) {
                continue;
            }
            let replay = self.replicas.entry(row.replica).or_default();
            if first {
                replay.base = Some(row.clone());
                replay.base_segment = Some(header.segment);
            }
            replay.last_known = replay.last_known.max(row.sequence);
            replay.last_row = Some(row.clone());
            replay.last_row_segment = header.segment;
        }
        if first {
            return;
        }
        for (id, replay) in &mut self.replicas {
            let framed = replay.first_segment.is_some_and(|segment| segment < header.segment);
            let has_point = replay.recovery_point.as_ref().is_some_and(|point| point.position.segment < header.segment);
            // A replica whose frames are all damaged is only in an earlier table.
            let listed = replay.last_row.is_some() && replay.last_row_segment < header.segment;
            let known_before = framed || has_point || listed || replay.base.is_some();
            if known_before && !header.rows.iter().any(|row| row.replica == *id) {
                replay.removed = true;
            }
        }
    }

    /// Makes the table the base of all replicas: segments before this one were unlinked.
    pub(crate) fn hole(&mut self, header: &SegmentHeader) {
        for row in &header.rows {
            let replay = self.replicas.entry(row.replica).or_default();
            if replay.base.as_ref().is_none_or(|base| base.sequence < row.sequence) {
                replay.base = Some(row.clone());
                replay.base_segment = Some(header.segment);
            }
        }
    }

    pub(crate) fn damage(&mut self, damage: Damage) {
        self.damages.push(damage);
    }

    /// Records the sequence numbers that a header lists.
    pub(crate) fn last_known(&mut self, lists: &[(ReplicaId, u64)]) {
        for (replica, sequence) in lists {
            let replay = self.replicas.entry(*replica).or_default();
            replay.last_known = replay.last_known.max(*sequence);
        }
    }

    /// Adds a sound frame.
    pub(crate) fn frame(
        &mut self,
        replica: ReplicaId,
        sequence: u64,
        place: EntryPlace,
        body: &FrameBody,
        damaged: bool,
    ) {
        let light = match body {
            FrameBody::Entry(entry) => Light::Entry { id: entry.log_id, place, damaged },
            FrameBody::Vote(vote) => Light::Vote(*vote),
            FrameBody::Truncate(last) => Light::Truncate(*last),
            FrameBody::Purge(upto) => Light::Purge(*upto),
            FrameBody::Create(creation) => {
                Light::Create(GroupCreation { payload: Bytes::copy_from_slice(&creation.payload), ..creation.clone() })
            }
            FrameBody::Verdicts(entries) => {
                Light::Verdicts { last: entries.last().map_or(RaftIndex(0), |e| e.log_id.index) }
            }
            FrameBody::Remove => Light::Remove,
            FrameBody::Lost => Light::Lost,
        };
        let replay = self.replicas.entry(replica).or_default();
        let sequence = if mutants::is_on(Bug::PlaceInsteadOfSequence) { replay.next_by_place() } else { sequence };
        replay.first_segment.get_or_insert(place.position.segment);
        let frame = Frame { place, light, relocated: sequence <= replay.greatest };
        replay.greatest = replay.greatest.max(sequence);
        // Of two copies the later one counts: recovery points refer to it.
        if !frame.is_damaged() || replay.frames.get(&sequence).is_none_or(Frame::is_damaged) {
            replay.frames.insert(sequence, frame);
        }
    }

    /// Replays the replicas of this directory.
    /// `unsynced_loss`: the last commits were not synced, and the machine has restarted since. `held`: see
    /// [`super::types::LogOptions`], as `accept_loss`.
    pub(crate) fn replay(
        mut self,
        unsynced_loss: bool,
        held: Option<&BTreeMap<ReplicaId, RaftIndex>>,
        accept_loss: &AcceptLoss,
    ) -> Vec<Replayed> {
        let replicas = std::mem::take(&mut self.replicas);
        let fold = |(id, mut replay): (ReplicaId, Replay)| {
            if let Some(held) = held {
                replay.forget_purges_above(held.get(&id).copied());
            }
            replay.fold(id, &self.damages, unsynced_loss, accept_loss.covers(id))
        };
        replicas.into_iter().filter_map(fold).collect()
    }
}

/// The fold's working state.
struct Fold {
    state: ReplicaState,
    creation: Option<Bytes>,
    begins_after: Option<LogId>,
    /// Numbers up to which the vote is known to be the greatest.
    vote_known: u64,
    /// Entries up to here are committed for certain.
    committed: RaftIndex,
    lost_mark: bool,
    damaged: Vec<LogId>,
    /// Number of the frame before the one that is applied.
    last_sequence: u64,
    /// Entries that a lost replica lacks: blank ones replace them.
    blanks: Option<Vec<(RaftIndex, RaftIndex)>>,
}

impl Replay {
    /// The number of the next frame, were its place to decide.
    fn next_by_place(&self) -> u64 {
        let last = self.frames.keys().next_back().copied();
        last.max(self.recovery_point.as_ref().map(|point| point.sequence))
            .max(self.base.as_ref().map(|row| row.sequence))
            .unwrap_or(0)
            + 1
    }

    fn fold(self, id: ReplicaId, damages: &[Damage], unsynced_loss: bool, accept_loss: bool) -> Option<Replayed> {
        let replayed = self.clone().fold_with(id, damages, unsynced_loss, None)?;
        if replayed.lost.is_none() {
            return Some(replayed);
        }
        // What is whole before a gap is kept, in case the loss of the frames in the gap is accepted.
        let mut replayed = self.fold_with(id, damages, unsynced_loss, Some(Vec::new()))?;
        if accept_loss && !replayed.creation.is_empty() && replayed.missing.is_some() {
            (replayed.lost, replayed.newly_lost) = (None, false);
        } else {
            replayed.missing = None;
        }
        Some(replayed)
    }

    /// `blanks`: missing entries are replaced by blank ones, and recorded there.
    fn fold_with(
        mut self,
        id: ReplicaId,
        damages: &[Damage],
        unsynced_loss: bool,
        blanks: Option<Vec<(RaftIndex, RaftIndex)>>,
    ) -> Option<Replayed> {
        let mut fold = self.begin();
        fold.blanks = blanks;
        let first = fold.state.synced_sequence + 1;
        let moved = self.forget_before(first);
        // A relocated copy after damage does not prove which frames may have been there.
        let in_turn = self.frames.values().filter(|frame| !frame.relocated);
        let last_place = in_turn.map(|frame| frame.place.position).max();
        let removed = self.removed || self.frames.values().any(|frame| matches!(frame.light, Light::Remove));
        if removed && !mutants::is_on(Bug::RemovedReplicaComesBack) {
            return None;
        }
        fold.last_sequence = first - 1;
        for (&sequence, frame) in &self.frames {
            fold.apply(sequence, frame);
            fold.last_sequence = sequence;
        }
        let creation = fold.creation.take();
        if creation.is_none() && self.first_segment.is_none() && self.last_known == 0 {
            return None;
        }
        // It existed and may have voted: if it were forgotten, the same id would begin anew.
        let unknown = creation.is_none().then(|| "its creation is gone".to_owned());
        let creation = creation.unwrap_or_default();
        fold.state.synced(u64::MAX);
        fold.state.purged_synced = fold.state.purged;
        let last = self.last_known.max(self.frames.keys().next_back().copied().unwrap_or(0)).max(first - 1);
        fold.state.synced_sequence = last;
        fold.state.next_sequence = last + 1;
        let unclear = |damage: &&Damage| !damage.lists_complete && !self.cleared(damage, last_place);
        // Its recovery point would decide: without the checkpoint it is not known which of them count.
        let moved = moved.filter(|index| fold.state.purged.is_none_or(|purged| *index > purged.index));
        let loss = unknown.or_else(|| self.loss(&fold, first, last)).or_else(|| {
            if moved.is_some() {
                return Some("its entries were relocated, and the checkpoint that says which is gone".to_owned());
            }
            if unsynced_loss {
                return Some("syncs were switched off, and the machine restarted without a clean stop".to_owned());
            }
            let damage = damages.iter().find(unclear)?;
            Some(format!("segment {} is damaged, and nothing says that it had no frames there", damage.segment))
        });
        let newly_lost = loss.is_some() && !fold.lost_mark;
        let lost = loss.or_else(|| fold.lost_mark.then(|| "it was marked as lost in an earlier life".to_owned()));
        fold.state.lost = lost.is_some();
        let why = lost.clone().unwrap_or_default();
        let missing = fold.blanks.take().map(|entries| self.missing(why, entries, first, last));
        let committed = fold.committed.max(fold.state.purged.map_or(RaftIndex(0), |id| id.index));
        let damaged_unproven = fold.damaged.iter().find(|id| id.index > committed).copied();
        let (state, damaged, begins_after) = (fold.state, fold.damaged, fold.begins_after);
        Some(Replayed {
            id,
            creation,
            begins_after,
            state,
            lost,
            damaged,
            damaged_unproven,
            committed,
            newly_lost,
            missing,
        })
    }

    /// Keeps, of the frames before `first`, the relocated entries that the recovery point names. Without a recovery point,
    /// the last of them.
    fn forget_before(&mut self, first: u64) -> Option<RaftIndex> {
        let counted = self.frames.split_off(&first);
        let before = std::mem::replace(&mut self.frames, counted);
        let Some(point) = &self.recovery_point else {
            let moved = before.into_values().filter_map(|frame| match frame.light {
                Light::Entry { id, .. } if self.base_segment <= Some(frame.place.position.segment) => Some(id.index),
                _ => None,
            });
            return moved.max();
        };
        for (sequence, frame) in before {
            let is_kept = point.kept.iter().any(|(first, last)| (*first..=*last).contains(&sequence));
            if is_kept {
                self.frames.insert(sequence, Frame { relocated: true, ..frame });
            }
        }
        None
    }

    /// No checkpoint contains the purged entries above `held`; if all of them are there, they are to be applied again.
    fn forget_purges_above(&mut self, held: Option<RaftIndex>) {
        if self.base.is_some() && self.recovery_point.is_none() {
            return;
        }
        let is_held = |upto: &LogId| held.is_some_and(|held| upto.index <= held);
        if let Some(row) = &mut self.last_row {
            row.purged = row.purged.filter(is_held);
        }
        for Frame { light, .. } in self.frames.values_mut() {
            if let Light::Purge(upto) = light
                && !is_held(upto)
            {
                // What was purged was applied, hence committed.
                *light = Light::Verdicts { last: upto.index };
            }
        }
    }

    /// The state before the first valid frame.
    fn begin(&self) -> Fold {
        let mut fold = Fold {
            state: ReplicaState::default(),
            creation: None,
            begins_after: None,
            vote_known: 0,
            committed: RaftIndex(0),
            lost_mark: false,
            damaged: Vec::new(),
            last_sequence: 0,
            blanks: None,
        };
        if let Some(row) = &self.base {
            fold.state.synced_sequence = row.sequence;
            fold.state.vote = row.vote;
            fold.state.purged = row.purged;
            fold.creation = Some(row.creation.clone());
            fold.lost_mark = row.lost;
        }
        if let Some(point) = &self.recovery_point {
            // Its purge point and vote are at least as new as those of a header that was written before it; entries begin at
            // its position. Its purge point is less where a newer generation of the checkpoint is gone: what that
            // contained is applied again, and the header does not know.
            let newer = self.base.as_ref().filter(|row| row.sequence > point.sequence);
            fold.state.synced_sequence = fold.state.synced_sequence.max(point.sequence);
            fold.state.vote = point.vote.map_or(fold.state.vote, |vote| greater_vote(fold.state.vote, vote));
            fold.state.purged = newer.and_then(|row| row.purged).max(point.purged);
            fold.creation = Some(point.creation.clone());
            // It alone decides on a loss that it contains: the loss may have been accepted since a table named it.
            let knows_all = self.base.as_ref().is_none_or(|row| row.sequence <= point.sequence);
            fold.lost_mark = point.lost || fold.lost_mark && !knows_all;
        }
        fold.vote_known = fold.state.synced_sequence;
        if let Some(row) = &self.last_row {
            fold.vote_known = fold.vote_known.max(row.sequence);
            fold.state.vote = row.vote.map_or(fold.state.vote, |vote| greater_vote(fold.state.vote, vote));
            fold.state.purged = fold.state.purged.max(row.purged);
            fold.creation.get_or_insert_with(|| row.creation.clone());
            fold.lost_mark |=
                row.lost && self.recovery_point.as_ref().is_none_or(|point| row.sequence > point.sequence);
        }
        fold
    }

    /// What a replica lost that may continue without it.
    fn missing(&self, why: String, entries: Vec<(RaftIndex, RaftIndex)>, first: u64, last: u64) -> Missing {
        let kept = self.recovery_point.iter().flat_map(|point| &point.kept).copied();
        let gone = |(from, to): (u64, u64)| (to + 1).saturating_sub(from) - self.frames.range(from..=to).count() as u64;
        let stretches = kept.chain([(first, last)]).filter(|(from, to)| from <= to);
        let frames = stretches.map(gone).sum();
        let is_entry = |frame: &Frame| matches!(frame.light, Light::Entry { .. });
        let last_entry = self.frames.iter().rev().find(|(_, frame)| is_entry(frame)).map(|(sequence, _)| *sequence);
        let behind = last_entry.map_or(first, |sequence| sequence + 1).max(first);
        let at_end = frames == 0 || behind <= last && gone((behind, last)) > 0;
        Missing { why, frames, entries, at_end }
    }

    /// The reason why bytes that may have been acknowledged are lost, if so.
    fn loss(&self, fold: &Fold, first: u64, last: u64) -> Option<String> {
        if mutants::is_on(Bug::FrameAfterDamageAccepted) {
            return None;
        }
        let purged = fold.state.purged.map_or(RaftIndex(0), |id| id.index);
        let kept = self.recovery_point.iter().flat_map(|point| &point.kept).copied();
        for (from, to) in kept.chain([(first, last)]).filter(|(from, to)| from <= to) {
            let ends = self.frames.range(from..=to).map(|(sequence, _)| *sequence).chain([to + 1]);
            let mut expected = from;
            for sequence in ends {
                if sequence > expected && !self.harmless(fold, purged, expected, sequence) {
                    return Some(format!("its frames {expected} to {} are gone", sequence - 1));
                }
                expected = sequence + 1;
            }
        }
        None
    }

    /// True if the missing frames `from..to` held neither a valid vote nor an entry that is still needed.
    fn harmless(&self, fold: &Fold, purged: RaftIndex, from: u64, to: u64) -> bool {
        let next_entry = self.frames.range(from..).find_map(|(_, frame)| match &frame.light {
            Light::Entry { id, .. } => Some(id.index),
            _ => None,
        });
        fold.vote_known >= to - 1 && next_entry.is_some_and(|index| index.0 <= purged.0 + 1)
    }

    /// True if something after the damage proves the count of this replica's frames: a frame of its own, or a segment's
    /// table. Or if by its recovery point none of the frames before that are needed.
    fn cleared(&self, damage: &Damage, last_place: Option<LogPosition>) -> bool {
        let behind = (damage.segment, damage.to);
        let begins_at =
            self.recovery_point.as_ref().map(|point| (point.position.segment, u64::from(point.position.byte)));
        begins_at >= Some(behind)
            || self.last_row_segment > damage.segment
            || last_place.is_some_and(|at| (at.segment, u64::from(at.byte)) >= behind)
    }
}

impl Fold {
    /// Fills in blank entries up to this one, which is found at `place`: nothing is read from there before it. Each
    /// replaces a missing frame; where fewer frames are missing, the log began anew.
    fn fill(&mut self, upto: RaftIndex, place: EntryPlace, sequence: u64) {
        let Some(blanks) = &mut self.blanks else { return };
        let first = self.state.end_index();
        let count = upto.0.saturating_sub(first);
        if count == 0 || count > sequence.saturating_sub(self.last_sequence + 1) {
            return;
        }
        let term = self.state.last_log_id().unwrap_or_default().term;
        for index in first..upto.0 {
            let log_id = LogId { term, index: RaftIndex(index) };
            let (payload, batches) = Default::default();
            let cached = Some(Entry { log_id, kind: EntryKind::Blank, clock_ms: 0, payload, batches });
            // A recovery point before it finds that its frame is missing.
            let sequence = self.last_sequence + 1;
            self.state.push(index, Slot { term, sequence, place: Some(place), cached, bytes: 0, moving: false });
        }
        blanks.push((RaftIndex(first), RaftIndex(upto.0 - 1)));
    }

    fn apply(&mut self, sequence: u64, frame: &Frame) {
        let state = &mut self.state;
        match &frame.light {
            Light::Entry { id, place, damaged } => {
                if state.purged.is_some_and(|purged| purged.index >= id.index) {
                    // Purged later, as the state has it already; what it voided above itself stays void.
                    self.damaged.retain(|other| other.index < id.index);
                    state.void_from(id.index.0, sequence);
                    return;
                }
                self.fill(id.index, frame.place, sequence);
                let state = &mut self.state;
                // A gap before this entry: the loss is judged elsewhere; the log begins anew after it.
                if !state.slots.is_empty() && id.index.0 > state.end_index() {
                    state.slots = VecDeque::new();
                    state.relocated.clear();
                }
                let (term, place) = (id.term, Some(*place));
                let slot = Slot { term, sequence, place, cached: None, bytes: 0, moving: false };
                self.damaged.retain(|other| other.index < id.index);
                if *damaged {
                    self.damaged.push(*id);
                }
                state.push(id.index.0, slot);
                if frame.relocated {
                    state.relocated.insert(id.index.0);
                }
            }
            // A table that counts this frame contains its effect.
            Light::Vote(_) if sequence <= self.vote_known => {}
            Light::Vote(vote) => {
                state.vote = greater_vote(state.vote, *vote);
                self.vote_known = sequence;
            }
            Light::Truncate(_) if mutants::is_on(Bug::TruncatedEntriesComeBack) => {}
            Light::Truncate(last) => {
                let from = last.map_or(0, |id| id.index.0 + 1);
                self.damaged.retain(|id| id.index.0 < from);
                state.void_from(from, sequence);
            }
            Light::Purge(upto) => {
                state.purge(*upto, sequence);
            }
            Light::Create(creation) => {
                self.creation = Some(creation.payload.clone());
                self.begins_after = creation.purged;
                state.vote = creation.vote.map_or(state.vote, |vote| greater_vote(state.vote, vote));
                state.purged = state.purged.max(creation.purged);
            }
            Light::Verdicts { last } => {
                self.committed = self.committed.max(*last);
                state.fixed = Some(self.committed);
            }
            Light::Lost => self.lost_mark = true,
            Light::Remove => {}
        }
    }
}

#[cfg(test)]
mod tests;
