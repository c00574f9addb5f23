//! The records of `__transaction_state`, in Kafka's own format, so that Kafka's tools can read the topic.
//!
//!     key     | 0 | transactional id |                                             TransactionLogKey v0
//!     value   | 1 | producer id | epoch | time-out | status | partitions | updated | started | tags |   TransactionLogValue v1
//!     tags    0 previous producer id, 1 next producer id, 2 the client's transaction version, 8192 last epoch
//!
//! The leading number is a 16-bit version; numbers are big-endian, texts and arrays compact; a missing value (tombstone)
//! deletes the id. v0, which has no tags, is read alike. Kafka's record has no last epoch: a retry of InitProducerId that came
//! after a failover was fenced (KAFKA-20357). Invariant: what is written here reads back equal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;
use ottla_protocol::ids::ProducerId;

use crate::replicated::group::schema::{self, Malformed, Reader};

const PREVIOUS_PRODUCER_TAG: u32 = 0;
const NEXT_PRODUCER_TAG: u32 = 1;
const CLIENT_VERSION_TAG: u32 = 2;
/// Far above any tag that Kafka's schema will use.
const LAST_EPOCH_TAG: u32 = 8192;
/// No epoch.
pub const NO_EPOCH: i16 = -1;

/// Where a transactional id is in its transaction (Kafka's TransactionState; the others are never written).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// No transaction since its producer began.
    Empty,
    /// A transaction has partitions.
    Ongoing,
    /// It is committed, and markers are being written.
    PrepareCommit,
    /// It is aborted, and markers are being written.
    PrepareAbort,
    /// All markers of a commit are written.
    CompleteCommit,
    /// All markers of an abort are written.
    CompleteAbort,
}

impl Status {
    /// All of them, in the order of their numbers in the record.
    pub const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    fn of(id: u8) -> Result<Self, Malformed> {
        Self::ALL.get(usize::from(id)).copied().ok_or(Malformed("a status that this release does not know"))
    }

    /// As Kafka's tools show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }
}

/// A transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionValue {
    /// The producer that has it.
    pub producer_id: ProducerId,
    /// The producer id before, if its epochs were used up.
    pub previous_producer_id: Option<ProducerId>,
    /// The producer id that the client was told and that counts from the end of the transaction on.
    pub next_producer_id: Option<ProducerId>,
    /// The producer's epoch.
    pub epoch: i16,
    /// Its epoch before, if it is the same client's; -1 if not.
    pub last_epoch: i16,
    /// `transaction.timeout.ms`.
    pub timeout_ms: i32,
    /// Where it is.
    pub status: Status,
    /// Partitions that need markers, by topic.
    pub partitions: BTreeMap<Arc<str>, BTreeSet<i32>>,
    /// When anything of it changed last.
    pub updated_ms: i64,
    /// When its transaction began; -1 if it has none.
    pub started_ms: i64,
    /// `transaction.version` of the client that opened or ended its last transaction.
    pub client_version: i16,
}

impl TransactionValue {
    /// When the transaction is aborted because its producer has not ended it; `None` where none is open.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<i64> {
        let is_open = self.status == Status::Ongoing;
        is_open.then(|| self.started_ms.saturating_add(i64::from(self.timeout_ms)))
    }

    /// True while its markers are being written.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        matches!(self.status, Status::PrepareCommit | Status::PrepareAbort)
    }

    /// True if it has no transaction.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        matches!(self.status, Status::Empty | Status::CompleteCommit | Status::CompleteAbort)
    }
}

/// One record of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionRecord {
    /// The transactional id.
    pub id: String,
    /// None removes it.
    pub value: Option<TransactionValue>,
}

impl TransactionRecord {
    /// Reads a record's key and value.
    pub fn decode(key: Bytes, value: Option<Bytes>) -> Result<Self, Malformed> {
        let mut reader = Reader::new(key);
        if reader.i16()? != 0 {
            return Err(Malformed("a kind of record that this release does not know"));
        }
        let id = reader.string(false)?;
        Ok(Self { id, value: value.map(decode).transpose()? })
    }

    /// A batch of this record alone.
    #[must_use]
    pub fn batch(&self, time_ms: i64) -> Bytes {
        let (key, value) = self.encode();
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(&NewRecord { timestamp: time_ms, key: Some(&key), value: value.as_deref(), headers: &[] });
        // Without a codec nothing can fail.
        builder.build().unwrap_or_default()
    }

    /// The record's key and value.
    #[must_use]
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        (key(&self.id), self.value.as_ref().map(encode))
    }
}

/// Key of a transactional id.
#[must_use]
pub fn key(id: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + id.len());
    out.put_i16(0);
    schema::put_string(&mut out, id);
    out.freeze()
}

fn decode(bytes: Bytes) -> Result<TransactionValue, Malformed> {
    let mut reader = Reader::new(bytes);
    let version = reader.i16()?;
    if !(0..=1).contains(&version) {
        return Err(Malformed("a version of the value that this release does not know"));
    }
    let flexible = version >= 1;
    let producer_id = ProducerId(reader.i64()?);
    let epoch = reader.i16()?;
    let timeout_ms = reader.i32()?;
    let status = Status::of(reader.take(1)?.first().copied().unwrap_or(u8::MAX))?;
    let mut partitions = BTreeMap::new();
    for _ in 0..reader.nullable_array(flexible)? {
        let topic: Arc<str> = Arc::from(reader.string(flexible)?);
        let mut indexes = BTreeSet::new();
        for _ in 0..reader.array(flexible)? {
            indexes.insert(reader.i32()?);
        }
        reader.tags(flexible, |_, _| Ok(()))?;
        partitions.insert(topic, indexes);
    }
    let (updated_ms, started_ms) = (reader.i64()?, reader.i64()?);
    let (mut previous, mut next, mut client_version, mut last_epoch) = (-1, -1, 0, NO_EPOCH);
    reader.tags(flexible, |tag, value| {
        let mut value = Reader::new(value);
        match tag {
            PREVIOUS_PRODUCER_TAG => previous = value.i64()?,
            NEXT_PRODUCER_TAG => next = value.i64()?,
            CLIENT_VERSION_TAG => client_version = value.i16()?,
            LAST_EPOCH_TAG => last_epoch = value.i16()?,
            _ => {}
        }
        Ok(())
    })?;
    let known = |id: i64| (id >= 0).then_some(ProducerId(id));
    Ok(TransactionValue {
        producer_id,
        previous_producer_id: known(previous),
        next_producer_id: known(next),
        epoch,
        last_epoch,
        timeout_ms,
        status,
        partitions,
        updated_ms,
        started_ms,
        client_version,
    })
}

pub(crate) fn encode(value: &TransactionValue) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_i16(1);
    out.put_i64(value.producer_id.0);
    out.put_i16(value.epoch);
    out.put_i32(value.timeout_ms);
    out.put_u8(value.status as u8);
    // As Kafka writes it: no list where there is no transaction.
    if value.status == Status::Empty {
        schema::put_uvarint(&mut out, 0);
    } else {
        schema::put_length(&mut out, true, value.partitions.len());
        for (topic, indexes) in &value.partitions {
            schema::put_text(&mut out, true, Some(topic));
            schema::put_length(&mut out, true, indexes.len());
            indexes.iter().for_each(|index| out.put_i32(*index));
            schema::put_uvarint(&mut out, 0);
        }
    }
    out.put_i64(value.updated_ms);
    out.put_i64(value.started_ms);
    put_tags(&mut out, value);
    out.freeze()
}

/// The tagged fields that differ from their defaults, by tag.
fn put_tags(out: &mut BytesMut, value: &TransactionValue) {
    let id = |id: Option<ProducerId>| id.map(|id| Bytes::copy_from_slice(&id.0.to_be_bytes()));
    let short = |number: i16, default: i16| (number != default).then(|| Bytes::copy_from_slice(&number.to_be_bytes()));
    let tags = [
        (PREVIOUS_PRODUCER_TAG, id(value.previous_producer_id)),
        (NEXT_PRODUCER_TAG, id(value.next_producer_id)),
        (CLIENT_VERSION_TAG, short(value.client_version, 0)),
        (LAST_EPOCH_TAG, short(value.last_epoch, NO_EPOCH)),
    ];
    let set = || tags.iter().filter_map(|(tag, field)| Some((tag, field.as_ref()?)));
    schema::put_uvarint(out, u32::try_from(set().count()).unwrap_or(0));
    for (tag, field) in set() {
        schema::put_uvarint(out, *tag);
        schema::put_uvarint(out, u32::try_from(field.len()).unwrap_or(0));
        out.put_slice(field);
    }
}
