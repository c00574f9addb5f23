//! Offsets that transactions have committed to groups and whose markers have not come (KIP-98, KIP-447): clients do not see
//! them, and one that asks for stable offsets is told that there are some.
//!
//! In a checkpoint each is a row of its own, under a key that Kafka does not have:
//!
//! ```text
//!  key     | -1 i16 | producer i64 | Kafka's key of the offset |
//!  value   | order i64 | superseded u8 | Kafka's value |
//! ```
//! May not know: whether a transaction is open, what a group is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ottla_protocol::ids::ProducerId;

use super::records::{self, CommittedOffset, Record};
use super::schema::{Malformed, Reader};

/// The version that stands where Kafka's key has its own.
const KEY_VERSION: i16 = -1;

/// An offset that waits for its transaction's marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingOffset {
    pub(crate) value: CommittedOffset,
    /// Offset of its record: of two commits the later one counts, whichever transaction ends first.
    pub(crate) order: i64,
    /// A later commit has become visible: this one never will.
    pub(crate) is_superseded: bool,
}

impl PendingOffset {
    pub(crate) fn encode(&self) -> Bytes {
        let value = records::encode_offset(&self.value);
        let mut out = BytesMut::with_capacity(9 + value.len());
        out.put_i64(self.order);
        out.put_u8(u8::from(self.is_superseded));
        out.put_slice(&value);
        out.freeze()
    }
}

/// An offset's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) group: Arc<str>,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
}

impl Place {
    pub(crate) fn new(group: &str, topic: &str, partition: i32) -> Self {
        Self { group: Arc::from(group), topic: Arc::from(topic), partition }
    }
}

/// The key of a row in the checkpoint.
pub(crate) fn key(producer: ProducerId, place: &Place) -> Bytes {
    let offset = records::offset_key(&place.group, &place.topic, place.partition);
    let mut out = BytesMut::with_capacity(10 + offset.len());
    out.put_i16(KEY_VERSION);
    out.put_i64(producer.0);
    out.put_slice(&offset);
    out.freeze()
}

/// What a key of a checkpoint names, if it is one of these.
pub(crate) fn named(key: &Bytes) -> Result<Option<(ProducerId, Place)>, Malformed> {
    let mut reader = Reader::new(key.clone());
    if reader.i16()? != KEY_VERSION {
        return Ok(None);
    }
    let producer = ProducerId(reader.i64()?);
    let rest = reader.take(reader.remaining())?;
    match Record::decode(rest, None)? {
        Record::Offset { group, topic, partition, .. } => Ok(Some((producer, Place::new(&group, &topic, partition)))),
        Record::Group { .. } => Err(Malformed("a pending offset of no partition")),
    }
}

/// Reads a row's value.
pub(crate) fn decode(place: &Place, value: Bytes) -> Result<PendingOffset, Malformed> {
    let mut reader = Reader::new(value);
    let order = reader.i64()?;
    let is_superseded = reader.take(1)?.first() == Some(&1);
    let key = records::offset_key(&place.group, &place.topic, place.partition);
    match Record::decode(key, Some(reader.take(reader.remaining())?))? {
        Record::Offset { value: Some(value), .. } => Ok(PendingOffset { value, order, is_superseded }),
        _ => Err(Malformed("a pending offset without a value")),
    }
}

/// All that wait, by producer and by place.
#[derive(Debug, Default)]
pub(crate) struct PendingOffsets {
    offsets: BTreeMap<ProducerId, BTreeMap<Place, PendingOffset>>,
    producers: BTreeMap<Place, BTreeSet<ProducerId>>,
}

impl PendingOffsets {
    /// Sets or removes one; returns what was there.
    pub(crate) fn set(
        &mut self,
        producer: ProducerId,
        place: &Place,
        offset: Option<PendingOffset>,
    ) -> Option<PendingOffset> {
        if let Some(offset) = offset {
            self.producers.entry(place.clone()).or_default().insert(producer);
            return self.offsets.entry(producer).or_default().insert(place.clone(), offset);
        }
        let of_producer = self.offsets.get_mut(&producer)?;
        let removed = of_producer.remove(place);
        if of_producer.is_empty() {
            self.offsets.remove(&producer);
        }
        if let Some(producers) = self.producers.get_mut(place) {
            producers.remove(&producer);
            if producers.is_empty() {
                self.producers.remove(place);
            }
        }
        removed
    }

    pub(crate) fn get(&self, producer: ProducerId, place: &Place) -> Option<&PendingOffset> {
        self.offsets.get(&producer)?.get(place)
    }

    /// What a producer's transaction has committed.
    pub(crate) fn of(&self, producer: ProducerId) -> Vec<(Place, PendingOffset)> {
        let of_producer = self.offsets.get(&producer).into_iter().flatten();
        of_producer.map(|(place, offset)| (place.clone(), offset.clone())).collect()
    }

    /// The producers with an offset that waits here.
    pub(crate) fn producers_at(&self, place: &Place) -> Vec<ProducerId> {
        self.producers.get(place).into_iter().flatten().copied().collect()
    }

    /// True if no offset waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The keys of all rows.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Bytes> {
        self.offsets.iter().flat_map(|(producer, places)| places.keys().map(|place| key(*producer, place)))
    }
}
