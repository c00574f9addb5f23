//! The commands of a shard's entries: what every replica applies, in the same order, to the same state.
//!
//! ```text
//!  0         1      2
//!  | version | kind | body ...
//!  1 Data            count u32, per batch: flags u8 (1 guard follows, 2 written by a coordinator, 4 transaction follows), guard
//!                    (u32 length, bytes), transaction: 1 number of the last marker u64, or 2 commits u8, coordinator's epoch i32,
//!                    version u8
//!  2 Adopt           count u32, per partition: id 20, intent u64, epoch base i32
//!  3 Drop            count u32, per partition: id 20, intent u64
//!  4 SetLogStart     count u32, per partition: id 20, offset i64, reason u8
//!  5 ExpireProducers cutoff i64
//!  6 ForgetDropped   floor u64
//!  7 Split           intent u64, child's shard u64, its creation (u32 length, bytes), replicas u32 (parent's u64, child's u64),
//!                    count u32, per partition: id 20; from feature level 3 on
//!  8 Seal            intent u64, replicas u32 (u64); from feature level 4 on
//!  9 Unseal          intent u64; from feature level 4 on
//! 10 Absorb          intent u64, absorbed shard u64, its Seal's index u64, its checksum u64, replicas u32 (survivor's u64,
//!                    absorbed one's u64); from feature level 4 on
//! 12 Compact         count u32, per partition: id 20, pass u64, horizon i64, cutoff i64; from feature level 8 on
//! 24 SetClock        milliseconds i64; from feature level 2 on
//! ```
//! Kinds are never reused. 11 and 13..=15 are kept for resizing, 16..=23 for transactions.
//! Whatever depends on configuration, a local clock or record contents is decided before proposing and carried here
//! (design section 3): apply reads nothing else. The batches themselves travel beside the payload, in the entry.
//! Numbers are little-endian, except inside partition ids, which sort.

use bytes::Bytes;
use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::ids::{RaftIndex, ReplicaId};

use super::transactions::Marker;
use crate::codec::{CodecError, Counted, Encoding, Plain, Reader, Writer, decode_version, encode_version, record};
use crate::metadata::MergeReplica;

/// Version of the command format.
const VERSION: u8 = 1;

/// At most this many partitions in one Adopt, Drop, SetLogStart or Compact entry (design section 6).
pub const PARTITIONS_PER_ENTRY_MAX: usize = 1_000;

/// At most this many partitions in one Split: for more there are several, each with a child of its own.
pub const SPLIT_PARTITIONS_MAX: usize = 20_000;

/// More replicas than a shard ever has.
const SPLIT_REPLICAS_MAX: usize = 64;

/// At most this many batches in one Data entry.
pub const BATCHES_PER_ENTRY_MAX: usize = 16_384;

const FLAG_GUARD: u8 = 1;
const FLAG_COORDINATOR: u8 = 2;
const FLAG_TRANSACTION: u8 = 4;
const FLAGS_KNOWN: u8 = FLAG_GUARD | FLAG_COORDINATOR | FLAG_TRANSACTION;

/// What the leader decided about one batch before it proposed it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchDecision {
    /// Written by a coordinator, not by a client.
    pub coordinator: bool,
    /// The guard that the group store judges at apply (design section 11, Groups).
    pub guard: Option<Bytes>,
    /// What the batch has to do with a transaction.
    pub transaction: Option<TransactionDecision>,
}

/// What a batch has to do with a transaction; what only continues an open one needs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionDecision {
    /// It may open one.
    Opens {
        /// The number of the producer's last marker, as it was before the coordinator was asked.
        marker_number: u64,
    },
    /// It ends one.
    Ends(Marker),
}

/// A partition that a shard adopts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdoptedPartition {
    /// Which partition.
    pub id: PartitionId,
    /// Metadata index of the intent.
    pub intent: RaftIndex,
    /// Leader epoch = this + the shard's term.
    pub epoch_base: i32,
}

/// A partition that a shard drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedPartition {
    /// Which partition.
    pub id: PartitionId,
    /// Metadata index of the intent.
    pub intent: RaftIndex,
}

/// The replica of a child on the node that has this replica of its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitReplica {
    /// The parent's replica.
    pub parent: ReplicaId,
    /// The child's, in the same data directory.
    pub child: ReplicaId,
}

/// A shard's state is cut in two: another shard, the child, takes some of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Metadata index of the intent.
    pub intent: RaftIndex,
    /// Id of the child's shard.
    pub child: u64,
    /// What the child's shard stores about itself.
    pub creation: Bytes,
    /// For each replica of the parent that of the child.
    pub replicas: Vec<SplitReplica>,
    /// The partitions that the child takes, as far as the parent still carries them.
    pub partitions: Vec<PartitionId>,
}

/// Another shard is to take over all that this one has: nothing of it changes any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Metadata index of the intent.
    pub intent: RaftIndex,
    /// The shard's members.
    pub replicas: Vec<ReplicaId>,
}

/// This shard takes over all that another one has, which is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absorb {
    /// Metadata index of the intent.
    pub intent: RaftIndex,
    /// Id of the shard that is taken over.
    pub shard: u64,
    /// The index of its Seal.
    pub sealed: RaftIndex,
    /// The checksum of its state there.
    pub checksum: u64,
    /// For each member that of the other shard.
    pub replicas: Vec<MergeReplica>,
}

/// Why a log start moves; kept in the log for diagnosis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStartReason {
    /// Past `retention.ms` or `retention.bytes`.
    Retention,
    /// DeleteRecords.
    DeleteRecords,
    /// State is in the checkpoint: internal topics.
    Checkpointed,
}

/// A partition's log start moves up; clamped at apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStartChange {
    /// Which partition.
    pub id: PartitionId,
    /// The wanted log start.
    pub offset: Offset,
    /// Why.
    pub reason: LogStartReason,
}

/// The next pass over a partition; apply refuses one that does not follow the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionChange {
    /// Which partition.
    pub id: PartitionId,
    /// The number after that of the last pass.
    pub number: u64,
    /// Nothing at or above this offset is compacted: the end of a batch.
    pub horizon: Offset,
    /// Tombstones and markers go below this offset.
    pub cutoff: Offset,
}

/// A command of a shard's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// One decision for each batch of the entry, in their order.
    Data(Vec<BatchDecision>),
    /// Adopt partitions, each by an intent of the metadata group.
    Adopt(Vec<AdoptedPartition>),
    /// Drop partitions, each by an intent of the metadata group.
    Drop(Vec<DroppedPartition>),
    /// Move log starts.
    SetLogStart(Vec<LogStartChange>),
    /// Forget producers not seen since the cutoff (shard clock, milliseconds).
    ExpireProducers {
        /// Producers last seen before this are forgotten.
        cutoff_ms: i64,
    },
    /// Every intent up to the floor is done: refuse it from now on and forget the tombstones below.
    ForgetDropped {
        /// Metadata index; intents at or below are refused.
        floor: RaftIndex,
    },
    /// Another shard takes some of the partitions.
    Split(Split),
    /// Nothing changes any more, until an Unseal.
    Seal(Seal),
    /// The merge for which the shard was sealed was cancelled.
    Unseal {
        /// Metadata index of the intent.
        intent: RaftIndex,
    },
    /// All that another shard has is taken over.
    Absorb(Absorb),
    /// Partitions are compacted further.
    Compact(Vec<CompactionChange>),
    /// Sets the shard clock for an operator, even if it falls.
    SetClock {
        /// Milliseconds since 1970.
        to_ms: i64,
    },
}

/// The kind of an Absorb.
const ABSORB: u8 = 10;

impl Absorb {
    /// Reads it from an entry's payload, if the entry is one. Cheap for all others.
    pub(crate) fn of(payload: &[u8]) -> Option<Self> {
        if payload.get(1) != Some(&ABSORB) {
            return None;
        }
        match Command::decode(payload) {
            Ok(Command::Absorb(absorb)) => Some(absorb),
            // Apply says what is wrong.
            Ok(_) | Err(_) => None,
        }
    }
}

impl Command {
    /// The command as the entry's payload.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode_version(VERSION, self)
    }

    /// Reads a payload back; every length is checked.
    pub fn decode(payload: &[u8]) -> Result<Self, CodecError> {
        decode_version(VERSION, payload, "command")
    }
}

record! {
    AdoptedPartition { id, intent, epoch_base }
    DroppedPartition { id, intent }
    LogStartChange { id, offset, reason }
    CompactionChange { id, number, horizon, cutoff }
    SplitReplica { parent, child }
    Split {
        intent, child, creation, replicas: Counted<u32, SPLIT_REPLICAS_MAX>, partitions: Counted<u32, SPLIT_PARTITIONS_MAX>
    }
    Seal { intent, replicas: Counted<u32, SPLIT_REPLICAS_MAX> }
    Absorb { intent, shard, sealed, checksum, replicas: Counted<u32, SPLIT_REPLICAS_MAX> }
    Marker { commits, coordinator_epoch, version }
    enum TransactionDecision { 1 Opens { marker_number }, 2 Ends(marker) }
    enum LogStartReason { 1 Retention, 2 DeleteRecords, 3 Checkpointed }

    enum Command {
        1 Data(batches: Decisions),
        2 Adopt(partitions: Counted<u32, PARTITIONS_PER_ENTRY_MAX>),
        3 Drop(partitions: Counted<u32, PARTITIONS_PER_ENTRY_MAX>),
        4 SetLogStart(log_starts: Counted<u32, PARTITIONS_PER_ENTRY_MAX>),
        5 ExpireProducers { cutoff_ms },
        6 ForgetDropped { floor },
        7 Split(split),
        8 Seal(seal),
        9 Unseal { intent },
        10 Absorb(absorb),
        12 Compact(passes: Counted<u32, PARTITIONS_PER_ENTRY_MAX>),
        24 SetClock { to_ms },
    }
}

/// The decisions of a Data entry. By hand: flags share a byte and decide whether a guard follows, and every entry of
/// clients' records passes here.
struct Decisions;

impl Encoding<Vec<BatchDecision>> for Decisions {
    fn write(decisions: &Vec<BatchDecision>, w: &mut Writer) {
        w.count_u32(decisions.len());
        for decision in decisions {
            let guard = if decision.guard.is_some() { FLAG_GUARD } else { 0 };
            let coordinator = if decision.coordinator { FLAG_COORDINATOR } else { 0 };
            let transaction = if decision.transaction.is_some() { FLAG_TRANSACTION } else { 0 };
            w.u8(guard | coordinator | transaction);
            if let Some(guard) = &decision.guard {
                w.blob(guard);
            }
            if let Some(transaction) = &decision.transaction {
                Plain::write(transaction, w);
            }
        }
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Vec<BatchDecision>, CodecError> {
        let count = r.count_u32(1, what)?;
        if count > BATCHES_PER_ENTRY_MAX {
            return Err(CodecError::Limit(what));
        }
        let mut decisions = Vec::with_capacity(count);
        for _ in 0..count {
            let flags = r.u8("flags")?;
            if flags & !FLAGS_KNOWN != 0 {
                return Err(CodecError::Tag("flags", flags));
            }
            let guard = if flags & FLAG_GUARD == 0 { None } else { Some(r.blob("guard")?) };
            let follows = flags & FLAG_TRANSACTION != 0;
            let transaction = if follows { Some(Plain::read(r, "transaction")?) } else { None };
            decisions.push(BatchDecision { coordinator: flags & FLAG_COORDINATOR != 0, guard, transaction });
        }
        Ok(decisions)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn partition() -> impl Strategy<Value = PartitionId> {
        (any::<u128>(), any::<i32>()).prop_map(|(topic, index)| PartitionId { topic: Uuid::from_u128(topic), index })
    }

    fn log_start() -> impl Strategy<Value = LogStartChange> {
        let reason = prop_oneof![
            Just(LogStartReason::Retention),
            Just(LogStartReason::DeleteRecords),
            Just(LogStartReason::Checkpointed)
        ];
        (partition(), any::<i64>(), reason).prop_map(|(id, offset, reason)| LogStartChange {
            id,
            offset: Offset(offset),
            reason,
        })
    }

    fn decision() -> impl Strategy<Value = BatchDecision> {
        let marker = (any::<bool>(), any::<i32>(), any::<u8>());
        let ends = marker.prop_map(|(commits, coordinator_epoch, version)| {
            TransactionDecision::Ends(Marker { commits, coordinator_epoch, version })
        });
        let opens = any::<u64>().prop_map(|marker_number| TransactionDecision::Opens { marker_number });
        let guard = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
        (any::<bool>(), guard, proptest::option::of(prop_oneof![ends, opens])).prop_map(
            |(coordinator, guard, transaction)| BatchDecision {
                coordinator,
                guard: guard.map(Bytes::from),
                transaction,
            },
        )
    }

    fn command() -> impl Strategy<Value = Command> {
        let adopted = (partition(), any::<u64>(), any::<i32>()).prop_map(|(id, intent, epoch_base)| AdoptedPartition {
            id,
            intent: RaftIndex(intent),
            epoch_base,
        });
        let dropped =
            (partition(), any::<u64>()).prop_map(|(id, intent)| DroppedPartition { id, intent: RaftIndex(intent) });
        let compacted =
            (partition(), any::<u64>(), any::<i64>(), any::<i64>()).prop_map(|(id, number, horizon, cutoff)| {
                CompactionChange { id, number, horizon: Offset(horizon), cutoff: Offset(cutoff) }
            });
        prop_oneof![
            proptest::collection::vec(compacted, 0..9).prop_map(Command::Compact),
            proptest::collection::vec(decision(), 0..9).prop_map(Command::Data),
            proptest::collection::vec(adopted, 0..9).prop_map(Command::Adopt),
            proptest::collection::vec(dropped, 0..9).prop_map(Command::Drop),
            proptest::collection::vec(log_start(), 0..9).prop_map(Command::SetLogStart),
            any::<i64>().prop_map(|cutoff_ms| Command::ExpireProducers { cutoff_ms }),
            any::<u64>().prop_map(|floor| Command::ForgetDropped { floor: RaftIndex(floor) }),
            any::<i64>().prop_map(|to_ms| Command::SetClock { to_ms }),
        ]
    }

    proptest! {
        #[test]
        fn a_command_survives_its_encoding(command in command()) {
            prop_assert_eq!(Command::decode(&command.encode()).unwrap(), command);
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::decode(&bytes);
            let mut framed = vec![VERSION, bytes.first().copied().unwrap_or(0) % 8];
            framed.extend_from_slice(&bytes);
            let _ = Command::decode(&framed);
        }

        #[test]
        fn a_cut_command_is_refused(command in command(), cut in 0usize..1000) {
            let bytes = command.encode();
            let cut = cut % bytes.len();
            prop_assert!(Command::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn the_format_of_release_one_stays_readable() {
        let id = PartitionId { topic: Uuid::from_u128(1), index: 2 };
        let adopt = Command::Adopt(vec![AdoptedPartition { id, intent: RaftIndex(7), epoch_base: 3 }]);
        let golden = [
            1, 2, 1, 0, 0, 0, // version, kind, count
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // topic id
            0, 0, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, // partition number, intent, epoch base
        ];
        assert_eq!(&adopt.encode()[..], &golden[..]);
        assert_eq!(Command::decode(&golden).unwrap(), adopt);
    }

    #[test]
    fn an_announced_count_that_the_bytes_do_not_back_is_refused_before_allocation() {
        let mut bytes = vec![1, 3];
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Command::decode(&bytes), Err(CodecError::Truncated("partitions")));
    }

    #[test]
    fn a_newer_version_is_named() {
        assert_eq!(Command::decode(&[2, 1, 0, 0, 0, 0]), Err(CodecError::Version(2)));
    }
}
