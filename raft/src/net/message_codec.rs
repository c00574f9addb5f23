//! The encoding of messages. Long payloads are separate parts when sent and slices of the frame when received: neither
//! copies them.
//!
//!  | tag u8 | fields, big-endian |      option: | 0 or 1 | value |      bytes: | length u32 | bytes |      list: | count u32 | items |
//!
//! Decoding never panics, and allocates nothing for a count whose items are not there. May not know: frames, sockets.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::compact::{Pass, PassDone};
use ottla_storage::data_dir::{Exported, ExportedBatch, ReplicaSnapshot};
use ottla_storage::entry::{Entry, EntryBatch, EntryKind, Vote};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId, Term};
use uuid::Uuid;

use super::{Message, Resume, StatePart};

/// Payloads of this length and more are separate parts; shorter ones are cheaper to copy.
pub(super) const OWN_PART_BYTES: usize = 4 << 10;

/// The greatest term of a message: Kafka's leader epochs, which count terms, have 31 bits.
const TERM_MAX: u64 = i32::MAX as u64 - 1;
/// The greatest index of a message: far below the numbers that the log can hold.
const INDEX_MAX: u64 = u64::MAX / 4;

/// The bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// They end too early.
    #[error("a message ends in {0}")]
    Short(&'static str),
    /// A number that no node reaches.
    #[error("{0} is out of range")]
    TooLarge(&'static str),
    /// A tag or flag has an unknown value.
    #[error("{0} has no meaning {1}")]
    Tag(&'static str, u8),
    /// Bytes follow the end of the message.
    #[error("{0} bytes behind the end of a message")]
    Long(usize),
}

/// An encoded message as parts that are sent one after another.
#[derive(Debug)]
pub(super) struct MessageEncoder {
    /// The version that the receiver speaks.
    version: u8,
    done: Vec<Bytes>,
    open: BytesMut,
    bytes: usize,
}

impl MessageEncoder {
    pub(super) fn new(version: u8) -> Self {
        Self { version, done: Vec::new(), open: BytesMut::new(), bytes: 0 }
    }

    /// All parts, in order.
    pub(super) fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.done.push(self.open.freeze());
        }
        self.done
    }

    /// Bytes encoded so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn u8(&mut self, value: u8) {
        self.open.put_u8(value);
        self.bytes += 1;
    }

    fn u32(&mut self, value: u32) {
        self.open.put_u32(value);
        self.bytes += 4;
    }

    fn u64(&mut self, value: u64) {
        self.open.put_u64(value);
        self.bytes += 8;
    }

    fn i64(&mut self, value: i64) {
        self.u64(value.cast_unsigned());
    }

    fn count(&mut self, items: usize) {
        // Nothing here has four thousand million items: frames are far shorter.
        self.u32(u32::try_from(items).unwrap_or(u32::MAX));
    }

    fn data(&mut self, data: &Bytes) {
        self.count(data.len());
        self.bytes += data.len();
        if data.len() < OWN_PART_BYTES {
            self.open.put_slice(data);
            return;
        }
        self.done.push(self.open.split().freeze());
        self.done.push(data.clone());
    }

    fn flag(&mut self, flag: bool) {
        self.u8(u8::from(flag));
    }

    fn log_id(&mut self, id: LogId) {
        self.u64(id.term.0);
        self.u64(id.index.0);
    }

    fn option<T>(&mut self, value: Option<&T>, put: impl FnOnce(&mut Self, &T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            put(self, value);
        }
    }

    fn maybe_log_id(&mut self, id: Option<LogId>) {
        self.option(id.as_ref(), |encoder, id| encoder.log_id(*id));
    }

    fn vote(&mut self, vote: Vote) {
        self.u64(vote.term.0);
        self.u64(vote.voted_for.0);
        self.flag(vote.committed);
    }

    fn partition(&mut self, partition: PartitionId) {
        self.open.put_slice(partition.topic.as_bytes());
        self.open.put_i32(partition.index);
        self.bytes += 20;
    }

    fn entry(&mut self, entry: &Entry) {
        self.log_id(entry.log_id);
        self.u8(entry.kind as u8);
        self.i64(entry.clock_ms);
        self.data(&entry.payload);
        self.count(entry.batches.len());
        for batch in &entry.batches {
            self.partition(batch.partition);
            self.data(&batch.data);
        }
    }

    /// Appends a message.
    pub(super) fn message(&mut self, message: &Message) {
        match message {
            Message::AppendEntries { vote, prev_log_id, entries, leader_commit } => {
                self.u8(0);
                self.vote(*vote);
                self.maybe_log_id(*prev_log_id);
                self.maybe_log_id(*leader_commit);
                self.count(entries.len());
                entries.iter().for_each(|entry| self.entry(entry));
            }
            Message::AppendEntriesSuccess => self.u8(1),
            Message::AppendEntriesPartialSuccess(last) => {
                self.tagged_option(2, last.as_ref(), |encoder, id| encoder.log_id(*id));
            }
            Message::AppendEntriesConflict => self.u8(3),
            Message::HigherVote(vote) => {
                self.u8(4);
                self.vote(*vote);
            }
            Message::RequestVote { pre_vote, vote, last_log_id, leadership_transfer } => {
                self.u8(5);
                self.flag(*pre_vote);
                self.vote(*vote);
                self.maybe_log_id(*last_log_id);
                self.flag(*leadership_transfer);
            }
            Message::RequestVoteResponse { vote, last_log_id, granted } => {
                self.u8(6);
                self.vote(*vote);
                self.maybe_log_id(*last_log_id);
                self.flag(*granted);
            }
            Message::TransferLeader { from_leader, to, last_log_id } => {
                self.u8(7);
                self.vote(*from_leader);
                self.u64(to.0);
                self.maybe_log_id(*last_log_id);
            }
            Message::TransferLeaderResponse { accepted } => self.tagged_flag(8, *accepted),
            Message::Request(payload) => self.tagged_data(9, payload),
            Message::Response(payload) => self.tagged_data(10, payload),
            Message::InstallSnapshot { vote, last_included } => {
                self.u8(11);
                self.vote(*vote);
                self.log_id(*last_included);
            }
            Message::InstallSnapshotResponse { done } => self.tagged_flag(12, *done),
            // A node of version 1 does not know parts.
            Message::FetchState { .. } if self.version < 2 => self.u8(13),
            Message::FetchWholeState => self.u8(13),
            Message::FetchWholeStateResponse(state) => self.tagged_option(14, state.as_ref(), Self::snapshot),
            Message::FetchState { resume } => self.tagged_option(17, resume.as_ref(), Self::resume),
            Message::FetchStateResponse(part) => self.tagged_option(18, part.as_ref(), Self::state_part),
            Message::CheckState { index, format } => self.check_state(*index, *format),
            Message::CheckStateResponse(checksum) => {
                self.tagged_option(20, checksum.as_ref(), |encoder, checksum| encoder.u64(*checksum));
            }
            Message::FetchBatches { partition, from, up_to, bytes_max } => {
                self.u8(15);
                self.partition(*partition);
                self.i64(from.0);
                self.i64(up_to.0);
                self.u64(*bytes_max);
            }
            Message::FetchBatchesResponse(exported) => self.exported(exported),
        }
    }

    fn tagged_option<T>(&mut self, tag: u8, value: Option<&T>, put: impl FnOnce(&mut Self, &T)) {
        self.u8(tag);
        self.option(value, put);
    }

    fn check_state(&mut self, index: RaftIndex, format: u8) {
        self.u8(19);
        self.u64(index.0);
        self.u8(format);
    }

    fn resume(&mut self, Resume { of, after }: &Resume) {
        self.log_id(*of);
        self.data(after);
    }

    fn state_part(&mut self, StatePart { state, is_last }: &StatePart) {
        self.flag(*is_last);
        self.snapshot(state);
    }

    fn tagged_flag(&mut self, tag: u8, flag: bool) {
        self.u8(tag);
        self.flag(flag);
    }

    fn tagged_data(&mut self, tag: u8, data: &Bytes) {
        self.u8(tag);
        self.data(data);
    }

    fn exported(&mut self, exported: &Exported) {
        self.u8(if exported.done.is_some() { 21 } else { 16 });
        if let Some(PassDone { number, pass }) = &exported.done {
            self.u64(*number);
            self.i64(pass.horizon.0);
            self.i64(pass.cutoff.0);
        }
        self.i64(exported.log_start.0);
        self.count(exported.batches.len());
        for batch in &exported.batches {
            self.i64(batch.max_timestamp_ms);
            self.data(&batch.data);
        }
    }

    fn snapshot(&mut self, state: &ReplicaSnapshot) {
        self.log_id(state.applied);
        self.data(&state.membership);
        self.u64(state.checksum);
        self.count(state.keys.len());
        for (key, value) in &state.keys {
            self.data(key);
            self.data(value);
        }
    }
}

/// Decodes what [`MessageEncoder`] encoded.
struct MessageDecoder(Bytes);

impl MessageDecoder {
    fn need(&self, bytes: usize, what: &'static str) -> Result<(), DecodeError> {
        if self.0.len() < bytes { Err(DecodeError::Short(what)) } else { Ok(()) }
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.need(1, what)?;
        Ok(self.0.get_u8())
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.need(4, what)?;
        Ok(self.0.get_u32())
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.need(8, what)?;
        Ok(self.0.get_u64())
    }

    fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        Ok(self.u64(what)?.cast_signed())
    }

    fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(DecodeError::Tag(what, tag)),
        }
    }

    fn data(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let length = usize::try_from(self.u32(what)?).map_err(|_| DecodeError::Short(what))?;
        self.need(length, what)?;
        Ok(self.0.split_to(length))
    }

    /// A list whose items have at least `least` bytes each.
    fn list<T>(
        &mut self,
        least: usize,
        what: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = usize::try_from(self.u32(what)?).map_err(|_| DecodeError::Short(what))?;
        self.need(count.saturating_mul(least), what)?;
        (0..count).map(|_| item(self)).collect()
    }

    /// A number of at most `max`: what is beyond it could not be counted on from, or not be stored.
    fn bounded(&mut self, max: u64, what: &'static str) -> Result<u64, DecodeError> {
        let number = self.u64(what)?;
        if number <= max { Ok(number) } else { Err(DecodeError::TooLarge(what)) }
    }

    fn log_id(&mut self) -> Result<LogId, DecodeError> {
        let term = Term(self.bounded(TERM_MAX, "a term")?);
        Ok(LogId { term, index: RaftIndex(self.bounded(INDEX_MAX, "an index")?) })
    }

    fn maybe_log_id(&mut self) -> Result<Option<LogId>, DecodeError> {
        self.option("a log id", Self::log_id)
    }

    fn vote(&mut self) -> Result<Vote, DecodeError> {
        let (term, voted_for) = (Term(self.bounded(TERM_MAX, "the term of a vote")?), ReplicaId(self.u64("a vote")?));
        Ok(Vote { term, voted_for, committed: self.flag("a vote")? })
    }

    fn partition(&mut self) -> Result<PartitionId, DecodeError> {
        self.need(20, "a partition")?;
        let topic = Uuid::from_u128(self.0.get_u128());
        Ok(PartitionId { topic, index: self.0.get_i32() })
    }

    fn entry(&mut self) -> Result<Entry, DecodeError> {
        let log_id = self.log_id()?;
        let kind = match self.u8("an entry's kind")? {
            0 => EntryKind::Blank,
            1 => EntryKind::Normal,
            2 => EntryKind::Membership,
            tag => return Err(DecodeError::Tag("an entry's kind", tag)),
        };
        let (clock_ms, payload) = (self.i64("an entry's clock")?, self.data("an entry's command")?);
        let batches = self.list(24, "an entry's batches", |decoder| {
            Ok(EntryBatch { partition: decoder.partition()?, data: decoder.data("a batch")? })
        })?;
        Ok(Entry { log_id, kind, clock_ms, payload, batches: batches.into() })
    }

    fn snapshot(&mut self) -> Result<ReplicaSnapshot, DecodeError> {
        let (applied, membership) = (self.log_id()?, self.data("a membership")?);
        let checksum = self.u64("a checksum")?;
        let keys = self.list(8, "a state", |decoder| Ok((decoder.data("a key")?, decoder.data("a value")?)))?;
        Ok(ReplicaSnapshot { applied, membership, checksum, keys })
    }

    fn option<T>(
        &mut self,
        what: &'static str,
        value: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.flag(what)? { value(self).map(Some) } else { Ok(None) }
    }

    fn pass_done(&mut self) -> Result<PassDone, DecodeError> {
        let (number, horizon) = (self.u64("a pass")?, Offset(self.i64("a horizon")?));
        Ok(PassDone { number, pass: Pass { horizon, cutoff: Offset(self.i64("a cutoff")?) } })
    }

    fn exported(&mut self, done: Option<PassDone>) -> Result<Message, DecodeError> {
        let log_start = Offset(self.i64("a log start")?);
        let batches = self.list(12, "batches", |decoder| {
            let max_timestamp_ms = decoder.i64("a timestamp")?;
            Ok(ExportedBatch { max_timestamp_ms, data: decoder.data("a batch")? })
        })?;
        Ok(Message::FetchBatchesResponse(Exported { log_start, batches, done }))
    }

    fn resume(&mut self) -> Result<Resume, DecodeError> {
        Ok(Resume { of: self.log_id()?, after: self.data("a key")? })
    }

    fn state_part(&mut self) -> Result<StatePart, DecodeError> {
        let is_last = self.flag("the end of a state")?;
        Ok(StatePart { state: self.snapshot()?, is_last })
    }

    fn message(&mut self) -> Result<Message, DecodeError> {
        Ok(match self.u8("a message")? {
            0 => {
                let (vote, prev_log_id, leader_commit) = (self.vote()?, self.maybe_log_id()?, self.maybe_log_id()?);
                Message::AppendEntries {
                    vote,
                    prev_log_id,
                    entries: self.list(33, "entries", Self::entry)?,
                    leader_commit,
                }
            }
            1 => Message::AppendEntriesSuccess,
            2 => Message::AppendEntriesPartialSuccess(self.maybe_log_id()?),
            3 => Message::AppendEntriesConflict,
            4 => Message::HigherVote(self.vote()?),
            5 => {
                let (pre_vote, vote, last_log_id) = (self.flag("a pre-vote")?, self.vote()?, self.maybe_log_id()?);
                Message::RequestVote { pre_vote, vote, last_log_id, leadership_transfer: self.flag("a transfer")? }
            }
            6 => {
                let (vote, last_log_id) = (self.vote()?, self.maybe_log_id()?);
                Message::RequestVoteResponse { vote, last_log_id, granted: self.flag("a vote")? }
            }
            7 => {
                let (from_leader, to) = (self.vote()?, ReplicaId(self.u64("a transfer")?));
                Message::TransferLeader { from_leader, to, last_log_id: self.maybe_log_id()? }
            }
            8 => Message::TransferLeaderResponse { accepted: self.flag("a transfer")? },
            9 => Message::Request(self.data("a question")?),
            10 => Message::Response(self.data("an answer")?),
            11 => Message::InstallSnapshot { vote: self.vote()?, last_included: self.log_id()? },
            12 => Message::InstallSnapshotResponse { done: self.flag("a snapshot")? },
            13 => Message::FetchWholeState,
            14 => Message::FetchWholeStateResponse(self.option("a state", Self::snapshot)?),
            15 => {
                let (partition, from) = (self.partition()?, Offset(self.i64("an offset")?));
                let (up_to, bytes_max) = (Offset(self.i64("an offset")?), self.u64("a size")?);
                Message::FetchBatches { partition, from, up_to, bytes_max }
            }
            16 => self.exported(None)?,
            21 => {
                let done = Some(self.pass_done()?);
                self.exported(done)?
            }
            17 => Message::FetchState { resume: self.option("a place in a state", Self::resume)? },
            18 => Message::FetchStateResponse(self.option("a state", Self::state_part)?),
            19 => {
                let index = RaftIndex(self.bounded(INDEX_MAX, "an index")?);
                Message::CheckState { index, format: self.u8("a format")? }
            }
            20 => Message::CheckStateResponse(self.option("a checksum", |decoder| decoder.u64("a checksum"))?),
            tag => return Err(DecodeError::Tag("a message", tag)),
        })
    }
}

/// Decodes a message that fills `bytes`.
pub(crate) fn decode(bytes: Bytes) -> Result<Message, DecodeError> {
    let mut decoder = MessageDecoder(bytes);
    let message = decoder.message()?;
    if decoder.0.is_empty() { Ok(message) } else { Err(DecodeError::Long(decoder.0.len())) }
}

/// A message as one part.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn encode(message: &Message) -> Bytes {
    let mut parts = MessageEncoder::new(2);
    parts.message(message);
    parts.finish().concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::message_samples::samples;

    #[test]
    fn every_message_comes_back_and_cut_or_longer_ones_are_refused() {
        for message in samples() {
            let bytes = encode(&message);
            assert_eq!(decode(bytes.clone()), Ok(message.clone()));
            let cuts = (0..bytes.len()).filter(|cut| *cut < 200 || cut % 997 == 0);
            for cut in cuts {
                assert!(decode(bytes.slice(..cut)).is_err(), "{message:?} cut at {cut}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(decode(longer.into()), Err(DecodeError::Long(1)));
        }
    }

    /// A release that speaks version 1 knows tag 13 alone, and answers with the whole state.
    #[test]
    fn a_state_is_requested_whole_where_parts_are_not_known() {
        let resume = Some(Resume { of: LogId { term: Term(3), index: RaftIndex(7) }, after: Bytes::from_static(b"k") });
        for message in [Message::FetchState { resume: None }, Message::FetchState { resume }] {
            let mut old = MessageEncoder::new(1);
            old.message(&message);
            assert_eq!(old.finish().concat(), [13]);
        }
        assert_eq!(decode(Bytes::from_static(&[13])), Ok(Message::FetchWholeState));
    }

    #[test]
    fn long_payloads_are_not_copied() {
        let data = Bytes::from(vec![1; OWN_PART_BYTES]);
        let mut parts = MessageEncoder::new(2);
        parts.message(&Message::Request(data.clone()));
        let bytes = parts.bytes();
        let parts = parts.finish();
        assert_eq!(parts.iter().map(Bytes::len).sum::<usize>(), bytes);
        assert!(parts.iter().any(|part| part.as_ptr() == data.as_ptr()));
        let whole: Bytes = parts.concat().into();
        let Ok(Message::Request(read)) = decode(whole.clone()) else { panic!("not what was sent") };
        assert_eq!(read.as_ptr(), whole[whole.len() - read.len()..].as_ptr(), "a slice of the frame");
    }

    #[test]
    fn numbers_that_no_node_reaches_are_refused() {
        let last = LogId { term: Term(TERM_MAX), index: RaftIndex(INDEX_MAX) };
        let of = |term, last_included| Message::InstallSnapshot {
            vote: Vote { term: Term(term), voted_for: ReplicaId(1), committed: true },
            last_included,
        };
        assert!(decode(encode(&of(TERM_MAX, last))).is_ok());
        let beyond = [
            (of(TERM_MAX + 1, last), "the term of a vote"),
            (of(1, LogId { term: Term(u64::MAX), ..last }), "a term"),
            (of(1, LogId { index: RaftIndex(INDEX_MAX + 1), ..last }), "an index"),
        ];
        for (message, what) in beyond {
            assert_eq!(decode(encode(&message)), Err(DecodeError::TooLarge(what)));
        }
    }

    #[test]
    fn a_count_without_items_allocates_nothing() {
        let mut bytes = vec![16];
        bytes.extend([0; 8]);
        bytes.extend(u32::MAX.to_be_bytes());
        assert_eq!(decode(bytes.into()), Err(DecodeError::Short("batches")));
    }
}
